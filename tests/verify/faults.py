"""Faults that tests of several tiers plant: each takes the right function and gives a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def off_by_one_column(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda gate, up, **k: real(gate, up.roll(1, -1).contiguous(), **k)


def causal(real: Callable[..., Any]) -> Callable[..., Any]:
    """Every query sees its own segment up to itself."""

    def wrong(
        qkv: torch.Tensor, tiles: torch.Tensor, *, q_heads: int, kv_heads: int, out: torch.Tensor, **k: Any
    ) -> None:
        real(qkv, tiles, q_heads=q_heads, kv_heads=kv_heads, out=out, **k)
        heads = qkv.view(qkv.shape[0], q_heads + 2 * kv_heads, -1).transpose(0, 1)
        for start, length in {(s, n) for s, n, _, _ in tiles.tolist() if n > 0}:
            q, key, v = (x[:, start : start + length] for x in heads.split((q_heads, kv_heads, kv_heads)))
            group = q_heads // kv_heads
            seen = torch.nn.functional.scaled_dot_product_attention(
                q, key.repeat_interleave(group, 0), v.repeat_interleave(group, 0), is_causal=True, scale=k["scale"]
            )
            out[start : start + length] = seen.transpose(0, 1).reshape(length, -1)

    return wrong
