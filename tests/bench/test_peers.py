"""`bench peers` without a GPU: paths that are there are timed, others are named with the reason and never a number."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.bench import peer_paths, peers
from omnivoice_triton.bench.peer_paths import NotHere, OldPackage, Upstream
from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError
from tests.bench.test_schema import faults
from tests.bench.test_speed import Clock, Worker

REQUEST: dict[str, Any] = {"text": "Hello there.", "language": "English", "duration": 0.4, "num_step": 2}
OLD = '''
"""Stands in for a published version."""
import sys
__version__ = "0.1.0"
print("a library that talks")

class Model:
    sampling_rate, device = 24_000, "cpu"
    def generate(self, text, duration=1.0, voice_clone_prompt=None, **rest):
        if text == "fail":
            raise RuntimeError("it can't")
        if text == "die":
            sys.exit(3)
        if voice_clone_prompt is not None:
            duration = len(voice_clone_prompt.ref_text)
        return [[0.0] * int(duration * 24_000)] * (len(text) if isinstance(text, list) else 1)

class Runner:
    def __init__(self, **options): self.options = options
    def load_model(self): self.model = Model()

def create_runner(name, device, model_id, dtype):
    if name != "hybrid":
        raise KeyError(f"no mode {name}")
    return Runner()
'''


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    package = tmp_path / "old" / "omnivoice_triton"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(OLD)
    return package.parent


# --- paths


def test_upstream_untouched_makes_what_base_makes(tiny: Path) -> None:
    path = Upstream("upstream-eager", tiny, "fp32", device="cpu")
    before = dict(vars(path.model))
    (made,) = path.generate(7, **REQUEST)
    assert len(path.generate(7, **{**REQUEST, "text": ["One.", "Two."]})) == 2
    assert dict(vars(path.model)) == before
    with BaseRunner(device="cpu", model_id=tiny, mode="base", dtype="fp32") as runner:
        assert len(runner.generate(seed=7, **REQUEST).audio) == len(made.audio)
        voice = runner.create_voice((torch.randn(1, 12_000).numpy(), 24_000), "Something.")
        assert path.generate(7, voice=voice, **REQUEST)
    assert made.time_s > 0
    with pytest.raises(NotHere, match="TypeError"):
        path.generate(7, nonsense=1)
    path.close()
    assert path.model is None


@pytest.mark.parametrize("mode", [None, "max-autotune"])
def test_only_the_backbone_is_compiled(tiny: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    asked: list[Any] = []

    def compiled(function: Any, **options: Any) -> Any:
        asked.append((function, options))
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    config: Any = torch._dynamo.config
    limit = config.cache_size_limit
    try:
        change = partial(peer_paths.compile_llm, mode=mode)
        path = Upstream("torch-compile", tiny, "fp32", change, device="cpu")
        assert config.cache_size_limit == 256, "else later shapes would run eager, unseen"
    finally:
        config.cache_size_limit = limit
    ((function, options),) = asked
    assert function.__self__ is path.model.llm
    assert options == {"dynamic": False, "mode": mode}


def test_flashinfer_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    specs: dict[str, Any] = {}
    monkeypatch.setattr(peer_paths.importlib.util, "find_spec", specs.get)
    with pytest.raises(NotHere, match=r"omnivoice [\d.]+ has no omnivoice.models.omnivoice_flashinfer"):
        peer_paths.flashinfer_change("fp16", graph=False)
    specs[peer_paths.FLASHINFER] = object()
    with pytest.raises(NotHere, match="flashinfer is not installed"):
        peer_paths.flashinfer_change("fp16", graph=False)
    specs["flashinfer"] = object()
    with pytest.raises(NotHere, match="fp16 only"):
        peer_paths.flashinfer_change("bf16", graph=False)
    module = ModuleType(peer_paths.FLASHINFER)
    monkeypatch.setitem(sys.modules, peer_paths.FLASHINFER, module)
    with pytest.raises(NotHere, match="no apply_flashinfer"):
        peer_paths.flashinfer_change("fp16", graph=True)
    seen: list[Any] = []
    module.apply_flashinfer = lambda model, enable_cuda_graph: seen.append((model, enable_cuda_graph))  # type: ignore[attr-defined]
    peer_paths.flashinfer_change("fp16", graph=True)("model")
    assert seen == [("model", True)]


def test_an_old_package_speaks_from_a_process_of_its_own(old: Path, tiny: Path) -> None:
    path = OldPackage(old, tiny, "fp16", "hybrid")
    try:
        assert path.version == "0.1.0"
        made = path.generate(1, text=["a", "b"], duration=0.5)
        assert [speech.audio_s for speech in made] == [0.5, 0.5]
        assert 0 < made[0].time_s < 1
        with pytest.raises(NotHere, match="RuntimeError: it can't"):
            path.generate(1, text="fail")
        assert path.generate(1, text="still there")
        with BaseRunner(device="cpu", model_id=tiny, mode="base", dtype="fp32") as runner:
            voice = runner.create_voice((torch.randn(1, 12_000).numpy(), 24_000), "Words.")
        assert path.generate(1, text="cloned", voice=voice)[0].audio_s == len(voice.ref_text)
        with pytest.raises(NotHere, match="ended without an answer"):
            path.generate(1, text="die")
        path._process.wait()
        with pytest.raises(NotHere, match="ended"):
            path.generate(1, text="again")
    finally:
        path.close()


def test_old_packages_that_are_not_there(old: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(NotHere, match="holds no omnivoice_triton"):
        OldPackage(tmp_path, tiny, "fp16", "hybrid")
    with pytest.raises(NotHere, match="KeyError: 'no mode turbo'"):
        OldPackage(old, tiny, "fp16", "turbo")
    (old / "omnivoice_triton" / "__init__.py").write_text("raise ImportError('needs a newer torch')")
    with pytest.raises(NotHere, match="needs a newer torch"):
        OldPackage(old, tiny, "fp16", "hybrid")


def test_a_silent_process_is_given_up(old: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (old / "omnivoice_triton" / "__init__.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(peer_paths, "PATIENCE_S", 0.5)
    with pytest.raises(NotHere, match="ended without an answer"):
        OldPackage(old, tiny, "fp16", "hybrid")


# --- the run


def options(*given: str) -> Any:
    return peers.parse_options(list(given))


class Loaded(Worker):
    """A stand-in for a loaded path."""

    closed = 0

    def close(self) -> None:
        type(self).closed += 1


def test_what_is_not_there_gets_a_reason_and_no_number(tmp_path: Path, tiny: Path) -> None:
    clock = Clock()

    def missing() -> Any:
        raise NotHere("not installed")

    def crashing() -> Any:
        raise RuntimeError("its\nown fault")

    made = {
        peers.EAGER: lambda: Loaded(clock, 1.0),
        peers.COMPILE: crashing,
        peers.COMPILE_MAX: lambda: Loaded(clock, 0.4),
        peers.FLASHINFER: missing,
        peers.GRAPH: lambda: Loaded(clock, 0.2, fails=lambda batch: batch == 8),
        peers.OLD: lambda: SimpleNamespace(version="0.1.0", **bound(Loaded(clock, 0.5))),
        peers.TURBO: lambda: Loaded(clock, 0.1),
    }
    json_path = tmp_path / "peers.json"
    record = peers.Record(json_path, tiny)
    peers.measure(tiny, "fp16", options("--batch", "1", "8"), record, made)
    document = json.loads(json_path.read_text())
    assert not faults(document)
    rows = {(row["mode"], row["batch"]): row for row in document["results"]}
    assert set(rows) == {
        (name, b) for name in (peers.EAGER, peers.COMPILE_MAX, peers.OLD, peers.TURBO) for b in (1, 8)
    } | {(peers.GRAPH, 1)}
    assert rows[peers.TURBO, 1]["ratio_to_base"] == pytest.approx(0.1)
    reasons = {entry["path"]: entry["reason"] for entry in document["not_available"]}
    assert reasons == {
        peers.COMPILE: "RuntimeError: its own fault",
        peers.FLASHINFER: "not installed",
        peers.GRAPH: "too large",
    }
    assert document["peer_versions"] == {peers.OLD: "0.1.0"}
    assert Loaded.closed == 4
    lines = "\n".join(peers.table(record))
    assert "not available: fp16 upstream-flashinfer: not installed" in lines
    document["not_available"][0]["median_ms"] = 1.0
    assert faults(document), "a number for what is not there"


def bound(worker: Worker) -> dict[str, Any]:
    return {"generate": worker.generate, "close": lambda: None, "mode": worker.mode}


def test_paths_can_be_chosen_and_ours_must_load() -> None:
    clock = Clock()
    made = {name: lambda: Loaded(clock, 1.0) for name in peers.PATHS}
    with ExitStack() as stack:
        runners, missing = peers.opened(made, (peers.EAGER, peers.TURBO), stack, "fp16")
    assert list(runners) == [peers.EAGER, peers.TURBO]
    assert {entry["reason"] for entry in missing} == {"not asked for"}

    def broken() -> Any:
        raise RuntimeError("a bug of ours")

    with ExitStack() as stack, pytest.raises(RuntimeError, match="a bug of ours"):
        peers.opened({**made, peers.TURBO: broken}, peers.PATHS, stack, "fp16")


def test_the_old_package_needs_a_folder(tiny: Path) -> None:
    with pytest.raises(NotHere, match="--old-package names no folder"):
        peers.makers(tiny, "fp16", None, "hybrid")[peers.OLD]()


def test_refusals(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peers.main([]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
    assert peers.main(["--cases", "en 7 s"]) == 2
    assert "no case" in capsys.readouterr().err
    assert peers.main(["--runs", "0"]) == 2
    assert "--runs: must be a whole number of at least 1, not '0'" in capsys.readouterr().err
    made = {name: lambda: Loaded(Clock(), 1.0) for name in peers.PATHS}
    chosen = options("--paths", "upstream-eager", "--cases", "clone 5 s")
    with pytest.raises(InputError, match="need turbo"):
        peers.measure(tiny, "fp16", chosen, peers.Record(None, tiny), made)
