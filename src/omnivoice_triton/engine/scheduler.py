"""Continuous batching: requests join and leave at step boundaries, first come first served, under a budget of rows.

The head of the queue joins as soon as it fits beside those running; nobody overtakes it, so a long request waits at
most for those before it to end. A request is cancelled through its future, up to its last step. An error while one
joins fails that one alone.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import torch

from omnivoice_triton.engine.layout import Placement
from omnivoice_triton.engine.noise import TorchDraws
from omnivoice_triton.engine.request import Request
from omnivoice_triton.speech import InputError

CLOSED = "this engine is closed: make a new one"
_numbers = itertools.count(1)


@dataclass(eq=False)
class Job:
    """A request on its way through the engine."""

    request: Request
    rows: int
    """Packed rows it takes."""
    counts: tuple[int, ...]
    """Cells it decides at each of its steps."""
    draws: TorchDraws | None = None
    """Its noise, unless it comes from Philox."""
    future: Future[torch.Tensor] = field(default_factory=Future)
    """Of its tokens, [C, T] int64."""
    placement: Placement | None = None
    step: int = 0
    number: int = field(default_factory=lambda: next(_numbers))


class Runner(Protocol):
    """What the scheduler drives; none of its methods is called by two threads at once."""

    def admit(self, job: Job) -> None:
        """Take a job in."""

    def place(self) -> None:
        """Put on the device, at once, what was admitted since; after an error nothing of it is."""

    def run(self, jobs: Sequence[Job]) -> None:
        """One step of all jobs."""

    def collect(self, job: Job) -> torch.Tensor:
        """Its tokens."""

    def release(self, job: Job) -> None:
        """Let it go, finished or not."""


class Scheduler:
    """Queue, running set and the step that moves jobs between them.

    Args:
        runner: does the work.
        fits: whether so many rows of so many jobs may run together.
    """

    def __init__(self, runner: Runner, fits: Callable[[int, int], bool]) -> None:
        self._runner = runner
        self._fits = fits
        self._queue: deque[Job] = deque()
        self._running: list[Job] = []
        self._closed = False
        self._changed = threading.Condition()  # guards the queue
        self._stepping = threading.RLock()  # guards the running set and the runner

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) jobs."""
        return len(self._running), len(self._queue)

    @property
    def stepping(self) -> threading.RLock:
        """Held during a step; hold it to use the runner between steps."""
        return self._stepping

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, in order and with none between them.

        Raises:
            InputError: it was closed; asked where no `close` can come between, lest nobody ever ends these jobs.
        """
        with self._changed:
            if self._closed:
                raise InputError(CLOSED)
            self._queue.extend(jobs)
            self._changed.notify_all()

    def wait(self, timeout_s: float | None = None, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Sleep until there is something to run, `wake` is called or the time is up.

        Who makes `unless` true and then calls `wake` is never missed: it is asked where no `wake` can come between.
        """
        with self._changed:
            if not self._queue and not self._running and not unless():
                self._changed.wait(timeout_s)

    def wake(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._changed.notify_all()

    def step(self) -> bool:
        """Drop the cancelled, admit who fits, run one step, hand out what is finished.

        Returns:
            Whether anything is left to do.
        """
        with self._stepping:
            self._drop_cancelled()
            self._admit()
            if self._running:
                self._run()
            with self._changed:
                return bool(self._running or self._queue)

    def close(self) -> None:
        """Cancel every job, running or waiting, and take no more."""
        with self._changed:
            self._closed = True
        self.abort()

    def abort(self, error: BaseException | None = None) -> None:
        """End every job, running or waiting: with `error`, or as cancelled."""
        with self._stepping:
            with self._changed:
                jobs = [*self._running, *self._queue]
                self._queue.clear()
            self._running = []
            for job in jobs:
                self._fail(job, error)

    def _drop_cancelled(self) -> None:
        dropped = [job for job in self._running if job.future.cancelled()]
        self._running = [job for job in self._running if job not in dropped]
        for job in dropped:
            self._fail(job, None)

    def _admit(self) -> None:
        rows = sum(job.rows for job in self._running)
        joined: list[Job] = []
        ended: list[tuple[Job, BaseException | None]] = []
        while True:
            with self._changed:
                if not self._queue:
                    break
                job = self._queue[0]
                dropped = job.future.cancelled()
                if not dropped and not self._fits(rows + job.rows, len(self._running) + len(joined) + 1):
                    break  # it waits, and so does everybody behind it
                self._queue.popleft()
            if dropped:
                ended.append((job, None))
                continue
            try:
                self._runner.admit(job)
            except Exception as error:
                ended.append((job, error))
                continue
            joined.append(job)
            rows += job.rows
        if joined:
            self._running.extend(self._place(joined, ended))
        for job, why in ended:  # at last: callbacks of futures run here, and may step
            self._fail(job, why)

    def _place(self, joined: list[Job], ended: list[tuple[Job, BaseException | None]]) -> list[Job]:
        """Those of the admitted who made it onto the device; the others go to `ended`."""
        try:
            self._runner.place()
        except Exception as error:
            if len(joined) == 1:
                self._runner.release(joined[0])
                ended.append((joined[0], error))
                return []
            # One of them broke it: each by itself, lest the others pay.
            for job in joined:
                self._runner.release(job)
            placed = []
            for job in joined:
                try:
                    self._runner.admit(job)
                except Exception as own:
                    ended.append((job, own))
                    continue
                placed += self._place([job], ended)
            return placed
        return joined

    def _run(self) -> None:
        try:
            self._runner.run(self._running)
        except Exception as error:
            # The step was common to all of them, and where it broke off is unknown.
            failed, self._running = self._running, []
            for job in failed:
                self._fail(job, error)
            return
        for job in self._running:
            job.step += 1
        finished = [job for job in self._running if job.step >= len(job.counts)]
        self._running = [job for job in self._running if job.step < len(job.counts)]
        for job in finished:  # out of the set by now: callbacks of futures run here, and may step
            self._finish(job)

    def _finish(self, job: Job) -> None:
        try:
            tokens = self._runner.collect(job)
        except Exception as error:
            self._fail(job, error)
            return
        self._runner.release(job)
        if job.future.set_running_or_notify_cancel():
            job.future.set_result(tokens)

    def _fail(self, job: Job, error: BaseException | None) -> None:
        self._runner.release(job)
        if error is None:
            job.future.cancel()
        if job.future.set_running_or_notify_cancel() and error is not None:
            job.future.set_exception(error)
