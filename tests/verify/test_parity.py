"""Tier 2 on the tiny model: it passes what is right and fails what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.config import MODES
from omnivoice_triton.engine.codec import CodecDecoder
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.kernels import engine_reference, unmask_reference
from omnivoice_triton.models import layers
from omnivoice_triton.verify import engine_checks, model_figures, parity
from omnivoice_triton.verify.compare import cosine, relative_error, screened_agreement, worst_row_cosine
from omnivoice_triton.verify.recording import Forced, Recording, force
from tests.verify.faults import causal, off_by_one_column


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


def run(tiny: Path, *extra: str) -> int:
    return parity.main(
        ["--model", str(tiny), "--text", "Hi.", "--seconds", "0.12", "--steps", "1", "--voices", "auto", *extra]
    )


def run_turbo(tiny: Path, *extra: str) -> int:
    """A second of speech: the noise of fewer cells says nothing."""
    return parity.main(
        [
            "--model",
            str(tiny),
            "--text",
            "Hi.",
            "--seconds",
            "1",
            "--steps",
            "2",
            "--modes",
            "turbo",
            "--device",
            "cpu",
            *extra,
        ]
    )


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
    assert "nothing was checked" in capsys.readouterr().out


def test_base_beside_itself_has_compared_nothing(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "--modes", "base", "--device", "cpu") == 1
    assert "no mode was compared with base" in capsys.readouterr().out


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


def test_turbo_passes_with_every_check(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    assert run_turbo(tiny, "--json", str(out), "--all-layers") == 0
    (row,) = json.loads(out.read_text())["results"]
    assert row["mode"] == "turbo"
    assert set(row["layers"]) == {"0", "1", "2", "3"}
    assert {step["voice"] for step in row["steps"]} == {"auto", "clone"}
    assert 0 < max(step["relative_error_to_fp32"] for step in row["steps"]) < 1e-5
    assert row["clear_choices"] > 300
    assert row["engine"]["identical_requests_equal"] is True
    assert row["engine"]["replay_equals_eager"] is None  # no graphs on a CPU: said, not passed
    assert 0 < row["engine"]["codec"]["relative_error"] < 1e-4


def causal_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_reference, "varlen_attention", causal(engine_reference.varlen_attention))


def skipped_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_reference.packed_add_norm

    def skipping(delta: Any, residual: torch.Tensor, *a: Any, **k: Any) -> None:
        residual.zero_()
        real(delta, residual, *a, **k)

    monkeypatch.setattr(engine_reference, "packed_add_norm", skipping)


def wrong_codebook_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_reference.embed_frames

    def shifted(codes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return real(codes, table.roll(table.shape[0] // codes.shape[1], 0))

    monkeypatch.setattr(engine_reference, "embed_frames", shifted)


def noise_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = unmask_reference.philox_uniform
    monkeypatch.setattr(
        unmask_reference,
        "philox_uniform",
        lambda low, high, frame, codebook, step, stream: real(low, high, frame, codebook, 0, stream),
    )


def seed_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = unmask_reference.philox_uniform
    monkeypatch.setattr(unmask_reference, "philox_uniform", lambda low, high, *rest: real(1, 2, *rest))


def noise_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn from torch's global generator: no request can be repeated."""
    monkeypatch.setattr(
        unmask_reference,
        "philox_uniform",
        lambda low, high, frame, codebook, step, stream: torch.rand(
            torch.broadcast_shapes(frame.shape, codebook.shape, stream.shape)
        ),
    )


