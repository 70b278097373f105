"""Post-processing of decoded audio: silence removal, gain, fades and padding.

Every sample equals what omnivoice 0.2.1 makes (`OmniVoice._post_process_audio`, `omnivoice.utils.audio`, which go
through pydub 0.25 on int16), only without a Python loop over milliseconds. `post_process` looks at the samples,
`finish_measured` at what was found out of them where they were decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine.fades import fade_ends, padded
from omnivoice_triton.engine.levels import (
    FULL_SCALE,
    Float32,
    Int64,
    check_finite,
    check_ref_rms,
    checked_extremes,
    set_gain,
    set_gain_of_whole,
    to_int16,
    to_whole,
)
from omnivoice_triton.engine.silence import MIN_SAMPLE_RATE_HZ, kept_pieces, without_silence


def post_process(
    audio: Float32, *, sample_rate: int, ref_rms: float | None, options: GenerationOptions
) -> npt.NDArray[np.float32]:
    """Finish one decoded utterance; the input is left alone.

    Args:
        audio: samples, shape (T,), float32, full scale is 1.
        sample_rate: Hz; at least 11,025 where silence is removed.
        ref_rms: RMS of the reference audio, which sets the gain; None without a reference: the peak goes to 0.5.
        options: `postprocess_output` (silence removal), `pad_duration` and `fade_duration` (seconds) are read.

    Returns:
        Samples, shape (T',), float32. Empty if nothing but silence was there: upstream returns that with a
        reference, and without one fails to take the peak of nothing.

    Raises:
        InputError: another shape or dtype, NaN or infinite samples, or a sample rate that is too low.
    """
    low, high = checked_extremes(audio)
    check_ref_rms(ref_rms)
    pad = int(options.pad_duration * sample_rate)
    fade = int(options.fade_duration * sample_rate)

    if options.postprocess_output:
        kept = without_silence(to_int16(audio), sample_rate)
        if not len(kept):
            return np.zeros(0, dtype=np.float32)
        finished, view = padded(len(kept), pad)
        np.multiply(kept, np.float32(1 / FULL_SCALE), out=view, dtype=np.float32)
        low, high = int(kept.min()) / FULL_SCALE, int(kept.max()) / FULL_SCALE
    else:
        finished, view = padded(len(audio), pad)
        view[:] = audio

    set_gain(view, peak=np.float32(max(high, -low)), ref_rms=ref_rms)
    fade_ends(view, fade)
    return finished


@dataclass(frozen=True)
class Measured:
    """A decoded utterance, and what was found out of each block of 10 ms where it was decoded."""

    samples: Float32
    """(T,), T a multiple of `block_samples`: int16's whole numbers, or as decoded if no silence is to be removed."""
    power: Int64
    """(blocks,): sum of the squared whole numbers. Not looked at if no silence is to be removed."""
    low: Float32
    """(blocks,): lowest sample as decoded, full scale 1."""
    high: Float32
    """(blocks,): highest."""


def block_samples(sample_rate: int) -> int | None:
    """Samples in 10 ms, or None where millisecond positions are no whole samples: `post_process` counts those."""
    return sample_rate // 100 if sample_rate % 1000 == 0 and sample_rate >= MIN_SAMPLE_RATE_HZ else None


def finish_measured(
    measured: Measured, *, sample_rate: int, ref_rms: float | None, options: GenerationOptions
) -> npt.NDArray[np.float32] | None:
    """As `post_process`, in one pass over the samples that are kept; None if it takes a look at more of them.

    Args:
        measured: made at `sample_rate`, which must have a `block_samples`.
        sample_rate: Hz.
        ref_rms: see `post_process`.
        options: see `post_process`.

    Raises:
        InputError: NaN or infinite samples, or a bad `ref_rms`.
    """
    low, high = (float(measured.low.min()), float(measured.high.max())) if len(measured.low) else (0.0, 0.0)
    check_finite(low, high)
    check_ref_rms(ref_rms)
    pad = int(options.pad_duration * sample_rate)
    fade = int(options.fade_duration * sample_rate)
    if not options.postprocess_output:
        finished, view = padded(len(measured.samples), pad)
        view[:] = measured.samples
        set_gain(view, peak=np.float32(max(high, -low)), ref_rms=ref_rms)
    else:
        block = sample_rate // 100
        pieces = kept_pieces(measured.power, block)
        if pieces is None:
            return None
        if not pieces:
            return np.zeros(0, dtype=np.float32)
        finished, view = padded(sum(end - start for start, end in pieces), pad)
        at = 0
        peak = max(_peak(measured, start, end, block) for start, end in pieces) if ref_rms is None else 0
        for start, end in pieces:
            out = view[at : at + end - start]
            set_gain_of_whole(measured.samples[start:end], out, peak, ref_rms)
            at += end - start
    fade_ends(view, fade)
    return finished


def _peak(measured: Measured, start: int, end: int, block: int) -> int:
    """Largest magnitude of the whole numbers from `start` to `end`."""
    first, last = -(-start // block), end // block
    low, high = 0, 0
    if first < last:
        low = to_whole(float(measured.low[first:last].min()))
        high = to_whole(float(measured.high[first:last].max()))
    for edge in (measured.samples[start : min(first * block, end)], measured.samples[max(last * block, start) : end]):
        if len(edge):
            low, high = min(low, int(edge.min())), max(high, int(edge.max()))
    return max(high, -low)
