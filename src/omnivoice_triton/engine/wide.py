"""Requests of more packed rows than the engine holds: one after the other, in buffers of their own, without a graph.

Upstream decodes any length at once, and a text without punctuation can't be cut into chunks. Such a request gets a
bucket of just its size for as long as it runs. Its kernels are launched one by one: with thousands of rows they take
longer than their launches.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from omnivoice_triton.engine.scheduler import Job, Scheduler
from omnivoice_triton.engine.step import StepRunner

WIDEST_ROWS = 65536
"""Packed rows that a request may take at all: twenty minutes of speech, and 1.6 GB of buffers for the full model."""
_GRANULE = 64


def decode_wide(
    job: Job,
    build: Callable[[int], StepRunner],
    turn: Callable[[], AbstractContextManager[None]],
    on_step: Callable[[], None],
) -> None:
    """Take all steps of one job; its future then has its tokens.

    Args:
        job: of at most `WIDEST_ROWS` rows.
        build: a runner of so many rows for one job, nothing captured.
        turn: entered around whatever touches the device; raises once the engine is closed.
        on_step: called after each step.
    """
    with turn():
        runner = build(-(-job.rows // _GRANULE) * _GRANULE)
        runner.graphs.warmup()
    alone = Scheduler(runner, runner.fits)
    alone.submit([job])
    while not job.future.done():
        with turn():
            alone.step()
        on_step()
    on_gpu = runner.state.canvas.is_cuda
    del alone, runner
    if on_gpu:
        with turn():
            torch.cuda.empty_cache()  # until the next request of this size others may have the memory
