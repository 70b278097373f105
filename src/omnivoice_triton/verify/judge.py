"""The packaged judge: a small CTC character recogniser of English, Korean and Chinese, made for the demo voice.

It learnt to read recordings of espeak-ng alone (`tools/demo_voice`) and knows nothing of the voice that it judges: what
it can't read there is badly said. Korean is read in jamo and composed; Korean and Chinese are compared without spaces,
English without case; punctuation counts nowhere.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnivoice_triton.checkpoint.demo import JUDGE_FILES
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify.recognise import edit_distance

ABOUT, WEIGHTS = JUDGE_FILES
LANGUAGES = ("en", "ko", "zh")
"""What it has heard, as ISO 639-1 codes."""

SAMPLE_RATE_HZ = 24_000
HOP = 240
WINDOW = 1024
BANDS = 80
REDUCTION = 2
"""Feature frames to one output: 50 outputs a second."""


def normalise(text: str) -> str:
    """What of a text counts: letters lower case, Hangul and Han; single spaces between Latin words only."""
    kept = [c for c in unicodedata.normalize("NFC", text.lower()) if c.isalnum() or c in " '"]
    words = "".join(kept).split()
    if all(ord(character) < 0x250 for word in words for character in word):
        return " ".join(words)
    return "".join(words)


def spell(text: str) -> list[str]:
    """The judge's symbols of a text: letters, jamo, Han characters."""
    return list(unicodedata.normalize("NFD", normalise(text)))


def error_rate(wanted: Sequence[str], heard: Sequence[str]) -> float:
    """Character error rate over all pairs: edits by characters wanted."""
    pairs = [(normalise(a), normalise(b)) for a, b in zip(wanted, heard, strict=True)]
    characters = sum(len(a) for a, _ in pairs)
    if not characters:
        raise InputError("no characters to compare")
    return sum(edit_distance(a, b) for a, b in pairs) / characters


def mel_filters(size: int, bands: int, sample_rate_hz: int = 24_000, low_hz: float = 40.0) -> Tensor:
    """Triangular filters on O'Shaughnessy's mel scale, 2595 log10(1 + f / 700), rows summing to 1: (bands, bins)."""

    def mel(hz: float) -> float:
        return 2595.0 * float(torch.log10(torch.tensor(1 + hz / 700.0, dtype=torch.float64)))

    edges = torch.linspace(mel(low_hz), mel(sample_rate_hz / 2), bands + 2, dtype=torch.float64)
    edges_hz = 700.0 * (10 ** (edges / 2595.0) - 1)
    bins = torch.linspace(0, sample_rate_hz / 2, size // 2 + 1, dtype=torch.float64)
    # A filter narrower than a bin would be empty: each is at least one bin wide on either side.
    step = sample_rate_hz / size
    left = torch.minimum(edges_hz[:-2], edges_hz[1:-1] - step)[:, None]
    right = torch.maximum(edges_hz[2:], edges_hz[1:-1] + step)[:, None]
    centre = edges_hz[1:-1, None]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return (filters / filters.sum(1, keepdim=True)).float()


class Features(nn.Module):
    """Log-mel spectrogram, each clip to mean 0 and deviation 1: (B, samples) -> (B, 80, frames)."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(WINDOW, BANDS), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Clips (B, samples) to features (B, 80, frames)."""
        spectrum = torch.stft(wave, WINDOW, HOP, window=self.window, normalized=True, return_complex=True)
        mel = self.filters @ (spectrum.real.pow(2) + spectrum.imag.pow(2)).add(1e-9).sqrt()
        # The floor is relative: loudness must not matter, digital silence least of all.
        peak = mel.amax((1, 2), keepdim=True)
        return (mel / (peak + 1e-6) + 1e-3).log()


class Judge(nn.Module):
    """Convolutions, two bidirectional LSTM layers, one class a symbol (0: blank)."""

    def __init__(self, symbols: Sequence[str], width: int = 192) -> None:
        super().__init__()
        self.symbols = list(symbols)
        self.features = Features()
        self.conv1 = nn.Conv1d(BANDS, width, 5, padding=2)
        self.conv2 = nn.Conv1d(width, width, 5, stride=REDUCTION, padding=2)
        self.norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, len(self.symbols) + 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Features (B, 80, frames) to log-probabilities (B, outputs, classes)."""
        spread = mel.std((1, 2), keepdim=True) + 1e-3
        x = (mel - mel.mean((1, 2), keepdim=True)) / spread
        x = F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2)
        x, _ = self.lstm(self.norm(x))
        return F.log_softmax(self.head(x).float(), dim=-1)

    @torch.inference_mode()
    def transcribe(self, wave: Tensor) -> str:
        """What one clip (samples,) at 24 kHz says; it may be on another device."""
        self.eval()
        wave = wave.to(self.head.weight.device, torch.float32)
        if wave.numel() <= WINDOW:  # Shorter than a window: there is nothing to read, and no spectrum either
            return ""
        best = self(self.features(wave[None]))[0].argmax(-1).tolist()
        symbols = [
            self.symbols[now - 1] for before, now in zip([0, *best], best, strict=False) if now and now != before
        ]
        return unicodedata.normalize("NFC", "".join(symbols))


def load_judge(directory: Path, device: str | torch.device = "cpu") -> Judge:
    """The judge of a directory, in fp32.

    Raises:
        InputError: no such judge, or its files don't fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    missing = next((name for name in JUDGE_FILES if not (directory / name).is_file()), None)
    if missing:
        raise InputError(f"judge {str(directory)!r} lacks {missing}: give a directory with {' and '.join(JUDGE_FILES)}")
    try:
        about = json.loads((directory / ABOUT).read_text(encoding="utf-8"))
        judge = Judge(about["symbols"], about["width"])
        state = {name: value.float() for name, value in load_file(directory / WEIGHTS).items()}
        judge.load_state_dict(state)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"judge {str(directory)!r} can't be loaded: {' '.join(str(error).split())[:200]}") from error
    return judge.to(device).eval()


class JudgeRecogniser:
    """The judge as tier 3's recogniser."""

    languages = LANGUAGES

    def __init__(self, directory: Path, device: str) -> None:
        self.name = "judge (trained on espeak-ng's recordings alone)"
        self._judge = load_judge(directory, device)

    def transcribe(self, audio: npt.NDArray[np.float32], rate: int, code: str) -> str:
        """What samples (T,) at `rate` Hz say; the judge finds out the language by itself."""
        wave = torch.from_numpy(np.ascontiguousarray(audio, np.float32))
        if rate != SAMPLE_RATE_HZ:
            import torchaudio

            wave = torchaudio.functional.resample(wave, rate, SAMPLE_RATE_HZ)
        return self._judge.transcribe(wave)
