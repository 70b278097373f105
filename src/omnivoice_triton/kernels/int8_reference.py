"""Plain PyTorch twin of packed INT8-QK attention (`packed_int8`): same arguments, same buffers written, any device.

The INT8 values and scales are the kernel's, bit for bit; the softmax is taken at once, not block by block. Of fp64
inputs all but the INT8 rounding is done in fp64, so that what is left of its error is the quantisation's own.
Reads the table on the host: it may not be captured into a graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from omnivoice_triton.kernels.int8_keys import MEAN_ROWS, Int8Keys
from omnivoice_triton.kernels.tiles import VarlenTile


def packed_int8_attention(
    qkv: torch.Tensor,
    tiles: torch.Tensor,
    *,
    q_heads: int,
    kv_heads: int,
    scale: float,
    tile: VarlenTile,
    keys: Int8Keys,
    out: torch.Tensor,
) -> None:
    """Twin of `packed_int8.triton_packed_int8_attention`."""
    heads = qkv.view(qkv.shape[0], q_heads + 2 * kv_heads, -1)
    group, width = q_heads // kv_heads, heads.shape[-1]
    wide = torch.promote_types(qkv.dtype, torch.float32)
    for start, length in sorted({(start, length) for start, length, _, _ in tiles.tolist() if length > 0}):
        rows = slice(start, start + length)
        q, k, v = (x.to(wide).transpose(0, 1) for x in heads[rows].split((q_heads, kv_heads, kv_heads), dim=1))
        mean = key_mean(k)  # [Hkv, 1, D]
        k8, k_scale = _quantise_blocks(k - mean, tile.block_n)
        keys.means[start, :, :width] = mean[:, 0]
        keys.means[start, :, width:] = 0
        keys.values[rows, :, :width] = k8.transpose(0, 1).to(torch.int8)
        keys.values[rows, :, width:] = 0
        keys.scales[start : start + length : tile.block_n] = k_scale.t().to(torch.float32)
        q8, q_scale = _quantise(q, q.abs().amax(-1, keepdim=True))
        step = k_scale.repeat_interleave(tile.block_n, 1)[:, None, :length].repeat_interleave(group, 0)
        logits = (q8 @ k8.repeat_interleave(group, 0).mT) * (q_scale * scale * step)
        top = logits.amax(-1, keepdim=True)
        weights = torch.exp(logits - top)
        attended = weights.to(qkv.dtype).to(wide) @ v.repeat_interleave(group, 0)
        attended /= weights.sum(-1, keepdim=True)
        out[rows] = attended.transpose(0, 1).reshape(length, -1).to(out.dtype)


def key_mean(k: torch.Tensor) -> torch.Tensor:
    """Mean of k [H, S, D] over its rows, [H, 1, D], on the grid that `attention` describes: sums are exact there."""
    largest = k[:, :MEAN_ROWS].abs().amax(1, keepdim=True).clamp(2.0**-100, 2.0**100)
    power = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1)
    on_grid = torch.floor((k * (torch.full_like(power, 4096.0) / power)).clamp(-32768.0, 32768.0) + 0.5)
    total = on_grid.to(torch.int64).sum(1, keepdim=True).to(k.dtype)
    return total / torch.full_like(total, k.shape[1]) * (power * (1.0 / 4096.0))


def _quantise(x: torch.Tensor, amax: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers of x, and what one of them is worth."""
    amax = amax.clamp(min=1e-30)
    most = torch.full_like(amax, 127.0)  # a tensor: PyTorch divides by (or into) a number through a reciprocal
    return torch.floor(x * (most / amax) + 0.5), amax / most


def _quantise_blocks(x: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers [H, S, D] and scales [H, blocks] of x [H, S, D], a scale for each block of rows."""
    heads, rows, _ = x.shape
    padded = F.pad(x, (0, 0, 0, -rows % block)).reshape(heads, -1, block, x.shape[2])
    whole, scale = _quantise(padded, padded.abs().amax((2, 3), keepdim=True))
    return whole.flatten(1, 2)[:, :rows], scale[:, :, 0, 0]
