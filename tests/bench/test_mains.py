"""The three benchmarks' commands from flags to JSON, with stand-ins for the GPU."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.bench import kernels, peers, speed
from omnivoice_triton.bench.kernel_case import Case
from omnivoice_triton.bench.kernel_cases import Plan
from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.config import MODES
from omnivoice_triton.speech import Speech
from tests.bench.test_kernels import CEILINGS, result
from tests.bench.test_schema import faults
from tests.bench.test_speed import Clock, Worker


class Runner:
    """A runner of any mode: base takes 2 s, others 1, of a clock that nobody looks at."""

    made: list[dict[str, Any]]

    def __init__(self, **options: Any) -> None:
        type(self).made.append(options)
        self.mode = MODES[options["mode"]]
        self.acceleration = None
        self.version = "1"

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None: ...

    def create_voice(self, *_: Any) -> str:
        return "voice"

    def generate(self, seed: int, text: Any, **keywords: Any) -> Any:
        seconds = 2.0 if self.mode.name == "base" else 1.0
        made = Speech(np.zeros(24_000, np.float32), 24_000, seconds, seed, self.mode.name, peak_vram_gb=3.0)
        return [made] * len(text) if isinstance(text, list) else made


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)
    for module in (speed, kernels, peers):
        monkeypatch.setattr(module, "need_gpu", lambda: None)
    for module in (speed, peers):
        monkeypatch.setattr(module, "default_model", lambda given, device: model)
    Runner.made = []
    monkeypatch.setattr(speed, "BaseRunner", Runner)
    monkeypatch.setattr(speed, "split_of", lambda runner, keywords, steps, runs, wait: {"lm_ms": 800.0 + runs})
    monkeypatch.setattr(speed, "device_energy", lambda: iter(range(10**6)).__next__)
    monkeypatch.setattr(speed, "joules_per_utterance", lambda *a, **k: {"joules_per_utterance": 50.0})
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 1024 * 2**20)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda *_: 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**34, 2**35))
    return model


def test_speed(stubs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    assert speed.main(["--batch", "1", "8", "--dtypes", "fp16", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert not faults(document)
    rows = {(row["mode"], row["case"]): row for row in document["results"]}
    assert len(rows) == 7 * 16
    assert document["not_measured"] == []
    assert document["graph_budget_mb"] == speed.BATCH_BUDGET_MB
    many, single = rows["turbo", "en 5 s x 8"], rows["turbo", "en 5 s"]
    assert (many["speed_x"], many["rtf"], many["call_peak_mb"]) == (8.0, 0.125, 2048.0)
    assert (single["lm_ms"], many["lm_ms"]) == (803.0, 801.0)
    assert many["joules_per_utterance"] == 50.0
    assert all(row["joules_per_utterance"] > 0 for row in rows.values()), "of every case"
    assert single["peak_vram_mb"] == 3072.0
    assert "peak_vram_mb" not in many
    loaded = [options for options in Runner.made if "graph_budget_mb" in options]
    assert {options["mode"] for options in loaded} == {"faster", "hybrid", "hybrid_sage"}
    assert "clone 5 s x 8" in capsys.readouterr().out


def test_speed_of_little(stubs: Path, tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    flags = ["--only-5s", "--modes", "turbo", "--no-memory", "--no-extras", "--budget-s", "1e6", "--json", str(path)]
    assert speed.main(flags) == 0
    document = json.loads(path.read_text())
    assert [(row["mode"], row["dtype"]) for row in document["results"]] == [
        (mode, dtype) for dtype in ("fp16", "bf16") for mode in ("base", "turbo")
    ]
    assert document["budget_s_per_dtype"] == 1e6
    assert not {"lm_ms", "peak_vram_mb"} & set(document["results"][0])
    assert len(Runner.made) == 4


def test_figures_of_few_runs_say_so(stubs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--modes", "turbo", "--dtypes", "fp16", "--no-memory", "--no-extras"]
    assert speed.main([*flags, "--cases", "en 5 s", "ko short", "--runs", "4"]) == 0
    said = "2 of 4 rows are of fewer than 5 runs, down to 4: p5 and p95 bound no noise"  # en 5 s has twice the rounds
    assert said in capsys.readouterr().out
    assert speed.main([*flags, "--only-5s"]) == 0
    assert "fewer than" not in capsys.readouterr().out


def test_speed_without_time_is_no_result(stubs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--only-5s", "--budget-s", "1e-9", "--json", str(tmp_path / "speed.json")]) == 2
    assert "nothing was measured: no time was left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_kernels(
    stubs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def measure(case: Case, ceilings: Any, others: Any) -> dict[str, Any]:
        asked.append((ceilings, others))
        return result(case) | {"shape": {"rows": 290, "columns": 1024}}

    def few(n: int, dtype: torch.dtype) -> list[Plan]:
        return [Plan("rms_norm", lambda: Case("rms_norm", {"rows": n}, dtype, tuple, len, len, len, 0))]

    monkeypatch.setattr(kernels, "measure", measure)
    monkeypatch.setattr(kernels, "sweep", partial(kernels.sweep, plans_of=few))
    monkeypatch.setattr(kernels.ceiling, "measure", lambda dtypes: CEILINGS)
    path = tmp_path / "kernels.json"
    assert kernels.main(["--no-compile", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert not faults(document)
    assert len(document["results"]) == 2 * len(kernels.ROWS)
    assert document["ceilings"] == CEILINGS
    assert asked[0] == (CEILINGS, kernels.Others(compile=False))
    assert "% of copy" in capsys.readouterr().out
    assert kernels.main(["--budget-s", "1e-9", "--json", str(tmp_path / "none.json")]) == 2
    assert "nothing was measured" in capsys.readouterr().err


def test_peers(
    stubs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def there(*_: Any) -> Any:
        worker = Worker(Clock(), 1.0)
        holder = SimpleNamespace(generate=worker.generate, close=lambda: None, mode=worker.mode)
        return {**{name: lambda: holder for name in peers.PATHS}, peers.OLD: real[peers.OLD]}

    real = peers.makers(stubs, "fp16", None, "hybrid")
    monkeypatch.setattr(peers, "makers", there)
    path = tmp_path / "peers.json"
    assert peers.main(["--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert not faults(document)
    assert {row["mode"] for row in document["results"]} == set(peers.PATHS) - {peers.OLD}
    assert document["not_available"] == [
        {"path": peers.OLD, "dtype": "fp16", "reason": "--old-package names no folder"}
    ]
    out = capsys.readouterr().out
    assert "not available: fp16 omnivoice-triton-old: --old-package names no folder" in out
    assert "fewer than" not in out
    assert peers.main(["--cases", "ko short", "--runs", "2"]) == 0
    assert "6 of 6 rows are of fewer than 5 runs, down to 2" in capsys.readouterr().out


def test_clocks_at_start_and_end(stubs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivoice_triton import environment, evidence

    found = iter(([{"sm_mhz": 345.0, "memory_mhz": 3201.0, "temperature_c": None}], [{"sm_mhz": 1980.0}]))
    monkeypatch.setattr(environment, "gpus", lambda: next(found))
    monkeypatch.setattr(evidence, "_at_start", [])
    evidence.mark_start()
    document = evidence.write_json(None, "any", None, {"results": [{}]})
    assert document["clocks"] == {"start": [{"sm_mhz": 345.0, "memory_mhz": 3201.0}], "end": [{"sm_mhz": 1980.0}]}
    monkeypatch.setattr(environment, "gpus", lambda: [])
    monkeypatch.setattr(evidence, "_at_start", [])
    assert "clocks" not in evidence.write_json(None, "any", None, {"results": [{}]}), "unknown is absent"
