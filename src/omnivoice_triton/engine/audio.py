"""Post-processing of decoded audio: silence removal, gain, fades, padding, and the joining of chunks.

Every sample equals what omnivoice 0.2.1 makes (`OmniVoice._post_process_audio`, `omnivoice.utils.audio`, which go
through pydub 0.25 on int16), only without a Python loop over milliseconds. The facts taken from pydub:

- a segment of n samples is `round(1000 n / rate)` ms long, and millisecond t lies at sample `int(t * (rate / 1000))`;
  a slice that reaches past the last sample is filled with zeros;
- RMS is `floor(sqrt(sum(x^2) / n))` of int16, and a piece is silent at -50 dBFS when that is at most 103;
- a silence is a run of 500 ms windows, 10 ms apart, that are all silent; 500 ms are kept at each end of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.speech import InputError

Int16 = npt.NDArray[np.int16]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

MIN_SAMPLE_RATE_HZ = 11_025
"""Upstream joins the kept pieces onto an empty segment of 11,025 Hz and would resample a slower signal to that."""

_FULL_SCALE = 32768
_SILENCE_DBFS = -50.0
_WINDOW_MS = 500
_KEEP_MS = 500
_STEP_MS = 10
_EDGE_MS = 100
_CHUNK_GAP_S = 0.3

# floor(sqrt(E / n)) <= r is E < (r + 1)^2 n in whole numbers. One bound serves both of pydub's tests: `rms <= limit`
# (windows) and `20 log10(rms / 32768) < -50` (edges) differ only at an RMS of exactly the limit, which is 103.62.
_SILENT_RMS = int(10 ** (_SILENCE_DBFS / 20) * _FULL_SCALE)
_LOUD_POWER = (_SILENT_RMS + 1) ** 2


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
    low, high = _checked_extremes(audio)
    _check_ref_rms(ref_rms)
    pad = int(options.pad_duration * sample_rate)
    fade = int(options.fade_duration * sample_rate)

    if options.postprocess_output:
        kept = _without_silence(_to_int16(audio), sample_rate)
        if not len(kept):
            return np.zeros(0, dtype=np.float32)
        finished, view = _padded(len(kept), pad)
        np.multiply(kept, np.float32(1 / _FULL_SCALE), out=view, dtype=np.float32)
        low, high = int(kept.min()) / _FULL_SCALE, int(kept.max()) / _FULL_SCALE
    else:
        finished, view = _padded(len(audio), pad)
        view[:] = audio

    _set_gain(view, peak=np.float32(max(high, -low)), ref_rms=ref_rms)
    _fade_ends(view, fade)
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
    _check_finite(low, high)
    _check_ref_rms(ref_rms)
    pad = int(options.pad_duration * sample_rate)
    fade = int(options.fade_duration * sample_rate)
    if not options.postprocess_output:
        finished, view = _padded(len(measured.samples), pad)
        view[:] = measured.samples
        _set_gain(view, peak=np.float32(max(high, -low)), ref_rms=ref_rms)
    else:
        block = sample_rate // 100
        pieces = _kept_pieces(measured.power, block)
        if pieces is None:
            return None
        if not pieces:
            return np.zeros(0, dtype=np.float32)
        finished, view = _padded(sum(end - start for start, end in pieces), pad)
        at = 0
        peak = max(_peak(measured, start, end, block) for start, end in pieces) if ref_rms is None else 0
        for start, end in pieces:
            out = view[at : at + end - start]
            _scale_whole(measured.samples[start:end], out, peak, ref_rms)
            at += end - start
    _fade_ends(view, fade)
    return finished


def _kept_pieces(power: Int64, block: int) -> list[tuple[int, int]] | None:
    """Ranges of samples that `_without_silence` keeps; None if an edge is silent beyond its piece."""
    ranges = _ranges(_silent_windows(power, block), _STEP_MS * len(power))
    if not ranges:
        return []
    loud = power >= _LOUD_POWER * block
    # The first range starts and the last ends at a whole block, and so do the steps from there.
    (start, first_end), (last_start, end) = ranges[0], ranges[-1]
    ahead = np.flatnonzero(loud[start // _STEP_MS : first_end // _STEP_MS])
    behind = np.flatnonzero(loud[-(-last_start // _STEP_MS) : end // _STEP_MS])
    if not ahead.size or not behind.size:
        return None
    silent_ahead_ms = _STEP_MS * int(ahead[0])
    silent_behind_ms = end - _STEP_MS * (-(-last_start // _STEP_MS) + int(behind[-1]) + 1)
    ranges[0] = (start + max(0, silent_ahead_ms - _EDGE_MS), first_end)
    ranges[-1] = (ranges[-1][0], end - max(0, silent_behind_ms - _EDGE_MS))
    return [(first * block // _STEP_MS, last * block // _STEP_MS) for first, last in ranges]


def _silent_windows(power: Int64, block: int) -> Int64:
    """Start in ms of every silent 500 ms window: one each 10 ms."""
    width = _WINDOW_MS // _STEP_MS
    if len(power) < width:
        return np.empty(0, dtype=np.int64)
    total = np.zeros(len(power) + 1, dtype=np.int64)
    np.cumsum(power, out=total[1:])
    return _STEP_MS * np.flatnonzero(total[width:] - total[:-width] < _LOUD_POWER * block * width)


def _peak(measured: Measured, start: int, end: int, block: int) -> int:
    """Largest magnitude of the whole numbers from `start` to `end`."""
    first, last = -(-start // block), end // block
    low, high = 0, 0
    if first < last:
        low = _whole(float(measured.low[first:last].min()))
        high = _whole(float(measured.high[first:last].max()))
    for edge in (measured.samples[start : min(first * block, end)], measured.samples[max(last * block, start) : end]):
        if len(edge):
            low, high = min(low, int(edge.min())), max(high, int(edge.max()))
    return max(high, -low)


def _whole(value: float) -> int:
    """`_to_int16` of one float32 sample: times a power of two is exact in any precision."""
    return int(min(max(value * _FULL_SCALE, -_FULL_SCALE), _FULL_SCALE - 1))


def _scale_whole(whole: Float32, out: Float32, peak: int, ref_rms: float | None) -> None:
    """`_set_gain` of whole / 32768, to the bit: a factor that is a power of two changes no rounding."""
    if ref_rms is None:
        if peak:
            np.divide(whole, np.float32(2 * peak), out=out)  # = whole / 32768 / (peak / 32768) * 0.5
        else:
            out[:] = 0
    elif not 1e-20 < ref_rms < 0.1:  # below, a power of two could change the rounding after all
        np.multiply(whole, np.float32(1 / _FULL_SCALE), out=out)
        _set_gain(out, peak=np.float32(0), ref_rms=ref_rms)
    else:
        np.multiply(whole, np.float32(ref_rms) * np.float32(1 / _FULL_SCALE), out=out)
        out /= np.float32(0.1)


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
        _check_vector(chunk)
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


def _check_vector(audio: Float32) -> None:
    if not isinstance(audio, np.ndarray) or audio.ndim != 1 or audio.dtype != np.float32:
        given = f"{audio.dtype} of shape {audio.shape}" if isinstance(audio, np.ndarray) else type(audio).__name__
        raise InputError(f"audio must be a NumPy vector of float32, not {given}")


def _checked_extremes(audio: Float32) -> tuple[float, float]:
    """Lowest and highest sample; both are 0 for an empty vector."""
    _check_vector(audio)
    if not len(audio):
        return 0.0, 0.0
    low, high = float(audio.min()), float(audio.max())
    _check_finite(low, high)
    return low, high


def _check_finite(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"audio must be finite, but its samples go from {low} to {high}")


def _check_ref_rms(ref_rms: float | None) -> None:
    if ref_rms is not None and not 0 <= ref_rms < float("inf"):
        raise InputError(f"ref_rms must be a finite number of at least 0, or None, not {ref_rms!r}")


def _to_int16(audio: Float32) -> Int16:
    """Full scale is 32768, rounded towards zero, saturated."""
    scaled = audio * np.float32(_FULL_SCALE)
    np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)


# --- milliseconds as pydub counts them ---------------------------------------------------------------------------


def _length_ms(samples: int, rate: int) -> int:
    return round(1000 * (samples / rate))


def _position(ms: int, rate: int) -> int:
    return int(ms * (rate / 1000.0))


def _positions(ms: Int64, rate: int) -> Int64:
    return (ms * (rate / 1000.0)).astype(np.int64)


def _cut(x: Int16, start_ms: int, end_ms: int, rate: int) -> Int16:
    """Samples from `start_ms` to `end_ms`, with zeros for those past the end."""
    start, end = _position(start_ms, rate), _position(end_ms, rate)
    piece = x[start:end]
    missing = (end - start) - len(piece)
    return np.concatenate([piece, np.zeros(missing, dtype=np.int16)]) if missing and len(piece) else piece


def _energy(x: Int16, edges: Int64) -> Int64:
    """Sum of squares between neighbouring sample positions, shape (len(edges) - 1,); past the end counts as zero."""
    squares = x[edges[0] : edges[-1]].astype(np.int32)
    squares *= squares
    sums: Int64 = np.add.reduceat(squares, edges[:-1] - edges[0], dtype=np.int64)
    return sums


# --- silence -----------------------------------------------------------------------------------------------------


def _without_silence(x: Int16, rate: int) -> Int16:
    """`remove_silence` of upstream with mid_sil=500, lead_sil=trail_sil=100."""
    if rate < MIN_SAMPLE_RATE_HZ:
        raise InputError(f"sample_rate must be at least {MIN_SAMPLE_RATE_HZ} Hz to remove silence, not {rate!r}")
    pieces = [_cut(x, start, end, rate) for start, end in _kept_ranges(x, rate)]
    joined = np.concatenate(pieces) if len(pieces) > 1 else pieces[0] if pieces else x[:0]
    return _trim_start(_trim_start(joined, rate)[::-1], rate)[::-1]


def _trim_start(x: Int16, rate: int) -> Int16:
    """Leave at most 100 ms of silence in front."""
    return _cut(x, max(0, _leading_silence_ms(x, rate) - _EDGE_MS), _length_ms(len(x), rate), rate)


def _leading_silence_ms(x: Int16, rate: int) -> int:
    """Whole steps of 10 ms that are silent at the start, or the length if all are."""
    length_ms = _length_ms(len(x), rate)
    done_ms, span_ms = 0, 640
    while done_ms < length_ms:
        stop_ms = min(done_ms + span_ms, length_ms)
        edges = _positions(_steps(done_ms, stop_ms), rate)
        loud = np.flatnonzero(_energy(x, edges) >= _LOUD_POWER * np.diff(edges))
        if loud.size:
            return done_ms + _STEP_MS * int(loud[0])
        # Speech mostly starts within the first span, so a short one comes first.
        done_ms, span_ms = stop_ms, 4 * span_ms
    return length_ms


def _steps(start_ms: int, stop_ms: int) -> Int64:
    """start, start + 10, … and `stop_ms` itself."""
    steps = np.arange(start_ms, stop_ms + _STEP_MS, _STEP_MS, dtype=np.int64)
    steps[-1] = stop_ms
    return steps


def _silent_starts(x: Int16, length_ms: int, rate: int) -> Int64:
    """Start in ms of every silent 500 ms window: one each 10 ms, and the last possible one."""
    edges = _positions(_steps(0, length_ms), rate)
    total = np.zeros(len(edges), dtype=np.int64)
    np.cumsum(_energy(x, edges), out=total[1:])
    whole = length_ms // _STEP_MS + 1  # edges that are a multiple of 10 ms
    width = _WINDOW_MS // _STEP_MS
    energy = total[width:whole] - total[: whole - width]
    count = edges[width:whole] - edges[: whole - width]
    starts = _STEP_MS * np.flatnonzero(energy < _LOUD_POWER * count)
    last_ms = length_ms - _WINDOW_MS
    if last_ms % _STEP_MS:
        ends = _positions(np.array([last_ms, length_ms]), rate)
        if _energy(x, ends)[0] < _LOUD_POWER * (ends[1] - ends[0]):
            starts = np.append(starts, last_ms)
    return starts


def _kept_ranges(x: Int16, rate: int) -> list[tuple[int, int]]:
    """Ranges in ms that `split_on_silence` keeps: speech with up to 500 ms of the silence on either side."""
    length_ms = _length_ms(len(x), rate)
    starts = _silent_starts(x, length_ms, rate) if length_ms >= _WINDOW_MS else np.empty(0, dtype=np.int64)
    return _ranges(starts, length_ms)


def _ranges(starts: Int64, length_ms: int) -> list[tuple[int, int]]:
    """What is left between silent windows that begin at `starts` (ms), with up to 500 ms of each silence."""
    if not starts.size:
        return [(0, length_ms)]
    # Two silent windows belong together unless a gap lies between the end of one and the start of the next.
    breaks = np.flatnonzero(np.diff(starts) > _WINDOW_MS)
    firsts = starts[np.concatenate([[0], breaks + 1])].tolist()
    ends = (starts[np.concatenate([breaks, [-1]])] + _WINDOW_MS).tolist()
    if firsts[0] == 0 and ends[0] == length_ms:
        return []

    speech = list(zip([0, *ends], [*firsts, length_ms], strict=True))
    if ends[-1] == length_ms:
        speech.pop()
    if speech[0] == (0, 0):
        speech.pop(0)
    kept = [[start - _KEEP_MS, end + _KEEP_MS] for start, end in speech]
    for before, after in pairwise(kept):
        if after[0] < before[1]:
            before[1] = after[0] = (before[1] + after[0]) // 2
    return [(max(start, 0), min(end, length_ms)) for start, end in kept]


# --- gain and fades ----------------------------------------------------------------------------------------------


def _padded(length: int, pad: int) -> tuple[Float32, Float32]:
    """An array with `pad` zeros on either side, and the view between them; no padding around nothing."""
    if not length:
        pad = 0
    whole = np.empty(length + 2 * pad, dtype=np.float32)
    whole[:pad] = 0
    whole[pad + length :] = 0
    return whole, whole[pad : pad + length]


def _set_gain(audio: Float32, *, peak: np.float32, ref_rms: float | None) -> None:
    """In place: towards a quiet reference, or the peak to 0.5. Two roundings each, in upstream's order."""
    if ref_rms is not None:
        if ref_rms < 0.1:
            audio *= np.float32(ref_rms)
            audio /= np.float32(0.1)
    elif peak > 1e-6:
        audio /= peak
        audio *= np.float32(0.5)


def _fade_ends(audio: Float32, samples: int) -> None:
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
