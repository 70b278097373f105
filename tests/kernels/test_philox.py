"""The noise that kernels draw: kernel, twin and paper agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnivoice_triton.kernels import unmask_reference as ref
from omnivoice_triton.kernels.philox import POSITION_STREAM
from omnivoice_triton.kernels.score_cells import triton_score_cells

from .cells import CODEBOOKS, Case


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
                low, high, torch.tensor([frame]), torch.tensor([codebook]), 3, torch.tensor([POSITION_STREAM])
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
