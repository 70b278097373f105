"""How utterances of any length become rows of fixed width, and which rows share a call. Pure arithmetic on frames.

Right edges need no window: rows shorter than the call carry their length, and what lies beyond is zero at every layer,
as at a true end. Only an utterance longer than the widest row is cut, and then each piece carries context on the sides
where it was cut, so that what is kept of it depends on nothing that is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from omnivoice_triton.speech import InputError


@dataclass(frozen=True)
class Row:
    """Frames [start, start + frames) of an item, of which [keep_from, keep_to) are used."""

    item: int
    start: int
    frames: int
    keep_from: int
    keep_to: int

    @property
    def is_whole(self) -> bool:
        """Whether it is an item that was not cut."""
        return self.keep_to - self.keep_from == self.frames


@dataclass(frozen=True)
class Call:
    """Rows that run together, padded to `width` frames and `batch` rows."""

    batch: int
    width: int
    rows: tuple[Row, ...]

    @property
    def is_exact(self) -> bool:
        """Whether no row is padded and no row is missing: lengths need not be looked at."""
        return len(self.rows) == self.batch and all(row.frames == self.width for row in self.rows)


def windows(frames: int, window: int, context: int) -> int:
    """How many rows of at most `window` frames `cut` makes of an item.

    Raises:
        InputError: see `cut`.
    """
    if frames < 1:
        raise InputError(f"an utterance must have at least one frame, not {frames}")
    if frames <= window:
        return 1
    step = window - 2 * context
    if step < 1:
        raise InputError(f"a window of {window} frames is too narrow: wanted more than twice its context of {context}")
    return 1 + -(-(frames - window) // step)


def cut(item: int, frames: int, window: int, context: int) -> tuple[Row, ...]:
    """Rows of at most `window` frames that cover an item of `frames` frames, each kept frame once.

    One row if it fits. Otherwise all rows are `window` wide; the first begins and the last ends with the item, the
    starts between are spread evenly, and every cut lies in the middle of an overlap of at least 2 * `context`.

    Raises:
        InputError: the item is empty, or a window leaves nothing beside its context.
    """
    count = windows(frames, window, context)
    if count == 1:
        return (Row(item, 0, frames, 0, frames),)
    starts = [i * (frames - window) // (count - 1) for i in range(count)]
    cuts = [(left + window + right) // 2 for left, right in pairwise(starts)]
    return tuple(
        Row(item, start, window, keep_from, keep_to)
        for start, keep_from, keep_to in zip(starts, [0, *cuts], [*cuts, frames], strict=True)
    )


def group(lengths: Sequence[int], *, widest: int, context: int, spare_frames: int) -> list[Call]:
    """Calls of exactly as many rows and frames as needed.

    Args:
        lengths: frames of each item.
        widest: most frames in a call, over all its rows; longer items are cut.
        context: see `cut`.
        spare_frames: padding that a call may hold before another call is cheaper. 0: equal lengths only.
    """
    rows = [row for item, frames in enumerate(lengths) for row in cut(item, frames, widest, context)]
    rows.sort(key=lambda row: -row.frames)
    calls: list[list[Row]] = []
    spare = 0
    for row in rows:
        width = calls[-1][0].frames if calls else 0
        padding = width - row.frames
        if calls and (len(calls[-1]) + 1) * width <= widest and padding <= spare:
            calls[-1].append(row)
            spare -= padding
        else:
            calls.append([row])
            spare = spare_frames
    return [Call(len(members), members[0].frames, tuple(members)) for members in calls]


def fill(
    lengths: Sequence[int], shapes: Iterable[tuple[int, int]], *, context: int, spare_frames: int
) -> tuple[list[Call], list[int]]:
    """Calls of given shapes, and the items that none of them can serve.

    Where an item is cut depends on its own length and the shapes alone, not on its companions; these may only make it
    join them in a wider row.

    Args:
        lengths: frames of each item.
        shapes: the (rows, frames) there are.
        context: see `cut`.
        spare_frames: what a call costs beside its frames: so many may be wasted before another call is cheaper.
    """
    batches: dict[int, list[int]] = {}
    for batch, width in sorted(shapes):
        batches.setdefault(width, []).append(batch)
    waiting: dict[int, list[Row]] = {}
    rest = []
    for item, frames in enumerate(lengths):
        best = _best_width(frames, batches, context, spare_frames)
        if best is None:
            rest.append(item)
        else:
            waiting.setdefault(best, []).extend(cut(item, frames, best, context))
    _widen(waiting, batches, spare_frames)
    calls = []
    for width, rows in waiting.items():
        at = 0
        while at < len(rows):
            batch = _batch_size(len(rows) - at, width, batches[width], spare_frames)
            calls.append(Call(batch, width, tuple(rows[at : at + batch])))
            at += batch
    return calls, rest


def _best_width(frames: int, batches: Mapping[int, Sequence[int]], context: int, spare_frames: int) -> int | None:
    """The width at which the item alone costs least, the wider of equals; None if none can hold it."""
    usable = [width for width in batches if frames <= width or width > 2 * context]

    def cost(width: int) -> tuple[int, int]:
        return _cost(windows(frames, width, context), width, batches[width], spare_frames), -width

    return min(usable, key=cost, default=None)


def _widen(waiting: dict[int, list[Row]], batches: Mapping[int, Sequence[int]], spare_frames: int) -> None:
    """Move whole items on to a wider row where that saves calls: there may be a batch of that width only."""
    for width in sorted(waiting):
        rows = waiting[width]
        whole = [row for row in rows if row.is_whole]
        if len(rows) < 2 or not whole:
            continue
        left = _cost(len(rows) - len(whole), width, batches[width], spare_frames)
        saved = _cost(len(rows), width, batches[width], spare_frames) - left

        def added(wider: int, more: int = len(whole)) -> int:
            own = len(waiting.get(wider, ()))
            before = _cost(own, wider, batches[wider], spare_frames)
            return _cost(own + more, wider, batches[wider], spare_frames) - before

        wider = min((each for each in batches if each > width), key=added, default=None)
        if wider is not None and added(wider) < saved:
            waiting.setdefault(wider, []).extend(whole)
            waiting[width] = [row for row in rows if not row.is_whole]
            if not waiting[width]:
                del waiting[width]


def _cost(rows: int, width: int, batches: Sequence[int], spare_frames: int) -> int:
    """Frames that so many rows cost, those of calls as such and of empty rows included."""
    cost = 0
    while rows > 0:
        batch = _batch_size(rows, width, batches, spare_frames)
        cost += spare_frames + batch * width
        rows -= batch
    return cost


def _batch_size(waiting: int, width: int, batches: Sequence[int], spare_frames: int) -> int:
    """The smallest batch that takes all, if that wastes little or nothing smaller exists; else the largest it fills."""
    roomy = [batch for batch in batches if batch >= waiting]
    full = [batch for batch in batches if batch <= waiting]
    if roomy and (not full or (roomy[0] - waiting) * width <= spare_frames):
        return roomy[0]
    return full[-1]
