"""The doctor: what it says must be what the modes do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnivoice_triton import MODES, ModeUnavailable, checkpoint, doctor
from omnivoice_triton.checkpoint import demo
from omnivoice_triton.cli import main
from omnivoice_triton.models.registry import create_runner
from omnivoice_triton.speech import CheckpointError

HAS_GPU = torch.cuda.is_available()
ENVIRONMENT: dict[str, Any] = {
    "versions": {
        "omnivoice-triton": "1",
        "python": "3.11.1",
        "torch": "2.6",
        "cuda": "12.4",
        "triton": None,
        "transformers": "5.3",
        "omnivoice": "0.2.1",
    },
    "os": "Linux 6 x86_64",
    "cpu": {"model": "A processor", "cores": 4, "usable": 2},
    "memory_gib": 7.5,
    "gpus": [],
}
GPU = {
    "name": "NVIDIA X",
    "capability": [9, 0],
    "multiprocessors": 132,
    "memory_gib": 80.0,
    "free_gib": 60.0,
    "driver": "570.10",
}


@pytest.fixture(autouse=True)
def no_model_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(doctor.MODEL_VARIABLE, raising=False)


def test_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "without_bytecode", lambda: 1234)
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    report = json.loads(captured.out)
    assert report["ok"] is True
    assert list(report["modes"]) == list(MODES)
    assert report["modes"]["base"] == {"runs": True, "why": None}
    assert all(error is None for error in report["imports"].values())
    assert report["device"] == ("cuda" if HAS_GPU else "cpu")
    assert report["model"]["name"] == "demo"
    assert report["model"]["weights"] == "trained-demo"
    assert report["caches"]["hub"]["free_gib"] > 0
    assert report["without_bytecode"] == 1234
    assert captured.err == ""


def test_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(doctor.MODEL_VARIABLE, "tiny")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in out
    assert "random weights: noise, not speech" in out
    assert "--model k2-fsa/OmniVoice" in out
    for name in MODES:
        assert f"\n  {name} " in out


@pytest.mark.skipif(HAS_GPU, reason="for machines without a GPU")
def test_says_of_each_mode_what_its_runner_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = doctor.modes_on("cpu")
    assert found["auto"] == "base"
    assert [name for name, mode in found["modes"].items() if mode["runs"]] == ["base", "turbo"]
    assert "no faster than base" in found["modes"]["turbo"]["why"]
    for name, mode in found["modes"].items():
        if not mode["runs"]:
            with pytest.raises(ModeUnavailable, match="use mode base") as refusal:
                create_runner(name, device="cpu")
            assert mode["why"] in str(refusal.value)


@pytest.mark.skipif(HAS_GPU, reason="for machines without a GPU")
def test_the_interpreter_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = doctor.modes_on("cpu")
    assert found["modes"]["triton"]["runs"] is True
    assert "interpreter" in found["modes"]["triton"]["why"]
    assert found["modes"]["hybrid"]["runs"] is False
    assert found["auto"] == "base"


def test_broken_installation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str) -> None:
        if name == "torchaudio":
            raise OSError("libtorchaudio.so:\nundefined symbol")

    monkeypatch.setattr(doctor.importlib, "import_module", refuse)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "torchaudio can't be imported (libtorchaudio.so: undefined symbol)" in out
    assert "runs" not in out.split("Modes on this machine")[1].split("Model:")[0]


def test_dtypes_are_tried() -> None:
    assert doctor.probe_dtypes("cpu") == {"fp32": "yes", "fp16": "yes", "bf16": "yes"}


def test_a_dtype_that_computes_wrong_or_fails_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.ones

    def ones(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
        if dtype is torch.float16:
            return torch.zeros(*shape, dtype=dtype)
        if dtype is torch.bfloat16:
            raise RuntimeError("CUDA error: no kernel image\nis available")
        return real(*shape, dtype=dtype)

    monkeypatch.setattr(torch, "ones", ones)
    assert doctor.probe_dtypes("cpu") == {
        "fp32": "yes",
        "fp16": "no: it computes wrong sums",
        "bf16": "no: CUDA error: no kernel image is available",
    }


class TestDefaultModel:
    def test_a_directory_of_the_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = checkpoint.make_checkpoint(tmp_path / "mine", "tiny", seed=3)
        monkeypatch.setenv(doctor.MODEL_VARIABLE, str(model))
        found = doctor.default_model()
        assert (found["name"], found["from"]) == (str(model), doctor.MODEL_VARIABLE)
        assert (found["weights"], found["problem"]) == ("random-tiny", None)

    def test_the_demo_voice_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "DATA", tmp_path)
        checkpoint.make_checkpoint(tmp_path / "demo", "tiny", seed=3)
        monkeypatch.setenv(doctor.MODEL_VARIABLE, "demo")
        found = doctor.default_model()
        assert (found["weights"], found["problem"]) == ("random-tiny", None)

    @pytest.mark.parametrize(("named", "weights"), [("tiny", "random-tiny"), ("./no/such/folder", None)])
    def test_what_is_no_hub_id_is_looked_for_here(
        self, monkeypatch: pytest.MonkeyPatch, named: str, weights: str | None
    ) -> None:
        monkeypatch.setenv(doctor.MODEL_VARIABLE, named)
        found = doctor.default_model()
        assert found["weights"] == weights
        assert found["problem"] is None if weights else "does not exist" in found["problem"]

    def test_a_damaged_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = checkpoint.make_checkpoint(tmp_path / "mine", "tiny", seed=3)
        (model / "config.json").unlink()
        monkeypatch.setenv(doctor.MODEL_VARIABLE, str(model))
        assert "config.json" in doctor.default_model()["problem"]

    def test_nothing_is_downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("the doctor downloads")

        monkeypatch.setattr(doctor, "resolve_model", download)
        monkeypatch.setenv(doctor.MODEL_VARIABLE, "somebody/something-not-cached")
        found = doctor.default_model()
        assert found["weights"] is None
        assert "first use downloads it" in found["problem"]

    def test_a_built_in_model_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise CheckpointError("the cache can't be written")

        monkeypatch.setattr(doctor, "resolve_model", fail)
        assert doctor.default_model()["problem"] == "the cache can't be written"


def test_renders_a_gpu_and_what_is_missing() -> None:
    report: dict[str, Any] = {
        "ok": True,
        "environment": {**ENVIRONMENT, "gpus": [GPU]},
        "imports": {},
        "device": "cuda",
        "no_gpu": None,
        "dtypes": {"cuda:0": {"fp32": "yes", "fp16": "yes", "bf16": "emulated, slow: use fp16"}},
        "modes": {
            name: {"runs": name != "hybrid", "why": "for a reason" if name == "hybrid" else None} for name in MODES
        },
        "auto": "faster",
        "model": {"name": "m", "from": "X", "weights": "real", "problem": None, "hub_cached": True},
        "caches": {"hub": {"path": "h", "free_gib": None}},
        "without_bytecode": 1775,
        "extras": {"ffmpeg": {"here": True, "use": "reads M4A"}},
    }
    lines = doctor.render(report).splitlines()
    assert lines[0].endswith("torch 2.6 (CUDA 12.4), triton missing, transformers 5.3, omnivoice 0.2.1")
    assert "GPU 0: NVIDIA X, compute capability 9.0, 60.0 of 80.0 GiB free, driver 570.10" in lines
    assert "dtypes on cuda:0: fp32 yes; fp16 yes; bf16 emulated, slow: use fp16" in lines
    assert "  hybrid       no    for a reason" in lines
    assert "  auto         takes faster" in lines
    assert any(line.startswith("Bytecode: 1775 modules have none") for line in lines)
    few = doctor.render({**report, "without_bytecode": 30})
    assert "Bytecode" not in few
    assert "Model: m (from X), real weights" in lines
