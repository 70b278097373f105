"""Joined chunks equal upstream's bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from omnivoice_triton.engine.fades import cross_fade
from omnivoice_triton.speech import InputError

upstream_audio = pytest.importorskip("omnivoice.utils.audio")


@pytest.mark.parametrize("lengths", [(5,), (9000, 8000), (9000, 100, 7000), (1, 1, 1), (0, 500), (2399, 2400, 2401, 0)])
def test_cross_fade_equals_upstream(lengths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    for rate in (24_000, 44_100, 8000):
        chunks = [rng.uniform(-1, 1, n).astype(np.float32) for n in lengths]
        before = [chunk.copy() for chunk in chunks]
        want = upstream_audio.cross_fade_chunks([chunk[np.newaxis].copy() for chunk in chunks], rate)[0]
        got = cross_fade(chunks, rate)
        assert got.dtype == np.float32
        assert np.array_equal(got.view(np.int32), want.view(np.int32))
        assert all(map(np.array_equal, chunks, before)), "the input was changed"


def test_bad_chunks_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        cross_fade([], 24_000)
    with pytest.raises(InputError, match="float32"):
        cross_fade([np.zeros((1, 4), np.float32)], 24_000)
