"""How many cells each decoding step decides, to the number as upstream counts them.

A cell is one codebook of one frame. With t_i = s·i / (n + (s-1)·i) (time shift s, n steps) step i decides
min(ceil(cells · (t_{i+1} - t_i)), what is left), and the last step takes the rest
(OmniVoice 0.2.1, `_get_time_steps` and `_generate_iterative`; model.forward plays no part in it).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch


@lru_cache(maxsize=8)
def time_steps(num_step: int, t_shift: float) -> tuple[float, ...]:
    """The num_step + 1 shifted times from 0 to 1.

    Computed in fp32 like upstream, because the rounding decides where a ceil falls.
    """
    times = torch.linspace(0.0, 1.0, num_step + 1)
    times = t_shift * times / (1 + (t_shift - 1) * times)
    return tuple(times.tolist())


def unmask_counts(n_frames: int, codebooks: int, num_step: int, t_shift: float) -> tuple[int, ...]:
    """Cells decided at each of `num_step` steps; they sum to n_frames · codebooks."""
    times = time_steps(num_step, t_shift)
    cells = left = n_frames * codebooks
    counts = []
    for step in range(num_step):
        last = step == num_step - 1
        count = left if last else min(math.ceil(cells * (times[step + 1] - times[step])), left)
        counts.append(count)
        left -= count
    return tuple(counts)


@lru_cache(maxsize=1024)
def working_counts(n_frames: int, codebooks: int, num_step: int, t_shift: float) -> tuple[int, ...]:
    """The counts above zero: a step that decides nothing changes nothing and draws no noise, so it isn't run.

    One frame has 8 cells, so it takes at most 8 of the 32 steps.
    """
    return tuple(count for count in unmask_counts(n_frames, codebooks, num_step, t_shift) if count > 0)
