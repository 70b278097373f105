"""What a recording sounds like in numbers: its pitch, and which speaker it is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from omnivoice_triton.verify.judge import mel_filters

SAMPLE_RATE_HZ = 24_000
_WINDOW, _HOP = 1536, 480
_RANGE_HZ = (55.0, 480.0)


def pitch_track(wave: np.ndarray) -> np.ndarray:
    """F0 in Hz of the voiced 20 ms frames of a clip at 24 kHz, by the first strong peak of the autocorrelation.

    The window's own autocorrelation is divided out (Boersma 1993), and of peaks nearly as high as the highest the one
    of the shortest lag is taken, so that octaves below aren't.
    """
    wave = np.asarray(wave, np.float64)
    if len(wave) < 2 * _WINDOW:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::_HOP]
    loud = np.sqrt((frames**2).mean(1))
    frames = frames[loud > 0.2 * np.quantile(loud, 0.9)]
    window = np.hanning(_WINDOW)
    size = 4096

    def correlation(x: np.ndarray) -> np.ndarray:
        return np.fft.irfft(np.abs(np.fft.rfft(x, size)) ** 2, size)[..., : _WINDOW // 2]

    found = correlation((frames - frames.mean(1, keepdims=True)) * window) / correlation(window)
    found = found / (found[:, :1] + 1e-12)
    low, high = int(SAMPLE_RATE_HZ / _RANGE_HZ[1]), int(SAMPLE_RATE_HZ / _RANGE_HZ[0])
    pitches = []
    for row in found:
        part = row[low : high + 1]
        peaks = np.flatnonzero((part[1:-1] > part[:-2]) & (part[1:-1] >= part[2:])) + 1
        if len(peaks) and part[peaks].max() > 0.5:
            first = peaks[part[peaks] > 0.85 * part[peaks].max()][0]
            pitches.append(SAMPLE_RATE_HZ / (low + first))
    return np.array(pitches)


def pitch(wave: np.ndarray) -> float:
    """Median F0 in Hz; NaN where nothing is voiced."""
    track = pitch_track(wave)
    return float(np.median(track)) if len(track) else float("nan")


def timbre(wave: np.ndarray) -> np.ndarray:
    """Speaker statistics, (26,): log F0, means of 13 and deviations of 12 mel cepstra over the loud frames."""
    x = torch.as_tensor(np.asarray(wave, np.float32))
    spectrum = torch.stft(x, 1024, 480, window=torch.hann_window(1024), return_complex=True).abs()
    mel = mel_filters(1024, 40) @ spectrum
    loud = mel.mean(0)
    kept = (mel[:, loud > 0.2 * loud.quantile(0.9)] + 1e-4).log()
    bands = torch.arange(40, dtype=torch.float32)
    basis = torch.cos(torch.pi * torch.arange(14, dtype=torch.float32)[:, None] * (bands + 0.5) / 40)
    cepstra = basis @ kept / 40
    tone = pitch(wave)
    log_pitch = 0.0 if np.isnan(tone) else float(np.log(tone))
    return np.concatenate([[log_pitch], cepstra[1:].mean(1).numpy(), cepstra[1:13].std(1).numpy()])


@dataclass(frozen=True)
class SpeakerStatistics:
    """Where each speaker lies among timbres: nearest mean, by Mahalanobis distance within speakers."""

    names: tuple[int, ...]
    means: np.ndarray
    whiten: np.ndarray

    @classmethod
    def fit(cls, waves: Sequence[np.ndarray], speakers: Sequence[int]) -> SpeakerStatistics:
        """From recordings and the number of the speaker of each; at least two a speaker."""
        vectors, owners = np.stack([timbre(wave) for wave in waves]), np.asarray(speakers)
        names = tuple(sorted(set(owners.tolist())))
        means = np.stack([vectors[owners == name].mean(0) for name in names])
        centred = vectors - means[[names.index(owner) for owner in owners.tolist()]]
        # Shrunk towards the diagonal: few recordings, 26 numbers each.
        spread = centred.T @ centred / max(1, len(centred) - len(names))
        spread = 0.5 * spread + 0.5 * np.diag(np.diag(spread)) + 1e-6 * np.eye(len(spread))
        values, axes = np.linalg.eigh(spread)
        return cls(names, means, axes / np.sqrt(values))

    def nearest(self, wave: np.ndarray) -> int:
        """The speaker whose mean is nearest to a recording."""
        return self.names[int(np.argmin((((timbre(wave) - self.means) @ self.whiten) ** 2).sum(1)))]
