"""Tier 1: right kernels pass, each planted fault fails, and no kernel is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from omnivoice_triton.kernels import (
    embed,
    fp8,
    packed_norm,
    quantise_keys,
    score_cells,
    select_cells,
    swiglu,
    tables,
    unmask_reference,
    varlen_attention,
)
from omnivoice_triton.verify import hopper_grid, kernel_case, kernel_cases, kernel_tier
from tests.verify.faults import causal, off_by_one_column

SMALL = kernel_case.CPU


def some(device: str, *kernels: str, dtypes: Any = (torch.float32,)) -> list[Any]:
    found = [case for case in kernel_cases.cases(SMALL, device, dtypes) if case.kernel in kernels]
    assert {case.kernel for case in found} == set(kernels)
    return found


def test_every_kernel_is_in_the_grid(device: str) -> None:
    grid = {case.kernel for case in kernel_cases.cases(SMALL, device, (torch.float32,))}
    assert kernel_case.launchers() == grid | set(hopper_grid.KERNELS), (
        "a kernel without a case: add one to a grid that verify/kernel_cases.py yields"
    )
    assert len(grid) >= 15


def test_a_launcher_is_found_by_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kernel_case.launchers()
    assert {"quantise_keys", "int8_qk_attention", "triton_snake"} <= found
    assert not {"int8_step", "has_tensor_cores", "philox_uniform"} & found


def test_a_kernel_without_a_case_fails_the_tier(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_case, "launchers", lambda: {"triton_swiglu_forward", "triton_new"})
    grid = some(device, "triton_swiglu_forward")
    monkeypatch.setattr(kernel_cases, "cases", lambda *_: grid)
    tier = kernel_tier.run(device)
    assert all(row["passed"] for row in tier.rows)
    assert tier.failures == ["kernel triton_new has no case in the grid"]


@pytest.mark.timeout(1200)  # a GPU compiles each kernel for many shapes
def test_the_whole_grid_passes(device: str) -> None:
    tier = kernel_tier.run(device)
    assert tier.passed, tier.failures
    assert {row["dtype"] for row in tier.rows} == {"float32", "float16", "bfloat16"}
    reason = hopper_grid.problem(device)
    assert (
        any(reason in note for note in tier.notes)
        if reason
        else {*hopper_grid.KERNELS} <= {row["kernel"] for row in tier.rows}
    )
    assert any(row["error_to_twin"] for row in tier.rows), "no kernel differs from its twin by a single bit"


def last_column_unwritten(real: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*args: Any, **keywords: Any) -> Any:
        out = real(*args, **keywords)
        out[..., -1] = float("nan")
        return out

    return wrong


def wrong_codebook_offset(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda rows, prompt, canvas, table, *a, **k: real(rows, prompt, canvas, table.roll(1, 0), *a, **k)


def class_temperature_ignored(real: Callable[..., Any]) -> Callable[..., Any]:
    """The likeliest id is taken whatever the temperature."""

    def wrong(logits: Any, targets: Any, canvas: Any, slots: torch.Tensor, **k: Any) -> None:
        cold = slots.clone()
        cold[:, tables.SLOT_CLASS_TEMPERATURE] = 0
        real(logits, targets, canvas, cold, **k)

    return wrong


def noise_at_temperature_0(real: Callable[..., Any]) -> Callable[..., Any]:
    """Positions are always drawn with noise."""

    def wrong(logits: Any, targets: Any, canvas: Any, slots: torch.Tensor, **k: Any) -> None:
        warm = slots.clone()
        floats = warm.view(torch.float32)
        floats[:, tables.SLOT_POSITION_TEMPERATURE].masked_fill_(floats[:, tables.SLOT_POSITION_TEMPERATURE] == 0, 1.0)
        real(logits, targets, canvas, warm, **k)

    return wrong


def goes_on_when_done(real: Callable[..., Any]) -> Callable[..., Any]:
    """Requests that have taken all their steps take another."""

    def wrong(*args: Any, **k: Any) -> None:
        name = "slots" if "slots" in k else None
        slots = (k["slots"] if name else args[3]).clone()
        slots[:, tables.SLOT_STEPS] += 1
        if name:
            real(*args, **{**k, "slots": slots})
            k["slots"][:, tables.SLOT_STEP] = slots[:, tables.SLOT_STEP]
        else:
            real(*args[:3], slots, **k)

    return wrong


def decided_cells_unmarked(real: Callable[..., Any]) -> Callable[..., Any]:
    """Cells that are decided already keep a score and could win again."""

    def wrong(*args: Any, scores: torch.Tensor, **k: Any) -> None:
        real(*args, scores=scores, **k)
        scores.masked_fill_(scores == float("-inf"), -7.0)

    return wrong


def residual_off_by_a_percent(real: Callable[..., Any]) -> Callable[..., Any]:
    """The sum beside the quantised result is off by a per cent, far less than what FP8 is allowed."""

    def wrong(delta: Any, residual: torch.Tensor, *args: Any, **k: Any) -> None:
        real(delta, residual, *args, **k)
        residual *= 1.01

    return wrong


def skipped_residual(real: Callable[..., Any]) -> Callable[..., Any]:
    """What the layer adds replaces what was there."""

    def wrong(delta: Any, residual: torch.Tensor, *args: Any, **k: Any) -> None:
        residual.zero_()
        real(delta, residual, *args, **k)

    return wrong


def padding_is_read(real: Callable[..., Any]) -> Callable[..., Any]:
    """Rows behind an item's length count in the mean of its keys."""

    def wrong(k: torch.Tensor, lengths: torch.Tensor, tile: Any) -> Any:
        return real(k, torch.full_like(lengths, k.shape[2]), tile)

    return wrong


