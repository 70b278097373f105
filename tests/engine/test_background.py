"""The stepping thread ends when it is told to, whenever that is."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from omnivoice_triton.engine.background import Background
from omnivoice_triton.engine.scheduler import Scheduler


class Idle:
    """A runner that has nothing to do."""


@pytest.fixture
def scheduler() -> Scheduler:
    runner: Any = Idle()
    return Scheduler(runner, lambda rows, items: True)


def ended(background: Background, seconds: float = 10.0) -> bool:
    """Whether `stop` returns."""
    stopping = threading.Thread(target=background.stop, daemon=True)
    stopping.start()
    stopping.join(seconds)
    return not stopping.is_alive()


def test_it_ends_while_it_sleeps(scheduler: Scheduler) -> None:
    asleep = threading.Event()
    background = Background(scheduler)
    background.start(lambda: asleep.set() is not None)
    assert background.running
    assert asleep.wait(10)
    assert ended(background)
    assert not background.running


def test_a_stop_just_before_it_falls_asleep_is_not_missed(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    background = Background(scheduler)
    wait, about_to, woken = scheduler.wait, threading.Event(), threading.Event()

    def late(*given: Any, **named: Any) -> None:
        about_to.set()
        assert woken.wait(10)
        wait(*given, **named)

    wake = scheduler.wake
    monkeypatch.setattr(scheduler, "wait", late)
    monkeypatch.setattr(scheduler, "wake", lambda: (wake(), woken.set()))
    background.start(lambda: False)
    assert about_to.wait(10)
    assert ended(background)


def test_nothing_to_stop(scheduler: Scheduler) -> None:
    assert ended(Background(scheduler))


def test_its_own_thread_may_stop_it(scheduler: Scheduler) -> None:
    """As a future's callback does that closes the engine."""
    background, stopped = Background(scheduler), threading.Event()

    def step() -> bool:
        background.stop()
        stopped.set()
        return False

    background.start(step)
    assert stopped.wait(10)
    assert not background.running


def test_a_callback_that_exits_does_not_end_it(scheduler: Scheduler) -> None:
    background, steps = Background(scheduler), []
    again = threading.Event()

    def step() -> bool:
        steps.append(1)
        if len(steps) == 1:
            raise SystemExit
        again.set()
        return False

    background.start(step)
    assert again.wait(10)
    assert not background.is_current
    assert ended(background)
