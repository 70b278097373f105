"""The packing of requests into one matrix."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivoice_triton.engine.layout import Bucket, BucketGrid, Placement, pack, row_count, tile_count
from omnivoice_triton.kernels import tables as t
from omnivoice_triton.speech import InputError

REQUEST = st.tuples(st.integers(0, 20), st.integers(1, 70), st.booleans())


def place(requests: list[tuple[int, int, bool]]) -> list[Placement]:
    rng = np.random.default_rng(0)
    prompt = rng.permutation(sum(r[0] for r in requests)).astype(np.int32)
    frames = rng.permutation(sum(r[1] for r in requests)).astype(np.int32)
    placed = []
    for slot, (n_prompt, n_frames, guided) in enumerate(requests):
        placed.append(Placement(slot + 3, prompt[:n_prompt], frames[:n_frames], guided))
        prompt, frames = prompt[n_prompt:], frames[n_frames:]
    return placed


@settings(max_examples=60, deadline=None, derandomize=True)
@given(requests=st.lists(REQUEST, min_size=1, max_size=5), spare=st.integers(0, 40))
def test_every_row_is_where_the_tables_say(requests: list[tuple[int, int, bool]], spare: int) -> None:
    placements = place(requests)
    total = sum(row_count(*r) for r in requests)
    bucket = Bucket(total + spare, len(requests) + 1, 16)
    layout = pack(placements, bucket)
    rows, heads, targets, tiles, items = (layout.table(n) for n in ("rows", "heads", "targets", "tiles", "items"))

    row = target = 0
    segments = []
    for index, place_ in enumerate(placements):
        n, frames = len(place_.prompt), place_.frames
        cond = rows[row : row + n + len(frames)]
        assert cond[:, t.ROW_SOURCE].tolist() == [*place_.prompt, *(-1 - frames)]
        assert cond[:, t.ROW_POSITION].tolist() == list(range(n + len(frames)))
        segments.append((row, n + len(frames)))
        cond_rows = np.arange(row + n, row + n + len(frames))
        row += n + len(frames)
        run = targets[target : target + len(frames)]
        assert (heads[run[:, t.TARGET_COND]] == cond_rows).all()
        if place_.guided:
            assert rows[row : row + len(frames), t.ROW_SOURCE].tolist() == (-1 - frames).tolist()
            assert rows[row : row + len(frames), t.ROW_POSITION].tolist() == list(range(len(frames)))
            assert (heads[run[:, t.TARGET_UNCOND]] == np.arange(row, row + len(frames))).all()
            segments.append((row, len(frames)))
            row += len(frames)
        else:
            assert (run[:, t.TARGET_UNCOND] == -1).all()
        assert (run[:, t.TARGET_FRAME] == frames).all()
        assert (run[:, t.TARGET_SLOT] == place_.slot).all()
        assert run[:, t.TARGET_LOCAL].tolist() == list(range(len(frames)))
        assert items[index].tolist() == [place_.slot, target, len(frames), 0]
        assert layout.first_target[index] == target
        target += len(frames)

    assert (rows[row:, t.ROW_SOURCE] == t.NO_SOURCE).all()
    assert (targets[target:, t.TARGET_SLOT] == -1).all()
    assert (items[len(requests) :, t.ITEM_SLOT] == -1).all()
    covered = sorted((start + offset, start, length) for start, length, offset, _ in tiles.tolist() if length)
    assert covered == sorted((s + o, s, n) for s, n in segments for o in range(0, n, 16))
    assert len(covered) == sum(tile_count(*r, 16) for r in requests)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(requests=st.lists(REQUEST, min_size=1, max_size=12), tile_rows=st.sampled_from([1, 5, 16, 32]))
def test_a_bucket_for_the_rows_has_tiles_enough(requests: list[tuple[int, int, bool]], tile_rows: int) -> None:
    total = sum(row_count(*r) for r in requests)
    bucket = Bucket(total, len(requests), tile_rows)
    assert sum(tile_count(*r, tile_rows) for r in requests) <= bucket.tiles
    pack(place(requests), bucket)


def test_grid_steps_and_choice() -> None:
    grid = BucketGrid(max_rows=4096, max_items=32)
    sizes = [b.rows for b in grid.buckets]
    assert sizes[:17] == [64 * i for i in range(1, 17)] + [1152]
    assert sizes[-1] == 4096
    assert len(sizes) == 32
    assert max(b / a for a, b in pairwise(sizes[4:])) <= 1.2
    chosen = grid.holding(290, 1)
    assert chosen is not None
    assert chosen.rows == 320
    crowded = grid.holding(290, 20)
    assert crowded is not None
    assert crowded.items >= 20
    assert grid.holding(4097, 1) is None
    assert grid.holding(10, 33) is None


def test_overfull_bucket_and_bad_grids_are_refused() -> None:
    with pytest.raises(InputError, match="1 requests of 21 rows don't fit"):
        pack(place([(1, 10, True)]), Bucket(20, 4, 16))
    with pytest.raises(InputError, match="multiple of 64"):
        BucketGrid(max_rows=100, max_items=1)
    with pytest.raises(InputError, match="max_items"):
        BucketGrid(max_rows=128, max_items=0)
