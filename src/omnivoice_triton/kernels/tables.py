"""Columns of the int32 tables that tell packed kernels what lies where.

All rows of a step lie in one matrix: every sequence (*segment*) follows the last, none is padded, and a table says what
each row is. Tables live on the device and have a fixed size per launch shape, so that one captured launch serves any
mix that fits: unused entries hold a mark that makes a program return at once.

    rows    [R, 2]      what each packed row embeds, and its position in its segment
    heads   [R]         packed row whose hidden state feeds head row h
    targets [R, 8]      one entry per frame being decoded: where its logits, its tokens and its settings lie
    tiles   [G, 4]      one entry per attention program: a segment and a stretch of its queries
    items   [N, 4]      one entry per request: its settings and its run of targets
    slots   [S, 8 + W]  settings and state of each request, kept while layouts come and go; floats by their bits
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# rows
ROW_SOURCE = 0
"""Row of the prompt buffer (>= 0), or -1 - f for canvas frame f, or NO_SOURCE."""
ROW_POSITION = 1
ROW_WIDTH = 2
NO_SOURCE = -(2**31)
"""Marks a row that pads its bucket: it embeds as zeros."""

# targets
TARGET_COND = 0
"""Head row with the conditional logits of the frame."""
TARGET_UNCOND = 1
"""Head row with the unconditional logits, or -1."""
TARGET_FRAME = 2
"""Canvas row of the frame's tokens."""
TARGET_SLOT = 3
"""Slot of the request, or -1 for an unused entry."""
TARGET_LOCAL = 4
"""Number of the frame within its request."""
TARGET_WIDTH = 8

# tiles
TILE_START = 0
"""First packed row of the segment."""
TILE_LENGTH = 1
"""Rows of the segment; 0 for an unused entry."""
TILE_OFFSET = 2
"""First query row of the tile, counted from the segment's start."""
TILE_WIDTH = 4

# items
ITEM_SLOT = 0
"""Slot of the request, or -1 for an unused entry."""
ITEM_FIRST = 1
"""First entry in targets."""
ITEM_FRAMES = 2
ITEM_WIDTH = 4

# slots: a header, then the counts of the next W steps (a ring, indexed by step modulo W)
SLOT_STEP = 0
"""Steps done; the select kernel adds one."""
SLOT_STEPS = 1
"""Steps in all; from then on nothing is decided."""
SLOT_SEED_LOW = 2
SLOT_SEED_HIGH = 3
SLOT_GUIDANCE = 4
"""float32"""
SLOT_PENALTY = 5
"""float32, per codebook"""
SLOT_POSITION_TEMPERATURE = 6
"""float32; 0 ranks by confidence alone"""
SLOT_CLASS_TEMPERATURE = 7
"""float32; 0 takes the likeliest id"""
SLOT_HEADER = 8


def check(name: str, table: torch.Tensor, shape: Sequence[int], device: torch.device) -> None:
    """Raise ValueError unless `table` is contiguous int32 of that shape on that device."""
    fits = table.dtype is torch.int32 and tuple(table.shape) == tuple(shape) and table.device == device
    if not fits or not table.is_contiguous():
        raise ValueError(
            f"{name} is {table.dtype} {tuple(table.shape)} on {table.device}: "
            f"wanted contiguous torch.int32 {tuple(shape)} on {device}"
        )
