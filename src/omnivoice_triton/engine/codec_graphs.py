"""CUDA graphs of the codec's decoder: one for each (rows, frames), captured before requests.

A graph serves every length up to its frames, since rows carry their lengths, so a short ladder of shapes serves all.
All graphs share one memory pool: what a graph needs on its way is reused by the next, only its samples are its own.
Not thread-safe: one thread and one stream at a time.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from omnivoice_triton.cuda_graphs import GraphPool, Replayable
from omnivoice_triton.engine import codec_windows
from omnivoice_triton.engine.codec import CodecDecoder, fill_call
from omnivoice_triton.engine.codec_windows import Call
from omnivoice_triton.speech import InputError

logger = logging.getLogger(__name__)

Shape = tuple[int, int]
"""(rows, frames)."""

LADDER_STEP_FRAMES = 32
LADDER_WIDEST_FRAMES = 160
"""Each shape costs 60 ms to capture, and a row's frames 0.9 MB: coarse steps waste 0.15 ms at most, and a long
utterance in rows of up to 160 costs 0.3 ms more at 15 s than in rows of 224."""
LADDER_CALL_FRAMES = (128, 640)
"""Frames of all rows of a call of several: below, the first layers leave most of a large GPU idle; above, two calls
cost hardly more than one, which takes more memory."""


def ladder() -> tuple[Shape, ...]:
    """The shapes to warm up: of every 32 frames (1.28 s) up to 160 one row, and batches of powers of two."""
    widths = range(LADDER_STEP_FRAMES, LADDER_WIDEST_FRAMES + 1, LADDER_STEP_FRAMES)
    shapes = [(1, frames) for frames in widths]
    fewest, most = LADDER_CALL_FRAMES
    for frames in widths:
        shapes += [(rows, frames) for rows in (2, 4, 8, 16) if fewest <= rows * frames <= most]
    return tuple(shapes)


class Capture(Protocol):
    """Captures computations into one pool."""

    @property
    def used_bytes(self) -> int:
        """What the pool holds on the device."""

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[Replayable, torch.Tensor]:
        """Run a function to capture it; returns the replayable and the function's output buffer."""

    def restart(self) -> None:
        """Give the pool back; no graph of it may be alive."""


@dataclass
class _Captured:
    codes: torch.Tensor  # [rows, Q, frames] int64
    lengths: torch.Tensor  # [rows] int32
    graph: Replayable
    samples: torch.Tensor  # [rows, frames * hop]


