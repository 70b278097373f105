"""Where the noise comes from.

`philox` needs nothing here: the scoring kernel draws it from the request's seed, step, codebook and frame.
`torch` repeats the draws of OmniVoice 0.2.1 in their order: at each step, for each item of the batch in turn and only
if it decides anything, [1, C, T, V] with class temperature, then [1, C, T] with position temperature, all from one
generator.
The draws depend on lengths and options alone, so they are all planned before the loop; an item may then run when it
likes. Class noise is large (131 MB for 5 s), so only the generator's states are kept and the draw is repeated when due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.schedule import unmask_counts
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.speech import InputError

NOISES = ("philox", "torch")


def check_noise(noise: str) -> str:
    """`noise` itself; InputError unless it is one of `NOISES`."""
    if noise not in NOISES:
        raise InputError(f"unknown noise {noise!r}: choose one of {', '.join(NOISES)}")
    return noise


@dataclass
class Uniforms:
    """Buffers that the scoring kernel reads in place of Philox, one entry for each target and codebook."""

    position: torch.Tensor  # [R, C] fp32
    classes: torch.Tensor  # [R, C, Va] fp32

    @classmethod
    def allocate(cls, rows: int, codebooks: int, audio_vocab: int, device: torch.device) -> Uniforms:
        """For up to `rows` targets."""
        shape = (rows, codebooks)
        return cls(torch.full(shape, 0.5, device=device), torch.full((*shape, audio_vocab), 0.5, device=device))


@dataclass
class TorchDraws:
    """The uniforms of one item, indexed by the steps in which it decides something."""

    frames: int
    positions: list[torch.Tensor] = field(default_factory=list)  # each [C, T]
    class_states: list[torch.Tensor] = field(default_factory=list)

    def fill(self, step: int, first_target: int, uniforms: Uniforms) -> None:
        """Write step `step` into the item's run of targets."""
        run = slice(first_target, first_target + self.frames)
        if self.class_states:
            generator = torch.Generator(device=uniforms.classes.device)
            generator.set_state(self.class_states[step])
            shape = (1, uniforms.classes.shape[1], self.frames, uniforms.classes.shape[2])
            draw = torch.rand(shape, generator=generator, device=uniforms.classes.device)
            uniforms.classes[run].copy_(draw[0].permute(1, 0, 2))
        if self.positions:
            uniforms.position[run].copy_(self.positions[step].T)


def plan_torch_draws(
    frames: Sequence[int],
    options: DecodeOptions,
    *,
    codebooks: int,
    audio_vocab: int,
    generator: torch.Generator,
) -> list[TorchDraws]:
    """All draws of one batch, in upstream's order; advances `generator` as upstream would.

    Args:
        frames: T of each item, in batch order.
        options: shared by the batch, as upstream's are.
        codebooks: C
        audio_vocab: ids of a codebook, the mask id included.
        generator: on the device where upstream would draw.
    """
    device = generator.device
    plans = [TorchDraws(n) for n in frames]
    counts = [unmask_counts(n, codebooks, options.num_step, options.t_shift) for n in frames]
    for step in range(options.num_step):
        for plan, schedule in zip(plans, counts, strict=True):
            if schedule[step] <= 0:
                continue
            if options.class_temperature > 0:
                plan.class_states.append(generator.get_state())
                torch.rand((1, codebooks, plan.frames, audio_vocab), generator=generator, device=device)
            if options.position_temperature > 0:
                draw = torch.rand((1, codebooks, plan.frames), generator=generator, device=device)
                plan.positions.append(draw[0])
    return plans


def default_generator(device: torch.device) -> torch.Generator:
    """torch's own generator for that device, the one that `torch.manual_seed` seeds and upstream draws from."""
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators: Sequence[torch.Generator] = torch.cuda.default_generators
        return generators[index]
    generator: torch.Generator = torch.default_generator
    return generator


def draw_seed(generator: torch.Generator | None) -> int:
    """A 63-bit seed from `generator` on the CPU, or from torch's default one."""
    return int(torch.randint(0, 2**63 - 1, (), generator=generator))


class NoiseSource:
    """Noise for the requests of one engine.

    Args:
        noise: one of `NOISES`.
        shape: of the model.
        device: where `torch` noise is drawn.
    """

    def __init__(self, noise: str, shape: BackboneShape, device: torch.device) -> None:
        self._noise = noise
        self._shape = shape
        self._device = device
        self._seeds: torch.Generator | None = None
        self._draws: torch.Generator | None = None

    def manual_seed(self, seed: int) -> None:
        """Draw the noise of later batches from `seed`, rather than from torch's global generator."""
        self._seeds = torch.Generator().manual_seed(seed)
        self._draws = torch.Generator(device=self._device).manual_seed(seed)

    def of_request(self, request: Request) -> TorchDraws | None:
        """A single request's draws, from its seed; None with `philox`."""
        if self._noise != "torch":
            return None
        generator = torch.Generator(device=self._device).manual_seed(request.seed % 2**63)
        return self._plan([request.prompt.frames], request.options, generator)[0]

    def of_batch(
        self,
        frames: Sequence[int],
        options: DecodeOptions,
        *,
        seeds: Sequence[int] | None,
        generator: torch.Generator | None,
    ) -> tuple[Sequence[int], Sequence[TorchDraws | None]]:
        """Seed and draws of each item of one batch; the draws are None with `philox`.

        Args:
            frames: T of each item.
            options: shared by the batch.
            seeds: instead of those that would be drawn for `philox`.
            generator: of `torch` noise, instead.
        """
        draws: Sequence[TorchDraws | None] = [None] * len(frames)
        if self._noise == "torch":
            draws = self._plan(frames, options, generator or self._draws or default_generator(self._device))
        elif seeds is None:
            seeds = [draw_seed(self._seeds) for _ in frames]
        return seeds or [0] * len(frames), draws

    def _plan(self, frames: Sequence[int], options: DecodeOptions, generator: torch.Generator) -> list[TorchDraws]:
        return plan_torch_draws(
            frames,
            options,
            codebooks=self._shape.codebooks,
            audio_vocab=self._shape.audio_vocab,
            generator=generator,
        )
