"""Qwen3's classes with Triton kernels inside: same parameters, same state dict, other `forward`.

A patch changes `module.__class__` to one of these. Weights are untouched (hence shared, and undo is exact to the bit),
hooks stay, `isinstance` against the Qwen3 classes still holds, and `print(model)` shows the new names.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3MLP,
    Qwen3RMSNorm,
    eager_attention_forward,
)

from omnivoice_triton.kernels.attention import int8_qk_attention
from omnivoice_triton.kernels.fused_norm_residual import triton_fused_add_rms_norm
from omnivoice_triton.kernels.rms_norm import TritonRMSNorm, triton_rms_norm
from omnivoice_triton.kernels.rope import triton_qk_norm_rope
from omnivoice_triton.kernels.swiglu import triton_swiglu_forward
from omnivoice_triton.models.seam import ROW_LENGTHS
from omnivoice_triton.speech import InputError


class Handoff:
    """A norm computed by one layer for the next, keyed by the very tensor it belongs to.

    The pair is written and read in one assignment each, and a reader that holds another tensor gets nothing and
    computes the norm itself, so hooks that replace hidden states and concurrent forwards stay correct.
    """

    __slots__ = ("_pair",)

    def __init__(self) -> None:
        self._pair: tuple[torch.Tensor, torch.Tensor] | None = None

    def put(self, hidden: torch.Tensor, normed: torch.Tensor) -> None:
        """Leave `normed`, the norm of `hidden`."""
        self._pair = (hidden, normed)

    def take(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """The norm of `hidden` if it was left here, else None."""
        pair, self._pair = self._pair, None
        return pair[1] if pair is not None and pair[0] is hidden else None


class TritonQwen3RMSNorm(TritonRMSNorm, Qwen3RMSNorm):  # type: ignore[misc]
    """Qwen3RMSNorm run by the Triton kernel."""

    @property
    def eps(self) -> float:  # type: ignore[override]
        """Qwen3 keeps it under another name."""
        epsilon: Any = self.variance_epsilon
        return float(epsilon)

    def extra_repr(self) -> str:
        """As upstream prints it."""
        return str(Qwen3RMSNorm.extra_repr(self))


class TritonFinalNorm(TritonQwen3RMSNorm):
    """The backbone's last norm; the last layer has usually computed it already."""

    handoff: Handoff

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm of `x` [B, S, H]."""
        ready = self.handoff.take(x)
        return ready if ready is not None else triton_rms_norm(x, self.weight, self.eps)


class TritonQwen3MLP(Qwen3MLP):  # type: ignore[misc]
    """Qwen3MLP with silu and product in one kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """down(silu(gate(x)) * up(x)), [B, S, H] to [B, S, H]."""
        hidden: torch.Tensor = self.down_proj(triton_swiglu_forward(self.gate_proj(x), self.up_proj(x)))
        return hidden


class TritonQwen3Attention(Qwen3Attention):  # type: ignore[misc]
    """Qwen3Attention with q/k norm and RoPE in one kernel; the attention itself stays upstream's.

    The canvas is rewritten at every step, so the cache that upstream fills and drops is left empty.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As upstream: hidden [B, S, H] and cos/sin [1 or B, S, D] to (output [B, S, H], weights or None)."""
        if past_key_values is not None and past_key_values.get_seq_length(self.layer_idx) > 0:
            raise InputError("the patched backbone decodes whole canvases: it can't continue from a key/value cache")
        batch, length, _ = hidden_states.shape
        heads = (batch, length, -1, self.head_dim)
        query, key = triton_qk_norm_rope(
            self.q_proj(hidden_states).view(heads),
            self.k_proj(hidden_states).view(heads),
            self.q_norm.weight,
            self.k_norm.weight,
            *position_embeddings,
            eps=self.q_norm.variance_epsilon,
        )  # [B, Hq, S, D], [B, Hkv, S, D]
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        attended, weights = self._attend(query, key, value, attention_mask, kwargs)
        output: torch.Tensor = self.o_proj(attended.reshape(batch, length, -1))
        return output, weights

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Upstream's own attention of the configured kind; returns [B, S, Hq, D]."""
        kwargs.pop(ROW_LENGTHS, None)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return attended, weights


class Int8QKAttention(TritonQwen3Attention):
    """As above, with INT8-quantised QK attention that takes row lengths instead of the mask."""

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        lengths = kwargs.pop(ROW_LENGTHS, None)
        if lengths is None:
            raise InputError("INT8-QK attention needs row lengths: call the backbone with upstream's [B, 1, S, S] mask")
        return int8_qk_attention(query, key, value, lengths, scale=self.scaling), None


class TritonQwen3DecoderLayer(Qwen3DecoderLayer):  # type: ignore[misc]
    """Decoder layer with both residual adds fused into the norm that follows."""

    incoming: Handoff
    """Where the layer before left this layer's input norm."""
    outgoing: Handoff
    next_norm: Qwen3RMSNorm | None
    """The norm that follows this layer; set past nn.Module's registration, so that it is no submodule of this one."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As upstream: hidden [B, S, H] to hidden [B, S, H]."""
        normed = self.incoming.take(hidden_states)
        if normed is None:
            normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(
            hidden_states=normed,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )
        norm = self.post_attention_layernorm
        normed, residual = triton_fused_add_rms_norm(attended, hidden_states, norm.weight, norm.variance_epsilon)
        hidden = self.mlp(normed)
        following = self.next_norm
        if following is None:
            last: torch.Tensor = residual + hidden
            return last
        normed, summed = triton_fused_add_rms_norm(hidden, residual, following.weight, following.variance_epsilon)
        self.outgoing.put(summed, normed)
        return summed
