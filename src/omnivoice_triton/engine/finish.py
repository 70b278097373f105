"""From decoded samples on the device to finished audio on the host: one copy for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine.audio import cross_fade, post_process
from omnivoice_triton.speech import InputError


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
        self._pinned: torch.Tensor | None = None

    def finish(self, items: Sequence[Decoded]) -> list[npt.NDArray[np.float32] | InputError]:
        """Finished audio of each item, shape (T,), float32, or the error that this item alone met.

        Raises:
            InputError: an item without chunks.
        """
        if not items:
            return []
        for item in items:
            if not item.chunks:
                raise InputError("an utterance without audio can't be finished: give at least one chunk")
        host = self._to_host([chunk for item in items for chunk in item.chunks])
        finished: list[npt.NDArray[np.float32] | InputError] = []
        at = 0
        for item in items:
            waves = []
            for chunk in item.chunks:
                waves.append(host[at : at + len(chunk)])
                at += len(chunk)
            finished.append(self._finish_one(waves, item))
        return finished

    def _finish_one(self, waves: list[npt.NDArray[np.float32]], item: Decoded) -> npt.NDArray[np.float32] | InputError:
        try:
            joined = cross_fade(waves, self.sample_rate)
            return post_process(joined, sample_rate=self.sample_rate, ref_rms=item.ref_rms, options=item.options)
        except InputError as error:
            return error  # One item's samples must not cost the others theirs.

    def _to_host(self, chunks: list[torch.Tensor]) -> npt.NDArray[np.float32]:
        """All samples in one array, which is valid until the next call."""
        flat = torch.cat(chunks) if len(chunks) > 1 else chunks[0]
        if not flat.is_cuda:
            return flat.numpy()
        if self._pinned is None or len(self._pinned) < len(flat):
            # An eighth more, lest slowly growing batches pin anew each time: that takes a millisecond or more.
            self._pinned = torch.empty(len(flat) + len(flat) // 8, dtype=torch.float32, pin_memory=True)
        host = self._pinned[: len(flat)]
        host.copy_(flat, non_blocking=True)
        torch.cuda.current_stream(flat.device).synchronize()
        return host.numpy()
