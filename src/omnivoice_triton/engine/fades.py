"""The ends of audio: padding and fades, and how the chunks of a long utterance are joined."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from omnivoice_triton.engine.levels import Float32, check_vector
from omnivoice_triton.speech import InputError

_CHUNK_GAP_S = 0.3


def cross_fade(chunks: Sequence[Float32], sample_rate: int) -> npt.NDArray[np.float32]:
    """Join the chunks of a long utterance: fade out, a gap, fade in, 0.1 s each.

    Args:
        chunks: at least one array of shape (T_i,), float32.
        sample_rate: Hz.

    Returns:
        Samples, shape (sum T_i + gaps,), float32; of a single chunk, that chunk itself.

    Raises:
        InputError: no chunks, or one that is not a vector of float32.
    """
    if not chunks:
        raise InputError("there are no chunks to join: give at least one")
    for chunk in chunks:
        check_vector(chunk)
    if len(chunks) == 1:
        return chunks[0]
    fade = int(_CHUNK_GAP_S * sample_rate) // 3
    joined = np.zeros(sum(map(len, chunks)) + fade * (len(chunks) - 1), dtype=np.float32)
    end = len(chunks[0])
    joined[:end] = chunks[0]
    for chunk in chunks[1:]:
        # A chunk shorter than the fade hands the rest of it on to what lies before: the gap, then the last chunk.
        _scale_tail(joined[:end], fade)
        start, end = end + fade, end + fade + len(chunk)
        joined[start:end] = chunk
        _scale_head(joined[start:end], fade)
    return joined


def fade_ramps(sample_rate: int) -> tuple[Float32, Float32]:
    """What `cross_fade` multiplies heads and tails by: rising and falling, as long as the gap. Read-only."""
    samples = int(_CHUNK_GAP_S * sample_rate) // 3
    return _ramp(0, 1, samples), _ramp(1, 0, samples)


def padded(length: int, pad: int) -> tuple[Float32, Float32]:
    """An array with `pad` zeros on either side, and the view between them; no padding around nothing."""
    if not length:
        pad = 0
    whole = np.empty(length + 2 * pad, dtype=np.float32)
    whole[:pad] = 0
    whole[pad + length :] = 0
    return whole, whole[pad : pad + length]


def fade_ends(audio: Float32, samples: int) -> None:
    """In place, over at most half of the audio on either side."""
    samples = min(samples, len(audio) // 2)
    _scale_head(audio, samples)
    _scale_tail(audio, samples)


def _scale_head(audio: Float32, samples: int) -> None:
    samples = min(samples, len(audio))
    if samples > 0:
        audio[:samples] *= _ramp(0, 1, samples)


def _scale_tail(audio: Float32, samples: int) -> None:
    samples = min(samples, len(audio))
    if samples > 0:
        audio[-samples:] *= _ramp(1, 0, samples)


@lru_cache(maxsize=64)
def _ramp(start: int, stop: int, samples: int) -> Float32:
    ramp = np.linspace(start, stop, samples, dtype=np.float32)
    ramp.flags.writeable = False
    return ramp
