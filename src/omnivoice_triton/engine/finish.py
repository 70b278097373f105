"""From decoded samples on the device to finished audio on the host: one copy, and one wait, for a whole batch.

What takes a look at every sample is done where they are: rounding to 16 bits, and power and extremes of each 10 ms. All
of it is exact in whole numbers. On the host a few hundred figures tell what is kept, and one pass scales it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine.audio import Measured, block_samples, finish_measured, post_process
from omnivoice_triton.engine.fades import cross_fade, fade_ramps
from omnivoice_triton.speech import InputError

_SMALLEST_PIN = 4 * 2**20
"""Bytes: 40 s of audio. Pinning takes a millisecond or more, so it should not happen with every new length."""


@dataclass(frozen=True)
class Decoded:
    """An utterance as the codec leaves it."""

    chunks: tuple[torch.Tensor, ...]
    """Samples of each chunk in order, shape (T_i,), float32; one unless the text was split."""
    ref_rms: float | None
    """RMS of the reference audio; None without a reference."""
    options: GenerationOptions


class Finisher:
    """Brings batches of decoded audio to the host and post-processes them.

    Keeps a pinned buffer for the copy from a GPU, which grows to the largest batch seen. Not thread-safe.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._block = block_samples(sample_rate)
        self._ramps: tuple[torch.Tensor, torch.Tensor] | None = None
        self._pinned: torch.Tensor | None = None

    def finish(self, items: Sequence[Decoded]) -> list[npt.NDArray[np.float32] | InputError]:
        """Finished audio of each item, shape (T,), float32, or the error that this item alone met.

        Raises:
            InputError: an item without chunks.
        """
        groups: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            if not item.chunks:
                raise InputError("an utterance without audio can't be finished: give at least one chunk")
            groups.setdefault(self._way(item), []).append(index)
        finished: list[Any] = [None] * len(items)
        for way, members in groups.items():
            chosen = [items[index] for index in members]
            made = self._finish_whole(chosen) if way == "whole" else self._finish_blocks(chosen, way == "rounded")
            for index, audio in zip(members, made, strict=True):
                finished[index] = audio
        return finished

    def _way(self, item: Decoded) -> str:
        """`rounded` or `raw`: block by block, with or without 16 bits. `whole`: lengths that are no whole blocks."""
        block, fade = self._block, len(fade_ramps(self.sample_rate)[0])
        lengths = [len(chunk) for chunk in item.chunks]
        joinable = block is not None and (len(lengths) == 1 or (min(lengths) >= fade and fade % block == 0))
        if block is None or not joinable or any(length % block or not length for length in lengths):
            return "whole"
        return "rounded" if item.options.postprocess_output else "raw"

    def _finish_blocks(self, items: Sequence[Decoded], rounded: bool) -> list[npt.NDArray[np.float32] | InputError]:
        block = self._block
        assert block is not None, "_way() asked"
        waves = [self._join(item.chunks) for item in items]
        flat = torch.cat(waves) if len(waves) > 1 else waves[0]
        low, high = torch.aminmax(flat.view(-1, block), dim=1)
        parts = [low, high, flat]
        if rounded:
            whole = (flat * 32768.0).clamp_(-32768, 32767).to(torch.int32)  # towards zero, as astype does
            power = (whole * whole).view(-1, block).sum(1, dtype=torch.int64)
            parts = [power, low, high, whole.to(torch.float32)]
        on_host = self._to_host(parts)
        if not rounded:
            on_host = [np.zeros(len(low), np.int64), *on_host]
        finished: list[npt.NDArray[np.float32] | InputError] = []
        at = 0
        for item, wave in zip(items, waves, strict=True):
            blocks = slice(at // block, (at + len(wave)) // block)
            power_here, low_here, high_here = (part[blocks] for part in on_host[:3])
            measured = Measured(on_host[3][at : at + len(wave)], power_here, low_here, high_here)
            finished.append(self._finish_measured(measured, wave, item))
            at += len(wave)
        return finished

    def _finish_measured(
        self, measured: Measured, wave: torch.Tensor, item: Decoded
    ) -> npt.NDArray[np.float32] | InputError:
        options = {"sample_rate": self.sample_rate, "ref_rms": item.ref_rms, "options": item.options}
        try:
            made = finish_measured(measured, **options)  # type: ignore[arg-type]
            # Seldom: speech so short that the edges' 100 ms reach into another piece.
            return post_process(wave.cpu().numpy(), **options) if made is None else made  # type: ignore[arg-type]
        except InputError as error:
            return error  # One item's samples must not cost the others theirs.

    def _finish_whole(self, items: Sequence[Decoded]) -> list[npt.NDArray[np.float32] | InputError]:
        (host,) = self._to_host([torch.cat([chunk for item in items for chunk in item.chunks])])
        finished: list[npt.NDArray[np.float32] | InputError] = []
        at = 0
        for item in items:
            waves = []
            for chunk in item.chunks:
                waves.append(host[at : at + len(chunk)])
                at += len(chunk)
            try:
                joined = cross_fade(waves, self.sample_rate)
                made = post_process(joined, sample_rate=self.sample_rate, ref_rms=item.ref_rms, options=item.options)
                finished.append(made)
            except InputError as error:
                finished.append(error)
        return finished

    def _join(self, chunks: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """`cross_fade` where the chunks are; none is shorter than the fade."""
        if len(chunks) == 1:
            return chunks[0]
        if self._ramps is None or self._ramps[0].device != chunks[0].device:
            rise, fall = (torch.from_numpy(ramp.copy()) for ramp in fade_ramps(self.sample_rate))
            self._ramps = rise.to(chunks[0].device), fall.to(chunks[0].device)
        rise, fall = self._ramps
        fade = len(rise)
        parts = []
        for number, chunk in enumerate(chunks):
            faded = chunk.clone()
            if number:
                parts.append(torch.zeros_like(rise))
                faded[:fade] *= rise
            if number + 1 < len(chunks):
                faded[-fade:] *= fall
            parts.append(faded)
        return torch.cat(parts)

    def _to_host(self, parts: Sequence[torch.Tensor]) -> list[npt.NDArray[Any]]:
        """Each part as an array, valid until the next call. Parts of 8-byte values come first."""
        if not parts[0].is_cuda:
            return [part.numpy() for part in parts]
        size = sum(part.nbytes for part in parts)
        if self._pinned is None or len(self._pinned) < size:
            # An eighth more, lest slowly growing batches pin anew each time.
            self._pinned = torch.empty(max(size + size // 8, _SMALLEST_PIN), dtype=torch.uint8, pin_memory=True)
        hosts, at = [], 0
        for part in parts:
            host = self._pinned[at : at + part.nbytes].view(part.dtype)
            host.copy_(part, non_blocking=True)
            hosts.append(host)
            at += part.nbytes
        torch.cuda.current_stream(parts[0].device).synchronize()
        return [host.numpy() for host in hosts]
