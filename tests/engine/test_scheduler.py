"""Queueing, fairness, cancellation and errors, with a runner that only counts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, wait
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import Request
from omnivoice_triton.engine.scheduler import Job, JobError, Scheduler
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

BUDGET = 100


class Counter:
    """A runner that notes who ran with whom, and holds four at most; jobs named in `broken` fail as told."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.interrupt = ""  # where Ctrl-C comes next
        self.held: set[int] = set()
        self.broken: dict[int, str] = {}

    def admit(self, job: Job) -> None:
        if self.broken.get(job.number) == "admit":
            raise ValueError("can't embed this")
        self.held.add(job.number)
        assert len(self.held) <= 4, "nobody's slot may be given twice"

    def _interrupt(self, where: str) -> None:
        if self.interrupt == where:
            self.interrupt = ""
            raise KeyboardInterrupt

    def place(self) -> None:
        self._interrupt("place")
        if any(self.broken.get(number) == "place" for number in self.held):
            raise ValueError("can't embed this")

    def run(self, jobs: Sequence[Job]) -> None:
        assert sum(job.rows for job in jobs) <= BUDGET
        self._interrupt("run")
        for job in jobs:
            if self.broken.get(job.number) == "draw":
                raise JobError(job, MemoryError("no room for its noise"))
        if any(self.broken.get(job.number) == "run" for job in jobs):
            raise RuntimeError("the step broke")
        self.steps.append([job.number for job in jobs])

    def collect(self, job: Job) -> torch.Tensor:
        self._interrupt("collect")
        if self.broken.get(job.number) == "collect":
            raise MemoryError("no room")
        return torch.tensor(job.number)

    def release(self, job: Job) -> None:
        self.held.discard(job.number)


def make_job(rows: int = 10, steps: int = 3) -> Job:
    return Job(Request(Prompt(np.zeros(1, np.int64), None, 1)), rows, (1,) * steps)


@pytest.fixture
def runner() -> Counter:
    return Counter()


@pytest.fixture
def scheduler(runner: Counter) -> Scheduler:
    return Scheduler(runner, lambda rows, items: rows <= BUDGET and items <= 4)


def run_all(scheduler: Scheduler) -> None:
    while scheduler.step():
        pass


def test_jobs_join_and_leave_at_step_boundaries(runner: Counter, scheduler: Scheduler) -> None:
    first, second = make_job(steps=3), make_job(steps=2)
    scheduler.submit([first])
    assert scheduler.step()
    scheduler.submit([second])
    run_all(scheduler)
    a, b = first.number, second.number
    assert runner.steps == [[a], [a, b], [a, b]]
    assert [job.future.result(0).item() for job in (first, second)] == [a, b]
    assert not runner.held
    assert scheduler.load == (0, 0)
    assert not scheduler.step()


def test_a_long_job_is_not_overtaken(runner: Counter, scheduler: Scheduler) -> None:
    """Short ones keep coming; the one that needs the whole budget runs as soon as those before it are done."""
    before, big = make_job(steps=2), make_job(rows=BUDGET, steps=1)
    scheduler.submit([before, big, *(make_job(steps=1) for _ in range(20))])
    for _ in range(3):
        scheduler.step()
        scheduler.submit([make_job(steps=1)])
    assert runner.steps == [[before.number], [before.number], [big.number]]
    run_all(scheduler)
    assert max(len(step) for step in runner.steps) == 4


def test_cancelled_jobs_leave_at_the_next_boundary(runner: Counter, scheduler: Scheduler) -> None:
    running, waiting, other = make_job(steps=5), make_job(rows=95, steps=5), make_job(steps=2)
    scheduler.submit([running, waiting])
    scheduler.step()
    assert running.future.cancel()
    assert waiting.future.cancel()
    scheduler.submit([other])
    run_all(scheduler)
    assert runner.steps == [[running.number], [other.number], [other.number]]
    assert not runner.held
    with pytest.raises(CancelledError):
        running.future.result(0)
    done, _ = wait([running.future, waiting.future], timeout=1)
    assert len(done) == 2


