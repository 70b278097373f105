"""The schedule against upstream's own arithmetic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivoice_triton.engine.schedule import time_steps, unmask_counts, working_counts


def upstream_counts(n_frames: int, codebooks: int, num_step: int, t_shift: float) -> list[int]:
    """Upstream keeps this loop inside `_generate_iterative`; only its time steps can be called."""
    from omnivoice.models.omnivoice import _get_time_steps

    times = _get_time_steps(t_start=0.0, t_end=1.0, num_step=num_step, t_shift=t_shift).tolist()
    total = rem = n_frames * codebooks
    sched = []
    for step in range(num_step):
        num = rem if step == num_step - 1 else min(math.ceil(total * (times[step + 1] - times[step])), rem)
        sched.append(int(num))
        rem -= int(num)
    return sched


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n_frames=st.integers(1, 800),
    num_step=st.integers(1, 80),
    t_shift=st.sampled_from([0.05, 0.1, 0.3, 0.7, 1.0, 2.5]),
)
def test_counts_equal_upstreams(n_frames: int, num_step: int, t_shift: float) -> None:
    counts = unmask_counts(n_frames, 8, num_step, t_shift)
    assert list(counts) == upstream_counts(n_frames, 8, num_step, t_shift)
    assert sum(counts) == 8 * n_frames
    assert all(count > 0 for count in working_counts(n_frames, 8, num_step, t_shift))
    assert sum(working_counts(n_frames, 8, num_step, t_shift)) == 8 * n_frames


def test_known_values() -> None:
    """The first and last counts of two lengths, as measured on upstream."""
    counts = unmask_counts(125, 8, 32, 0.1)
    assert counts[:5] == (4, 4, 4, 4, 5)
    assert counts[-4:] == (80, 109, 157, 226)
    assert unmask_counts(163, 8, 32, 0.1)[-3:] == (142, 204, 300)


def test_one_frame_takes_eight_steps_of_thirty_two() -> None:
    assert working_counts(1, 8, 32, 0.1) == (1,) * 8


def test_times_are_fp32() -> None:
    """In fp64 the times differ, and with them some ceil: the check that would catch a rewrite in plain Python."""
    exact = [0.1 * i / 32 / (1 - 0.9 * i / 32) for i in range(33)]
    assert time_steps(32, 0.1) != pytest.approx(exact, rel=1e-12)
    assert time_steps(32, 0.1) == pytest.approx(exact, rel=1e-5)
