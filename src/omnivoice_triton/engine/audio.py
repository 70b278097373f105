"""Post-processing of decoded audio: silence removal, gain, fades, padding, and the joining of chunks.

Every sample equals what omnivoice 0.2.1 makes (`OmniVoice._post_process_audio`, `omnivoice.utils.audio`, which go
through pydub 0.25 on int16), only without a Python loop over milliseconds. The facts taken from pydub:

- a segment of n samples is `round(1000 n / rate)` ms long, and millisecond t lies at sample `int(t * (rate / 1000))`;
  a slice that reaches past the last sample is filled with zeros;
- RMS is `floor(sqrt(sum(x^2) / n))` of int16, and a piece is silent at -50 dBFS when that is at most 103;
- a silence is a run of 500 ms windows, 10 ms apart, that are all silent; 500 ms are kept at each end of it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    if ref_rms is not None and not 0 <= ref_rms < float("inf"):
        raise InputError(f"ref_rms must be a finite number of at least 0, or None, not {ref_rms!r}")
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
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"audio must be finite, but its samples go from {low} to {high}")
    return low, high


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
