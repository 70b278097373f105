"""Cutting and grouping: every frame kept once, with context wherever it was cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivoice_triton.engine.codec_graphs import ladder
from omnivoice_triton.engine.codec_windows import Call, cut, fill, group
from omnivoice_triton.speech import InputError


def check_cover(calls: list[Call], lengths: list[int], context: int, items: set[int]) -> None:
    kept: Counter[tuple[int, int]] = Counter()
    for call in calls:
        assert 1 <= len(call.rows) <= call.batch
        for row in call.rows:
            total = lengths[row.item]
            assert 0 <= row.start <= row.keep_from < row.keep_to <= row.start + row.frames <= total
            assert row.frames <= call.width
            assert row.start == 0 or row.keep_from - row.start >= context
            assert row.start + row.frames == total or row.start + row.frames - row.keep_to >= context
            kept.update((row.item, frame) for frame in range(row.keep_from, row.keep_to))
    assert kept == Counter((item, frame) for item in items for frame in range(lengths[item]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(frames=st.integers(1, 400), context=st.integers(0, 12), extra=st.integers(1, 60))
def test_windows_cover_every_frame_once(frames: int, context: int, extra: int) -> None:
    window = 2 * context + extra
    rows = cut(0, frames, window, context)
    check_cover([Call(len(rows), window, rows)], [frames], context, {0})
    if frames > window:
        assert {row.frames for row in rows} == {window}
        assert len(rows) == 1 + -(-(frames - window) // extra)  # no more than needed
    else:
        assert len(rows) == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=12),
    widest=st.integers(30, 200),
    spare=st.sampled_from([0, 10, 64]),
)
def test_groups_cover_every_item(lengths: list[int], widest: int, spare: int) -> None:
    calls = group(lengths, widest=widest, context=12, spare_frames=spare)
    check_cover(calls, lengths, 12, set(range(len(lengths))))
    for call in calls:
        assert call.batch == len(call.rows)
        assert call.batch * call.width <= widest
        assert sum(call.width - row.frames for row in call.rows) <= spare
        assert call.is_exact == all(row.frames == call.width for row in call.rows)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=12),
    shapes=st.sets(st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([8, 16, 24, 25, 32, 64])), max_size=8),
    spare=st.sampled_from([0, 16, 64]),
)
def test_shapes_cover_what_they_can(lengths: list[int], shapes: set[tuple[int, int]], spare: int) -> None:
    calls, rest = fill(lengths, shapes, context=12, spare_frames=spare)
    check_cover(calls, lengths, 12, set(range(len(lengths))) - set(rest))
    widths = {width for _, width in shapes}
    for call in calls:
        assert (call.batch, call.width) in shapes
    for item, frames in enumerate(lengths):
        assert (item in rest) is not any(frames <= width or width > 24 for width in widths)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 150), min_size=1, max_size=6), others=st.lists(st.integers(1, 150), max_size=6))
def test_an_items_windows_do_not_depend_on_its_companions(lengths: list[int], others: list[int]) -> None:
    shapes = {(1, 16), (2, 16), (1, 40), (4, 40), (1, 64)}

    def windows(of: list[int], item: int) -> set[tuple[int, ...]]:
        calls, _ = fill(of, shapes, context=12, spare_frames=64)
        return {
            (row.start, row.frames, row.keep_from, row.keep_to)
            for call in calls
            for row in call.rows
            if row.item == item
        }

    for item, frames in enumerate(lengths):
        assert windows(lengths + others, item) == windows([frames], 0)


def test_the_cheapest_width_is_taken() -> None:
    ladder = [(1, width) for width in range(16, 257, 16)]
    for frames, width, rows in ((1, 16, 1), (16, 16, 1), (17, 32, 1), (250, 256, 1), (375, 208, 2), (1000, 224, 5)):
        calls, rest = fill([frames], ladder, context=12, spare_frames=0)
        assert not rest
        assert ({call.width for call in calls}, len(calls)) == ({width}, rows), frames


def test_few_calls_are_worth_some_padding() -> None:
    """With the ladder and the costs of a GPU: an item alone takes its own width, several share a wider batch."""

    def shapes(lengths: list[int]) -> list[tuple[int, int]]:
        calls, rest = fill(lengths, ladder(), context=12, spare_frames=200)
        assert not rest
        check_cover(calls, lengths, 12, set(range(len(lengths))))
        return sorted((call.batch, call.width) for call in calls)

    assert shapes([125]) == [(1, 128)]
    assert shapes([140]) == [(1, 160)]
    assert shapes([140] * 8) == shapes([147] * 8) == [(4, 160)] * 2
    assert shapes([375]) == [(4, 128)]  # 15 s
    assert shapes([375, 20]) == [(1, 32), (4, 128)]
    assert shapes([750]) == [(2, 160), (4, 160)]  # 30 s
    assert shapes([50] * 64) == [(8, 64)] * 8


def test_nothing_is_widened_for_nothing() -> None:
    for lengths in ([16, 16], [16] * 7, [16, 32, 8]):
        calls, _ = fill(lengths, [(1, 16), (8, 16), (1, 64), (4, 64)], context=12, spare_frames=0)
        assert {call.width for call in calls} <= {16, 64}
        assert all(call.width == 16 for call in calls if max(row.frames for row in call.rows) <= 16)


def test_batches_are_filled_before_rows_are_wasted() -> None:
    shapes = [(1, 32), (2, 32), (4, 32), (8, 32)]

    def batches(items: int, spare: int) -> list[int]:
        calls, _ = fill([32] * items, shapes, context=12, spare_frames=spare)
        return [call.batch for call in calls]

    assert batches(3, 0) == [2, 1]
    assert batches(3, 32) == [4]
    assert batches(5, 64) == [4, 1]
    assert batches(6, 64) == [8]
    assert batches(21, 0) == [8, 8, 4, 1]
    assert fill([32], [(4, 32)], context=12, spare_frames=0)[0][0].batch == 4  # nothing smaller is there


def test_bad_windows_are_refused() -> None:
    with pytest.raises(InputError, match="too narrow"):
        cut(0, 30, 24, 12)
    with pytest.raises(InputError, match="at least one frame"):
        cut(0, 0, 24, 12)
