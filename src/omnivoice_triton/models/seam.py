"""Where this package takes hold of an OmniVoice model: its Qwen3 backbone, and the masks that reach it.

No Triton in here: the CUDA graphs of mode `faster` use it too.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from omnivoice_triton.models.handle import PatchHandle
from omnivoice_triton.speech import InputError

ROW_LENGTHS = "row_lengths"
"""Keyword under which `RowLengths` hands `[B]` int32 lengths down to every attention."""


def find_patchable_model(model: Any) -> Qwen3Model:
    """The Qwen3 backbone of an OmniVoice model, or `model` itself if it is one.

    Raises:
        InputError: there is no Qwen3 backbone in it.
    """
    for candidate in (model, getattr(model, "llm", None)):
        if isinstance(candidate, Qwen3Model):
            return candidate
    raise InputError(f"no Qwen3 backbone in {type(model).__name__}: pass an OmniVoice model or its .llm")


def patch_version(llm: nn.Module) -> int:
    """A number that grows with every patch and undo, so that captured graphs know when they are stale."""
    return int(llm.__dict__.get("_omnivoice_triton_patches", 0))


def mark_changed(llm: nn.Module) -> None:
    """Tell captured graphs that the backbone computes otherwise from now on."""
    llm.__dict__["_omnivoice_triton_patches"] = patch_version(llm) + 1


class RowLengths:
    """Forward pre-hook: turns upstream's [B, 1, S, S] bool mask into [B] lengths for the INT8-QK kernel.

    Upstream's mask only says how many leading positions of a row count, plus self-attention of padding rows. That is
    checked once per mask object (it costs a host read), never while a graph is being captured.
    """

    def __init__(self) -> None:
        self._checked: weakref.ref[torch.Tensor] | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add `row_lengths` [B] int32 to the backbone's keywords."""
        mask = kwargs.get("attention_mask")
        self.check(mask)
        assert mask is not None
        kwargs[ROW_LENGTHS] = mask[:, 0, 0].sum(-1, dtype=torch.int32)
        return args, kwargs

    def check(self, mask: torch.Tensor | None) -> None:
        """Raise InputError unless `mask` is what upstream builds."""
        if mask is None or mask.dim() != 4 or mask.dtype != torch.bool:
            raise InputError("INT8-QK attention needs upstream's [B, 1, S, S] bool attention mask")
        if self._checked is not None and self._checked() is mask:
            return
        if mask.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        lengths = mask[:, 0, 0].sum(-1)
        inside = torch.arange(mask.shape[-1], device=mask.device) < lengths[:, None]  # [B, S]
        block = inside[:, :, None] & inside[:, None, :]
        # Padding rows are never read; upstream lets them see themselves, or nothing.
        own = torch.diag_embed(~inside)
        if not torch.equal(mask[:, 0] | own, block | own):
            raise InputError("INT8-QK attention takes masks of whole leading blocks only, as generate() makes")
        self._checked = weakref.ref(mask)


def feed_row_lengths(llm: Qwen3Model, handle: PatchHandle) -> None:
    """Install `RowLengths` on the backbone, to be removed by the handle."""
    hook = RowLengths()
    removable = llm.register_forward_pre_hook(hook, with_kwargs=True)
    llm.__dict__["_omnivoice_triton_row_lengths"] = hook

    def restore() -> None:
        removable.remove()
        llm.__dict__.pop("_omnivoice_triton_row_lengths", None)

    handle.on_undo(restore)


def row_lengths_hook(llm: nn.Module) -> RowLengths | None:
    """The hook that feeds INT8-QK attention, if it is installed."""
    hook: RowLengths | None = llm.__dict__.get("_omnivoice_triton_row_lengths")
    return hook
