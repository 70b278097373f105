"""Scoring and selection on the device against their twins, and the twins against OmniVoice's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels import tables as t
from omnivoice_triton.kernels import unmask
from omnivoice_triton.kernels.unmask import triton_score_cells, triton_select_cells

from .packed import Packed, make_packed, slot_rows

REQUESTS = [(2, 3, True), (1, 1, True), (1, 2, False)]
CODEBOOKS = 2


class Case:
    """Random logits and a part-decided canvas for packed requests."""

    def __init__(
        self,
        device: str,
        *,
        ids: int = 20,
        dtype: torch.dtype = torch.float32,
        requests: object = None,
        **settings: float,
    ) -> None:
        self.packed: Packed = make_packed(requests or REQUESTS, device=device)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(5)
        n = self.packed.bucket.rows
        self.ids = ids
        logits = torch.randn(n, CODEBOOKS * (ids + 1), generator=generator) * 3
        self.logits = logits.to(device, dtype)
        self.canvas = torch.full((12, CODEBOOKS), ids, dtype=torch.int32, device=device)
        self.slots = slot_rows(len(self.packed.placements) + 2, device=device, **settings)  # type: ignore[arg-type]
        self.tokens = torch.full((n, CODEBOOKS), -7, dtype=torch.int32, device=device)
        self.scores = torch.full((n, CODEBOOKS), float("nan"), device=device)
        self.uniforms: dict[str, torch.Tensor] = {}

    def from_buffer(self) -> Case:
        generator = torch.Generator().manual_seed(6)
        n = self.packed.bucket.rows
        device = self.logits.device
        self.uniforms = {
            "position_uniforms": torch.rand(n, CODEBOOKS, generator=generator).to(device),
            "class_uniforms": torch.rand(n, CODEBOOKS, self.ids + 1, generator=generator).to(device),
        }
        return self

    def score(self, function: object) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, scores = self.tokens.clone(), self.scores.clone()
        targets = self.packed.table("targets")
        function(  # type: ignore[operator]
            self.logits, targets, self.canvas, self.slots, tokens=tokens, scores=scores, **self.uniforms
        )
        return tokens, scores


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
    assert unmask.keep_count(1025) == 103


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


def philox_numpy(key: tuple[int, int], counter: tuple[int, int, int, int]) -> int:
    """Philox4x32-10, first word, straight from the paper, in Python's own integers."""
    c, k, word = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & word, (p0 >> 32) ^ c[3] ^ k[1], p0 & word]
        k = [(k[0] + 0x9E3779B9) & word, (k[1] + 0xBB67AE85) & word]
    return c[0]


def test_philox_known_answers() -> None:
    """Test vectors of Random123 (kat_vectors, philox4x32 10)."""
    assert philox_numpy((0, 0), (0, 0, 0, 0)) == 0x6627E8D5
    assert philox_numpy((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 4) == 0x408F276D
    assert philox_numpy((0xA4093822, 0x299F31D0), (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)) == 0xD16CFE09


def test_kernel_twin_and_paper_draw_the_same_bits(device: str) -> None:
    """Read through the score: with all logits equal it is a constant plus gumbel(u)."""
    seed = -5_000_000_000_000_000_000
    case = Case(device, seed=seed, step=3, penalty=0.0, position_temperature=1.0)
    case.logits.zero_()
    _, scores = case.score(triton_score_cells)
    low, high = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for frame in range(3):
        for codebook in range(CODEBOOKS):
            u = np.float32((philox_numpy((low, high), (frame, codebook, 3, 0)) >> 8) * 2.0**-24)
            twin = ref.philox_uniform(
                low, high, torch.tensor([frame]), torch.tensor([codebook]), 3, torch.tensor([unmask.POSITION_STREAM])
            )
            assert twin.item() == u
            want = ref.gumbel(torch.tensor(u)) - torch.log(torch.tensor(21.0))
            assert scores[frame, codebook].item() == pytest.approx(want.item(), abs=1e-5)


def test_twin_draws_are_uniform_and_distinct() -> None:
    frame = torch.arange(200).view(-1, 1)
    u = ref.philox_uniform(7, 9, frame, torch.arange(8), 0, torch.tensor(0))
    assert u.unique().numel() > 1590
    assert abs(u.mean().item() - 0.5) < 0.02
    other_step = ref.philox_uniform(7, 9, frame, torch.arange(8), 1, torch.tensor(0))
    assert (u == other_step).sum() < 3  # planted fault: noise reused between steps


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


def test_finished_requests_are_left_alone(device: str) -> None:
    case = Case(device, step=4, steps=4)
    canvas, slots = select(case, triton_select_cells, torch.zeros_like(case.scores))
    assert torch.equal(canvas, case.canvas)
    assert torch.equal(slots, case.slots)


def test_bad_input_names_the_fault(device: str) -> None:
    case = Case(device)
    case.uniforms = {"position_uniforms": torch.zeros(3, device=device)}
    with pytest.raises(ValueError, match="together or not at all"):
        case.score(triton_score_cells)
    case.uniforms = {}
    case.logits = case.logits[:, 1:]
    with pytest.raises(ValueError, match="wanted contiguous rows of 2 codebooks"):
        case.score(triton_score_cells)
