"""What can be measured of a recording without knowing what it says: spectrum, clipping, silence."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

FRAME_S, HOP_S = 0.025, 0.010
BANDS, COEFFICIENTS = 40, 20
CLIPPED = 0.999
SILENT_DB = -50.0


def clipping(audio: Samples) -> float:
    """Share of samples at full scale."""
    return float(np.mean(np.abs(audio) >= CLIPPED)) if audio.size else 0.0


def silence(audio: Samples, rate: int) -> float:
    """Share of 10 ms frames below -50 dB of full scale (RMS); 1 for an empty recording."""
    frames = _frames(audio, rate)
    if not len(frames):
        return 1.0
    level = 20 * np.log10(np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1)) + 1e-12)
    return float(np.mean(level < SILENT_DB))


def mfcc(audio: Samples, rate: int) -> npt.NDArray[np.float64]:
    """Mel-frequency cepstral coefficients (frames, 20), after Davis and Mermelstein 1980: 40 bands, orthonormal DCT."""
    frames = _frames(audio, rate).astype(np.float64)
    if not len(frames):
        return np.zeros((0, COEFFICIENTS))
    power = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), axis=1)) ** 2
    logs = np.log(power @ _mel_filters(frames.shape[1], rate).T + 1e-10)
    coefficients: npt.NDArray[np.float64] = logs @ _dct().T
    return coefficients


def voice_print(audio: Samples, rate: int) -> npt.NDArray[np.float64]:
    """Mean and spread of MFCC 1 to 19 over frames that aren't silent: (38,). Crude, but free of any model."""
    coefficients = mfcc(audio, rate)
    if not len(coefficients):
        return np.zeros(2 * (COEFFICIENTS - 1))
    loud = coefficients[coefficients[:, 0] >= np.quantile(coefficients[:, 0], 0.3)][:, 1:]
    return np.concatenate((loud.mean(0), loud.std(0)))


def similarity(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Cosine of two voice prints."""
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0


def _frames(audio: Samples, rate: int) -> Samples:
    """Overlapping frames (n, length); none if the recording is shorter than one."""
    length, hop = round(FRAME_S * rate), round(HOP_S * rate)
    if audio.size < length:
        return np.zeros((0, length), np.float32)
    return np.lib.stride_tricks.sliding_window_view(audio, length)[::hop]


@lru_cache(maxsize=8)
def _mel_filters(length: int, rate: int) -> npt.NDArray[np.float64]:
    """Triangles on the mel scale of O'Shaughnessy: (40, length / 2 + 1)."""

    def mel(hertz: float) -> float:
        return 2595 * float(np.log10(1 + hertz / 700))

    edges = 700 * (10 ** (np.linspace(mel(20), mel(rate / 2), BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(length, 1 / rate)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    filters: npt.NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0, None)
    return filters


@lru_cache(maxsize=1)
def _dct() -> npt.NDArray[np.float64]:
    """Orthonormal DCT-II, (20, 40)."""
    k, n = np.arange(COEFFICIENTS)[:, None], np.arange(BANDS)
    table: npt.NDArray[np.float64] = np.cos(np.pi / BANDS * (n + 0.5) * k) * np.sqrt(2 / BANDS)
    table[0] /= np.sqrt(2)
    return table
