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
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

CLOSED = "this engine is closed: make a new one"
INTERRUPTED = "the step that this request was in was interrupted: submit it again"
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


class JobError(Exception):
    """What a runner raises when one job alone can't take its step, before anything of the step was enqueued."""

    def __init__(self, job: Job, error: Exception) -> None:
        super().__init__(str(error))
        self.job, self.error = job, error


class Runner(Protocol):
    """What the scheduler drives; none of its methods is called by two threads at once."""

    def admit(self, job: Job) -> None:
        """Take a job in."""

    def place(self) -> None:
        """Put on the device, at once, what was admitted since; after an error nothing of it is."""

    def run(self, jobs: Sequence[Job]) -> None:
        """One step of all jobs.

        Raises:
            JobError: one of them can't; the others may be run again without it.
        """

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
        self._joining: list[Job] = []  # admitted in this step, not yet placed
        self._ended: deque[tuple[Job, BaseException | None, torch.Tensor | None]] = deque()  # not yet told
        self._closed = False
        self._some_cancelled = False
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
        for job in jobs:
            job.future.add_done_callback(self._note)

    def _note(self, future: Future[torch.Tensor]) -> None:
        if future.cancelled():
            self._some_cancelled = True

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
            try:
                self._drop_cancelled()
                self._finish_done()  # of a step that was interrupted
                self._admit()
                self._run()
                self._finish_done()
            except BaseException:
                self._end_those_between()
                raise
            finally:
                self._tell()
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
                self._end(job, error)
            self._tell()

    def _drop_cancelled(self) -> None:
        if not self._some_cancelled:
            return  # thousands may wait: they are not asked at every step
        self._some_cancelled = False
        with self._changed:
            dropped = [job for job in (*self._running, *self._queue) if job.future.cancelled()]
            if not dropped:
                return
            self._queue = deque(job for job in self._queue if job not in dropped)
            self._running = [job for job in self._running if job not in dropped]
        for job in dropped:
            self._end(job, None)

    def _admit(self) -> None:
        rows = sum(job.rows for job in self._running)
        while True:
            with self._changed:
                if not self._queue:
                    break
                job = self._queue[0]
                if not self._fits(rows + job.rows, len(self._running) + len(self._joining) + 1):
                    break  # it waits, and so does everybody behind it
                self._joining.append(self._queue.popleft())
            try:
                self._runner.admit(job)
            except Exception as error:
                self._joining.remove(job)
                self._end(job, error)
                continue
            rows += job.rows
        if self._joining:
            placed = self._place(list(self._joining))
            self._running.extend(placed)
            self._joining.clear()

    def _place(self, joined: list[Job]) -> list[Job]:
        """Those of the admitted who made it onto the device."""
        try:
            self._runner.place()
        except Exception as error:
            if len(joined) == 1:
                self._end(joined[0], error)
                return []
            # One of them broke it: each by itself, lest the others pay.
            for job in joined:
                self._runner.release(job)
            placed = []
            for job in joined:
                try:
                    self._runner.admit(job)
                except Exception as own:
                    self._end(job, own)
                    continue
                placed += self._place([job])
            return placed
        return joined

    def _run(self) -> None:
        while self._running:
            try:
                self._runner.run(self._running)
                break
            except JobError as broken:  # before anything was enqueued: the others go on without it
                self._running.remove(broken.job)
                self._end(broken.job, broken.error)
            except BaseException as error:
                # The step was common to all of them, and where it broke off is unknown.
                failed, self._running = self._running, []
                for job in failed:
                    self._end(job, error if isinstance(error, Exception) else OmniVoiceTritonError(INTERRUPTED))
                if not isinstance(error, Exception):
                    raise
        for job in self._running:
            job.step += 1

    def _finish_done(self) -> None:
        for job in [job for job in self._running if job.step >= len(job.counts)]:
            tokens, error = None, None
            try:
                tokens = self._runner.collect(job)
            except Exception as caught:
                error = caught
            self._running.remove(job)
            self._end(job, error, tokens)

    def _end(self, job: Job, error: BaseException | None, tokens: torch.Tensor | None = None) -> None:
        """Let go of a job; its future is told by `_tell`, when all of them are let go."""
        self._ended.append((job, error, tokens))
        self._runner.release(job)

    def _end_those_between(self) -> None:
        """Of a step that something like Ctrl-C cut off: who has left the queue and runs nowhere would wait for ever."""
        between, self._joining = self._joining, []
        ended = [job for job, *_ in self._ended]
        for job in between:
            if job not in self._running and job not in ended:
                self._end(job, OmniVoiceTritonError(INTERRUPTED))

    def _tell(self) -> None:
        """Set the futures of what has ended. Callbacks run here: they find everything in its place, and may step."""
        raised: BaseException | None = None
        while self._ended:
            job, error, tokens = self._ended.popleft()
            try:
                _set(job.future, error, tokens)
            except BaseException as caught:  # of a callback, such as a SystemExit: the others are told all the same
                raised = raised or caught
        if raised is not None:
            raise raised


def _set(future: Future[torch.Tensor], error: BaseException | None, tokens: torch.Tensor | None) -> None:
    if error is None and tokens is None:
        future.cancel()
    if future.done() and not future.cancelled():
        return
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        assert tokens is not None
        future.set_result(tokens)
