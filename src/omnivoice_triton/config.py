"""Frozen settings: the modes, the generation options and the limits that bad input is measured against.

Nothing here imports torch, so that the command line can print its help at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from omnivoice_triton.speech import InputError, UnknownMode

HUB_MODEL_ID = "k2-fsa/OmniVoice"
"""The real weights, on the Hugging Face hub."""

SAMPLE_RATE_HZ = 24_000
FRAME_RATE_HZ = 25

MAX_DURATION_S = 3600.0
MIN_SPEED, MAX_SPEED = 0.1, 10.0
DEFAULT_GRAPH_BUDGET_MB = 512

ENGINE_OPTIONS = (
    "noise",
    "max_rows",
    "max_items",
    "attention",
    "precision",
    "codec_precision",
    "reference_encoder",
    "host_embedding",
    "tiles",
)
"""What a runner or `accelerate` takes for modes with an engine of our own, beside the options of all modes."""


@dataclass(frozen=True)
class Mode:
    """One way to run the model: a row of the table `MODES`, not a class.

    `rank` orders what `auto` tries: the highest rank that can run here wins.
    """

    name: str
    summary: str
    rank: int
    triton: bool = False
    int8_qk: bool = False
    graph: bool = False
    engine: bool = False
    """Our own engine instead of upstream's decode loop: Triton on a GPU, PyTorch operations elsewhere."""

    @property
    def needs_gpu(self) -> bool:
        """Whether the mode runs on an NVIDIA GPU only (Triton's interpreter aside)."""
        return self.triton or self.graph

    @property
    def made_for_gpu(self) -> bool:
        """Whether `auto` takes the mode on an NVIDIA GPU only: elsewhere base is faster."""
        return self.needs_gpu or self.engine


_MODES = (
    Mode("base", "upstream's own PyTorch path", rank=10),
    Mode("triton", "Triton kernels in the backbone", rank=30, triton=True),
    Mode("triton_sage", "Triton kernels, INT8-QK attention", rank=20, triton=True, int8_qk=True),
    Mode("faster", "CUDA graph of upstream's forward", rank=40, graph=True),
    Mode("hybrid", "Triton kernels inside a CUDA graph", rank=60, triton=True, graph=True),
    Mode(
        "hybrid_sage", "Triton kernels, INT8-QK attention, CUDA graph", rank=50, triton=True, int8_qk=True, graph=True
    ),
    Mode("turbo", "an engine of our own: packed rows, sampling on the device, step graphs", rank=70, engine=True),
)

MODES: dict[str, Mode] = {mode.name: mode for mode in _MODES}
AUTO = "auto"


def get_mode(name: str) -> Mode:
    """The mode of that name (case and `-`/`_` don't matter).

    Raises:
        UnknownMode: no such mode; the message lists those there are.
    """
    mode = MODES.get(name.lower().replace("-", "_")) if isinstance(name, str) else None
    if mode is None:
        raise UnknownMode(f"unknown mode {name!r}: choose one of {', '.join(MODES)}, or {AUTO}")
    return mode


MOST_STEPS = 10_000
MOST_SILENCE_S = 60.0
"""Of `pad_duration` and `fade_duration`."""
_LARGEST = 3.4e38
"""What fp32 holds: the decode loop computes in it."""


def as_number(name: str, value: Any) -> float:
    """A plain number that fp32 holds, of one of any kind, numpy's too.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not -_LARGEST <= float(value) <= _LARGEST:
        raise InputError(f"{name} must be a number, not {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def as_steps(value: float) -> int:
    """A number of decoding steps.

    Raises:
        InputError: it is not whole, below 1 or above `MOST_STEPS`.
    """
    if value != int(value) or value < 1:
        raise InputError(f"num_step must be a whole number of at least 1, not {value!r}")
    if value > MOST_STEPS:
        raise InputError(f"num_step must be at most {MOST_STEPS}, not {value!r}")
    return int(value)


@dataclass(frozen=True)
class GenerationOptions:
    """Upstream's `OmniVoiceGenerationConfig`, field for field, checked and frozen.

    A test holds names and defaults equal to upstream's.
    """

    num_step: int = 32
    guidance_scale: float = 2.0
    t_shift: float = 0.1
    layer_penalty_factor: float = 5.0
    position_temperature: float = 5.0
    class_temperature: float = 0.0
    denoise: bool = True
    preprocess_prompt: bool = True
    postprocess_output: bool = True
    audio_chunk_duration: float = 15.0
    audio_chunk_threshold: float = 30.0
    pad_duration: float = 0.1
    fade_duration: float = 0.1

    def __post_init__(self) -> None:
        """Raise InputError for a value that the decode loop can't use."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise InputError(f"{field.name} must be True or False, not {value!r}")
                continue
            object.__setattr__(self, field.name, as_number(field.name, value))
        object.__setattr__(self, "num_step", as_steps(self.num_step))
        if self.t_shift <= 0:
            raise InputError(f"t_shift must be above 0, not {self.t_shift!r}")
        if self.audio_chunk_duration <= 0:
            raise InputError(f"audio_chunk_duration must be above 0 seconds, not {self.audio_chunk_duration!r}")
        for name in (
            "position_temperature",
            "class_temperature",
            "audio_chunk_threshold",
            "pad_duration",
            "fade_duration",
        ):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, but is {getattr(self, name)!r}")
        for name in ("pad_duration", "fade_duration"):
            if getattr(self, name) > MOST_SILENCE_S:
                raise InputError(f"{name} must be at most {MOST_SILENCE_S:g} seconds, not {getattr(self, name)!r}")

    @classmethod
    def from_kwargs(cls, options: dict[str, Any]) -> GenerationOptions:
        """Options from keyword arguments; an unknown name raises InputError instead of being dropped."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise InputError(f"unknown option {unknown[0]!r}: choose from {', '.join(sorted(known))}")
        return cls(**options)


def check_duration(duration: Any) -> None:
    """Raise InputError unless `duration` (seconds) is None or between one frame and an hour."""
    if duration is None:
        return
    low = 1 / FRAME_RATE_HZ
    if isinstance(duration, bool) or not isinstance(duration, Real) or not low <= float(duration) <= MAX_DURATION_S:
        raise InputError(f"duration must be {low:g} to {MAX_DURATION_S:g} seconds, not {duration!r}")


def check_speed(speed: Any) -> None:
    """Raise InputError unless `speed` (a factor) is None or between 0.1 and 10."""
    if speed is None:
        return
    if isinstance(speed, bool) or not isinstance(speed, Real) or not MIN_SPEED <= float(speed) <= MAX_SPEED:
        raise InputError(f"speed must be {MIN_SPEED:g} to {MAX_SPEED:g} (1 is normal), not {speed!r}")
