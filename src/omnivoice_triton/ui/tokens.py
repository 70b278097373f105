"""The audio tokens behind a sound, and how many of them two modes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
"""Codebooks by frames."""


@contextmanager
def kept(runner: Any) -> Iterator[list[Tokens]]:
    """The tokens of each chunk that is turned into sound within the block.

    They are taken where the verification's third tier takes them: on their way into the codec.
    """
    chunks: list[Tokens] = []
    turbo = runner.acceleration.turbo
    holder, name = (runner.model, "_decode_and_post_process") if turbo is None else (turbo, "_sound")
    original = getattr(holder, name)

    def through(tokens: Any, *rest: Any) -> Any:
        items = [tokens] if turbo is None else tokens
        for item in items:
            for chunk in item if isinstance(item, list | tuple) else [item]:
                chunks.append(chunk.detach().cpu().numpy())
        return original(tokens, *rest)

    holder.__dict__[name] = through
    try:
        yield chunks
    finally:
        del holder.__dict__[name]


def agreement(mine: Sequence[Tokens], theirs: Sequence[Tokens]) -> float:
    """Share of equal tokens; 0 if the lengths differ, or there are none."""
    if not mine or not theirs:
        return 0.0
    ours, others = np.concatenate(mine, 1), np.concatenate(theirs, 1)
    return float((ours == others).mean()) if ours.shape == others.shape else 0.0