class CodecGraphs:
    """Decodes through captured graphs.

    Args:
        decoder: what to capture.
        budget_mb: memory that the graphs' pool may hold, in MB.
        max_graphs: the least recently used graph beyond that is dropped.
        capture: how to capture; by default CUDA graphs. Tests give a stand-in that runs the function again.

    Raises:
        InputError: no CUDA device and no stand-in, or a budget that is not above 0.
    """

    def __init__(
        self, decoder: CodecDecoder, *, budget_mb: int = 384, max_graphs: int = 96, capture: Capture | None = None
    ) -> None:
        if budget_mb <= 0 or max_graphs < 1:
            raise InputError(f"wanted a budget above 0 MB and at least one graph, not {budget_mb} MB and {max_graphs}")
        if capture is None:
            if decoder.device.type != "cuda":
                raise InputError(f"CUDA graphs need a codec on a CUDA device, not on {decoder.device}")
            capture = GraphPool(decoder.device, tidy=False)
        self.decoder = decoder
        self.captures = 0
        self.replays = 0
        self.eager_calls = 0
        self._capture = capture
        self._budget_bytes = budget_mb * 2**20
        self._max_graphs = max_graphs
        self._graphs: OrderedDict[Shape, _Captured] = OrderedDict()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Captured shapes, least recently used first."""
        return tuple(self._graphs)

    @property
    def used_bytes(self) -> int:
        """Device memory that the pool holds."""
        return self._capture.used_bytes

    def __repr__(self) -> str:
        """What is captured and how often it ran."""
        return (
            f"<codec graphs: {len(self._graphs)} shapes, {self.used_bytes / 2**20:.0f} of "
            f"{self._budget_bytes / 2**20:.0f} MB, {self.captures} captures, {self.replays} replays, "
            f"{self.eager_calls} eager calls>"
        )

    def warmup(self, shapes: Iterable[Shape] | None = None) -> None:
        """Capture these shapes (`ladder()` by default), largest first.

        Raises:
            InputError: they don't fit the budget or are more than `max_graphs`, or one is not positive.
        """
        wanted = set(ladder() if shapes is None else shapes)
        for rows, frames in wanted:
            if rows < 1 or frames < 1:
                raise InputError(f"a codec graph needs at least one row and one frame, not {rows} x {frames}")
        if len(wanted) > self._max_graphs:
            raise InputError(f"{len(wanted)} codec graphs are wanted, but at most {self._max_graphs} are kept")
        with torch.inference_mode():
            for shape in sorted(wanted, key=lambda s: (s[0] * s[1], s), reverse=True):
                # To ask for the pool's size is to list all memory, so only the largest is measured by itself.
                self._get(shape, measure=not self._graphs)
        if self.decoder.device.type == "cuda":
            torch.cuda.empty_cache()  # what the runs before each capture took
        if self.used_bytes > self._budget_bytes:
            self.clear()
        if not wanted <= set(self._graphs):
            raise InputError(
                f"{len(wanted)} codec graphs don't fit {self._budget_bytes / 2**20:.0f} MB: "
                "raise the budget or ask for fewer or smaller shapes"
            )

    def decode(
        self, codes: torch.Tensor | Sequence[torch.Tensor], *, check: bool = True, allow_capture: bool = False
    ) -> list[torch.Tensor]:
        """As `CodecDecoder.decode`, through graphs.

        Items are spread over the shapes that are captured; those that no shape can serve run eagerly.

        Args:
            codes: see `CodecDecoder.decode`.
            check: see `CodecDecoder.decode`.
            allow_capture: spread over the whole `ladder()` instead, and capture what is missing of it.

        Raises:
            InputError: see `CodecDecoder.decode`.
        """
        with torch.inference_mode():
            items = self.decoder.prepare(codes, check=check)
            calls, rest = codec_windows.fill(
                [item.shape[1] for item in items],
                {*self._graphs, *(ladder() if allow_capture else ())},
                context=self.decoder.context,
                spare_frames=self.decoder.spare_frames,
            )
            samples = self.decoder.assemble(items, calls, self._replay)
            if rest:
                self.eager_calls += 1
                eager = self.decoder.decode([items[i] for i in rest], check=False)
                for item, wave in zip(rest, eager, strict=True):
                    samples[item] = wave
            return samples

    def clear(self) -> None:
        """Drop every graph and give the memory back."""
        for captured in self._graphs.values():
            captured.graph.reset()
        self._graphs.clear()
        self._capture.restart()

    def _replay(self, items: Sequence[torch.Tensor], call: Call) -> torch.Tensor:
        captured = self._get((call.batch, call.width))
        fill_call(captured.codes, captured.lengths, items, call)
        captured.graph.replay()
        self.replays += 1
        return captured.samples[: len(call.rows)].clone()  # The next replay overwrites it.

    def _get(self, shape: Shape, *, measure: bool = True) -> _Captured:
        found = self._graphs.get(shape)
        if found is not None:
            self._graphs.move_to_end(shape)
            return found
        while len(self._graphs) >= self._max_graphs:
            dropped, old = self._graphs.popitem(last=False)
            old.graph.reset()
            logger.debug("dropped the codec graph of %d x %d", *dropped)
        captured = self._capture_shape(shape)
        if not measure:
            self._graphs[shape] = captured
            return captured
        if self.used_bytes > self._budget_bytes and self._graphs:
            # The pool never shrinks while a graph of it lives: start afresh with this shape alone.
            captured.graph.reset()
            del captured
            self.clear()
            captured = self._capture_shape(shape)
        if self.used_bytes > self._budget_bytes:
            needed = self.used_bytes / 2**20
            captured.graph.reset()
            del captured
            self.clear()
            raise InputError(
                f"a codec graph of {shape[0]} x {shape[1]} frames needs {needed:.0f} MB, over the budget of "
                f"{self._budget_bytes / 2**20:.0f} MB"
            )
        self._graphs[shape] = captured
        return captured

    def _capture_shape(self, shape: Shape) -> _Captured:
        rows, frames = shape
        device = self.decoder.device
        codes = torch.zeros(rows, self.decoder.weights.codebooks, frames, dtype=torch.int64, device=device)
        lengths = torch.full((rows,), frames, dtype=torch.int32, device=device)
        graph, samples = self._capture(lambda: self.decoder.run(codes, lengths))
        self.captures += 1
        return _Captured(codes, lengths, graph, samples)
