"""Random packed batches for the tests of packed kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from omnivoice_triton.engine.layout import Bucket, Placement, pack, row_count
from omnivoice_triton.kernels import tables as t


@dataclass
class Packed:
    """Tables on the device for requests of (prompt rows, frames, guided)."""

    placements: list[Placement]
    bucket: Bucket
    flat: torch.Tensor

    def table(self, name: str) -> torch.Tensor:
        offset, shape = self.bucket.spans[name]
        return self.flat[offset : offset + int(np.prod(shape))].view(shape)

    @property
    def used_rows(self) -> int:
        return sum(p.rows for p in self.placements)

    @property
    def segments(self) -> list[tuple[int, int]]:
        found, row = [], 0
        for p in self.placements:
            for length in [len(p.prompt) + len(p.frames)] + ([len(p.frames)] if p.guided else []):
                found.append((row, length))
                row += length
        return found


def make_packed(
    requests: list[tuple[int, int, bool]], *, device: str, tile_rows: int = 16, spare_rows: int = 5, seed: int = 0
) -> Packed:
    """Placements in shuffled buffers (so that an index taken for another is seen), one spare item, some spare rows."""
    rng = np.random.default_rng(seed)
    prompt_rows = rng.permutation(sum(r[0] for r in requests) + 3).astype(np.int32)
    frames = rng.permutation(sum(r[1] for r in requests) + 3).astype(np.int32)
    slots = rng.permutation(len(requests) + 2)
    placements = []
    for (n_prompt, n_frames, guided), slot in zip(requests, slots, strict=False):
        placements.append(Placement(int(slot), prompt_rows[:n_prompt], frames[:n_frames], guided))
        prompt_rows, frames = prompt_rows[n_prompt:], frames[n_frames:]
    rows = sum(row_count(*r) for r in requests) + spare_rows
    bucket = Bucket(rows, len(requests) + 1, tile_rows)
    return Packed(placements, bucket, torch.from_numpy(pack(placements, bucket).flat).to(device))


def slot_rows(
    n_slots: int,
    *,
    device: str,
    window: int = 8,
    step: int = 1,
    steps: int = 4,
    count: int = 5,
    seed: int = 1234567890123456789,
    guidance: float = 2.0,
    penalty: float = 5.0,
    position_temperature: float = 5.0,
    class_temperature: float = 0.0,
) -> torch.Tensor:
    """A slot table with the same settings in every row."""
    rows = torch.zeros(n_slots, t.SLOT_HEADER + window, dtype=torch.int32)
    rows[:, t.SLOT_STEP] = step
    rows[:, t.SLOT_STEPS] = steps
    low, high = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    rows[:, t.SLOT_SEED_LOW] = low - (low >> 31 << 32)
    rows[:, t.SLOT_SEED_HIGH] = high - (high >> 31 << 32)
    floats = rows.view(torch.float32)
    floats[:, t.SLOT_GUIDANCE] = guidance
    floats[:, t.SLOT_PENALTY] = penalty
    floats[:, t.SLOT_POSITION_TEMPERATURE] = position_temperature
    floats[:, t.SLOT_CLASS_TEMPERATURE] = class_temperature
    rows[:, t.SLOT_HEADER :] = count
    return rows.to(device)


def randn(*shape: int, seed: int, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
