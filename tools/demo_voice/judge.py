"""A small CTC character recogniser for the three languages, trained on espeak-ng's recordings alone.

It knows nothing of the demo voice: what it can't read there, the voice says badly. Korean is read in jamo and composed;
Korean and Chinese are compared without spaces, English without case; punctuation counts nowhere.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tools.demo_voice.codec import mel_filters
from torch import Tensor, nn

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


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def error_rate(wanted: Sequence[str], heard: Sequence[str]) -> float:
    """Character error rate over all pairs: edits by characters wanted."""
    pairs = [(normalise(a), normalise(b)) for a, b in zip(wanted, heard, strict=True)]
    characters = sum(len(a) for a, _ in pairs)
    if not characters:
        raise ValueError("no characters to compare")
    return sum(edit_distance(a, b) for a, b in pairs) / characters


class Features(nn.Module):
    """Log-mel spectrogram, each clip to mean 0 and deviation 1: (B, samples) -> (B, 80, frames)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(WINDOW, BANDS), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
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

    @torch.no_grad()
    def transcribe(self, wave: Tensor) -> str:
        """What one clip (samples,) at 24 kHz says."""
        self.eval()
        best = self(self.features(wave[None]))[0].argmax(-1).tolist()
        symbols = [
            self.symbols[now - 1] for before, now in zip([0, *best], best, strict=False) if now and now != before
        ]
        return unicodedata.normalize("NFC", "".join(symbols))


def symbols_of(texts: Sequence[str]) -> list[str]:
    """All symbols of these texts, and every jamo."""
    jamo = [
        chr(code) for start, count in ((0x1100, 19), (0x1161, 21), (0x11A8, 27)) for code in range(start, start + count)
    ]
    return sorted({symbol for text in texts for symbol in spell(text)} | set(jamo))


def save_judge(judge: Judge, directory: Path) -> None:
    """Write judge.safetensors (fp16) and judge.json."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in judge.state_dict().items()}
    save_file(tensors, directory / "judge.safetensors")
    (directory / "judge.safetensors").chmod(0o644)
    about = {"symbols": judge.symbols, "width": judge.head.in_features // 2}
    (directory / "judge.json").write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")


def load_judge(directory: Path) -> Judge:
    """The judge of a directory, fp32 on the CPU."""
    from safetensors.torch import load_file

    about = json.loads((directory / "judge.json").read_text(encoding="utf-8"))
    judge = Judge(about["symbols"], about["width"])
    judge.load_state_dict({name: value.float() for name, value in load_file(directory / "judge.safetensors").items()})
    return judge.eval()
