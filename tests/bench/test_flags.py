"""Every benchmark refuses what it can't follow in one line, before the work, and Ctrl-C leaves no traceback."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.bench import soak
from omnivoice_triton.cli.evidence import BENCHES
from omnivoice_triton.speech import OmniVoiceTritonError

MEASURING = tuple(name for name in BENCHES if name != "compare")


def run(name: str, *flags: str) -> int:
    code: int = import_module(f"omnivoice_triton.bench.{name}").main(list(flags))
    return code


@pytest.mark.parametrize("name", MEASURING)
def test_an_output_that_cannot_be_written_is_refused_first(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (str(tmp_path), "", str(file / "out.json")):
        assert run(name, "--json", path) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"bench.{name}: can't ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("kernels", ["--rows", "1"], "--rows: must be a whole number of at least 2, not '1'"),
        ("kernels", ["--budget-s", "nan"], "--budget-s must be above 0"),
        ("speed", ["--runs", "0"], "--runs: must be a whole number of at least 1, not '0'"),
        ("speed", ["--warm", "-5"], "--warm: must be a whole number of at least 0, not '-5'"),
        ("speed", ["--batch", "0"], "--batch: must be a whole number of at least 1, not '0'"),
        ("speed", ["--graph-budget-mb", "-4"], "--graph-budget-mb: must be a whole number of at least 1"),
        ("speed", ["--budget-s", "-1"], "--budget-s must be above 0 seconds"),
        ("peers", ["--warm", "-5"], "--warm: must be a whole number of at least 0"),
        ("peers", ["--budget-s", "nan"], "--budget-s must be above 0 seconds"),
        ("soak", ["--runs", "0"], "--runs: must be a whole number of at least 1"),
        ("soak", ["--steps", "x"], "--steps: must be a whole number of at least 1, not 'x'"),
        ("soak", ["--budget-mb", "-1"], "--budget-mb: must be a whole number of at least 1"),
        ("turbo", ["--runs", "-1"], "--runs: must be a whole number of at least 1"),
        *((name, ["--fast"], f"see omnivoice-triton bench {name} --help") for name in MEASURING),
    ],
)
def test_bad_flags_are_one_line(
    name: str, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(name, *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", MEASURING)
def test_ctrl_c_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"omnivoice_triton.bench.{name}.need_gpu", stop)
    assert run(name) == 130
    assert capsys.readouterr().err == f"bench.{name}: interrupted\n"


class Failing:
    """A runner of which every utterance but the first fails."""

    def __init__(self, **_: Any) -> None:
        self.said = 0
        self.acceleration = SimpleNamespace(graphs=SimpleNamespace(used_bytes=0, captures=0, buckets=()))

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def generate(self, *_: Any, **keywords: Any) -> Any:
        self.said += 1
        if self.said > 1:
            raise OmniVoiceTritonError("out of memory")
        return SimpleNamespace(time_ms=1.0)


def test_a_soak_that_fails_throughout_is_a_failure_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "need_gpu", lambda: None)
    monkeypatch.setattr(soak, "default_model", lambda *_: None)
    monkeypatch.setattr(soak, "BaseRunner", Failing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**34, 2**35))
    out = tmp_path / "soak.json"
    assert run("soak", "--runs", "3", "--dtypes", "fp16", "--json", str(out)) == 1
    (row,) = json.loads(out.read_text())["results"]
    assert len(row["failures"]) == 3
    assert "median_ms" not in row
    shown = capsys.readouterr().out
    assert shown.startswith("FAIL hybrid fp16: 3 utterances, 3 failed")
    assert "out of memory" in shown
