"""Scoring on the device against its twin and against OmniVoice's formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnivoice_triton.kernels import tables
from omnivoice_triton.kernels import unmask_reference as ref
from omnivoice_triton.kernels.score_cells import keep_count, triton_score_cells

from .cells import CODEBOOKS, Case


def both(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    want, got = case.score(ref.score_cells), case.score(triton_score_cells)
    assert torch.equal(got[0], want[0])
    torch.testing.assert_close(got[1], want[1], rtol=2e-5, atol=2e-5, equal_nan=True)
    return got


@pytest.mark.parametrize("guidance", [2.0, 0.0, -0.5])
@pytest.mark.parametrize("position_temperature", [5.0, 0.0])
def test_score_equals_twin(device: str, guidance: float, position_temperature: float) -> None:
    case = Case(device, guidance=guidance, position_temperature=position_temperature)
    case.canvas[case.packed.placements[0].frames[0]] = 3  # a decided frame
    _, scores = both(case)
    used = sum(len(p.frames) for p in case.packed.placements)
    assert (scores[0] == float("-inf")).all()
    assert scores[1:used].isfinite().all()
    assert scores[used:].isnan().all()  # unused entries are left alone


@pytest.mark.parametrize("class_temperature", [0.3, 2.0])
@pytest.mark.parametrize("buffered", [False, True])
def test_score_with_class_temperature(device: str, class_temperature: float, buffered: bool) -> None:
    case = Case(device, ids=35, class_temperature=class_temperature)
    if buffered:
        case.from_buffer()
    case.logits[:, ::3] = 1.0  # ties at the edge of the filter go to the lower id
    both(case)


def test_the_filter_keeps_exactly_a_tenth_when_all_are_tied(device: str) -> None:
    case = Case(device, ids=35, class_temperature=50.0)
    case.logits.zero_()
    tokens, _ = both(case)
    used = sum(len(p.frames) for p in case.packed.placements)
    assert set(tokens[:used].flatten().tolist()) <= {0, 1, 2, 3}


def test_score_at_the_real_vocabulary(device: str) -> None:
    case = Case(device, ids=1024, requests=[(1, 1, True)], class_temperature=1.0, dtype=torch.float16)
    both(case)
    assert keep_count(1025) == 103


def test_noise_from_a_buffer(device: str) -> None:
    case = Case(device).from_buffer()
    both(case)


def test_requests_that_decide_nothing_are_skipped(device: str) -> None:
    case = Case(device, step=4, steps=4)
    _, scores = both(case)
    assert scores.isnan().all()
    case = Case(device, count=0)
    _, scores = both(case)
    assert scores.isnan().all()


def test_nan_logits_rank_last_and_stay_in_range(device: str) -> None:
    case = Case(device)
    case.logits[0] = float("nan")
    tokens, scores = case.score(triton_score_cells)
    assert scores[0].tolist() == [torch.finfo(torch.float32).min] * CODEBOOKS
    assert (tokens[0] >= 0).all()
    assert (tokens[0] < case.ids).all()


def upstream_scores(
    logits: torch.Tensor,
    uncond: torch.Tensor | None,
    guidance: float,
    penalty: float,
    temperature: float,
    u: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """OmniVoice's formulas as written there, on [T, C, V + 1] logits."""
    log_p = torch.log_softmax(logits, -1)
    if uncond is not None:
        log_p = torch.log_softmax(log_p + guidance * (log_p - torch.log_softmax(uncond, -1)), -1)
    log_p[..., -1] = float("-inf")
    scores = log_p.max(-1)[0] - torch.arange(logits.shape[1], device=logits.device) * penalty
    if temperature > 0:
        scores = scores / temperature + -torch.log(-torch.log(u + 1e-10) + 1e-10)
    return log_p.argmax(-1), scores


@pytest.mark.parametrize("planted", [None, "mask id left out of the sum", "one codebook's logits for another's"])
def test_formula_is_omnivoices(device: str, planted: str | None) -> None:
    case = Case(device, ids=50).from_buffer()
    case.logits.mul_(0.1)  # flat enough that the mask id has a share in the sum
    first = case.packed.placements[0]
    frames = len(first.frames)
    view = case.logits.view(-1, CODEBOOKS, 51)
    token, score = upstream_scores(
        view[:frames], view[frames : 2 * frames], 2.0, 5.0, 5.0, case.uniforms["position_uniforms"][:frames]
    )
    if planted == "mask id left out of the sum":
        view[..., -1] = -1e30
    elif planted:
        view.copy_(view.roll(1, dims=1))
    got_token, got_score = case.score(triton_score_cells)
    same = torch.equal(got_token[:frames].long(), token) and torch.allclose(got_score[:frames], score, 1e-5, 1e-5)
    assert same == (planted is None)


@pytest.mark.parametrize("function", [ref.score_cells, triton_score_cells])
def test_cells_that_are_almost_sure_are_told_apart(device: str, function: Any) -> None:
    """Beside a peak of 30 what is left of the sum, 1e-5 of it, rounds away; upstream's log-softmax keeps it."""
    case = Case(device, ids=20, guidance=0.0, penalty=0.0, position_temperature=0.0)
    used = sum(len(p.frames) for p in case.packed.placements)
    view = case.logits.view(-1, CODEBOOKS, 21)
    view[:] = -100.0
    view[..., 3] = 30.0
    view[..., 4] = 30.0 - 11.5 - 0.1 * torch.arange(view.shape[0], device=device)[:, None]  # under 1e-5 of the peak's
    wide = view.double().log_softmax(-1).amax(-1)
    _, scores = case.score(function)
    rows = case.packed.table("targets")[:used, tables.TARGET_COND].long()
    torch.testing.assert_close(scores[:used].double(), wide[rows], rtol=0.02, atol=0.0)
    assert len(scores[:used, 0].unique()) == used


def test_bad_input_names_the_fault(device: str) -> None:
    case = Case(device)
    case.uniforms = {"position_uniforms": torch.zeros(3, device=device)}
    with pytest.raises(ValueError, match="together or not at all"):
        case.score(triton_score_cells)
    case.uniforms = {}
    case.logits = case.logits[:, 1:]
    with pytest.raises(ValueError, match="wanted contiguous rows of 2 codebooks"):
        case.score(triton_score_cells)
