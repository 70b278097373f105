"""Put Triton kernels into an OmniVoice backbone, and take them out again.

The seam is typed: modules of `model.llm` whose class is exactly one of transformers' Qwen3 classes. Counts are checked
against the config, the handle's repr shows what was patched, and `undo()` restores the original bit for bit.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from torch import nn
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3MLP,
    Qwen3Model,
    Qwen3RMSNorm,
)

from omnivoice_triton.models.handle import PatchHandle
from omnivoice_triton.models.layers import (
    Handoff,
    Int8QKAttention,
    TritonFinalNorm,
    TritonQwen3Attention,
    TritonQwen3DecoderLayer,
    TritonQwen3MLP,
    TritonQwen3RMSNorm,
)
from omnivoice_triton.models.seam import feed_row_lengths, find_patchable_model, mark_changed
from omnivoice_triton.speech import InputError, UpstreamChanged

__all__ = ["PatchHandle", "apply_sage_attention", "apply_triton_kernels", "find_patchable_model"]

logger = logging.getLogger(__name__)


def apply_triton_kernels(
    model: nn.Module,
    enable_fused_norm: bool = True,
    patch_range: tuple[int, int] | None = None,
    *,
    int8_qk: bool = False,
) -> PatchHandle:
    """Run the backbone's norms, activations, RoPE and residual adds by Triton kernels.

    Args:
        model: an OmniVoice model or its `.llm`.
        enable_fused_norm: also fuse both residual adds with the norm that follows, and q/k norm with RoPE.
        patch_range: half-open range of decoder layers; None is all of them. The final norm goes with the last layer.
        int8_qk: replace attention by the INT8-QK kernel.

    Returns:
        A handle whose repr shows the counts and whose `undo()` restores the original.

    Raises:
        InputError: the range is off, the model is patched already, or a layer can't be patched.
    """
    llm = find_patchable_model(model)
    depth = len(llm.layers)
    start, end = patch_range if patch_range is not None else (0, depth)
    if not 0 <= start < end <= depth:
        raise InputError(f"patch_range must satisfy 0 <= start < end <= {depth}, not {patch_range}")
    if int8_qk and not enable_fused_norm:
        raise InputError("int8_qk needs enable_fused_norm=True: its attention takes q and k from the fused kernel")

    plan = _plan(llm, start, end, enable_fused_norm, int8_qk)
    counts: Counter[str] = Counter()
    handle = PatchHandle("triton kernels", counts)
    try:
        for module, cls, label in plan:
            _swap(module, cls, handle)
            counts[label] += 1
        if enable_fused_norm:
            counts["add + RMSNorm"] = _link(llm, start, end, handle)
        if int8_qk:
            feed_row_lengths(llm, handle)
    except BaseException:
        handle.undo()
        raise
    mark_changed(llm)
    handle.on_undo(lambda: mark_changed(llm))
    logger.info("%r", handle)
    return handle


def apply_sage_attention(model: nn.Module, patch_range: tuple[int, int] | None = None) -> PatchHandle:
    """0.1.0's name: the Triton kernels with INT8-QK attention (own kernel, bidirectional, no extra package)."""
    return apply_triton_kernels(model, patch_range=patch_range, int8_qk=True)


def _plan(
    llm: Qwen3Model, start: int, end: int, fused: bool, int8_qk: bool
) -> list[tuple[nn.Module, type[nn.Module], str]]:
    """(module, new class, label) of everything to change; raises before anything is changed."""
    attention = "INT8-QK attention" if int8_qk else "qk-norm + RoPE"
    plan: list[tuple[nn.Module, type[nn.Module], str]] = []

    def add(module: nn.Module, expected: type[nn.Module], new: type[nn.Module], label: str, where: str) -> None:
        if isinstance(module, _OURS):
            raise InputError(f"{where} is patched already ({type(module).__name__}): undo() the first handle before")
        if type(module) is not expected or "forward" in module.__dict__:
            raise InputError(f"{where} can't be patched: it is a {type(module).__name__}, not a plain Qwen3 module")
        plan.append((module, new, label))

    for index in range(start, end):
        layer, at = llm.layers[index], f"layer {index}"
        if layer.mlp.config.hidden_act != "silu" or layer.self_attn.config.attention_bias:
            raise UpstreamChanged(f"{at} is not a SwiGLU layer without attention bias: no kernel here computes it")
        if fused:
            add(layer, Qwen3DecoderLayer, TritonQwen3DecoderLayer, "decoder layer", at)
            new_attention = Int8QKAttention if int8_qk else TritonQwen3Attention
            add(layer.self_attn, Qwen3Attention, new_attention, attention, f"{at}.self_attn")
        add(layer.mlp, Qwen3MLP, TritonQwen3MLP, "SwiGLU", f"{at}.mlp")
        for name in ("input_layernorm", "post_attention_layernorm"):
            add(getattr(layer, name), Qwen3RMSNorm, TritonQwen3RMSNorm, "RMSNorm", f"{at}.{name}")
        for name in ("q_norm", "k_norm"):
            add(getattr(layer.self_attn, name), Qwen3RMSNorm, TritonQwen3RMSNorm, "RMSNorm", f"{at}.self_attn.{name}")
    if end == len(llm.layers):
        add(llm.norm, Qwen3RMSNorm, TritonFinalNorm if fused else TritonQwen3RMSNorm, "RMSNorm", "the final norm")
    return plan


_OURS = (TritonQwen3DecoderLayer, TritonQwen3Attention, TritonQwen3MLP, TritonQwen3RMSNorm)


def _swap(module: nn.Module, cls: type[nn.Module], handle: PatchHandle) -> None:
    original = type(module)
    module.__class__ = cls

    def restore() -> None:
        module.__class__ = original

    handle.on_undo(restore)


def _link(llm: Qwen3Model, start: int, end: int, handle: PatchHandle) -> int:
    """Chain the patched layers' handoffs; returns the number of fused adds."""
    fused = 0
    incoming = Handoff()
    for index in range(start, end):
        layer = llm.layers[index]
        following: nn.Module | None = None
        if index + 1 < end:
            following = llm.layers[index + 1].input_layernorm
        elif end == len(llm.layers):
            following = llm.norm
        outgoing = Handoff()
        # Past nn.Module's __setattr__, which would register the norm as this layer's submodule.
        extra: dict[str, Any] = {"incoming": incoming, "outgoing": outgoing, "next_norm": following}
        _set_plain(layer, extra, handle)
        incoming = outgoing
        fused += 1 + (following is not None)
    if end == len(llm.layers):
        _set_plain(llm.norm, {"handoff": incoming}, handle)
    return fused


def _set_plain(module: nn.Module, attributes: dict[str, Any], handle: PatchHandle) -> None:
    module.__dict__.update(attributes)

    def restore() -> None:
        for name in attributes:
            module.__dict__.pop(name, None)

    handle.on_undo(restore)
