"""Inputs of turbo's kernels for `bench kernels`: packed utterances that fill so many rows, and random values for them.

Rows are shared out among utterances of some 290 rows (5 s with a prompt, guided: 165 conditional rows and 125
unconditional ones), at least one. Tables are the engine's own.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from omnivoice_triton.bench.kernel_case import Tensors
from omnivoice_triton.engine.layout import Bucket, Placement, pack
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels import tables

EPS = 1e-6
UTTERANCE_ROWS = 290
SHAPE = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, EPS)
"""Of OmniVoice's backbone."""
HEADS = SHAPE.q_heads + 2 * SHAPE.kv_heads
HEAD_SHAPE = {"q_heads": SHAPE.q_heads, "kv_heads": SHAPE.kv_heads}
STEPS = 32
STEP = 3


def split_rows(rows: int) -> tuple[int, int]:
    """Rows of the conditional and unconditional item of one utterance: 290 are 165 and 125, as 5 s of speech has."""
    conditional = -(-rows * 165 // 290)
    return conditional, rows - conditional


def capability(device: str) -> int:
    """75, 90, …; 0 without a GPU."""
    if torch.device(device).type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def tiles_of(dtype: torch.dtype, device: str) -> Tiles:
    """The engine's tile choices for that dtype and device.

    Raises:
        ModeUnavailable: they name CUDA C++ kernels, and these can't be compiled here.
    """
    return Tiles.default(SHAPE, dtype.itemsize, capability(device))


class Draw:
    """Random values of one dtype on one device; a seed gives the same ones again."""

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        self.dtype, self.device = dtype, device

    def normal(self, seed: int, *shape: int, std: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Normal values."""
        generator = torch.Generator(self.device).manual_seed(seed)
        values = torch.randn(shape, generator=generator, device=self.device) * std
        return values.to(dtype or self.dtype)

    def ids(self, seed: int, most: int, *shape: int) -> Tensor:
        """int32 from 0 to `most` - 1."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randint(0, most, shape, generator=generator, device=self.device, dtype=torch.int32)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """NaN everywhere, so that an element that no kernel wrote shows."""
        return torch.full(shape, float("nan"), dtype=dtype or self.dtype, device=self.device)

    def angles(self, positions: int) -> tuple[Tensor, Tensor]:
        """RoPE's cos and sin, [positions, D / 2]."""
        inverse = 1e6 ** (-torch.arange(0, 1, 2 / SHAPE.head_dim, dtype=torch.float64))
        angle = torch.arange(positions, dtype=torch.float64)[:, None] * inverse
        return angle.cos().to(self.device, self.dtype), angle.sin().to(self.device, self.dtype)


class Batch:
    """Utterances that fill `rows` packed rows, and their tables for attention tiles of `tile_rows` queries."""

    def __init__(self, rows: int, device: str, tile_rows: int = 32) -> None:
        items = max(1, round(rows / UTTERANCE_ROWS))
        self.rows, self.device = rows, device
        shares = [rows // items + (i < rows % items) for i in range(items)]
        pairs = [split_rows(share) for share in shares]
        self.lengths = [(c, u) if u > 0 else (c - 1, 1) for c, u in pairs]
        """Conditional and unconditional rows of each utterance; the second are its frames."""
        self.frames = [u for _, u in self.lengths]
        placements, prompt, frame = [], 0, 0
        for slot, (conditional, frames) in enumerate(self.lengths):
            prompts = np.arange(prompt, prompt + conditional - frames, dtype=np.int32)
            placements.append(Placement(slot, prompts, np.arange(frame, frame + frames, dtype=np.int32), guided=True))
            prompt, frame = prompt + len(prompts), frame + frames
        self.prompt_rows, self.canvas_rows = prompt, frame
        layout = pack(placements, Bucket(rows, items, tile_rows))
        self._tables = {
            name: torch.from_numpy(layout.table(name).copy()).to(device)
            for name in ("rows", "targets", "tiles", "items")
        }
        self._tables["targets"] = self._tables["targets"][: self.canvas_rows].contiguous()

    def __getitem__(self, table: str) -> Tensor:
        return self._tables[table]

    @property
    def segments(self) -> list[int]:
        """Rows of each segment in packed order: conditional, unconditional, of one utterance after the other."""
        return [length for pair in self.lengths for length in pair]

    @property
    def longest(self) -> int:
        """Rows of the longest segment."""
        return max(self.segments)

    @property
    def head_rows(self) -> int:
        """Rows that logits are wanted of: conditional and unconditional frames."""
        return 2 * self.canvas_rows

    @cached_property
    def valid(self) -> Tensor:
        """Which rows count when segments are padded to the longest, [B, S] bool."""
        lengths = torch.tensor(self.segments, device=self.device)
        return torch.arange(self.longest, device=self.device) < lengths[:, None]

    def padded(self, qkv: Tensor) -> Tensors:
        """Queries, keys and values as a padded batch has them, (B, heads, S, D), and the mask upstream would give.

        Padding sees itself, or its softmax would be over nothing.
        """
        heads = qkv.new_zeros((*self.valid.shape, HEADS, SHAPE.head_dim))
        heads[self.valid] = qkv.view(self.rows, HEADS, SHAPE.head_dim)
        parts = torch.split(heads.transpose(1, 2), [SHAPE.q_heads, SHAPE.kv_heads, SHAPE.kv_heads], dim=1)
        q, k, v = (part.contiguous() for part in parts)
        mask = self.valid[:, None, :] | torch.eye(self.longest, dtype=torch.bool, device=self.device)
        return q, k, v, mask[:, None]

    def unpadded(self, inputs: Tensors, outputs: Tensors) -> Tensors:
        """Attention's output by packed row, whether it came packed or padded (B, S, Hq, D)."""
        return tuple(x[self.valid].flatten(1) if x.dim() == 4 else x for x in outputs)

    def turned(self, cos: Tensor, sin: Tensor) -> Tensors:
        """Angles by packed row and whole head, (1, R, D): what upstream's rotary embedding hands its layers."""
        at = self["rows"][:, tables.ROW_POSITION].long()
        return tuple(torch.cat((a, a), -1)[at][None] for a in (cos, sin))

    @cached_property
    def counts(self) -> list[int]:
        """Cells that each utterance decides in a step: all of them over 32 steps."""
        return [max(1, frames * SHAPE.codebooks // STEPS) for frames in self.frames]

    def slots(self) -> Tensor:
        """Settings of every utterance: guidance 2, penalty 5, position temperature 5; no step is ever the last."""
        window = 8
        table = torch.zeros(len(self.lengths), tables.SLOT_HEADER + window, dtype=torch.int32)
        table[:, tables.SLOT_STEP], table[:, tables.SLOT_STEPS] = STEP, 2**30
        table[:, tables.SLOT_SEED_LOW] = torch.arange(len(self.lengths), dtype=torch.int32) + 11
        floats = table.view(torch.float32)
        floats[:, tables.SLOT_GUIDANCE], floats[:, tables.SLOT_PENALTY] = 2.0, 5.0
        floats[:, tables.SLOT_POSITION_TEMPERATURE] = 5.0
        table[:, tables.SLOT_HEADER :] = torch.tensor(self.counts, dtype=torch.int32)[:, None]
        return table.to(self.device)
