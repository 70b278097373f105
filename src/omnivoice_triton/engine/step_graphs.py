"""One captured step per bucket: captured before the first request, replayed for every step after.

All graphs share one memory pool and the engine's own buffers, so a capture allocates next to nothing. How to capture is
injected: on the GPU a CUDA graph; elsewhere `run_eagerly`, which just calls the step again, so that the bookkeeping is
the same and is tested without a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch

from omnivoice_triton.cuda_graphs import GraphPool
from omnivoice_triton.engine.layout import Bucket


class Replayable(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Run it again, on whatever the buffers hold now."""


Run = Callable[[], None]


class Capture(Protocol):
    """Turns a function that enqueues work into something that repeats that work."""

    def __call__(self, run: Run, rehearse: Run | None = None, /) -> Replayable:
        """Capture `run`, once `rehearse` (or itself) has launched all of its kernels."""


class _Eager:
    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run

    def replay(self) -> None:
        self._run()


def run_eagerly(run: Run, rehearse: Run | None = None, /) -> Replayable:
    """A stand-in for capture: calls the function at each replay."""
    return _Eager(run)


class CudaCapture:
    """Captures CUDA graphs into one pool."""

    def __init__(self, device: torch.device) -> None:
        self._pool = GraphPool(device, tidy=False)

    def __call__(self, run: Run, rehearse: Run | None = None, /) -> Replayable:
        """Warm up and capture."""
        return self._pool(run, rehearse)[0]


class StepGraphs:
    """The graphs of all buckets.

    Args:
        run: enqueues one step of a bucket on the current stream.
        buckets: every shape that may be asked for.
        capture: how to capture.
        rehearse: launches every kernel of a bucket's step, in less time; by default `run`.
    """

    def __init__(
        self,
        run: Callable[[Bucket], None],
        buckets: Sequence[Bucket],
        capture: Capture,
        rehearse: Callable[[Bucket], None] | None = None,
    ) -> None:
        self._run = run
        self._rehearse = rehearse if rehearse is not None else run
        self._buckets = tuple(buckets)
        self._capture = capture
        self._graphs: dict[Bucket, Replayable] = {}
        self.captures = 0
        self.replays = 0
        self.warmup_s = 0.0

    @property
    def ready(self) -> bool:
        """Whether every bucket is captured."""
        return len(self._graphs) == len(self._buckets)

    def warmup(self) -> None:
        """Capture what isn't captured yet, largest first, so that the smaller ones find the pool grown."""
        started = time.perf_counter()
        for bucket in sorted(self._buckets, key=lambda b: -b.rows):
            if bucket not in self._graphs:
                # The first runs as it is: whatever is made once for each layer is made then.
                rehearse = partial(self._rehearse, bucket) if self.captures else None
                self._graphs[bucket] = self._capture(partial(self._run, bucket), rehearse)
                self.captures += 1
        self.warmup_s += time.perf_counter() - started

    def replay(self, bucket: Bucket) -> None:
        """Run one step of `bucket`.

        Raises:
            RuntimeError: it isn't captured: nothing is ever captured inside a request.
        """
        graph = self._graphs.get(bucket)
        if graph is None:
            raise RuntimeError(f"no graph for {bucket}: call warmup() first")
        self.replays += 1
        graph.replay()
