"""Sample values: full scale, the whole numbers of 16 bits, what counts as audio at all, and gain."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from omnivoice_triton.speech import InputError

Int16 = npt.NDArray[np.int16]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

FULL_SCALE = 32768


def check_vector(audio: Float32) -> None:
    """Raise InputError for anything but a NumPy vector of float32."""
    if not isinstance(audio, np.ndarray) or audio.ndim != 1 or audio.dtype != np.float32:
        given = f"{audio.dtype} of shape {audio.shape}" if isinstance(audio, np.ndarray) else type(audio).__name__
        raise InputError(f"audio must be a NumPy vector of float32, not {given}")


def checked_extremes(audio: Float32) -> tuple[float, float]:
    """Lowest and highest sample; both are 0 for an empty vector.

    Raises:
        InputError: another shape or dtype, NaN or infinite samples.
    """
    check_vector(audio)
    if not len(audio):
        return 0.0, 0.0
    low, high = float(audio.min()), float(audio.max())
    check_finite(low, high)
    return low, high


def check_finite(low: float, high: float) -> None:
    """Raise InputError if the lowest or the highest sample is NaN or infinite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"audio must be finite, but its samples go from {low} to {high}")


def check_ref_rms(ref_rms: float | None) -> None:
    """Raise InputError for an RMS of the reference that sets no gain; None stands for no reference."""
    if ref_rms is not None and not 0 <= ref_rms < float("inf"):
        raise InputError(f"ref_rms must be a finite number of at least 0, or None, not {ref_rms!r}")


def to_int16(audio: Float32) -> Int16:
    """Full scale is 32768, rounded towards zero, saturated."""
    scaled = audio * np.float32(FULL_SCALE)
    np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)


def to_whole(value: float) -> int:
    """`to_int16` of one float32 sample: times a power of two is exact in any precision."""
    return int(min(max(value * FULL_SCALE, -FULL_SCALE), FULL_SCALE - 1))


def set_gain(audio: Float32, *, peak: np.float32, ref_rms: float | None) -> None:
    """In place: towards a quiet reference, or the peak to 0.5. Two roundings each, in upstream's order."""
    if ref_rms is not None:
        if ref_rms < 0.1:
            audio *= np.float32(ref_rms)
            audio /= np.float32(0.1)
    elif peak > 1e-6:
        audio /= peak
        audio *= np.float32(0.5)


def set_gain_of_whole(whole: Float32, out: Float32, peak: int, ref_rms: float | None) -> None:
    """`set_gain` of whole / 32768, to the bit: a factor that is a power of two changes no rounding."""
    if ref_rms is None:
        if peak:
            np.divide(whole, np.float32(2 * peak), out=out)  # = whole / 32768 / (peak / 32768) * 0.5
        else:
            out[:] = 0
    elif not 1e-20 < ref_rms < 0.1:  # below, a power of two could change the rounding after all
        np.multiply(whole, np.float32(1 / FULL_SCALE), out=out)
        set_gain(out, peak=np.float32(0), ref_rms=ref_rms)
    else:
        np.multiply(whole, np.float32(ref_rms) * np.float32(1 / FULL_SCALE), out=out)
        out /= np.float32(0.1)
