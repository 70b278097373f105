"""Turn an upstream OmniVoice instance into one of the modes, and back."""

from __future__ import annotations

from typing import Any

from omnivoice_triton.config import DEFAULT_GRAPH_BUDGET_MB, Mode, get_mode
from omnivoice_triton.models.availability import choose
from omnivoice_triton.models.graphs import GraphedForward, capture_cuda_graph
from omnivoice_triton.models.handle import PatchHandle


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
) -> Acceleration:
    """Run an upstream OmniVoice instance in `mode`; its own `generate()` is then the fast one.

    Args:
        model: from `OmniVoice.from_pretrained`, on the device that it is to run on.
        mode: a name from `MODES`, or `auto` for the fastest that this machine can run.
        patch_range: half-open range of decoder layers for the Triton kernels; None is all.
        enable_fused_norm: fuse the residual adds, and q/k norm with RoPE.
        graph_budget_mb: what the CUDA graphs may hold together.
        capture: stand-in for CUDA capture, for tests.

    Returns:
        A handle: its repr shows what was patched, its `undo()` restores upstream bit for bit.

    Raises:
        UnknownMode, ModeUnavailable: no such mode, or this machine can't run it.
        InputError: the model is patched already, or an option is off.
    """
    # A stand-in for capture needs no GPU, so only the real thing is asked whether it can run.
    chosen = choose(mode, str(model.device)).mode if capture is None else get_mode(mode)
    parts: list[PatchHandle] = []
    try:
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
