"""Selection on the device against its twin."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import tables as t
from omnivoice_triton.kernels import unmask_reference as ref
from omnivoice_triton.kernels.select_cells import triton_select_cells

from .cells import CODEBOOKS, Case


def select(case: Case, function: object, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    canvas, slots = case.canvas.clone(), case.slots.clone()
    items, targets = case.packed.table("items"), case.packed.table("targets")
    function(items, targets, case.tokens, scores, canvas=canvas, slots=slots)  # type: ignore[operator]
    return canvas, slots


@pytest.mark.parametrize("scores_are", ["random", "tied", "all equal", "signed zeros"])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 1000])
def test_select_equals_twin(device: str, scores_are: str, count: int) -> None:
    case = Case(device, count=count)
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(case.scores.shape, generator=generator)
    if scores_are == "tied":
        scores = scores.round()
    elif scores_are == "all equal":
        scores = torch.full_like(scores, -2.5)
    elif scores_are == "signed zeros":
        scores = torch.zeros_like(scores)
    scores[0] = float("-inf")  # decided
    case.canvas[case.packed.placements[0].frames[0]] = 3
    case.tokens.copy_(torch.randint(0, 20, case.tokens.shape, generator=generator, dtype=torch.int32))
    scores = scores.to(device)
    want, got = select(case, ref.select_cells, scores), select(case, triton_select_cells, scores)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    decided = [int((got[0][p.frames] != 20).sum()) for p in case.packed.placements]
    assert decided == [2 + min(count, 4), min(count, 2), min(count, 4)]
    moved = (got[1][:, t.SLOT_STEP] - case.slots[:, t.SLOT_STEP]).sum()
    assert moved == (len(case.packed.placements) if count else 0)


def test_select_loops_over_long_requests(device: str) -> None:
    """1,400 cells: more than one block, with many ties across the boundary."""
    case = Case(device, count=700, requests=[(1, 700, True)], ids=20)
    case.canvas = torch.full((703, CODEBOOKS), 20, dtype=torch.int32, device=device)
    case.tokens.fill_(1)
    scores = (torch.arange(case.scores.numel()).view(case.scores.shape) % 3).float().to(device)
    want, got = select(case, ref.select_cells, scores), select(case, triton_select_cells, scores)
    assert torch.equal(got[0], want[0])
    assert int((got[0] == 1).sum()) == 700


@pytest.mark.parametrize("function", [ref.select_cells, triton_select_cells])
def test_ties_go_to_the_first_in_upstreams_layout(device: str, function: object) -> None:
    case = Case(device, count=5, requests=[(1, 4, True)], ids=20)
    case.tokens.fill_(1)
    canvas, _ = select(case, function, torch.zeros_like(case.scores))
    frames = torch.as_tensor(case.packed.placements[0].frames).long()
    assert canvas[frames].T.tolist() == [[1, 1, 1, 1], [1, 20, 20, 20]], "codebook by codebook"


def test_finished_requests_are_left_alone(device: str) -> None:
    case = Case(device, step=4, steps=4)
    canvas, slots = select(case, triton_select_cells, torch.zeros_like(case.scores))
    assert torch.equal(canvas, case.canvas)
    assert torch.equal(slots, case.slots)
