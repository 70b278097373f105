"""Which modes this machine can run, and which one `auto` takes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnivoice_triton.config import AUTO, MODES, Mode, get_mode
from omnivoice_triton.speech import InputError, ModeUnavailable

if TYPE_CHECKING:
    import torch

MIN_CAPABILITY = (7, 5)
"""Turing: the oldest GPUs that Triton still compiles these kernels for."""


@dataclass(frozen=True)
class Choice:
    """A mode, the device it runs on, and why."""

    mode: Mode
    device: str
    reason: str


def interpreter_on() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def best_device() -> str:
    """`cuda` if a GPU can be used, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> str:
    """`device` with `auto` resolved.

    Raises:
        InputError: it is no device, or one that isn't there.
    """
    import torch

    if device == AUTO:
        return best_device()
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"unknown device {device!r}: give auto, cpu, cuda or cuda:0") from error
    if parsed.type == "cuda":
        if not torch.cuda.is_available():
            raise ModeUnavailable(f"no CUDA device can be used here ({no_gpu_reason()}): use device cpu, mode base")
        if parsed.index is not None and parsed.index >= torch.cuda.device_count():
            raise InputError(f"no device {device!r}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    elif parsed.type != "cpu":
        try:
            torch.empty(1, device=parsed).cpu()
        except Exception as error:  # each back end has its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise InputError(f"device {device!r} can't be used here ({reason}): give auto, cpu or cuda") from error
    return str(parsed)


def no_gpu_reason() -> str:
    """Why CUDA can't be used, in a few words."""
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "torch finds no NVIDIA GPU or driver"


def unavailable_reason(mode: Mode, device: str) -> str | None:
    """What keeps `mode` from running on `device`, with what to do about it; None if nothing does."""
    import torch

    kind = torch.device(device).type
    if not mode.made_for_gpu:
        return None
    if (mode.triton or mode.engine) and importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton (Linux) or triton-windows"
    if kind != "cuda":
        if mode.graph or (mode.triton and not interpreter_on()):
            return f"it needs an NVIDIA GPU, not device {kind}: use mode base"
        return None
    if not torch.cuda.is_available():
        return f"it needs an NVIDIA GPU ({no_gpu_reason()}): use mode base"
    capability = torch.cuda.get_device_capability(device)
    if (mode.triton or mode.engine) and capability < MIN_CAPABILITY:
        have, want = (".".join(map(str, c)) for c in (capability, MIN_CAPABILITY))
        return f"the GPU's compute capability is {have}, the kernels need {want}: use mode base or faster"
    if mode.engine and capability == (9, 0):
        from omnivoice_triton.kernels.nvrtc import problem

        return problem()
    return None


def choose(name: str, device: str, unsuited: Callable[[Mode], str | None] = lambda mode: None) -> Choice:
    """The mode called `name` on `device`; `auto` takes the highest-ranked one that can run.

    Args:
        name: of a mode, or `auto`.
        device: where.
        unsuited: why a mode doesn't suit what else was asked, or None: `auto` passes it over.

    Raises:
        UnknownMode: no such mode.
        ModeUnavailable: it can't run here.
    """
    import torch

    device = check_device(device)
    if name.lower() != AUTO:
        mode = get_mode(name)
        reason = unavailable_reason(mode, device)
        if reason:
            raise ModeUnavailable(f"mode {mode.name} can't run here: {reason}")
        return Choice(mode, device, "as asked")
    kind = torch.device(device).type
    better = ""
    for mode in sorted(MODES.values(), key=lambda m: -m.rank):
        reason = unavailable_reason(mode, device) or unsuited(mode)
        # Triton's interpreter and the engine's reference operations are for tests, never what somebody means by fast.
        if reason is None and not (mode.made_for_gpu and kind != "cuda"):
            return Choice(mode, device, f"the fastest that runs on {kind}{better}")
        better = better or (
            f"; mode {mode.name} can't run here: {reason}"
            if reason
            else f"; mode {mode.name} is fast on an NVIDIA GPU only"
        )
    # base always can, so it was what else was asked
    raise ModeUnavailable(f"no mode that auto would take on {kind} suits the options{better}: name a mode")


def resolve_dtype(dtype: Any, device: str) -> torch.dtype:
    """A torch dtype from its name; `auto` is fp16 on a GPU and fp32 on a CPU.

    Raises:
        InputError: it is none of fp16, bf16 and fp32.
    """
    import torch

    names = {
        "fp16": torch.float16,
        "float16": torch.float16,
        "half": torch.float16,
        "bf16": torch.bfloat16,
        "bfloat16": torch.bfloat16,
        "fp32": torch.float32,
        "float32": torch.float32,
    }
    if dtype == AUTO:
        return torch.float16 if torch.device(device).type == "cuda" else torch.float32
    resolved = dtype if isinstance(dtype, torch.dtype) else names.get(str(dtype).lower())
    if resolved is None or resolved not in names.values():
        raise InputError(f"unknown dtype {dtype!r}: give fp16, bf16 or fp32")
    return resolved