def noise_reused(real: Callable[..., Any]) -> Callable[..., Any]:
    """Every step draws what step 0 drew."""

    def wrong(logits: Any, targets: Any, canvas: Any, slots: torch.Tensor, **k: Any) -> None:
        stuck = slots.clone()
        stuck[:, 0] = 0
        real(logits, targets, canvas, stuck, **k)

    return wrong


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (swiglu, "triton_swiglu_forward", off_by_one_column),
        (swiglu, "triton_swiglu_forward", last_column_unwritten),
        (varlen_attention, "triton_varlen_attention", causal),
        (embed, "triton_embed_rows", wrong_codebook_offset),
        (score_cells, "triton_score_cells", noise_reused),
        (score_cells, "triton_score_cells", class_temperature_ignored),
        (score_cells, "triton_score_cells", noise_at_temperature_0),
        (score_cells, "triton_score_cells", goes_on_when_done),
        (score_cells, "triton_score_cells", decided_cells_unmarked),
        (select_cells, "triton_select_cells", goes_on_when_done),
        (quantise_keys, "quantise_keys", padding_is_read),
        (packed_norm, "triton_packed_add_norm", skipped_residual),
        (fp8, "triton_add_norm_quantise", residual_off_by_a_percent),
    ],
)
def test_planted_fault_fails(
    device: str, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    tier = kernel_tier.run(device, cases=some(device, name))
    assert not tier.passed
    assert name in tier.failures[0]


def test_a_twin_that_is_wrong_too_is_seen_by_float64(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel and twin agree on scores without the mask id's share; OmniVoice's formula does not."""

    def without_mask(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrong(logits: torch.Tensor, targets: Any, canvas: Any, slots: Any, **k: Any) -> None:
            blanked = logits.clone().view(logits.shape[0], canvas.shape[1], -1)
            blanked[..., -1] = -1e4
            real(blanked.view(logits.shape), targets, canvas, slots, **k)

        return wrong

    monkeypatch.setattr(score_cells, "triton_score_cells", without_mask(score_cells.triton_score_cells))
    monkeypatch.setattr(unmask_reference, "score_cells", without_mask(unmask_reference.score_cells))
    tier = kernel_tier.run(device, cases=some(device, "triton_score_cells"))
    assert not tier.passed
    assert "from float64" in tier.failures[0]


def test_a_kernel_that_raises_is_a_failure_and_the_rest_goes_on(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **k: Any) -> None:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(swiglu, "triton_swiglu_forward", fails)
    tier = kernel_tier.run(device, cases=some(device, "triton_swiglu_forward", "triton_rms_norm"))
    verdicts = {row["kernel"]: row["passed"] for row in tier.rows}
    assert verdicts == {"triton_swiglu_forward": False, "triton_rms_norm": True}
    assert "raised RuntimeError: no kernel image is available" in tier.failures[0]


def test_rows_say_how_much_they_were_allowed(device: str) -> None:
    (row, *_) = kernel_tier.run(device, cases=some(device, "triton_add_norm_quantise")).rows
    assert row["slack"] > 100
    assert row["allowed_to_twin"] == pytest.approx(0.02)
    assert row["approximation"] == 0.04
    assert row["strict"] == ["residual"]


def test_no_cases_fail(device: str) -> None:
    tier = kernel_tier.run(device, cases=[])
    assert not tier.passed
    assert tier.failures == ["nothing was checked"]


def test_an_interpreter_that_is_off_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    tier = kernel_tier.run("cpu")
    assert not tier.passed
    assert "TRITON_INTERPRET=1" in tier.failures[0]
