"""One decoding step for whoever is running: lays them out when the company changes, then replays the bucket's graph.

Between two changes a step costs the host one graph launch. Layout, admission and collection only enqueue work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from omnivoice_triton.engine.backbone import Backbone
from omnivoice_triton.engine.fp8 import Fp8Layers
from omnivoice_triton.engine.layout import BucketGrid, Layout, pack
from omnivoice_triton.engine.noise import Uniforms
from omnivoice_triton.engine.ops import get_ops
from omnivoice_triton.engine.scheduler import Job, JobError
from omnivoice_triton.engine.state import DecodeState, upload
from omnivoice_triton.engine.step_graphs import Capture, StepGraphs
from omnivoice_triton.engine.step_launches import StepLaunches
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.weights import BackboneWeights

STEPS_AHEAD = 3
"""Steps that the host may enqueue before the oldest is done: enough to keep the GPU busy, few enough that a request
that comes now joins after some 4 ms, not after all that was enqueued."""


class StepRunner:
    """Runs jobs on the device; the scheduler decides which.

    Args:
        backbone: the network.
        state: the persistent buffers.
        grid: the buckets.
        capture: how to capture a step.
        uniforms: noise buffers, or None for Philox.
    """

    def __init__(
        self, backbone: Backbone, state: DecodeState, grid: BucketGrid, capture: Capture, uniforms: Uniforms | None
    ) -> None:
        self.backbone = backbone
        self.state = state
        self.grid = grid
        self.uniforms = uniforms
        self._device = state.canvas.device
        self._flat = {bucket: torch.from_numpy(pack([], bucket).flat).to(self._device) for bucket in grid.buckets}
        self.launches = StepLaunches(backbone, state, self._flat, uniforms)
        self.graphs = StepGraphs(self.launches.enqueue, grid.buckets, capture, self.launches.rehearse)
        self.layout: Layout | None = None
        self._company: tuple[int, ...] = ()
        self.steps_ahead = STEPS_AHEAD
        self._events: deque[torch.cuda.Event] = deque()

    @classmethod
    def build(
        cls,
        weights: BackboneWeights,
        *,
        backend: str,
        tiles: Tiles,
        capture: Capture,
        max_rows: int,
        max_items: int,
        granule: int,
        noise: str,
        attention: str,
        fp8_from_rows: int | None,
    ) -> StepRunner:
        """A runner with its network, buckets and buffers, all on the weights' device.

        Args:
            weights: of the model.
            backend: `triton` or `reference`.
            tiles: tile choices.
            capture: how to capture a step.
            max_rows: packed rows of the largest bucket.
            max_items: jobs that may run together.
            granule: rows between two of the smaller buckets.
            noise: `torch` takes buffers for its draws.
            attention: `exact` or `int8`.
            fp8_from_rows: packed rows of the smallest bucket that runs in FP8; None: no bucket does.

        Raises:
            InputError: sizes that make no grid.
        """
        shape = weights.shape
        grid = BucketGrid(max_rows, max_items, granule, lambda rows: tiles.for_attention(rows).rows)
        uniforms = None
        if noise == "torch":
            uniforms = Uniforms.allocate(max_rows, shape.codebooks, shape.audio_vocab, weights.device)
        ops = get_ops(backend, pdl=tiles.pdl)
        fp8 = None if fp8_from_rows is None else Fp8Layers(weights, ops, max_rows, fp8_from_rows)
        backbone = Backbone(weights, ops, tiles, max_rows, attention=attention, fp8=fp8)
        return cls(backbone, DecodeState(weights, max_rows, max_items), grid, capture, uniforms)

    def fits(self, rows: int, items: int) -> bool:
        """Whether so many rows of so many jobs may run together."""
        return self.grid.holding(rows, items) is not None

    def admit(self, job: Job) -> None:
        """Take a job in."""
        request = job.request
        job.placement = self.state.admit(request.prompt, request.options, request.seed, job.counts)

    def place(self) -> None:
        """Put on the device what was admitted since."""
        self.state.flush()

    def release(self, job: Job) -> None:
        """Let a job go."""
        if job.placement is not None:
            self.state.release(job.placement)
            job.placement = None

    def collect(self, job: Job) -> torch.Tensor:
        """The job's tokens, [C, T] int64."""
        assert job.placement is not None
        return self.state.collect(job.placement)

    def run(self, jobs: Sequence[Job]) -> None:
        """One step of all `jobs`."""
        company = tuple(job.number for job in jobs)
        if self.layout is None or company != self._company:
            self.layout = self.arrange(jobs)
            self._company = company
        for job, first in zip(jobs, self.layout.first_target, strict=True):
            assert job.placement is not None
            try:
                self.state.refresh_schedule(job.placement, job.counts, job.step)
                if job.draws is not None:
                    assert self.uniforms is not None
                    job.draws.fill(job.step, first, self.uniforms)
            except Exception as error:
                raise JobError(job, error) from error
        self.graphs.replay(self.layout.bucket)
        self._throttle()

    def arrange(self, jobs: Sequence[Job]) -> Layout:
        """Pack the jobs into the smallest bucket that holds them and upload its tables in one copy."""
        placements = [job.placement for job in jobs if job.placement is not None]
        bucket = self.grid.holding(sum(p.rows for p in placements), len(placements))
        assert bucket is not None, "the scheduler admits only what fits"
        layout = pack(placements, bucket)
        self._flat[bucket].copy_(upload(layout.flat, self._device))
        self._company = ()
        return layout

    def logits(self, layout: Layout) -> torch.Tensor:
        """Logits [R, C * Va] of the head rows of an arranged layout, outside any graph."""
        return self.launches.logits(layout.bucket)

    def _throttle(self) -> None:
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._events.append(event)
        if len(self._events) > self.steps_ahead:
            self._events.popleft().synchronize()
