"""Runners by name: the mode table, with 0.1.0's classes as thin names over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from omnivoice_triton.config import AUTO, ENGINE_OPTIONS, MODES, get_mode
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError

ALL_RUNNER_NAMES: list[str] = list(MODES)


class _SageOption(BaseRunner):
    """0.1.0's `enable_sage_attention=True` is the mode's `_sage` neighbour."""

    def __init__(self, *args: Any, enable_sage_attention: bool = False, mode: str | None = None, **kwargs: Any) -> None:
        if enable_sage_attention:
            mode = f"{(mode or self.default_mode).removesuffix('_sage')}_sage"
        super().__init__(*args, mode=mode, **kwargs)


class TritonRunner(_SageOption):
    """Mode `triton`."""

    default_mode: ClassVar[str] = "triton"


class FasterRunner(BaseRunner):
    """Mode `faster`."""

    default_mode: ClassVar[str] = "faster"


class TritonFasterRunner(_SageOption, FasterRunner):
    """Mode `hybrid`."""

    default_mode: ClassVar[str] = "hybrid"


class TritonSageRunner(TritonRunner):
    """Mode `triton_sage`."""

    default_mode: ClassVar[str] = "triton_sage"


class TritonFasterSageRunner(TritonFasterRunner):
    """Mode `hybrid_sage`."""

    default_mode: ClassVar[str] = "hybrid_sage"


_NAMED: tuple[type[BaseRunner], ...] = (
    BaseRunner,
    TritonRunner,
    TritonSageRunner,
    FasterRunner,
    TritonFasterRunner,
    TritonFasterSageRunner,
)


def get_runner_class(name: str) -> type[BaseRunner]:
    """The runner class of a mode.

    Raises:
        UnknownMode: no such mode (also a KeyError, as in 0.1.0).
    """
    mode = get_mode(name)
    return next((cls for cls in _NAMED if cls.default_mode == mode.name), BaseRunner)


def create_runner(
    mode: str = AUTO, *, device: str = AUTO, model_id: str | Path | None = None, dtype: Any = AUTO, **options: Any
) -> BaseRunner:
    """A runner for one of the modes, not loaded yet.

    Args:
        mode: a name from `ALL_RUNNER_NAMES`; `auto` picks the fastest that this machine can run, and the runner's
            `reason` says why.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        model_id: hub id or local directory; None is k2-fsa/OmniVoice.
        dtype: `fp16`, `bf16`, `fp32`; `auto` is fp16 on a GPU and fp32 on a CPU.
        **options: `patch_range`, `graph_budget_mb`, and for mode turbo `noise`, `max_rows`, `max_items`,
            `codec_precision`, `reference_encoder`, `host_embedding`, `tiles`, `attention` and `precision`, as
            `BaseRunner` takes them.

    Raises:
        UnknownMode, ModeUnavailable: no such mode, or this machine can't run it.
        InputError: an option is off.
    """
    if "name" in options:  # what 0.1.0 calls it
        mode = options.pop("name")
    if not isinstance(mode, str):
        raise InputError(f"mode must be a name such as 'turbo' or 'auto', not {mode!r}")
    if model_id is not None:
        options["model_id"] = model_id
    cls = BaseRunner if mode.lower() == AUTO else get_runner_class(mode)
    known = ("patch_range", "graph_budget_mb", *ENGINE_OPTIONS)
    unknown = sorted(set(options) - {*known, "model_id", "enable_sage_attention"})
    if unknown:
        raise InputError(f"unknown runner option {unknown[0]!r}: there are {', '.join(known)}")
    return cls(device=device, dtype=dtype, mode=mode, **options)
