"""Every benchmark refuses what it can't follow in one line, before the work, and Ctrl-C leaves no traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.bench import peer_child, soak
from omnivoice_triton.cli.evidence import BENCHES
from omnivoice_triton.speech import OmniVoiceTritonError
from tests.bench.test_schema import faults

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
        ("speed", ["--budget-s", "inf"], "--budget-s must be above 0 seconds and finite, not inf"),
        *((name, ["--dtypes", "fp99"], "fp99") for name in MEASURING),
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
    """A runner of which every utterance fails, but for the first few."""

    good = 1
    error: Exception = OmniVoiceTritonError("out of memory")

    def __init__(self, **_: Any) -> None:
        self.said = 0
        self.acceleration = SimpleNamespace(graphs=SimpleNamespace(used_bytes=0, captures=0, buckets=()))

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def generate(self, *_: Any, **keywords: Any) -> Any:
        self.said += 1
        if self.said > self.good:
            raise self.error
        return SimpleNamespace(time_ms=1.0)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "need_gpu", lambda: None)
    monkeypatch.setattr(soak, "default_model", lambda *_: None)
    monkeypatch.setattr(soak, "BaseRunner", Failing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**34, 2**35))


@pytest.mark.usefixtures("failing")
def test_a_soak_that_fails_throughout_is_a_failure_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "soak.json"
    assert run("soak", "--runs", "3", "--dtypes", "fp16", "--json", str(out)) == 1
    document = json.loads(out.read_text())
    assert not faults({**document, "checkpoint": "random-full"})
    assert document["not_measured"] == []
    (row,) = document["results"]
    assert len(row["failures"]) == 3
    assert row["passed"] is False
    assert "median_ms" not in row
    shown = capsys.readouterr().out
    assert shown.startswith("FAIL hybrid fp16: 3 utterances, 3 failed")
    assert "out of memory" in shown


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("error", "said"),
    [(OmniVoiceTritonError("no room"), "no room"), (RuntimeError("CUDA\n error"), "RuntimeError: CUDA error")],
)
def test_a_soak_whose_first_utterance_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(Failing, "good", 0)
    monkeypatch.setattr(Failing, "error", error)
    out = tmp_path / "soak.json"
    assert run("soak", "--runs", "2", "--dtypes", "fp16", "--json", str(out)) == 1
    (row,) = json.loads(out.read_text())["results"]
    assert row["failures"][0] == f"29.0 s, before counting: {said}"
    assert len(row["failures"]) == 3


@pytest.mark.usefixtures("failing")
def test_a_soak_names_the_dtype_that_it_did_not_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = soak.soak

    def stops(path: Path, dtype: str, options: Any) -> dict[str, Any]:
        if dtype == "bf16":
            raise KeyboardInterrupt
        return real(path, dtype, options)

    monkeypatch.setattr(soak, "soak", stops)
    out = tmp_path / "soak.json"
    assert run("soak", "--runs", "2", "--json", str(out)) == 130
    assert json.loads(out.read_text())["not_measured"] == [
        {"mode": "hybrid", "dtype": "bf16", "reason": "the run ended before it"}
    ]


@pytest.mark.parametrize("name", BENCHES)
def test_as_a_module_it_is_one_line_too(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"omnivoice_triton.bench.{name}", "a", "b", "--fast"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"bench.{name}: ")


def test_ctrl_c_leaves_no_traceback_of_a_peers_process(tmp_path: Path) -> None:
    """It reaches the whole process group: the child has nothing to add."""
    package = tmp_path / "omnivoice_triton"
    package.mkdir()
    (package / "__init__.py").write_text("import sys, time; print('here', file=sys.stderr, flush=True); time.sleep(60)")
    command = [sys.executable, peer_child.__file__, str(tmp_path), "model", "fp16", "hybrid"]
    pipe = subprocess.PIPE
    was = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore it
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        signal.signal(signal.SIGINT, was)
        assert child.stderr is not None
        assert child.stderr.readline() == "here\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == ""
        assert child.wait() == 130
