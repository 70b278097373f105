"""Which silences of an utterance are cut, as upstream's `remove_silence` does by way of pydub.

The facts taken from pydub 0.25:

- a segment of n samples is `round(1000 n / rate)` ms long, and millisecond t lies at sample `int(t * (rate / 1000))`;
  a slice that reaches past the last sample is filled with zeros;
- RMS is `floor(sqrt(sum(x^2) / n))` of int16, and a piece is silent at -50 dBFS when that is at most 103;
- a silence is a run of 500 ms windows, 10 ms apart, that are all silent; 500 ms are kept at each end of it.

`without_silence` looks at the samples, `kept_pieces` at the power of each 10 ms; what they keep is the same.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from omnivoice_triton.engine.levels import FULL_SCALE, Int16, Int64
from omnivoice_triton.speech import InputError

MIN_SAMPLE_RATE_HZ = 11_025
"""Upstream joins the kept pieces onto an empty segment of 11,025 Hz and would resample a slower signal to that."""

_SILENCE_DBFS = -50.0
_WINDOW_MS = 500
_KEEP_MS = 500
_STEP_MS = 10
_EDGE_MS = 100

# floor(sqrt(E / n)) <= r is E < (r + 1)^2 n in whole numbers. One bound serves both of pydub's tests: `rms <= limit`
# (windows) and `20 log10(rms / 32768) < -50` (edges) differ only at an RMS of exactly the limit, which is 103.62.
_SILENT_RMS = int(10 ** (_SILENCE_DBFS / 20) * FULL_SCALE)
_LOUD_POWER = (_SILENT_RMS + 1) ** 2


def without_silence(x: Int16, rate: int) -> Int16:
    """`remove_silence` of upstream with mid_sil=500, lead_sil=trail_sil=100.

    Args:
        x: samples, shape (T,).
        rate: Hz.

    Returns:
        Shape (T',): a view of `x` or a copy; empty if nothing but silence was there.

    Raises:
        InputError: a rate that upstream would resample.
    """
    if rate < MIN_SAMPLE_RATE_HZ:
        raise InputError(f"sample_rate must be at least {MIN_SAMPLE_RATE_HZ} Hz to remove silence, not {rate!r}")
    pieces = [_cut(x, start, end, rate) for start, end in _kept_ranges(x, rate)]
    joined = np.concatenate(pieces) if len(pieces) > 1 else pieces[0] if pieces else x[:0]
    return _trim_start(_trim_start(joined, rate)[::-1], rate)[::-1]


def kept_pieces(power: Int64, block: int) -> list[tuple[int, int]] | None:
    """Ranges of samples that `without_silence` keeps; None if an edge is silent beyond its piece.

    Args:
        power: sum of the squares of each 10 ms in whole numbers of 16 bits, shape (blocks,).
        block: samples in 10 ms.
    """
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


def _kept_ranges(x: Int16, rate: int) -> list[tuple[int, int]]:
    """Ranges in ms that `split_on_silence` keeps: speech with up to 500 ms of the silence on either side."""
    length_ms = _length_ms(len(x), rate)
    starts = _silent_starts(x, length_ms, rate) if length_ms >= _WINDOW_MS else np.empty(0, dtype=np.int64)
    return _ranges(starts, length_ms)


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


def _silent_windows(power: Int64, block: int) -> Int64:
    """Start in ms of every silent 500 ms window: one each 10 ms."""
    width = _WINDOW_MS // _STEP_MS
    if len(power) < width:
        return np.empty(0, dtype=np.int64)
    total = np.zeros(len(power) + 1, dtype=np.int64)
    np.cumsum(power, out=total[1:])
    return _STEP_MS * np.flatnonzero(total[width:] - total[:-width] < _LOUD_POWER * block * width)


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


def _length_ms(samples: int, rate: int) -> int:
    return round(1000 * (samples / rate))


def _position(ms: int, rate: int) -> int:
    return int(ms * (rate / 1000.0))


def _positions(ms: Int64, rate: int) -> Int64:
    return (ms * (rate / 1000.0)).astype(np.int64)


def _steps(start_ms: int, stop_ms: int) -> Int64:
    """start, start + 10, … and `stop_ms` itself."""
    steps = np.arange(start_ms, stop_ms + _STEP_MS, _STEP_MS, dtype=np.int64)
    steps[-1] = stop_ms
    return steps


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
