"""Requests of more rows than the engine holds: decoded all the same, alone, with upstream's tokens."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from omnivoice_triton.engine import engine as engine_module
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.scheduler import Scheduler
from omnivoice_triton.engine.step import StepRunner
from omnivoice_triton.engine.wide import WIDEST_ROWS
from omnivoice_triton.speech import InputError

from .tiny import generation_config, make_model, make_task

FRAMES = [5, 90, 7, 70]  # two of them take more than 128 rows


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def test_a_list_with_wide_ones_has_upstreams_tokens(model: Any) -> None:
    task, config = make_task(model, frames=FRAMES, reference_frames=[3, 2, 9, 4]), generation_config(num_step=4)
    told: list[tuple[int, int]] = []
    with Engine(model, noise="torch", max_rows=128, max_items=4) as engine:
        torch.manual_seed(1)
        ours = engine.generate_tokens(task, config, on_step=lambda done, total: told.append((done, total)))
    torch.manual_seed(1)
    with torch.inference_mode():
        theirs = type(model)._generate_iterative(model, task, config)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [len(tokens[0]) for tokens in ours] == FRAMES
    assert told == sorted(told)
    assert told[-1] == (16, 16)


def test_its_tokens_do_not_depend_on_the_engines_size(model: Any) -> None:
    task, config = make_task(model, frames=FRAMES), generation_config(num_step=4)
    found = []
    for rows in (128, 1024):
        with Engine(model, max_rows=rows, max_items=4) as engine:
            found.append(engine.generate_tokens(task, config, seeds=[1, 2, 3, 4]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_background_thread_goes_on_beside_it(model: Any) -> None:
    with Engine(model, max_rows=128, max_items=4) as engine:
        alone = engine.generate_tokens(make_task(model, frames=FRAMES), generation_config(num_step=4), seeds=[1] * 4)
        engine.start()
        beside = engine.generate_tokens(make_task(model, frames=FRAMES), generation_config(num_step=4), seeds=[1] * 4)
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_its_buffers_are_gone_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when Python's collector comes: until then the device would hold them."""
    build, states = StepRunner.build.__func__, list[Any]()  # type: ignore[attr-defined]

    def noted(cls: type[StepRunner], *arguments: Any, **keywords: Any) -> StepRunner:
        runner: StepRunner = build(cls, *arguments, **keywords)
        states.append(weakref.ref(runner.state))
        return runner

    monkeypatch.setattr(StepRunner, "build", classmethod(noted))
    gc.collect()
    gc.disable()
    try:
        engine = Engine(model, max_rows=64, max_items=2)
        engine.generate_tokens(make_task(model, frames=[90, 5, 70]), generation_config(num_step=4))
        assert [state() is not None for state in states] == [True, False, False]
        engine.close()
        del engine
        assert states[0]() is None
    finally:
        gc.enable()


def test_a_closed_engine_takes_no_further_step_of_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model, max_rows=64, max_items=2)
    step = Scheduler.step

    def then_close(scheduler: Scheduler) -> bool:
        left = step(scheduler)
        engine.close()
        return left

    monkeypatch.setattr(Scheduler, "step", then_close)
    with pytest.raises(InputError, match="closed"):
        engine.generate_tokens(make_task(model, frames=[90]), generation_config(num_step=4))


def test_a_step_that_fails_fails_the_call(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = StepRunner.run

    def failing(runner: StepRunner, jobs: Any) -> None:
        if runner.grid.max_rows > 64:
            raise RuntimeError("out of memory")
        run(runner, jobs)

    monkeypatch.setattr(StepRunner, "run", failing)
    with Engine(model, max_rows=64, max_items=2) as engine:
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.generate_tokens(make_task(model, frames=[90]), generation_config(num_step=4))
        assert len(engine.generate_tokens(make_task(model, frames=[4]), generation_config(num_step=4))) == 1


def test_there_is_an_end(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WIDEST_ROWS > 8 * 4096
    monkeypatch.setattr(engine_module, "WIDEST_ROWS", 100)
    with Engine(model, max_rows=64, max_items=2) as engine:
        message = r"this request takes \d+ rows .* but the engine holds 100: give a shorter text or reference$"
        with pytest.raises(InputError, match=message):
            engine.generate_tokens(make_task(model, frames=[4, 90]), generation_config(num_step=4))