def test_a_job_cancelled_in_its_last_step_frees_its_rows(runner: Counter, scheduler: Scheduler) -> None:
    job = make_job(steps=1)
    scheduler.submit([job])
    collect = runner.collect

    def cancel_then_collect(j: Job) -> torch.Tensor:
        assert j.future.cancel()
        return collect(j)

    runner.collect = cancel_then_collect  # type: ignore[method-assign]
    run_all(scheduler)
    assert job.future.cancelled()
    assert not runner.held


@pytest.mark.parametrize(("where", "error"), [("admit", ValueError), ("place", ValueError), ("collect", MemoryError)])
def test_an_error_in_one_job_never_touches_the_others(
    runner: Counter, scheduler: Scheduler, where: str, error: type[Exception]
) -> None:
    jobs = [make_job(steps=2) for _ in range(3)]
    runner.broken[jobs[1].number] = where
    before = make_job(steps=3)
    scheduler.submit([before])
    scheduler.step()
    scheduler.submit(jobs)
    run_all(scheduler)
    assert before.future.result(0).item() == before.number
    assert jobs[0].future.result(0).item() == jobs[0].number
    assert jobs[2].future.result(0).item() == jobs[2].number
    with pytest.raises(error):
        jobs[1].future.result(0)
    assert not runner.held


def test_a_broken_step_fails_those_in_it_and_the_next_goes_on(runner: Counter, scheduler: Scheduler) -> None:
    bad, good = make_job(rows=BUDGET), make_job()
    runner.broken[bad.number] = "run"
    scheduler.submit([bad, good])
    run_all(scheduler)
    with pytest.raises(RuntimeError, match="the step broke"):
        bad.future.result(0)
    assert good.future.result(0).item() == good.number
    assert not runner.held


def test_abort_ends_everything(runner: Counter, scheduler: Scheduler) -> None:
    running, waiting = make_job(), make_job(rows=95)
    scheduler.submit([running, waiting])
    scheduler.step()
    scheduler.abort(OSError("gone"))
    for job in (running, waiting):
        with pytest.raises(OSError, match="gone"):
            job.future.result(0)
    assert scheduler.load == (0, 0)
    assert not runner.held


def test_a_closed_scheduler_takes_no_job_that_nobody_would_end(runner: Counter, scheduler: Scheduler) -> None:
    waiting = make_job()
    scheduler.submit([waiting])
    scheduler.close()
    assert waiting.future.cancelled()
    with pytest.raises(InputError, match="is closed"):
        scheduler.submit([make_job()])
    assert scheduler.load == (0, 0)
    assert not runner.held


@pytest.mark.parametrize("ends", ["well", "broken", "cancelled"])
def test_a_callback_may_step(runner: Counter, scheduler: Scheduler, ends: str) -> None:
    """Futures call back inside a step: what they run there finds a whole scheduler."""
    jobs = [make_job(steps=2), make_job(steps=2), make_job(steps=3)]
    jobs[0].future.add_done_callback(lambda _: run_all(scheduler))
    scheduler.submit(jobs)
    assert scheduler.step()
    if ends == "broken":
        runner.broken[jobs[0].number] = "run"
    elif ends == "cancelled":
        jobs[0].future.cancel()
    run_all(scheduler)
    done = [job.future.done() for job in jobs]
    assert done == [True] * 3
    assert not runner.held
    if ends == "well":
        assert [int(job.future.result()) for job in jobs] == [job.number for job in jobs]


def test_a_callback_that_steps_sees_who_has_just_joined(runner: Counter, scheduler: Scheduler) -> None:
    """Else it would admit others beside them, over the budget."""
    joining, broken, next_one = make_job(rows=60), make_job(rows=30), make_job(rows=60)
    runner.broken[broken.number] = "admit"
    broken.future.add_done_callback(lambda _: scheduler.step())
    scheduler.submit([joining, broken, next_one])
    run_all(scheduler)
    assert [int(job.future.result()) for job in (joining, next_one)] == [joining.number, next_one.number]
    assert not runner.held


def test_a_callback_that_submits_and_steps_finds_room(runner: Counter, scheduler: Scheduler) -> None:
    """Four end in one step: the first one's callback runs when all four have let go."""
    jobs, later = [make_job(steps=2) for _ in range(4)], [make_job() for _ in range(4)]

    def go_on(_: Any) -> None:
        scheduler.submit(later)
        scheduler.step()

    jobs[0].future.add_done_callback(go_on)
    scheduler.submit(jobs)
    run_all(scheduler)
    assert [int(job.future.result()) for job in (*jobs, *later)] == [job.number for job in (*jobs, *later)]


