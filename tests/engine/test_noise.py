"""Planned draws against the stream that upstream would draw."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.engine.noise import (
    NoiseSource,
    Uniforms,
    check_noise,
    default_generator,
    draw_seed,
    plan_torch_draws,
)
from omnivoice_triton.engine.request import DecodeOptions
from omnivoice_triton.engine.schedule import unmask_counts
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.speech import InputError

from .tiny import make_model

C, V = 3, 7


@pytest.mark.parametrize("options", [DecodeOptions(num_step=5), DecodeOptions(num_step=5, class_temperature=1.0)])
def test_draws_are_upstreams(options: DecodeOptions) -> None:
    frames = [4, 1, 6]
    torch.manual_seed(11)
    want: list[list[tuple[torch.Tensor | None, torch.Tensor]]] = [[] for _ in frames]
    counts = [unmask_counts(n, C, options.num_step, options.t_shift) for n in frames]
    for step in range(options.num_step):
        for item, n in enumerate(frames):
            if counts[item][step] > 0:
                classes = torch.rand_like(torch.zeros(1, C, n, V)) if options.class_temperature else None
                want[item].append((classes, torch.rand_like(torch.zeros(1, C, n))))
    assert len(want[1]) == 3  # one frame has 3 cells: no draw in its other steps
    after = torch.rand(1)

    torch.manual_seed(11)
    plans = plan_torch_draws(
        frames, options, codebooks=C, audio_vocab=V, generator=default_generator(torch.device("cpu"))
    )
    assert torch.equal(torch.rand(1), after)  # the generator stands where upstream would leave it
    uniforms = Uniforms.allocate(16, C, V, torch.device("cpu"))
    for item, (plan, n) in enumerate(zip(plans, frames, strict=True)):
        for step, (classes, position) in reversed(list(enumerate(want[item]))):  # in any order
            plan.fill(step, 5, uniforms)
            assert torch.equal(uniforms.position[5 : 5 + n], position[0].T)
            if classes is not None:
                assert torch.equal(uniforms.classes[5 : 5 + n], classes[0].permute(1, 0, 2))
    assert (uniforms.position[:5] == 0.5).all()


def test_without_position_temperature_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    options = DecodeOptions(num_step=3, position_temperature=0.0)
    plans = plan_torch_draws([2], options, codebooks=C, audio_vocab=V, generator=generator)
    assert torch.equal(generator.get_state(), state)
    plans[0].fill(0, 0, Uniforms.allocate(4, C, V, torch.device("cpu")))


def test_seeds_follow_torchs_or_their_own_generator() -> None:
    torch.manual_seed(5)
    first = draw_seed(None)
    torch.manual_seed(5)
    assert draw_seed(None) == first
    own = torch.Generator().manual_seed(5)
    assert draw_seed(own) == first
    assert draw_seed(own) != first


def test_unknown_noise_is_refused() -> None:
    assert check_noise("philox") == "philox"
    with pytest.raises(InputError, match="unknown noise 'white': choose one of philox, torch"):
        check_noise("white")


def test_philox_seeds_of_a_batch() -> None:
    """Given ones, else those of `manual_seed`, else torch's own: the same draws of the same seed."""
    shape = BackboneShape.from_config(make_model().config)
    source, options = NoiseSource("philox", shape, torch.device("cpu")), DecodeOptions()

    def seeds(given: list[int] | None = None) -> list[int]:
        drawn, draws = source.of_batch([4, 2], options, seeds=given, generator=None)
        assert draws == [None, None]
        return list(drawn)

    torch.manual_seed(8)
    want = [seeds(), seeds()]
    assert len({*want[0], *want[1]}) == 4
    source.manual_seed(8)
    before = torch.get_rng_state()
    assert [seeds(), seeds()] == want
    assert torch.equal(torch.get_rng_state(), before)
    assert seeds([5, 6]) == [5, 6]
