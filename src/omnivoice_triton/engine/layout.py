"""Where every row of a step lies: packs requests into one matrix and writes the tables the kernels read.

Pure NumPy: no device, no state. A request takes a conditional segment (prompt rows, then its frames) and, when guided,
an unconditional one (its frames alone, positions from 0). See `kernels.tables` for the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from omnivoice_triton.kernels import tables as t
from omnivoice_triton.speech import InputError

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Placement:
    """One request's share of the persistent buffers, and whether it is guided."""

    slot: int
    prompt: Ints
    """Rows of the prompt buffer, [P]."""
    frames: Ints
    """Rows of the token canvas, [T]."""
    guided: bool

    @property
    def rows(self) -> int:
        """Packed rows that the request takes."""
        return row_count(len(self.prompt), len(self.frames), self.guided)


def row_count(prompt_rows: int, frames: int, guided: bool) -> int:
    """Packed rows of a request: prompt and frames, and the frames again when guided."""
    return prompt_rows + frames * (2 if guided else 1)


def tile_count(prompt_rows: int, frames: int, guided: bool, tile_rows: int) -> int:
    """Attention tiles of a request, of `tile_rows` query rows each."""
    return -(-(prompt_rows + frames) // tile_rows) + (-(-frames // tile_rows) if guided else 0)


@dataclass(frozen=True)
class Bucket:
    """A launch shape: how many entries each table has. One graph is captured for each."""

    rows: int
    items: int
    tile_rows: int
    """Query rows of one attention tile."""

    @property
    def tiles(self) -> int:
        """Enough for `items` guided requests that fill `rows`: each segment may end in a part-filled tile."""
        return self.rows // self.tile_rows + 2 * self.items

    @cached_property
    def spans(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Offset and shape of every table in one flat int32 buffer."""
        shapes = {
            "rows": (self.rows, t.ROW_WIDTH),
            "heads": (self.rows,),
            "targets": (self.rows, t.TARGET_WIDTH),
            "tiles": (self.tiles, t.TILE_WIDTH),
            "items": (self.items, t.ITEM_WIDTH),
        }
        spans, offset = {}, 0
        for name, shape in shapes.items():
            spans[name] = (offset, shape)
            offset += -(-int(np.prod(shape)) // 4) * 4  # each table starts on 16 bytes
        return spans

    @property
    def size(self) -> int:
        """int32 entries of all tables together."""
        offset, shape = self.spans["items"]
        return offset + -(-int(np.prod(shape)) // 4) * 4


@dataclass(frozen=True)
class BucketGrid:
    """The buckets of an engine: steps of `granule` rows to 16 of them, then twice as coarse for each doubling.

    At 290 rows 94 rows of padding cost 4 % of GEMM time (H200), so a few dozen buckets serve every length.
    """

    max_rows: int
    max_items: int
    granule: int = 64
    tile_rows: Callable[[int], int] = lambda rows: 32
    """Query rows of an attention tile, for a bucket of so many rows."""

    def __post_init__(self) -> None:
        """Raise InputError for a grid that holds nothing."""
        if self.granule < 1 or self.max_rows < self.granule or self.max_rows % self.granule:
            raise InputError(f"max_rows must be a multiple of {self.granule} rows, not {self.max_rows}")
        if self.max_items < 1:
            raise InputError(f"max_items must be at least 1, not {self.max_items}")

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """Every bucket, smallest first."""
        sizes, rows, step = [], 0, self.granule
        while rows < self.max_rows:
            if rows >= 16 * step:
                step *= 2
            rows = min(rows + step, self.max_rows)
            sizes.append(rows)
        # A request of one second takes about 80 rows; where more and shorter ones meet, the next bucket holds them.
        return tuple(
            Bucket(rows, self.max_items if rows == self.max_rows else self._items(rows), self.tile_rows(rows))
            for rows in sizes
        )

    def _items(self, rows: int) -> int:
        return min(self.max_items, max(4, rows // 64))

    def holding(self, rows: int, items: int) -> Bucket | None:
        """The smallest bucket for so many rows and requests, or None if there is none."""
        return next((b for b in self.buckets if b.rows >= rows and b.items >= items), None)


@dataclass(frozen=True)
class Layout:
    """The tables of one step shape: flat int32, as `bucket.spans` divides it, and each request's run of targets."""

    bucket: Bucket
    flat: Ints
    first_target: tuple[int, ...]

    def table(self, name: str) -> Ints:
        """One table, a view."""
        offset, shape = self.bucket.spans[name]
        view: Ints = self.flat[offset : offset + int(np.prod(shape))].reshape(shape)
        return view


def pack(placements: Sequence[Placement], bucket: Bucket) -> Layout:
    """Lay the requests out one after the other and fill the tables.

    Raises:
        InputError: they don't fit the bucket.
    """
    total = sum(p.rows for p in placements)
    if total > bucket.rows or len(placements) > bucket.items:
        raise InputError(
            f"{len(placements)} requests of {total} rows don't fit a bucket of {bucket.items} and {bucket.rows} rows"
        )
    layout = Layout(bucket, np.zeros(bucket.size, np.int32), ())
    rows, heads, targets, tiles, items = (layout.table(n) for n in ("rows", "heads", "targets", "tiles", "items"))
    rows[:, t.ROW_SOURCE] = t.NO_SOURCE
    targets[:, t.TARGET_SLOT] = -1
    items[:, t.ITEM_SLOT] = -1

    segments: list[tuple[int, int]] = []
    row = head = target = 0
    first_target = []
    for index, place in enumerate(placements):
        frames = len(place.frames)
        run = targets[target : target + frames]
        run[:, t.TARGET_FRAME] = place.frames
        run[:, t.TARGET_SLOT] = place.slot
        run[:, t.TARGET_LOCAL] = np.arange(frames)
        run[:, t.TARGET_UNCOND] = -1

        row = _segment(rows, segments, row, np.concatenate((place.prompt, -1 - place.frames)))
        run[:, t.TARGET_COND] = np.arange(head, head + frames)
        heads[head : head + frames] = np.arange(row - frames, row)
        head += frames
        if place.guided:
            row = _segment(rows, segments, row, -1 - place.frames)
            run[:, t.TARGET_UNCOND] = np.arange(head, head + frames)
            heads[head : head + frames] = np.arange(row - frames, row)
            head += frames

        items[index, : t.ITEM_FRAMES + 1] = place.slot, target, frames
        first_target.append(target)
        target += frames

    _tile(tiles, segments, bucket.tile_rows)
    return Layout(bucket, layout.flat, tuple(first_target))


def _segment(rows: Ints, segments: list[tuple[int, int]], start: int, sources: Ints) -> int:
    """Write one segment's rows; returns the row after it."""
    end = start + len(sources)
    rows[start:end, t.ROW_SOURCE] = sources
    rows[start:end, t.ROW_POSITION] = np.arange(len(sources))
    segments.append((start, len(sources)))
    return end


def _tile(tiles: Ints, segments: list[tuple[int, int]], tile_rows: int) -> None:
    """Cut segments into tiles, longest segment first, so that the programs that take longest start first."""
    entries = [
        (start, length, offset)
        for start, length in sorted(segments, key=lambda s: -s[1])
        for offset in range(0, length, tile_rows)
    ]
    if entries:
        tiles[: len(entries), : t.TILE_OFFSET + 1] = entries
