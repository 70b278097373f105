"""Every command in the READMEs and docs runs here, on the CPU, or is listed with the reason why not.

What is listed is checked as far as it goes: that make knows the target, that the flags are right.
"""

from __future__ import annotations

import importlib.util
import json
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnivoice_triton import checkpoint
from omnivoice_triton.cli import build_parser, main, ui
from omnivoice_triton.cli.flags import fold_booleans
from tests.docs.pages import PAGES, ROOT, commands, in_text

PROGRAM = "omnivoice-triton"
SPELLINGS = (PROGRAM, f".venv/bin/{PROGRAM}")

NEEDS_GPU = "needs a GPU"
INSTALLS = "sets up an environment"
NETWORK = "needs a network"
SERVES = "serves until it is stopped"
LONG = "takes minutes"
OF_TESTS = "runs this repository's tests or checks"
WRITES = "rewrites the pages"

NOT_RUN = {
    "make demo": INSTALLS,
    "make test": OF_TESTS,
    "make setup": INSTALLS,
    "make lint": OF_TESTS,
    "make types": OF_TESTS,
    "make test-browser": OF_TESTS,
    "make docs": OF_TESTS,  # test_pages builds the site
    "make ui": SERVES,
    "make verify": NEEDS_GPU,
    "make test-gpu": NEEDS_GPU,
    "make test-gpu PY=python3 PYTHONPATH=src": NEEDS_GPU,
    "make sanitize": NEEDS_GPU,
    "make generate-samples": LONG,  # tests/verify/test_samples.py
    "make bench": NEEDS_GPU,
    "make bench MODEL=k2-fsa/OmniVoice": NEEDS_GPU,
    ".venv/bin/python -m pytest tests/kernels -q -n 2": OF_TESTS,
    ".venv/bin/python tools/kernel_timeline.py 320": NEEDS_GPU,  # tests/tools/test_kernel_timeline.py
    "python tools/results_tables.py": WRITES,  # tests/tools/test_results_tables.py
    "git clone https://github.com/newgrit1004/omnivoice-triton": NETWORK,
    "cd omnivoice-triton": INSTALLS,
    "pip install 'omnivoice-triton[ui]'": INSTALLS,
    "pip install --no-deps --target old omnivoice-triton==0.1.0": NETWORK,
    "hf download k2-fsa/OmniVoice --local-dir OmniVoice": NETWORK,
    f"{PROGRAM} ui": SERVES,
    f"{PROGRAM} verify": LONG,  # tests/verify/test_everything.py
    f"{PROGRAM} verify smoke": NEEDS_GPU,
    f"{PROGRAM} verify sanitize": NEEDS_GPU,
    f"{PROGRAM} samples --out my-samples --model k2-fsa/OmniVoice --device cuda": NEEDS_GPU,
    f"{PROGRAM} bench speed --only-5s --json speed.json": NEEDS_GPU,
    f"{PROGRAM} bench speed --modes hybrid turbo --runs 15": NEEDS_GPU,
    f"{PROGRAM} bench speed --batch 1 8 32 --budget-s 300": NEEDS_GPU,
    f"{PROGRAM} bench kernels --rows 64 290 4096 --dtypes fp16": NEEDS_GPU,
    f"{PROGRAM} bench kernels --no-compile": NEEDS_GPU,
    f"{PROGRAM} bench peers --cases 'en 5 s' 'en 15 s' --old-package old": NEEDS_GPU,
    f"{PROGRAM} bench turbo throughput --quick": NEEDS_GPU,
    f"{PROGRAM} bench soak --mode hybrid": NEEDS_GPU,
}
"""Command to the reason why it is not run."""

IN_TEXT = {
    "make help": OF_TESTS,
    "make lock": NETWORK,
    "make smoke-test": NEEDS_GPU,
    "make test-parity": NEEDS_GPU,
    "make verify MODEL=DIR": NEEDS_GPU,
    f"{PROGRAM} bench compare A.json B.json": OF_TESTS,  # tests/bench/test_compare.py, and in a fence
    f"{PROGRAM} bench kernels": NEEDS_GPU,
    f"{PROGRAM} bench peers": NEEDS_GPU,
    f"{PROGRAM} bench soak": NEEDS_GPU,
    f"{PROGRAM} bench speed": NEEDS_GPU,
    f"{PROGRAM} bench speed --batch 1 8 32": NEEDS_GPU,
    f"{PROGRAM} bench speed --model DIR": NEEDS_GPU,
    f"{PROGRAM} bench turbo": NEEDS_GPU,
    f"{PROGRAM} bench turbo startup memory": NEEDS_GPU,
    f"{PROGRAM} doctor --bytecode": LONG,  # tests/test_bytecode.py
    f"{PROGRAM} tune MODEL FILE": NEEDS_GPU,  # tests/engine/test_tuning.py
    f"{PROGRAM} tune MODEL tiles.json": NEEDS_GPU,
    f"{PROGRAM} verify --samples DIR": LONG,
    f"{PROGRAM} verify --tier 3 --model demo": LONG,  # tests/demo_voice
    "hf auth login": NETWORK,
    "pip install 'omnivoice[tn]'": NETWORK,
    "pip install cuda-bindings": NETWORK,
    "pip install triton": NETWORK,
    "pip install utmos-pytorch": NETWORK,
    "python -m tools.demo_voice.evaluate": NEEDS_GPU,
    "tools/evidence.sh DIR": NEEDS_GPU,  # tests/tools/test_evidence.py
    "tools/evidence.sh DIR tests verify": NEEDS_GPU,
}
"""The same of commands in sentences and tables, as far as no block has them."""

