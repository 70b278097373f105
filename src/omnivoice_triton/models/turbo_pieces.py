"""What mode turbo decodes as one: a text, or a chunk of a long one, with a seed of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch


def item_seed(seed: int, item: int, chunk: int = 0) -> int:
    """Seed of one chunk of one text of a call with `seed`: the first 64 bits of BLAKE2b over the three numbers.

    It depends on nothing else, so the first text of a list draws the noise that it draws alone with the same seed.
    """
    key = f"{seed}/{item}/{chunk}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Piece:
    """What is decoded as one: a text, or a chunk of a long one."""

    item: int
    chunk: int
    text: str
    frames: int
    ref_text: str | None
    reference: torch.Tensor | None


def chunk_piece(
    model: Any,
    task: Any,
    item: int,
    chunk: int,
    text: str,
    ref_text: str | None,
    reference: torch.Tensor | None,
) -> Piece:
    """A chunk of a long text, its length estimated as upstream does."""
    frames = model._estimate_target_tokens(
        text,
        ref_text,
        None if reference is None else reference.size(-1),
        speed=task.speed[item] if task.speed else 1.0,
    )
    return Piece(item, chunk, text, frames, ref_text, reference)
