"""Recordings that come in, and files that go out."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnivoice_triton import InputError
from omnivoice_triton.audio_files import check_reference, check_writable, write_audio
from omnivoice_triton.models.voices import _samples

TONE = (0.3 * np.sin(np.arange(24_000) / 10)).astype(np.float32)


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float64", "float16"])
def test_integers_are_scaled_by_what_their_type_holds(kind: str) -> None:
    if kind.startswith("float"):
        given: Any = TONE.astype(kind)
    elif kind == "uint8":
        given = (128 + 128 * TONE).astype(kind)
    else:
        given = (np.iinfo(kind).max * TONE.astype(np.float64)).astype(kind)
    samples, rate = _samples((given, np.int64(24_000)))
    assert samples.shape == (1, 24_000)
    assert samples.dtype == np.float32
    assert rate == 24_000
    np.testing.assert_allclose(samples[0], TONE, atol=0.01 if kind == "uint8" else 1e-3)


def test_tensors_of_16_bits_are_taken() -> None:
    samples, _ = _samples((torch.from_numpy(TONE).bfloat16(), 24_000))
    np.testing.assert_allclose(samples[0], TONE, atol=2e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((TONE, None), "must be a path or"),
        ((TONE, float("nan")), "must be a path or"),
        (["a.wav", "b.wav"], "must be a path or"),
        ((["a"], 24_000), "must be numbers"),
        ((TONE.astype(complex), 24_000), "must be numbers"),
        ((np.zeros((2, 2, 2)), 24_000), "must be numbers of shape"),
    ],
)
def test_what_is_no_recording(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _samples(given)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (TONE[None], 24, "must be 4000 to 768000 Hz, not 24"),
        (TONE[None], 10**9, "must be 4000 to 768000 Hz"),
        (np.stack([TONE, TONE], 1), 24_000, r"24000 channels: samples must be \(T,\) or \(channels, T\)"),
        (TONE[None] * 32_768, 24_000, "reaches 98.*: give floats from -1 to 1, or integers as integers"),
    ],
)
def test_what_no_voice_can_be_taken_from(samples: Any, rate: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_reference(samples, rate)


def test_threads_may_save_to_one_path(tmp_path: Path) -> None:
    path, problems = tmp_path / "out.wav", []

    def save(level: float) -> None:
        try:
            for _ in range(20):
                write_audio(path, np.full(2400, level, np.float32), 24_000)
                if len(soundfile.read(path)[0]) != 2400:
                    problems.append("cut short")
        except Exception as error:
            problems.append(str(error))

    threads = [threading.Thread(target=save, args=(level,)) for level in (0.1, 0.2, 0.3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [each.name for each in tmp_path.iterdir()] == ["out.wav"]


def test_a_link_stays_one_and_a_file_keeps_its_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "real.wav", tmp_path / "link.wav"
    write_audio(real, TONE, 24_000)
    real.chmod(0o640)
    link.symlink_to(real)
    write_audio(link, TONE[:12_000], 24_000)
    assert link.is_symlink()
    assert len(soundfile.read(real)[0]) == 12_000
    assert stat.S_IMODE(os.stat(real).st_mode) == 0o640


def test_long_names(tmp_path: Path) -> None:
    assert write_audio(tmp_path / ("가" * 83 + ".wav"), TONE, 24_000).exists()
    with pytest.raises(InputError, match="too long"):
        check_writable(tmp_path / ("a" * 300 + ".wav"))
