"""What lasts from step to step on the device: prompts, tokens, settings and schedules of all running requests.

Every request owns some rows of the prompt buffer and of the token canvas and one slot. Tables point at them one by one,
so rows needn't lie together: free ones are a stack, nothing is ever moved, and nothing can fragment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from omnivoice_triton.engine.layout import Ints, Placement
from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import DecodeOptions
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.kernels import engine_reference
from omnivoice_triton.kernels import tables as t

SCHEDULE_WINDOW = 256
"""Counts of a schedule that lie on the device at a time; longer ones are uploaded piece by piece."""


class FreeRows:
    """A stack of free row numbers."""

    def __init__(self, n: int) -> None:
        self._free: Ints = np.arange(n, dtype=np.int32)[::-1].copy()

    def __len__(self) -> int:
        return len(self._free)

    def take(self, n: int) -> Ints:
        """`n` rows.

        Raises:
            RuntimeError: there are not so many.
        """
        if n > len(self._free):
            raise RuntimeError(f"{n} rows wanted, {len(self._free)} are free: more was admitted than fits")
        split = len(self._free) - n
        self._free, taken = self._free[:split], self._free[split:][::-1].copy()
        return taken

    def give(self, rows: Ints) -> None:
        """Put rows back."""
        self._free = np.concatenate((self._free, rows[::-1]))


class DecodeState:
    """The persistent buffers.

    Args:
        weights: for embedding prompts.
        max_rows: rows of the prompt buffer and of the canvas; both suffice for any batch of so many packed rows.
        max_items: slots.
    """

    def __init__(self, weights: BackboneWeights, max_rows: int, max_items: int) -> None:
        shape, device = weights.shape, weights.device
        self._weights = weights
        self.prompt = torch.zeros(max_rows, shape.hidden, dtype=weights.dtype, device=device)
        self.canvas = torch.full((max_rows, shape.codebooks), shape.mask_id, dtype=torch.int32, device=device)
        self.slots = torch.zeros(max_items, t.SLOT_HEADER + SCHEDULE_WINDOW, dtype=torch.int32, device=device)
        self.tokens = torch.zeros(max_rows, shape.codebooks, dtype=torch.int32, device=device)
        self.scores = torch.zeros(max_rows, shape.codebooks, dtype=torch.float32, device=device)
        self._free_prompt, self._free_frames = FreeRows(max_rows), FreeRows(max_rows)
        self._free_slots = FreeRows(max_items)
        self._joining: dict[int, _Joining] = {}

    @property
    def free(self) -> tuple[int, int, int]:
        """Free prompt rows, frames and slots."""
        return len(self._free_prompt), len(self._free_frames), len(self._free_slots)

    def admit(self, prompt: Prompt, options: DecodeOptions, seed: int, counts: Sequence[int]) -> Placement:
        """Give a request its rows and its slot. On the device nothing happens before `flush`."""
        settings = slot_row(options, seed, counts)
        for wanted, free in zip((prompt.rows, prompt.frames, 1), self.free, strict=True):
            if wanted > free:  # before anything is taken
                raise RuntimeError(f"{wanted} rows wanted, {free} are free: more was admitted than fits")
        placement = Placement(
            slot=int(self._free_slots.take(1)[0]),
            prompt=self._free_prompt.take(prompt.rows),
            frames=self._free_frames.take(prompt.frames),
            guided=options.guided,
        )
        self._joining[placement.slot] = _Joining(placement, prompt, settings)
        return placement

    def flush(self) -> None:
        """Embed the prompts, blank the frames and write the slots of all that were admitted since.

        One copy to the device and ten small kernels, whether one joins or eight.
        """
        if self._joining:
            joining = list(self._joining.values())
            self._joining.clear()
            self._write(joining)

    def release(self, placement: Placement) -> None:
        """Take a request's rows back."""
        self._joining.pop(placement.slot, None)
        self._free_slots.give(np.array([placement.slot], np.int32))
        self._free_prompt.give(placement.prompt)
        self._free_frames.give(placement.frames)

    def collect(self, placement: Placement) -> torch.Tensor:
        """The request's tokens as they stand, [C, T] int64, a copy."""
        frames = self._upload(placement.frames.astype(np.int64))
        return self.canvas.index_select(0, frames).T.contiguous().to(torch.int64)

    def write_tokens(self, placement: Placement, tokens: torch.Tensor) -> None:
        """Set the request's tokens [C, T], for teacher forcing."""
        frames = self._upload(placement.frames.astype(np.int64))
        self.canvas.index_copy_(0, frames, tokens.T.to(self.canvas))

    def refresh_schedule(self, placement: Placement, counts: Sequence[int], step: int) -> None:
        """Upload the counts from `step` on when the window has been used up."""
        if step and step % SCHEDULE_WINDOW == 0:
            window = self._upload(_window(counts[step:]))
            self.slots[placement.slot, t.SLOT_HEADER :].copy_(window)

    def _write(self, joining: Sequence[_Joining]) -> None:
        prompts, placements = [each.prompt for each in joining], [each.placement for each in joining]
        slots = np.array([place.slot for place in placements], np.int64)
        # int32 settings travel as int64, two by two; everything that is one by one follows.
        settings = np.concatenate([each.settings for each in joining]).view(np.int64)
        parts: tuple[npt.NDArray[Any], ...] = (
            settings,
            slots,
            *(prompt.text_ids for prompt in prompts),
            *(place.prompt[: len(prompt.text_ids)] for place, prompt in zip(placements, prompts, strict=True)),
            *(place.prompt[len(prompt.text_ids) :] for place, prompt in zip(placements, prompts, strict=True)),
            *(place.frames for place in placements),
        )
        n_text = sum(len(prompt.text_ids) for prompt in prompts)
        n_reference = sum(prompt.rows for prompt in prompts) - n_text
        sizes = (len(settings), len(slots), n_text, n_text, n_reference)
        sent = self._upload(np.concatenate(parts, dtype=np.int64))
        rows, at, text_ids, text_rows, reference_rows, frames = torch.tensor_split(sent, np.cumsum(sizes).tolist())
        self.slots.index_copy_(0, at, rows.view(torch.int32).view(len(slots), -1))
        self.prompt.index_copy_(0, text_rows, self._embed_text(text_ids, prompts))
        references = [prompt.reference for prompt in prompts if prompt.reference is not None]
        if references:
            codes = torch.cat([_on_device(each, self.prompt.device) for each in references], dim=1).T
            table = self._weights.audio_embedding
            self.prompt.index_copy_(0, reference_rows, engine_reference.embed_frames(codes, table))
        self.canvas.index_fill_(0, frames, self._weights.shape.mask_id)

    def _embed_text(self, text_ids: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """[N, H] on the device; the table may be in the host's memory, and then its rows are sent."""
        table = self._weights.text_embedding
        if table.device == text_ids.device:
            return torch.nn.functional.embedding(text_ids, table)
        ids = torch.from_numpy(np.concatenate([prompt.text_ids for prompt in prompts]))
        rows = torch.nn.functional.embedding(ids, table)
        return rows.pin_memory().to(text_ids.device, non_blocking=True)

    def _upload(self, values: npt.NDArray[np.int32] | npt.NDArray[np.int64]) -> torch.Tensor:
        return upload(values, self.canvas.device)


@dataclass(frozen=True, eq=False)
class _Joining:
    """A request that has its rows, but isn't on the device yet."""

    placement: Placement
    prompt: Prompt
    settings: Ints


def _on_device(codes: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Codes as int64 on the device, not waited for."""
    if codes.device.type == "cpu" and device.type == "cuda":
        codes = codes.pin_memory()
    return codes.to(device, torch.int64, non_blocking=True)


def upload(values: npt.NDArray[np.int32] | npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """`values` on the device, not waited for: through pinned memory, which torch keeps until the copy is done."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def slot_row(options: DecodeOptions, seed: int, counts: Sequence[int]) -> Ints:
    """One row of the slot table for a request that starts now."""
    row = np.zeros(t.SLOT_HEADER + SCHEDULE_WINDOW, np.int32)
    row[t.SLOT_STEPS] = len(counts)
    words = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32).view(np.int32)
    row[[t.SLOT_SEED_LOW, t.SLOT_SEED_HIGH]] = words
    floats = row.view(np.float32)
    floats[t.SLOT_GUIDANCE] = options.guidance_scale
    floats[t.SLOT_PENALTY] = options.layer_penalty_factor
    floats[t.SLOT_POSITION_TEMPERATURE] = options.position_temperature
    floats[t.SLOT_CLASS_TEMPERATURE] = options.class_temperature
    row[t.SLOT_HEADER :] = _window(counts)
    return row


def _window(counts: Sequence[int]) -> Ints:
    window = np.zeros(SCHEDULE_WINDOW, np.int32)
    first = counts[:SCHEDULE_WINDOW]
    window[: len(first)] = first
    return window
