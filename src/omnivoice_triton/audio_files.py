"""Reading reference audio and writing results, with errors that say what to do."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omnivoice_triton.speech import InputError

MIN_REFERENCE_S = 0.2
RATES_HZ = (4_000, 768_000)
"""Sample rates of recordings; resampling from others would take gigabytes, and they are kHz taken for Hz."""
LOUDEST = 8.0
"""Floats are full scale at 1; a recording may exceed it a little, integers taken for floats do by far."""
MOST_CHANNELS = 64
SILENT_PEAK = 1e-4
"""Samples below this (-80 dBFS) carry no voice."""

# Formats that keep 24 kHz and read back as written; libsndfile knows more, raw and telephone ones among them.
_FORMATS: dict[str, tuple[str, str | None]] = {
    ".wav": ("WAV", None),
    ".flac": ("FLAC", None),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", None),
    ".aiff": ("AIFF", None),
}

_READABLE = "give a WAV, FLAC, OGG or MP3 file"


def read_reference(path: str | Path) -> tuple[npt.NDArray[np.float32], int]:
    """Samples (channels, T) float32 and the rate in Hz of a reference recording.

    Raises:
        InputError: the file is missing, empty, no audio, corrupt, silent or too short.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"reference audio {str(path)!r} does not exist")
    if path.is_dir():
        raise InputError(f"reference audio {str(path)!r} is a directory: {_READABLE}")
    if path.stat().st_size == 0:
        raise InputError(f"reference audio {str(path)!r} is an empty file: {_READABLE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # librosa announces each backend that it falls back to
            from omnivoice.utils.audio import load_waveform

            samples, rate = load_waveform(str(path))
    except Exception as error:
        reason = str(error).strip().splitlines()
        detail = f" ({reason[0][:120]})" if reason else ""
        raise InputError(f"can't read {str(path)!r} as audio{detail}: {_READABLE}") from error
    samples = np.atleast_2d(np.asarray(samples, dtype=np.float32))
    check_reference(samples, rate, name=repr(str(path)))
    return samples, int(rate)


def check_reference(samples: npt.NDArray[np.float32], rate: int, name: str = "reference audio") -> None:
    """Raise InputError for samples (channels, T) that no voice can be taken from."""
    low, high = RATES_HZ
    if not low <= rate <= high:
        raise InputError(f"the sample rate of {name} must be {low} to {high} Hz, not {rate}")
    channels = samples.shape[0]
    if channels > MOST_CHANNELS:
        raise InputError(f"{name} has {channels} channels: samples must be (T,) or (channels, T), not {samples.shape}")
    seconds = samples.shape[-1] / rate
    if seconds < MIN_REFERENCE_S:
        raise InputError(f"{name} lasts {seconds:.2f} s: a reference needs 3 to 10 s of speech (at least 0.2 s)")
    if not np.isfinite(samples).all():
        raise InputError(f"{name} holds NaN or infinite samples: record or convert it again")
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        raise InputError(f"{name} reaches {peak:g}: give floats from -1 to 1, or integers as integers")
    if peak < SILENT_PEAK:
        raise InputError(f"{name} is silent: a reference needs 3 to 10 s of speech")


def check_output_path(path: str | Path) -> Path:
    """Raise InputError unless audio can be written to `path`; nothing is written there yet."""
    path = Path(path)
    if path.suffix.lower() not in _available():
        known = ", ".join(_available())
        raise InputError(f"can't write {str(path)!r}: the extension must name a format, one of {known}")
    return check_writable(path)


def check_writable(path: str | Path) -> Path:
    """Raise InputError unless a file can be made or replaced at `path`; nothing is written there yet."""
    path = Path(path)
    folder = path.parent
    try:
        if path.is_dir():
            raise InputError(f"can't write {str(path)!r}: it is a directory")
        if not folder.is_dir():
            raise InputError(f"can't write {str(path)!r}: the folder {str(folder)!r} does not exist")
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".omnivoice-triton-")
        os.close(handle)
        os.unlink(probe)
        if path.exists():
            with path.open("r+b"):
                pass
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror or error}") from error
    return path


def write_audio(path: str | Path, audio: npt.NDArray[np.float32], sample_rate: int) -> Path:
    """Write samples (T,) float32; the extension chooses the format. The file appears whole or not at all.

    A file that is there keeps its mode, and a link stays one: what it leads to is replaced.
    """
    import soundfile

    path = check_output_path(path)
    kind, subtype = _FORMATS[path.suffix.lower()]
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem[:32]}.{uuid.uuid4().hex[:12]}.part{target.suffix}")
    try:
        soundfile.write(partial, audio, sample_rate, format=kind, subtype=subtype)
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    except (OSError, RuntimeError) as error:
        raise InputError(f"can't write {str(path)!r}: {str(error).splitlines()[0]}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _available() -> list[str]:
    """Extensions that this libsndfile can write."""
    import soundfile

    formats = soundfile.available_formats()
    return [
        extension
        for extension, (kind, subtype) in _FORMATS.items()
        if kind in formats and (subtype is None or subtype in soundfile.available_subtypes(kind))
    ]
