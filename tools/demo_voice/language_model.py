"""The demo voice's language model: a small upstream OmniVoice, and a training loss that equals upstream's, only faster.

Upstream's `forward(labels=...)` computes logits of every position, in fp32 and layer by layer as transformers does.
Here the heads run on target rows alone and matrices in bf16; a test holds loss and gradients against upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

AUDIO_VOCABULARY = 1025
MASK = 1024
CODEBOOKS = 8
# With a mask there is no flash attention; cuDNN's has its own mind about broadcast masks.
_BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of the backbone: 9.9 million parameters with the default ones."""

    hidden: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 608
    rope_theta: float = 10_000.0
    """Less than the real model's 1e6: texts are short, and slow frequencies would hardly turn."""


def model_config(shape: ModelShape, tokenizer: Any) -> Any:
    """Upstream's configuration of that shape and tokenizer."""
    from omnivoice.models.omnivoice import OmniVoiceConfig

    eos = tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return OmniVoiceConfig(
        architectures=["OmniVoice"],
        audio_vocab_size=AUDIO_VOCABULARY,
        audio_mask_id=MASK,
        num_audio_codebook=CODEBOOKS,
        dtype="float32",
        eos_token_id=eos,
        pad_token_id=pad,
        llm_config={
            "model_type": "qwen3",
            "attention_bias": False,
            "bos_token_id": pad,
            "dtype": "float32",
            "eos_token_id": eos,
            "head_dim": shape.head_dim,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "max_position_embeddings": 4096,
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "num_key_value_heads": shape.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": True,
            "vocab_size": -(-len(tokenizer) // 8) * 8,
        },
    )


def new_model(shape: ModelShape, tokenizer: Any, seed: int) -> Any:
    """An untrained OmniVoice in fp32."""
    from omnivoice.models.omnivoice import OmniVoice

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OmniVoice(model_config(shape, tokenizer))
        scale = (2 * shape.layers) ** -0.5
        with torch.no_grad():
            model.llm.embed_tokens.weight.normal_(std=0.5)
            model.audio_embeddings.weight.normal_(std=0.5 / CODEBOOKS**0.5)
            model.audio_heads.weight.normal_(std=shape.hidden**-0.5 * 0.5)
            for layer in model.llm.layers:
                attention, mlp = layer.self_attn, layer.mlp
                for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                    linear.weight.normal_(std=linear.in_features**-0.5)
                for linear in (attention.o_proj, mlp.down_proj):
                    linear.weight.normal_(std=linear.in_features**-0.5 * scale)
    return model.float()


@dataclass(frozen=True)
class Batch:
    """Rows of one step on the device.

    text: (B, S) ids, anything where audio is; codes: (B, 8, S) as the model sees them, 0 where text is; audio: (B, S)
    where audio is; valid: (B, S) False on padding; rows: (R,) flat positions b * S + s of targets; labels: (R, 8), -100
    where a code isn't masked.
    """

    text: Tensor
    codes: Tensor
    audio: Tensor
    valid: Tensor
    rows: Tensor
    labels: Tensor


def loss(model: Any, batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Upstream's loss: mean cross-entropy of each codebook's masked codes, weighted by codebook.

    Args:
        dtype: of matrices and attention; norms, residuals and the loss are fp32.
    """
    hidden = hidden_states(model, batch, dtype)
    rows = hidden.flatten(0, 1)[batch.rows].to(dtype)
    logits = F.linear(rows, model.audio_heads.weight.to(dtype)).view(-1, AUDIO_VOCABULARY)
    each = F.cross_entropy(logits.float(), batch.labels.flatten(), reduction="none", ignore_index=-100)
    each = each.view(-1, CODEBOOKS)
    masked = (batch.labels != -100).float()
    means = (each * masked).sum(0) / masked.sum(0).clamp(min=1.0)
    return means


def weighted(model: Any, means: Tensor) -> Tensor:
    """The one number that is trained on: codebook means (8,) weighted as upstream weights them."""
    return (means * torch.tensor(model.normalized_audio_codebook_weights, device=means.device)).sum()


def hidden_states(model: Any, batch: Batch, dtype: torch.dtype) -> Tensor:
    """The backbone's output after its last norm, (B, S, H) fp32."""
    backbone = model.llm
    config = backbone.config
    eps = config.rms_norm_eps
    size, length = batch.text.shape
    ids = (batch.codes + model.codebook_layer_offsets.view(1, -1, 1)).transpose(1, 2).reshape(-1, CODEBOOKS)
    spoken = F.embedding_bag(ids, model.audio_embeddings.weight, mode="sum").view(size, length, -1)
    x = torch.where(batch.audio[..., None], spoken, backbone.embed_tokens(batch.text))
    positions = torch.arange(length, device=x.device)[None]
    cos, sin = backbone.rotary_emb(x, positions)
    cos, sin = cos[:, None].to(dtype), sin[:, None].to(dtype)
    mask = torch.zeros(size, 1, 1, length, dtype=dtype, device=x.device)
    mask = mask.masked_fill(~batch.valid[:, None, None], float("-inf"))
    mask = mask.expand(size, config.num_attention_heads, length, length)
    groups = config.num_attention_heads // config.num_key_value_heads

    def norm(value: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(value, (value.shape[-1],), weight.to(value.dtype), eps)

    def linear(value: Tensor, module: Any) -> Tensor:
        return F.linear(value, module.weight.to(dtype))

    def heads(value: Tensor) -> Tensor:
        return value.view(size, length, -1, config.head_dim)

    for layer in backbone.layers:
        attention, mlp = layer.self_attn, layer.mlp
        y = norm(x, layer.input_layernorm.weight).to(dtype)
        q = norm(heads(linear(y, attention.q_proj)), attention.q_norm.weight).transpose(1, 2)
        k = norm(heads(linear(y, attention.k_proj)), attention.k_norm.weight).transpose(1, 2)
        v = heads(linear(y, attention.v_proj)).transpose(1, 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        with sdpa_kernel(_BACKENDS):
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + linear(y.transpose(1, 2).flatten(2), attention.o_proj).float()
        y = norm(x, layer.post_attention_layernorm.weight).to(dtype)
        x = x + linear(F.silu(linear(y, mlp.gate_proj)) * linear(y, mlp.up_proj), mlp.down_proj).float()
    return norm(x, backbone.norm.weight)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
