"""The persistent state of decoding, and single steps of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.state import SCHEDULE_WINDOW, DecodeState, FreeRows, slot_row
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.kernels import tables as t
from omnivoice_triton.kernels.unmask_reference import Slot
from omnivoice_triton.speech import InputError

from .tiny import make_model


@pytest.fixture(scope="module")
def weights() -> BackboneWeights:
    return BackboneWeights.from_upstream(make_model())


def make_prompt(n_text: int, n_reference: int, frames: int) -> Prompt:
    reference = torch.arange(8 * n_reference).view(8, n_reference) % 32 if n_reference else None
    return Prompt(np.arange(n_text, dtype=np.int64), reference, frames)


def test_rows_come_back_whatever_the_order() -> None:
    free = FreeRows(10)
    a, b = free.take(4), free.take(3)
    assert sorted([*a, *b]) == list(range(7))
    free.give(a)
    c = free.take(7)
    assert len(free) == 0
    assert not set(c) & set(b)
    free.give(b)
    free.give(c)
    assert sorted(free.take(10)) == list(range(10))


def test_admission_writes_what_upstream_embeds(weights: BackboneWeights) -> None:
    model = make_model()
    state = DecodeState(weights, 64, 3)
    state.admit(make_prompt(2, 0, 5), DecodeOptions(), 0, (1,))  # so that rows don't start at 0
    prompt = make_prompt(4, 3, 2)
    assert prompt.reference is not None
    with torch.no_grad():
        placement = state.admit(prompt, DecodeOptions(guidance_scale=0.0), 0, (1,))
        state.flush()
        ids = torch.cat((torch.from_numpy(prompt.text_ids).expand(8, -1), prompt.reference), 1)
        want = model._prepare_embed_inputs(ids[None], (torch.arange(7) >= 4)[None])[0]
    assert torch.equal(state.prompt[torch.from_numpy(placement.prompt).long()], want)
    assert not placement.guided
    assert (state.canvas[placement.frames] == weights.shape.mask_id).all()
    assert state.collect(placement).shape == (8, 2)
    assert state.free == (64 - 9, 64 - 7, 1)
    state.release(placement)
    assert state.free == (64 - 2, 64 - 5, 2)


def test_many_join_as_each_alone(weights: BackboneWeights) -> None:
    """One copy for all: every prompt, slot and frame lies where it lies when they join one by one."""
    together, apart = DecodeState(weights, 64, 4), DecodeState(weights, 64, 4)
    sizes = ((4, 3, 2), (1, 0, 3), (0, 2, 1), (3, 1, 4))
    joining = [(make_prompt(*each), 5 + n) for n, each in enumerate(sizes)]
    for state in (together, apart):
        state.canvas.zero_()
        for prompt, seed in joining:
            state.admit(prompt, DecodeOptions(num_step=seed), seed, (seed, 1))
            if state is apart:
                state.flush()
        state.flush()
        state.flush()
    assert (together.canvas == weights.shape.mask_id).sum() == 10 * 8
    assert together.prompt.abs().sum() > 0
    for name in ("prompt", "canvas", "slots"):
        assert torch.equal(getattr(together, name), getattr(apart, name)), name


def test_who_leaves_before_being_placed_writes_nothing(weights: BackboneWeights) -> None:
    state = DecodeState(weights, 64, 3)
    placement = state.admit(make_prompt(4, 3, 2), DecodeOptions(), 0, (1,))
    state.release(placement)
    state.flush()
    assert not state.prompt.any()
    assert state.free == (64, 64, 3)


def test_a_failed_placement_leaves_nothing_behind(weights: BackboneWeights) -> None:
    state = DecodeState(weights, 64, 3)
    bad = Prompt(np.array([10**6], np.int64), None, 2)  # the engine refuses it; here it gets through
    placement = state.admit(bad, DecodeOptions(), 0, (1,))
    with pytest.raises(IndexError):
        state.flush()
    state.release(placement)
    assert state.free == (64, 64, 3)
    state.flush()


def test_slot_row_holds_settings_seed_and_counts() -> None:
    options = DecodeOptions(guidance_scale=1.5, position_temperature=0.0, class_temperature=0.25)
    row = slot_row(options, -1, (3, 2, 1))
    slot = Slot(torch.from_numpy(row))
    assert (slot.guidance, slot.penalty, slot.position_temperature, slot.class_temperature) == (1.5, 5.0, 0.0, 0.25)
    assert (slot.step, slot.count) == (0, 3)
    assert [s & 0xFFFFFFFF for s in slot.seed] == [0xFFFFFFFF] * 2
    assert row[t.SLOT_HEADER : t.SLOT_HEADER + 4].tolist() == [3, 2, 1, 0]


def test_schedules_longer_than_the_window_are_uploaded_in_pieces(weights: BackboneWeights) -> None:
    state = DecodeState(weights, 128, 1)
    counts = tuple(1 + i % 3 for i in range(2 * SCHEDULE_WINDOW + 40))
    placement = state.admit(make_prompt(1, 0, 80), DecodeOptions(), 0, counts)
    state.flush()
    for step, count in enumerate(counts):
        state.refresh_schedule(placement, counts, step)
        assert Slot(state.slots[placement.slot]).count == count
        state.slots[placement.slot, t.SLOT_STEP] += 1
    assert Slot(state.slots[placement.slot]).count == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_step": 0}, "num_step must be a whole number"),
        ({"num_step": 2.5}, "num_step must be a whole number"),
        ({"t_shift": 0.0}, "t_shift must be above 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a number"),
        ({"class_temperature": "hot"}, "class_temperature must be a number"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        DecodeOptions(**options)


def test_a_request_is_guided_by_default() -> None:
    request = Request(make_prompt(1, 0, 1))
    assert request.options.guided
    assert not DecodeOptions(guidance_scale=0.0).guided
