"""Values that users hold: the result of a synthesis, and the error tree.

OmniVoiceTritonError
├── InputError (ValueError)       what was asked can't be done as asked; the message says what to change
│   ├── UnknownMode (KeyError)
│   ├── ModeUnavailable           this machine can't run that mode
│   ├── CheckpointError           a model directory that lacks a file or whose tensors don't fit
│   └── NotEnoughMemory
├── NotLoaded (RuntimeError)      the runner's model is not loaded
├── DownloadError                 the hub could not be reached
└── UpstreamChanged               the installed omnivoice is not one that this package can drive
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class OmniVoiceTritonError(Exception):
    """Base of every error this package raises on purpose; the message is one line."""


class InputError(OmniVoiceTritonError, ValueError):
    """The request can't be carried out as it stands; the message says what to change."""


class UnknownMode(InputError, KeyError):
    """No mode of that name."""

    def __str__(self) -> str:
        """KeyError would print the repr."""
        return str(self.args[0]) if self.args else ""


class ModeUnavailable(InputError):
    """The mode exists, but this machine can't run it."""


class CheckpointError(InputError):
    """The model directory lacks a file, or its tensors don't fit its config."""


class NotEnoughMemory(InputError):
    """The GPU has less memory than the model or the request needs."""


class NotLoaded(OmniVoiceTritonError, RuntimeError):
    """The runner's model is not loaded."""


class DownloadError(OmniVoiceTritonError):
    """The model could not be fetched from the hub."""


class UpstreamChanged(OmniVoiceTritonError):
    """The installed omnivoice or transformers is laid out otherwise than this package expects."""


@dataclass(frozen=True, eq=False)
class Speech(Mapping[str, Any]):
    """One synthesised utterance and how it was made.

    Also a read-only mapping with the keys of 0.1.0 (`result["audio"]`, `result["time_ms"]`, …).
    """

    audio: npt.NDArray[np.float32]
    """Samples, shape (T,), float32 in [-1, 1]."""
    sample_rate: int
    """Hz."""
    time_s: float
    """Wall-clock seconds of the whole call, the device synchronised; a batch shares one call."""
    seed: int
    """Give this seed to get the same bits again."""
    mode: str
    peak_vram_gb: float = 0.0
    """Highest GPU memory allocated during the call, in GiB; 0 on a CPU."""
    batch_size: int = 1
    """Utterances made by the same call."""

    def __eq__(self, other: object) -> bool:
        """Whether it is the same result: samples are compared by who needs that, with numpy."""
        return self is other

    __hash__ = object.__hash__

    @property
    def time_ms(self) -> float:
        """Wall-clock milliseconds of the whole call."""
        return self.time_s * 1000.0

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return len(self.audio) / self.sample_rate

    @property
    def speed_x(self) -> float:
        """Seconds of audio per second of work (times real time)."""
        return self.audio_s / self.time_s if self.time_s > 0 else float("inf")

    def save(self, path: str | Path) -> Path:
        """Write the audio; the extension chooses the format (wav, flac, ogg, mp3, …).

        Raises:
            InputError: the extension is unknown or the path can't be written.
        """
        from omnivoice_triton.audio_files import write_audio

        return write_audio(path, self.audio, self.sample_rate)

    def __getitem__(self, key: str) -> Any:
        """The field or derived figure named `key`."""
        if key not in _SPEECH_KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return iter(_SPEECH_KEYS)

    def __len__(self) -> int:
        """Number of keys."""
        return len(_SPEECH_KEYS)

    def __repr__(self) -> str:
        """Figures, not samples."""
        return (
            f"Speech({self.audio_s:.2f} s at {self.sample_rate} Hz, mode={self.mode!r}, "
            f"{self.time_ms:.0f} ms, {self.speed_x:.1f}x real time, seed={self.seed})"
        )


_SPEECH_KEYS = (*(f.name for f in fields(Speech)), "time_ms", "audio_s", "speed_x")
