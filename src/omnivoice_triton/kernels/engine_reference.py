"""Plain PyTorch twins of the backbone's kernels: same arguments, same buffers written, any device, any float dtype.

They define what the kernels compute, and they are the engine's `reference` backend. Operations and their rounding are
those of OmniVoice 0.2.1 and transformers' Qwen3, so that in fp32 a decode gives upstream's tokens.
They read tables on the host: none of them may be captured into a graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from omnivoice_triton.kernels import tables as t
from omnivoice_triton.kernels.tiles import GemmTile, HopperTile, VarlenTile


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Qwen3RMSNorm of x [..., N]; fp64 keeps its own precision for the statistics."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def embed_rows(
    rows: torch.Tensor,
    prompt: torch.Tensor,
    canvas: torch.Tensor,
    table: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    x: torch.Tensor,
    y: torch.Tensor,
) -> None:
    """Twin of `embed.triton_embed_rows`."""
    source = rows[:, t.ROW_SOURCE].long()
    is_frame = (source < 0) & (source != t.NO_SOURCE)
    x.zero_()
    x[source >= 0] = prompt[source[source >= 0]]
    x[is_frame] = embed_frames(canvas[-1 - source[is_frame]], table)
    y.copy_(rms_norm(x, weight, eps))


def embed_frames(codes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Sum over codebooks of the embedding of codes [N, C], by table [C * V, H]: [N, H]."""
    codebooks = codes.shape[1]
    offsets = torch.arange(codebooks, device=codes.device) * (table.shape[0] // codebooks)
    return F.embedding(codes.long() + offsets, table).sum(dim=1)


def qk_norm_rope_packed(
    qkv: torch.Tensor,
    rows: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    eps: float,
    *,
    q_heads: int,
    kv_heads: int,
) -> None:
    """Twin of `qkv.triton_qk_norm_rope_packed`."""
    position = rows[:, t.ROW_POSITION].long()
    cos, sin = (torch.cat((a, a), dim=-1)[position].unsqueeze(1) for a in (cos, sin))  # [R, 1, D]
    heads = qkv.view(qkv.shape[0], q_heads + 2 * kv_heads, -1)
    for first, last, weight in ((0, q_heads, q_weight), (q_heads, q_heads + kv_heads, k_weight)):
        normed = rms_norm(heads[:, first:last], weight, eps)
        left, right = normed.chunk(2, dim=-1)
        heads[:, first:last] = (normed * cos) + (torch.cat((-right, left), dim=-1) * sin)


def varlen_attention(
    qkv: torch.Tensor,
    tiles: torch.Tensor,
    *,
    q_heads: int,
    kv_heads: int,
    scale: float,
    tile: VarlenTile,
    out: torch.Tensor,
) -> None:
    """Twin of `varlen_attention.triton_varlen_attention`; `tile` changes nothing here."""
    heads = qkv.view(qkv.shape[0], q_heads + 2 * kv_heads, -1).transpose(0, 1)  # [heads, R, D]
    group = q_heads // kv_heads
    segments = {(start, length) for start, length, _, _ in tiles.tolist() if length > 0}
    for start, length in segments:
        query, key, value = (
            part[:, start : start + length].unsqueeze(0) for part in heads.split((q_heads, kv_heads, kv_heads))
        )
        attended = F.scaled_dot_product_attention(
            query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), scale=scale
        )
        out[start : start + length] = attended[0].transpose(0, 1).reshape(length, -1)


def packed_add_norm(
    delta: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    y: torch.Tensor,
    pick: torch.Tensor | None = None,
) -> None:
    """Twin of `packed_norm.triton_packed_add_norm`."""
    if delta.dim() == 3:
        total = delta[0].clone()
        for partial in delta[1:]:
            total += partial
        delta = total.to(residual.dtype)
    total = residual + delta
    if pick is None:
        residual.copy_(total)
    else:
        total = total[pick.long()]
    y.copy_(rms_norm(total, weight, eps))


def swiglu(gate: torch.Tensor, up: torch.Tensor, *, out: torch.Tensor) -> None:
    """Twin of `swiglu.triton_swiglu_forward`, into `out`."""
    torch.mul(F.silu(gate), up, out=out)


def split_k(
    x: torch.Tensor, weight: torch.Tensor, tile: GemmTile | HopperTile, *, partials: torch.Tensor, swiglu: bool = False
) -> None:
    """Twin of `split_k.triton_split_k`: partial products over equal chunks of K, in fp32."""
    if swiglu:
        gate, up = x.chunk(2, dim=-1)
        x = F.silu(gate) * up
    chunk = -(-x.shape[1] // tile.splits)
    for p in range(tile.splits):
        at = slice(p * chunk, (p + 1) * chunk)
        partials[p] = x[:, at].float() @ weight[:, at].float().T


def qkv_rope(
    x: torch.Tensor,
    weight: torch.Tensor,
    rows: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    eps: float,
    tile: GemmTile | HopperTile,
    *,
    q_heads: int,
    kv_heads: int,
    qkv: torch.Tensor,
) -> None:
    """Twin of `qkv_rope.triton_qkv_rope`; `tile` changes nothing here."""
    torch.mm(x, weight.t(), out=qkv)
    qk_norm_rope_packed(qkv, rows, cos, sin, q_weight, k_weight, eps, q_heads=q_heads, kv_heads=kv_heads)


def gate_up(x: torch.Tensor, weight: torch.Tensor, tile: GemmTile | HopperTile, *, out: torch.Tensor) -> None:
    """Twin of `gate_up.triton_gate_up`; `tile` changes nothing here."""
    gate, up = (x @ weight.t()).chunk(2, dim=-1)
    swiglu(gate, up, out=out)


def gemm(x: torch.Tensor, weight: torch.Tensor, tile: HopperTile, *, out: torch.Tensor) -> None:
    """Twin of `hopper_gemm.hopper_gemm`; `tile` changes nothing here."""
    torch.mm(x, weight.t(), out=out)
