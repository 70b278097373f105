"""Plain-PyTorch twins of the kernels: the same steps and the same rounding points, on any device.

Every twin takes float32, float16, bfloat16 and float64. Statistics, softmax and accumulation run in float32 (float64
for float64 inputs, where rounding to the input's dtype vanishes, so that the twin is its own exact reference).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnivoice_triton.kernels.launch import SMOOTH_ROWS, AttentionTile, attention_tile, has_tensor_cores

_LOG2_E = 1.4426950408889634


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Twin of `triton_rms_norm`, op for op what transformers' Qwen3RMSNorm does: x (..., N), weight (N,)."""
    wide = x.to(_wide(x.dtype))
    variance = wide.pow(2).mean(-1, keepdim=True)
    return weight * (wide * torch.rsqrt(variance + eps)).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Twin of `triton_swiglu_forward`: two (..., N)."""
    return F.silu(gate) * up


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Twin of `triton_fused_add_rms_norm`: (normed, sum) of two (..., N)."""
    total = x + residual
    return rms_norm(total, weight, eps), total


def _rotate_half(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def qk_norm_rope(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Twin of `triton_qk_norm_rope`: q (B, S, Hq, D), k (B, S, Hkv, D), cos and sin (1 or B, S, D)."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B, 1, S, D)
    q = rms_norm(q, q_weight, eps).transpose(1, 2)
    k = rms_norm(k, k_weight, eps).transpose(1, 2)
    return q * cos + _rotate_half(q) * sin, k * cos + _rotate_half(k) * sin


def _valid_rows(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, 1, S, 1): which rows of x (B, H, S, D) count."""
    return (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None, :, None]


def attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float | None = None) -> Tensor:
    """What INT8-QK attention approximates: exact softmax attention over each item's valid rows.

    q (B, Hq, S, D), k and v (B, Hkv, S, D), lengths (B,) -> (B, S, Hq, D), zeros from lengths[b] on.
    """
    wide = _wide(q.dtype)
    valid, group = _valid_rows(q, lengths), q.shape[1] // k.shape[1]
    zero = torch.zeros((), dtype=wide, device=q.device)
    q32, k32, v32 = (torch.where(valid, x.to(wide), zero) for x in (q, k, v))
    k32, v32 = k32.repeat_interleave(group, 1), v32.repeat_interleave(group, 1)
    logits = q32 @ k32.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    p = logits.masked_fill(~valid.mT, float("-inf")).softmax(-1).to(q.dtype).to(wide)
    return torch.where(valid, p @ v32, zero).to(q.dtype).transpose(1, 2).contiguous()


def _power_of_two_below(x: Tensor) -> Tensor:
    """Largest power of two that is at most x > 0: its exponent bits alone."""
    if x.dtype == torch.float64:
        return (x.view(torch.int64) & 0x7FF0000000000000).view(torch.float64)
    return (x.view(torch.int32) & 0x7F800000).view(torch.float32)


def smoothing_mean(k: Tensor, lengths: Tensor) -> Tensor:
    """The mean that K is smoothed by: (B, H, 1, D) of k (B, H, S, D) in float32 or float64, padding rows zero.

    Taken on the grid that `attention` describes, where sums are exact and hence the same everywhere.
    """
    largest = k[:, :, :SMOOTH_ROWS].abs().amax(2, keepdim=True).clamp(2.0**-100, 2.0**100)
    power = _power_of_two_below(largest)
    on_grid = torch.floor((k * (4096.0 / power)).clamp(-32768.0, 32768.0) + 0.5)
    total = torch.where(_valid_rows(k, lengths), on_grid, 0.0).to(torch.int64).sum(2, keepdim=True)
    rows = lengths.clamp(min=1)[:, None, None, None]
    return total.to(k.dtype) / rows.to(k.dtype) * (power * (1.0 / 4096.0))


def _quantise_blocks(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Whole numbers and scales (B, H, n) of x (B, H, n * block, D), one scale per block of rows."""
    batch, heads, rows, _ = x.shape
    amax = x.abs().reshape(batch, heads, rows // block, -1).amax(-1).clamp(min=1e-30)
    most = torch.full_like(amax, 127.0)  # a tensor: PyTorch divides by (or into) a number through a reciprocal
    inverse = (most / amax).repeat_interleave(block, 2)[..., None]
    return torch.floor(x * inverse + 0.5), amax / most


def _whole_keys(k: Tensor, lengths: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Smoothed keys as whole numbers, and their scales, of wide k (B, H, S, D) whose padding rows are zero."""
    smooth = torch.where(_valid_rows(k, lengths), k - smoothing_mean(k, lengths), 0.0)
    return _quantise_blocks(F.pad(smooth, (0, 0, 0, -k.shape[2] % block)), block)


def quantise_keys(k: Tensor, lengths: Tensor, tile: AttentionTile) -> tuple[Tensor, Tensor]:
    """Twin of `quantise_keys.quantise_keys`; scales of float64 keys are float64, and zeros lie behind a length."""
    wide = _wide(k.dtype)
    lengths = lengths.clamp(0, k.shape[2])
    zero = torch.zeros((), dtype=wide, device=k.device)
    whole, scale = _whole_keys(torch.where(_valid_rows(k, lengths), k.to(wide), zero), lengths, tile.block_n)
    return F.pad(whole, (0, tile.block_d - k.shape[3])).to(torch.int8), scale


def int8_qk_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float | None = None) -> Tensor:
    """Twin of the kernel of that name, block for block: (B, S, Hq, D) of q (B, Hq, S, D), k and v (B, Hkv, S, D)."""
    batch, q_heads, length, head_dim = q.shape
    wide, group = _wide(q.dtype), q_heads // k.shape[1]
    tile = attention_tile(head_dim, q.dtype, has_tensor_cores(q.device))
    lengths = lengths.clamp(0, length)
    valid = _valid_rows(q, lengths)
    zero = torch.zeros((), dtype=wide, device=q.device)
    if q.numel() == 0:
        return q.new_empty((batch, length, q_heads, head_dim))
    q, k, v, dtype = *(torch.where(valid, x.to(wide), zero) for x in (q, k, v)), q.dtype

    def pad(x: Tensor, block: int) -> Tensor:
        return F.pad(x, (0, 0, 0, -x.shape[2] % block))

    k8, k_scale = _whole_keys(k, lengths, tile.block_n)
    q8, q_scale = _quantise_blocks(pad(q, tile.block_m), tile.block_m)
    q8 = q8[:, :, :length]
    softmax_scale = (head_dim**-0.5 if scale is None else float(scale)) * _LOG2_E
    q_scale = (q_scale * softmax_scale).repeat_interleave(tile.block_m, 2)[:, :, :length, None]
    k8, k_scale, v = (x.repeat_interleave(group, 1) for x in (k8, k_scale, pad(v, tile.block_n)))

    top = torch.full_like(q_scale, float("-inf"))
    weight = torch.zeros_like(q_scale)
    acc = torch.zeros_like(q8)
    for block in range(k8.shape[2] // tile.block_n):
        rows = slice(block * tile.block_n, (block + 1) * tile.block_n)
        keys = torch.arange(rows.start, rows.stop, device=q.device)
        logits = (q8 @ k8[:, :, rows].mT) * (q_scale * k_scale[:, :, block, None, None])
        logits = torch.where((keys < lengths[:, None])[:, None, None], logits, float("-inf"))
        new_top = torch.maximum(top, logits.amax(-1, keepdim=True))
        p, keep = torch.exp2(logits - new_top), torch.exp2(top - new_top)
        weight = weight * keep + p.sum(-1, keepdim=True)
        acc = acc * keep + p.to(dtype).to(wide) @ v[:, :, rows]
        top = new_top
    return torch.where(valid, acc / weight, zero).to(dtype).transpose(1, 2).contiguous()


def snake(
    x: Tensor,
    alpha: Tensor,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
    rate: int = 1,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Twin of `triton_snake`: x and residual (B, C, T), alpha and bias (C,), lengths (B,)."""
    return _add_snake(x, alpha, bias, residual, lengths, rate)[1].to(dtype or x.dtype)


def add_snake(
    x: Tensor,
    alpha: Tensor,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
    rate: int = 1,
) -> tuple[Tensor, Tensor]:
    """Twin of `triton_add_snake`: (sum, y), rounded once each, at the end."""
    total, y = _add_snake(x, alpha, bias, residual, lengths, rate)
    return total.to(x.dtype), y.to(x.dtype)


def _add_snake(
    x: Tensor, alpha: Tensor, bias: Tensor | None, residual: Tensor | None, lengths: Tensor | None, rate: int
) -> tuple[Tensor, Tensor]:
    total, column = x.to(_wide(x.dtype)), alpha[:, None]
    if bias is not None:
        total = total + bias[:, None]
    if residual is not None:
        total = total + residual
    y = torch.sin(column * total).square_().mul_((column + 1e-9).reciprocal()).add_(total)
    if lengths is not None:
        beyond = torch.arange(x.shape[-1], device=x.device) >= (lengths * rate)[:, None]
        y = y.masked_fill_(beyond[:, None, :], 0.0)
    return total, y
