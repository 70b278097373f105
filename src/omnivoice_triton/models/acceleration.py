"""Turn an upstream OmniVoice instance into one of the modes, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from omnivoice_triton.config import DEFAULT_GRAPH_BUDGET_MB, ENGINE_OPTIONS, Mode, get_mode
from omnivoice_triton.models.availability import choose
from omnivoice_triton.models.graphs import GraphedForward, capture_cuda_graph
from omnivoice_triton.models.handle import PatchHandle
from omnivoice_triton.models.progress import Progress, reporting
from omnivoice_triton.models.request import Request
from omnivoice_triton.models.seeding import seeded
from omnivoice_triton.speech import InputError

if TYPE_CHECKING:
    from omnivoice_triton.models.turbo import TurboHandle


class Acceleration(PatchHandle):
    """The patches of one mode on one model, undone together."""

    def __init__(self, mode: Mode, parts: list[PatchHandle]) -> None:
        super().__init__(f"mode {mode.name}", {})
        self.mode = mode
        self.parts = parts
        for part in parts:  # undone last first: the graph before the kernels that it captured
            self.counts.update(part.counts)
            self.on_undo(part.undo)

    @property
    def graphs(self) -> GraphedForward | None:
        """The captured graphs, if the mode has any."""
        return next((part.forward for part in self.parts if hasattr(part, "forward")), None)

    @property
    def turbo(self) -> TurboHandle | None:
        """Our own engine, if the mode has it."""
        found: Any = next((part for part in self.parts if part.what == "turbo"), None)
        turbo: TurboHandle | None = found
        return turbo

    @contextmanager
    def call(
        self, model: Any, seed: int, request: Request | None = None, progress: Progress | None = None
    ) -> Iterator[None]:
        """Within the block `model` draws its noise from `seed`, whatever the mode, and tells `progress`."""
        if self.turbo is not None:
            with self.turbo.call(seed, progress):
                yield
            return
        with seeded(model, seed), reporting(model, request, progress):
            yield

    def __repr__(self) -> str:
        """Mode and every part."""
        parts = " ".join(map(repr, self.parts)) or "upstream as it is"
        return f"<{self.what}: {parts}>"


def accelerate(
    model: Any,
    mode: str = "auto",
    *,
    patch_range: tuple[int, int] | None = None,
    enable_fused_norm: bool = True,
    graph_budget_mb: int = DEFAULT_GRAPH_BUDGET_MB,
    capture: Any | None = None,
    **engine_options: Any,
) -> Acceleration:
    """Run an upstream OmniVoice instance in `mode`; its own `generate()` is then the fast one.

    Args:
        model: from `OmniVoice.from_pretrained`, on the device that it is to run on.
        mode: a name from `MODES`, or `auto` for the fastest that this machine can run.
        patch_range: half-open range of decoder layers for the Triton kernels; None is all.
        enable_fused_norm: fuse the residual adds, and q/k norm with RoPE.
        graph_budget_mb: what the CUDA graphs may hold together.
        capture: stand-in for CUDA capture, for tests.
        **engine_options: for mode turbo: `noise`, `max_rows`, `max_items`, `codec_precision`,
            `reference_encoder`, `host_embedding`, `tiles`, `attention` and `precision`, as `install_turbo` takes them.

    Returns:
        A handle: its repr shows what was patched, its `undo()` restores upstream bit for bit.

    Raises:
        UnknownMode, ModeUnavailable: no such mode, or this machine can't run it.
        InputError: the model is patched already, or an option is off.
    """
    # A stand-in for capture needs no GPU, so only the real thing is asked whether it can run.
    triton_options = patch_range is not None or not enable_fused_norm
    suits = partial(unsuited, engine_options=engine_options, triton_options=triton_options, model=model)
    chosen = choose(mode, str(model.llm.norm.weight.device), suits).mode if capture is None else get_mode(mode)
    check_options(chosen, engine_options, triton_options=triton_options)
    if "_generate_iterative" in model.__dict__:
        raise InputError("this model's decode loop is replaced already: undo() that first")
    parts: list[PatchHandle] = []
    try:
        if chosen.engine:
            from omnivoice_triton.models.turbo_install import install_turbo

            parts.append(install_turbo(model, codec_budget_mb=graph_budget_mb, codec_capture=capture, **engine_options))
        if chosen.triton:
            from omnivoice_triton.models.patching import apply_triton_kernels  # Triton is not everywhere

            parts.append(apply_triton_kernels(model, enable_fused_norm, patch_range, int8_qk=chosen.int8_qk))
        if chosen.graph:
            parts.append(capture_cuda_graph(model, budget_mb=graph_budget_mb, capture=capture))
    except BaseException:
        for part in reversed(parts):
            part.undo()
        raise
    return Acceleration(chosen, parts)


def unsuited(mode: Mode, *, engine_options: dict[str, Any], triton_options: bool, model: Any = None) -> str | None:
    """Why `auto` passes a mode over: options of another kind of mode, or a model without what it needs."""
    if mode.engine and triton_options:
        return "patch_range and enable_fused_norm are not for it"
    given = sorted(set(engine_options) & set(ENGINE_OPTIONS))
    if given and not mode.engine:
        return f"{given[0]} is not for it"
    if mode.engine and model is not None and (model.audio_tokenizer is None or model.text_tokenizer is None):
        return "the model has no tokenizers"
    return None


def check_common(mode: Mode, patch_range: Any, graph_budget_mb: Any) -> None:
    """Raise InputError for a range of layers or a budget that is none, or that the mode has no use for."""
    if isinstance(graph_budget_mb, bool) or not isinstance(graph_budget_mb, int) or graph_budget_mb < 1:
        raise InputError(f"graph_budget_mb must be a whole number of at least 1, not {graph_budget_mb!r}")
    if patch_range is None:
        return
    pair = isinstance(patch_range, tuple | list) and len(patch_range) == 2
    if not pair or not all(isinstance(end, int) and not isinstance(end, bool) for end in patch_range):
        raise InputError(f"patch_range must be two whole numbers, such as (0, 24), not {patch_range!r}")
    if not mode.triton and not mode.engine:
        raise InputError(f"patch_range is for modes that patch upstream's layers, not {mode.name}")


def check_options(mode: Mode, engine_options: dict[str, Any], *, triton_options: bool) -> None:
    """Raise InputError for options that are unknown, out of range or of another kind of mode."""
    unknown = sorted(set(engine_options) - set(ENGINE_OPTIONS))
    if unknown:
        choices = ", ".join(("patch_range", "graph_budget_mb", *ENGINE_OPTIONS))
        raise InputError(f"unknown option {unknown[0]!r}: there are {choices}")
    if mode.engine:
        if triton_options:
            raise InputError(
                f"patch_range and enable_fused_norm are for modes that patch upstream's layers, not {mode.name}"
            )
        from omnivoice_triton.models.turbo_install import check_engine_values

        check_engine_values(engine_options)
    elif engine_options:
        raise InputError(f"{min(engine_options)} is for mode turbo, not {mode.name}")
