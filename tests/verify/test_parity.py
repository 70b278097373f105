"""Tier 2 on the tiny model: it passes what is right and fails what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.models import layers
from omnivoice_triton.verify import parity
from omnivoice_triton.verify.compare import cosine, relative_error, screened_agreement, worst_row_cosine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


def run(tiny: Path, *extra: str) -> int:
    return parity.main(["--model", str(tiny), "--text", "Hi.", "--seconds", "0.12", "--steps", "1", *extra])


def test_right_modes_pass(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "parity.json"
    assert run(tiny, "--modes", "base", "triton", "triton_sage", "--json", str(out)) == 0
    rows = json.loads(out.read_text())["results"]
    assert [row["mode"] for row in rows][:3] == ["base", "triton", "triton_sage"]
    assert rows[0]["layers"]["0"]["relative_error"] == 0.0
    assert 0 < max(layer["relative_error"] for layer in rows[1]["layers"].values()) < 1e-2
    assert capsys.readouterr().out.count("PASS") == len(rows)


def drop_residual(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, residual, *a, **k: real(x, torch.zeros_like(residual), *a, **k)


def off_by_one_column(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda gate, up: real(gate, up.roll(1, -1))


def wrong_position(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, qw, kw, cos, sin, **o: real(q, k, qw, kw, cos.roll(1, 1), sin.roll(1, 1), **o)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("triton_fused_add_rms_norm", drop_residual),
        ("triton_swiglu_forward", off_by_one_column),
        ("triton_qk_norm_rope", wrong_position),
    ],
)
def test_planted_fault_fails(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fault: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(layers, name, fault(getattr(layers, name)))
    assert run(tiny, "--modes", "triton") == 1
    assert "FAIL" in capsys.readouterr().out


def test_causal_attention_fails(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = layers.TritonQwen3Attention._attend

    def causal(self: Any, q: Any, k: Any, v: Any, mask: torch.Tensor, kwargs: Any) -> Any:
        return real(self, q, k, v, mask.tril(), kwargs)

    monkeypatch.setattr(layers.TritonQwen3Attention, "_attend", causal)
    assert run(tiny, "--modes", "triton") == 1


def test_nothing_compared_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.report([]) == 1
    assert "nothing was compared" in capsys.readouterr().out


def test_a_mode_that_cannot_run_is_an_error(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "--modes", "hybrid", "--device", "cpu") == 2
    assert "mode hybrid can't run here" in capsys.readouterr().err


def test_figures() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert worst_row_cosine(a, torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(0)
    assert relative_error(a, a) == 0
    assert relative_error(torch.zeros(2, 2), a) == pytest.approx(1)
    assert relative_error(a * float("nan"), a) != relative_error(a * float("nan"), a)
    clear = torch.tensor([[5.0, 0.0], [1.0, 0.9]])
    assert screened_agreement(clear.flip(-1), clear, 0.5) == (0.0, 1)
    assert screened_agreement(clear, clear, 0.5) == (1.0, 1)


def test_a_mode_without_upstreams_layers_is_an_error(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "--modes", "turbo", "--device", "cpu") == 2
    assert "mode turbo has a backbone of its own" in capsys.readouterr().err
