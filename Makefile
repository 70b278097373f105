# Everything lives in .venv; nothing is installed globally and nothing needs sudo.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
READY := $(VENV)/.ready
TEXT ?= The train leaves at seven, and the coffee is hot.
# One's own results: what is committed under bench/results is made by tools/evidence.sh.
RESULTS ?= bench/results/own

.DEFAULT_GOAL := help
.PHONY: help demo test ui setup lock lint types test-gpu test-browser test-parity verify smoke-test sanitize \
	bench bench-kernels bench-speed bench-turbo soak generate-samples docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## write hello.wav from a sentence
	@$(BIN)/omnivoice-triton say "$(TEXT)" -o hello.wav

test: $(READY) ## lint, types and every test that needs no GPU
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -q

ui: $(READY) ## the dashboard, on http://localhost:8501
	@$(BIN)/omnivoice-triton ui

setup: $(READY) ## a developer's checkout, pre-commit included
	@if git rev-parse --git-dir >/dev/null 2>&1; then $(BIN)/pre-commit install; fi

# uv comes from a lock of its own, then installs the rest: versions and hashes are pinned, the index is the user's.
$(READY): requirements.lock tools/uv.lock.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 can't make a virtual environment: install your system's python3-venv package" >&2; exit 1; }
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/uv.lock.txt
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --allow-empty-requirements requirements.lock tools/uv.lock.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## compile requirements.lock anew (universal: every supported Python)
	$(UV) pip compile pyproject.toml tools/build.in --extra dev --universal --python-version 3.10 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --constraints tools/constraints.txt \
		--output-file requirements.lock --quiet
	echo "uv==$$($(UV) --version | cut -d' ' -f2)" | $(UV) pip compile - --universal --python-version 3.10 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --output-file tools/uv.lock.txt --quiet

lint: $(READY) ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY) ## mypy --strict on src
	$(BIN)/mypy

# On a machine that has its own torch, run these with PY=python3 (and PYTHONPATH=src).
PY ?= $(BIN)/python
GPU_JOBS ?= 4
# MODEL=DIR or a hub id: another checkpoint than the one of random weights.
WITH_MODEL := $(if $(MODEL),--model "$(MODEL)")
GPU_READY := $(if $(filter $(BIN)/python,$(PY)),$(READY))

test-gpu: $(GPU_READY) ## every test, kernels compiled: needs a GPU
	$(PY) -m pytest -q -n $(GPU_JOBS) --results=$(RESULTS)/test-gpu.json

test-browser: $(READY) ## the dashboard in Chromium: needs chromium and chromium-driver
	$(BIN)/python -m pytest -q -m browser tests/ui/test_browser.py

test-parity: $(GPU_READY) ## tier 2 alone: hidden states and logits of each mode against base
	$(PY) -m omnivoice_triton.verify.parity $(WITH_MODEL) --json $(RESULTS)/parity.json

smoke-test: $(GPU_READY) ## tier 3, quick: each mode speaks in each voice
	$(PY) -m omnivoice_triton.verify.smoke $(WITH_MODEL) --json $(RESULTS)/smoke.json

verify: $(GPU_READY) ## all three tiers and one report: kernels, model, speech
	$(PY) -m omnivoice_triton verify $(WITH_MODEL) --json $(RESULTS)/verify.json --html $(RESULTS)/verify.html

bench-kernels: $(GPU_READY) ## each kernel beside PyTorch, torch.compile and Liger-Kernel
	$(PY) -m omnivoice_triton.bench.kernels --json $(RESULTS)/kernels.json

# The 5 s utterance whole, with memory; then every case by itself and in batches, within BUDGET_S seconds a dtype.
BUDGET_S ?= 900
bench-speed: $(GPU_READY) ## each mode beside base, end to end: every case, alone and in batches of 8 and 32
	$(PY) -m omnivoice_triton.bench.speed $(WITH_MODEL) --only-5s --json $(RESULTS)/speed.json
	$(PY) -m omnivoice_triton.bench.speed $(WITH_MODEL) --batch 1 8 32 --no-memory --budget-s $(BUDGET_S) \
		--json $(RESULTS)/speed-batch.json

# OLD=DIR: a folder with another omnivoice-triton in it.
bench-peers: $(GPU_READY) ## third-party paths beside turbo, where they are installed
	$(PY) -m omnivoice_triton.bench.peers $(WITH_MODEL) $(if $(OLD),--old-package $(OLD)) --json $(RESULTS)/peers.json

bench-turbo: $(GPU_READY) ## turbo beside base: times, floors, lengths, throughput, startup
	$(PY) -m omnivoice_triton.bench.turbo $(WITH_MODEL) --json $(RESULTS)/turbo.json

soak: $(GPU_READY) ## 200 utterances of different lengths: memory stays under the budget
	$(PY) -m omnivoice_triton.bench.soak $(WITH_MODEL) --json $(RESULTS)/soak.json

SAMPLES ?= assets/audio_samples

generate-samples: $(GPU_READY) ## the same sentences in every mode that runs here, for the dashboard
	$(PY) -m omnivoice_triton samples $(WITH_MODEL) --out $(SAMPLES)

sanitize: $(GPU_READY) ## compute-sanitizer, memcheck and racecheck, on every kernel
	$(PY) -m omnivoice_triton.verify.sanitize --json $(RESULTS)/sanitizer.json

bench: bench-kernels bench-speed bench-turbo soak ## all benchmarks of our own

docs: $(READY) ## the site of the docs, in build/site; any warning fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
