"""Tier 1: right kernels pass, each planted fault fails, and no kernel is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from omnivoice_triton.kernels import embed, score_cells, swiglu, unmask_reference, varlen_attention
from omnivoice_triton.verify import hopper_grid, kernel_case, kernel_cases, kernel_tier

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


def off_by_one_column(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda gate, up, **k: real(gate, up.roll(1, -1).contiguous(), **k)


def last_column_unwritten(real: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*args: Any, **keywords: Any) -> Any:
        out = real(*args, **keywords)
        out[..., -1] = float("nan")
        return out

    return wrong


def causal(real: Callable[..., Any]) -> Callable[..., Any]:
    """Every query sees its own segment up to itself."""

    def wrong(
        qkv: torch.Tensor, tiles: torch.Tensor, *, q_heads: int, kv_heads: int, out: torch.Tensor, **k: Any
    ) -> None:
        real(qkv, tiles, q_heads=q_heads, kv_heads=kv_heads, out=out, **k)
        heads = qkv.view(qkv.shape[0], q_heads + 2 * kv_heads, -1).transpose(0, 1)
        for start, length in {(s, n) for s, n, _, _ in tiles.tolist() if n > 0}:
            q, key, v = (x[:, start : start + length] for x in heads.split((q_heads, kv_heads, kv_heads)))
            group = q_heads // kv_heads
            seen = torch.nn.functional.scaled_dot_product_attention(
                q, key.repeat_interleave(group, 0), v.repeat_interleave(group, 0), is_causal=True, scale=k["scale"]
            )
            out[start : start + length] = seen.transpose(0, 1).reshape(length, -1)

    return wrong


def wrong_codebook_offset(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda rows, prompt, canvas, table, *a, **k: real(rows, prompt, canvas, table.roll(1, 0), *a, **k)


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
