"""What can be asked of the engine: a prompt, how to decode it, and a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from omnivoice_triton.config import as_number, as_steps
from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.speech import InputError


@dataclass(frozen=True)
class DecodeOptions:
    """The options of upstream's generation config that the decode loop reads; names and defaults are upstream's."""

    num_step: int = 32
    guidance_scale: float = 2.0
    t_shift: float = 0.1
    layer_penalty_factor: float = 5.0
    position_temperature: float = 5.0
    class_temperature: float = 0.0

    def __post_init__(self) -> None:
        """Raise InputError for a value that the loop can't use."""
        for field in fields(self):
            object.__setattr__(self, field.name, as_number(field.name, getattr(self, field.name)))
        object.__setattr__(self, "num_step", as_steps(self.num_step))
        if self.t_shift <= 0:
            raise InputError(f"t_shift must be above 0, not {self.t_shift!r}")

    @classmethod
    def from_config(cls, config: Any) -> DecodeOptions:
        """Read any object with upstream's attribute names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    @property
    def guided(self) -> bool:
        """Whether the unconditional branch is run at all."""
        return self.guidance_scale != 0


@dataclass(frozen=True)
class Request:
    """One utterance to decode."""

    prompt: Prompt
    options: DecodeOptions = DecodeOptions()
    seed: int = 0
    """Of the noise; taken modulo 2^64. The same seed draws the same noise whoever shares the batch. Tokens are the same
    in fp32; in 16 bits sums are cut otherwise in other buckets, and another rounding can tip a choice."""