def wrong_codec_codebook(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CodecDecoder.prepare

    def rolled(self: Any, codes: Any, *, check: bool) -> list[torch.Tensor]:
        return [item.roll(1, 0) for item in real(self, codes, check=check)]

    monkeypatch.setattr(CodecDecoder, "prepare", rolled)


@pytest.mark.parametrize(
    ("plant", "seen_as"),
    [
        (causal_engine, "cosine"),
        (skipped_residual, "cosine"),
        (wrong_codebook_offset, "cosine"),
        (noise_reused, "it is reused"),
        (seed_ignored, "noise of two seeds"),
        (noise_of_the_day, "two identical requests"),
        (wrong_codec_codebook, "codec is"),
    ],
)
def test_a_fault_in_the_engine_fails(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    plant: Callable[[pytest.MonkeyPatch], None],
    seen_as: str,
) -> None:
    plant(monkeypatch)
    assert run_turbo(tiny) == 1
    assert seen_as in capsys.readouterr().out


def test_graphs_that_replay_something_else_are_seen(tiny: Path) -> None:
    """On a CPU nothing is captured, so a stand-in that forgets every third replay takes the graphs' place."""
    from omnivoice import OmniVoice

    model = OmniVoice.from_pretrained(str(tiny), device_map="cpu", dtype=torch.float32).eval()
    forced = force(model, "Hi.", 1.0, 4, 1)
    for lost, expected in ((None, True), (3, False)):
        replays = count(1)

        def capture(
            run: Callable[[], None], *_: Any, lost: int | None = lost, replays: Iterator[int] = replays
        ) -> SimpleNamespace:
            return SimpleNamespace(replay=lambda: None if lost and next(replays) % lost == 0 else run())

        with Engine(model, max_rows=256, max_items=4, capture=capture) as engine:
            type(engine)._captures_graphs, kept = True, type(engine)._captures_graphs
            try:
                assert engine_checks.replay_equals_eager(engine, forced) is expected
            finally:
                type(engine)._captures_graphs = kept


def test_agreement_is_judged_where_it_is_clear() -> None:
    """Logits 1 % off everywhere agree; the same error on one clear row does not."""
    true = torch.zeros(4, 2, 5)
    true[..., 1] = 10.0
    request = Forced("auto", None, SimpleNamespace(guidance_scale=0.0), [{}], 4)
    base = Recording({0: [true]}, [true + 0.01])
    swapped = (true + 0.01).clone()
    swapped[0, 0] = swapped[0, 0].roll(1)
    for logits, passed in ((true + 0.01, True), (swapped, False)):
        row = model_figures.judge(
            MODES["triton"], Recording({0: [true]}, [logits]), base, Recording({}, [true]), [request]
        )
        assert row["passed"] is passed
        assert row["clear_choices"] == 8
    assert "87.50 % of 8 clear choices" in row["problems"][-1]


@pytest.mark.parametrize("canvas", [0, 1, 2])
def test_what_is_no_number_fails_in_any_canvas(canvas: int) -> None:
    torch.manual_seed(0)
    true = [4 * torch.randn(2, 6, 5) for _ in range(3)]
    states = [torch.randn(12, 8) for _ in range(3)]
    base = Recording({0: states}, [x + 1e-3 * torch.randn_like(x) for x in true])
    request = Forced("auto", None, SimpleNamespace(guidance_scale=2.0), [{}] * 3, 4)

    def verdict(hidden: list[torch.Tensor], logits: list[torch.Tensor]) -> dict[str, Any]:
        exact = Recording({}, true)
        return model_figures.judge(MODES["hybrid"], Recording({0: hidden}, logits), base, exact, [request])

    assert verdict(states, base.logits)["passed"]
    broken = [x.clone() for x in states]
    broken[canvas][3, 3] = float("nan")
    assert "cosine nan" in verdict(broken, base.logits)["problems"][0]
    for index in ((0, 2, 1), (slice(None), slice(None), 4)):  # one logit; the whole column of the mask's id
        logits = [x.clone() for x in base.logits]
        logits[canvas][index] = float("nan")
        assert "nanx as far from fp32" in verdict(states, logits)["problems"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--keep", "0"], "--keep must be at least 1, not 0"),
        (["--seconds", "nan"], "--seconds must be 0.1 to 60, not nan"),
        (["--seconds", "-3"], "--seconds must be 0.1 to 60, not -3.0"),
        (["--text", " "], "--text is empty"),
    ],
)
def test_bad_flags_are_two(tiny: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert run(tiny, *flags) == 2
    assert message in capsys.readouterr().err