FOUND = {command: page for page in reversed(PAGES) for command in commands(page)}
RUN = [command for command in FOUND if command not in NOT_RUN]
SAID = {command: page for page in reversed(PAGES) if page.stem != "lab" for command in in_text(page)}
FLAG = f"{PROGRAM} say --mode"
"""No command, but the name of a flag."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the docs' commands find what they name: tiny models for the real one, a recording, results."""
    made = tmp_path_factory.mktemp("docs")
    for name in ("OmniVoice", "k2-fsa/OmniVoice"):
        (made / name).parent.mkdir(exist_ok=True)
        checkpoint.make_checkpoint(made / name, "tiny")
    time = np.arange(2 * 24_000) / 24_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    soundfile.write(made / "reference.wav", tone, 24_000)
    for name in ("before", "after"):
        shutil.copy(ROOT / "bench" / "results" / "speed.json", made / f"{name}.json")
    return made


@pytest.fixture(autouse=True)
def surroundings(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """That folder, the built-in model, and one thread: the model is too small for more."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # on a GPU machine the same happens
    monkeypatch.setenv("OMNIVOICE_TRITON_CACHE", str(tmp_path))
    monkeypatch.delenv("OMNIVOICE_TRITON_MODEL", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def program(command: str) -> list[str] | None:
    """Arguments of a command of ours, or None."""
    words = shlex.split(command)
    return words[1:] if words[0] in SPELLINGS else None


def test_there_are_commands() -> None:
    assert len(FOUND) > 30
    assert len(RUN) >= 8
    assert {command.split()[0] for command in RUN} >= {PROGRAM, f".venv/bin/{PROGRAM}", "python"}


def test_nothing_is_listed_that_the_docs_lack() -> None:
    assert not set(NOT_RUN) - set(FOUND)
    assert not set(IN_TEXT) - set(SAID)


def test_commands_in_sentences_are_run_or_listed() -> None:
    assert len(SAID) > 30
    unknown = {c: page.name for c, page in SAID.items() if c not in FOUND and c not in IN_TEXT and c != FLAG}
    assert not unknown, "add them to IN_TEXT with a reason, or run them"
    assert all((ROOT / c.split()[0]).is_file() for c in SAID if c.startswith("tools/"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("command", RUN)
def test_it_runs(command: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = program(command)
    if arguments is not None:
        written = {folder / word for word in arguments if word.endswith((".wav", ".flac"))}
        for path in written:
            path.unlink(missing_ok=True)
        assert main(arguments) == 0, capfd.readouterr().err
        assert all(path.stat().st_size > 10_000 for path in written)
        if "--json" in arguments:
            assert json.loads(capfd.readouterr().out)["ok"] is True
        return
    words = shlex.split(command)
    if words[:1] == ["python"] and words[1].endswith(".py"):
        before = sys.argv
        sys.argv = words[1:]
        try:
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        finally:
            sys.argv = before
        assert stop.value.code == 0
        return
    pytest.fail(f"{FOUND[command].name}: nothing here runs `{command}`: add it to NOT_RUN with a reason, or run it")


@pytest.mark.parametrize("command", [c for c in (*NOT_RUN, *IN_TEXT) if c.startswith("make ")])
def test_make_knows_the_target(command: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    done = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", [c for c, reason in NOT_RUN.items() if program(c) and reason == NEEDS_GPU])
def test_what_needs_a_gpu_gets_as_far_as_saying_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So its flags are right: a wrong one is refused before."""
    arguments = program(command) or []
    if arguments[:2] == ["verify", "smoke"]:
        arguments += ["--device", "cuda"]  # else it would take minutes on a CPU
    assert main(arguments) == 2
    assert "GPU" in capsys.readouterr().err


def test_a_wrong_flag_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speed", "--only-6s"]) == 2
    assert "unrecognized arguments: --only-6s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [*(c for c, why in NOT_RUN.items() if program(c) and why != NEEDS_GPU), *filter(program, IN_TEXT)]
)
def test_the_rest_is_understood(command: str) -> None:
    arguments: Any = build_parser().parse_args(fold_booleans(program(command) or []))
    assert callable(arguments.run)
    if arguments.run is ui.run and importlib.util.find_spec("streamlit") is not None:
        assert "streamlit" in ui.prepare(arguments)[0]
