"""Saved voices are read once, codes are looked at once, and both notice a change."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omnivoice import VoiceClonePrompt

from omnivoice_triton import InputError
from omnivoice_triton.models import voices
from omnivoice_triton.models.voices import SavedVoices, check_voice

MODEL = SimpleNamespace(config=SimpleNamespace(num_audio_codebook=8, audio_mask_id=1024))


def prompt(frames: int = 5, high: int = 1024) -> VoiceClonePrompt:
    codes = torch.randint(0, high, (8, frames), generator=torch.Generator().manual_seed(frames))
    return VoiceClonePrompt(codes, "A tone.", 0.2)


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    load = voices.load_voice
    monkeypatch.setattr(voices, "load_voice", lambda path: (reads.append(path), load(path))[1])
    saved, path = SavedVoices("cpu"), tmp_path / "a.pt"
    prompt(5).save(str(path))
    first = saved.load(path)
    assert saved.load(str(path)) is first
    assert len(reads) == 1
    prompt(6).save(str(path))
    os.utime(path, ns=(1, 1))
    assert saved.load(path).ref_audio_tokens.shape == (8, 6)
    assert len(reads) == 2
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        saved.load(path)


def test_so_many_voices_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "MAX_SAVED_VOICES", 2)
    saved = SavedVoices("cpu")
    paths = [tmp_path / f"{n}.pt" for n in range(3)]
    made = []
    for path in (paths[0], paths[1], paths[0], paths[2]):
        prompt().save(str(path))
        os.utime(path, ns=(1, 1))
        made.append(saved.load(path))
    assert saved.load(paths[0]) is made[2]
    assert saved.load(paths[1]) is not made[1]


@pytest.mark.parametrize("inference", [False, True])
def test_codes_are_looked_at_once(inference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    aminmax = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda self: (looks.append(1), aminmax(self))[1])
    with torch.inference_mode(inference):
        voice = prompt()
    for _ in range(3):
        check_voice(MODEL, voice)
    assert len(looks) == 1
    fewer = SimpleNamespace(config=SimpleNamespace(num_audio_codebook=8, audio_mask_id=64))
    with pytest.raises(InputError, match="not all from 0 to 63"):
        check_voice(fewer, voice)
    known = len(voices._checked)
    del voice
    gc.collect()
    assert len(voices._checked) == known - 1


def test_codes_that_were_written_into_are_looked_at_again() -> None:
    voice = prompt()
    check_voice(MODEL, voice)
    voice.ref_audio_tokens[3, 2] = 1024
    with pytest.raises(InputError, match="not all from 0 to 1023"):
        check_voice(MODEL, voice)
