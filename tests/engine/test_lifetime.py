"""What an engine must outlive: callbacks, bad requests, failed constructions, its own end."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.state import FreeRows
from omnivoice_triton.speech import InputError, ModeUnavailable, Speech

from .tiny import generation_config, make_model, make_task


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def request_of(frames: Any, seed: int = 0, text: int = 6, reference: Any = None, **options: Any) -> Request:
    prompt = Prompt(np.arange(text, dtype=np.int64), reference, frames)
    return Request(prompt, DecodeOptions(num_step=6, **options), seed)


def test_a_callback_that_steps_leaves_others_their_rows(model: Any) -> None:
    """Two of 60 frames end at once; what the first one's callback admits must not take the second one's rows."""
    with Engine(model, max_rows=128, max_items=8) as engine:
        short = [engine.submit(request_of(60, text=3, guidance_scale=0)) for _ in range(2)]
        short[0].add_done_callback(lambda _: engine.step())
        for _ in range(5):
            engine.step()
        long = engine.submit(request_of(120, text=3, guidance_scale=0))
        engine.run_until_idle()
        assert long.result().shape == (8, 120)
        assert [future.result().shape for future in short] == [(8, 60)] * 2


def test_a_background_callback_may_decode(model: Any) -> None:
    """As one does that says the next chunk when the first is done."""
    done = threading.Event()
    found: list[Any] = []
    with Engine(model, max_rows=256, max_items=4) as engine:
        engine.start()

        def go_on(_: Any) -> None:
            found.extend(engine.generate_tokens(make_task(model, frames=[5]), generation_config(num_step=4)))
            done.set()

        engine.submit(request_of(5)).add_done_callback(go_on)
        assert done.wait(60)
        assert found[0].shape == (8, 5)
        assert engine.submit(request_of(4)).result(60).shape == (8, 4)


def test_frames_are_whole_numbers(model: Any) -> None:
    for frames in (50.0, True, "5"):
        with pytest.raises(InputError, match="frames must be a whole number"):
            request_of(frames)
    assert request_of(np.int64(5)).prompt.frames == 5
    with pytest.raises(InputError, match="whole numbers"):
        request_of(5, reference=torch.zeros(8, 3, dtype=torch.bool))


def test_rows_that_are_not_there_are_refused() -> None:
    rows = FreeRows(4)
    with pytest.raises(RuntimeError, match="5 rows wanted, 4 are free"):
        rows.take(5)
    assert len(rows.take(4)) == 4


@pytest.mark.parametrize(
    ("options", "error"), [({"max_rows": 100}, InputError), ({"backend": "triton"}, ModeUnavailable)]
)
def test_an_engine_that_cannot_be_made_leaves_the_model_alone(
    options: dict[str, Any], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "backend" in options:
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        monkeypatch.setattr("omnivoice_triton.engine.engine.resolve_backend", _unavailable)
    untouched = make_model()
    attention = untouched.llm.layers[0].self_attn
    with pytest.raises(error):
        Engine(untouched, **options)
    assert attention.q_proj.weight.untyped_storage().data_ptr() != attention.k_proj.weight.untyped_storage().data_ptr()


def _unavailable(*_: Any) -> str:
    raise ModeUnavailable("no GPU")


def test_a_reference_that_was_written_to_is_looked_at_again(model: Any) -> None:
    with Engine(model, max_rows=256, max_items=4) as engine:
        (codes,) = engine.generate_tokens(make_task(model, frames=[5]), generation_config(num_step=4))
        engine.submit(request_of(4, reference=codes)).cancel()
        codes.fill_(9999)
        with pytest.raises(InputError, match="reference codes must be"):
            engine.submit(request_of(4, reference=codes))


def test_what_is_refused_draws_no_noise(model: Any) -> None:
    with Engine(model, noise="torch", max_rows=128, max_items=4) as engine:
        before = torch.random.get_rng_state()
        with pytest.raises(InputError, match="but the engine holds 65536"):
            engine.generate_tokens(make_task(model, frames=[5, 40_000]), generation_config(class_temperature=0.5))
        assert torch.equal(torch.random.get_rng_state(), before)


def test_a_closed_engine_captures_nothing(model: Any) -> None:
    engine = Engine(model, max_rows=128, max_items=4)
    engine.close()
    assert not engine.step()
    assert engine.runner.graphs.captures == 0
    with pytest.raises(InputError, match="closed"):
        engine.warmup()
    with pytest.raises(InputError, match="closed"):
        engine.submit(request_of(4))


def test_a_schedule_longer_than_its_window_is_sent_in_pieces(model: Any) -> None:
    """600 steps asked, of which over 256 decide something: the counts on the device are a ring of 256."""
    task, config = make_task(model, frames=[45]), generation_config(num_step=600)
    with Engine(model, noise="torch", max_rows=256, max_items=2) as engine:
        torch.manual_seed(1)
        (ours,) = engine.generate_tokens(task, config)
    torch.manual_seed(1)
    with torch.inference_mode():
        (theirs,) = type(model)._generate_iterative(model, task, config)
    assert torch.equal(ours, theirs)


def test_a_step_after_teacher_forcing_lays_out_anew(model: Any) -> None:
    task, config = make_task(model, frames=[7]), generation_config(num_step=4)
    with Engine(model, max_rows=256, max_items=4) as engine:
        (first,) = engine.generate_tokens(task, config, seeds=[3])
        engine.logits(make_task(model, frames=[9]), config, [torch.zeros(8, 9, dtype=torch.int64)])
        (again,) = engine.generate_tokens(task, config, seeds=[3])
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", [DecodeOptions, GenerationOptions])
def test_options_are_numbers_that_the_loop_can_use(kind: Any) -> None:
    assert kind(num_step=4.0).num_step == 4
    assert type(kind(num_step=np.int64(4)).num_step) is int
    assert type(kind(guidance_scale=np.float32(2)).guidance_scale) is float
    for wrong in ({"num_step": 10**6}, {"num_step": 2.5}, {"t_shift": 1e39}, {"guidance_scale": float("inf")}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            kind(**wrong)
    with pytest.raises(InputError, match="pad_duration must be at most 60 seconds"):
        GenerationOptions(pad_duration=1e9)


def test_results_can_be_compared_and_kept_in_sets() -> None:
    one, other = (Speech(np.ones(3, np.float32), 24_000, 1.0, 0, "base") for _ in range(2))
    assert one == one
    assert one != other
    assert other not in [one]
    assert len({one, other, one}) == 2