@pytest.mark.parametrize("where", ["place", "run", "collect"])
def test_ctrl_c_in_a_step_leaves_nobody_waiting(runner: Counter, scheduler: Scheduler, where: str) -> None:
    jobs = [make_job(steps=1), make_job(steps=1), make_job(steps=2)]
    scheduler.submit(jobs)
    runner.interrupt = where
    with pytest.raises(KeyboardInterrupt):
        scheduler.step()
    run_all(scheduler)
    assert all(job.future.done() for job in jobs)
    assert not runner.held
    for job in jobs:
        if where == "collect":
            assert int(job.future.result()) == job.number
        else:
            with pytest.raises(OmniVoiceTritonError, match="interrupted: submit it again"):
                job.future.result()
    after = make_job()
    scheduler.submit([after])
    run_all(scheduler)
    assert int(after.future.result()) == after.number


def test_a_callback_that_exits_costs_nobody_else_anything(runner: Counter, scheduler: Scheduler) -> None:
    jobs = [make_job(steps=1), make_job(steps=1)]
    jobs[0].future.add_done_callback(lambda _: sys.exit(1))
    scheduler.submit(jobs)
    with pytest.raises(SystemExit):
        scheduler.step()
    assert int(jobs[1].future.result(0)) == jobs[1].number
    assert not runner.held


def test_a_job_that_cannot_take_its_step_fails_alone(runner: Counter, scheduler: Scheduler) -> None:
    good, bad = make_job(steps=2), make_job(steps=2)
    runner.broken[bad.number] = "draw"
    scheduler.submit([good, bad])
    run_all(scheduler)
    assert int(good.future.result()) == good.number
    with pytest.raises(MemoryError, match="its noise"):
        bad.future.result()
    assert runner.steps == [[good.number]] * 2


def test_a_cancelled_job_does_not_wait_behind_others(scheduler: Scheduler) -> None:
    running, head, cancelled = make_job(rows=100, steps=5), make_job(rows=100), make_job()
    scheduler.submit([running, head, cancelled])
    scheduler.step()
    cancelled.future.cancel()
    scheduler.step()
    assert wait([cancelled.future], timeout=0).done
    assert scheduler.load == (1, 1)


def test_many_threads_submit_while_one_steps(runner: Counter, scheduler: Scheduler) -> None:
    jobs = [make_job(rows=1 + i % 60, steps=1 + i % 3) for i in range(90)]
    closing = threading.Event()

    def drive() -> None:
        while not closing.is_set():
            if not scheduler.step():
                scheduler.wait(0.01)

    driver = threading.Thread(target=drive)
    driver.start()
    threads = [threading.Thread(target=lambda part=jobs[i::3]: [scheduler.submit([j]) for j in part]) for i in range(3)]
    for thread in threads:
        thread.start()
    results = [job.future.result(10).item() for job in jobs]
    closing.set()
    scheduler.wake()
    driver.join()
    assert results == [job.number for job in jobs]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_order_of_events_serves_everyone_in_turn(data: Any) -> None:
    """Whatever comes, steps, is cancelled: all end, none runs a step too many, and starts are in order."""
    runner = Counter()
    scheduler = Scheduler(runner, lambda rows, items: rows <= BUDGET and items <= 3)
    jobs: list[Job] = []
    for _ in range(data.draw(st.integers(1, 25))):
        event = data.draw(st.sampled_from(["submit", "submit", "step", "cancel"]))
        if event == "submit":
            jobs.append(make_job(data.draw(st.integers(1, BUDGET)), data.draw(st.integers(1, 4))))
            scheduler.submit([jobs[-1]])
        elif event == "step":
            scheduler.step()
        elif jobs:
            data.draw(st.sampled_from(jobs)).future.cancel()
    run_all(scheduler)
    assert not runner.held
    starts: list[int] = []
    for step in runner.steps:
        starts.extend(number for number in step if number not in starts)
    assert starts == sorted(starts)
    for job in jobs:
        assert job.future.done()
        if not job.future.cancelled():
            assert job.future.result(0).item() == job.number
            assert sum(job.number in step for step in runner.steps) == len(job.counts)
