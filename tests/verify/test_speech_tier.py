"""Tier 3 on the tiny model: right modes pass, planted faults fail, and being better is no fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.engine.codec import CodecDecoder
from omnivoice_triton.engine.noise import TorchDraws
from omnivoice_triton.kernels import engine_reference
from omnivoice_triton.models import turbo
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import sample_files, speaking, speech_figures, speech_tier
from omnivoice_triton.verify.outcome import Tier
from omnivoice_triton.verify.sentences import REFERENCE, SENTENCES
from tests.verify.faults import causal, off_by_one_column


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


def run(tiny: Path, *modes: str, **settings: Any) -> Tier:
    given: dict[str, Any] = {"sentences": 3, "steps": 4, "voices": ("auto",), "duration_s": 0.6, **settings}
    return speech_tier.run(tiny, modes or ("base", "turbo"), device="cpu", **given)


class Parrot:
    """Hears the text, but for every `every`-th recording of what it is told is a bad mode, nothing."""

    name = "parrot"

    def __init__(self, deaf: Callable[[int], bool]) -> None:
        self.deaf, self.heard = deaf, 0

    def transcribe(self, audio: Any, rate: int, code: str) -> str:
        number = self.heard
        self.heard += 1
        text = SENTENCES[number % 3].text
        return "" if self.deaf(number) else text.upper() + "!"


def test_turbo_passes_in_every_voice(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    # With seed 0 two ids of a cell are equally likely to the last bit, and packed rows round unlike padded ones.
    tier = run(
        make_checkpoint(tmp_path_factory.mktemp("other") / "tiny", "tiny", seed=1),
        voices=speaking.VOICES,
        samples=tmp_path,
    )
    assert tier.passed, tier.failures
    base, row = tier.rows
    assert base["tokens_are_upstreams"] is True
    assert row["mode"] == "turbo"
    assert set(row["comparisons"]) == set(speech_figures.MARGINS) - {"cer", "naturalness"}
    assert row["comparisons"]["tokens_equal"]["mode"] == 1.0
    assert row["comparisons"]["speaker_similarity"]["utterances"] == 3
    assert row["waveform_where_tokens_equal"]["utterances"] == row["utterances"] == 7
    assert any("CER: not measured" in note for note in tier.notes)
    assert any("speech is noise" in note for note in tier.notes)
    assert {one["sentences_in"]: one["text"] for one in tier.details["cloned"]} == dict.fromkeys(
        ("en", "ko", "zh"), REFERENCE.text
    )
    assert sample_files.faults(tmp_path) == []
    entries = sample_files.read_metadata(tmp_path)["samples"]
    assert {entry["mode"] for entry in entries} == {"base", "turbo"}
    assert all(entry["tokens_equal_to_base"] == 1 for entry in entries)
    samples, rate = soundfile.read(tmp_path / entries[-1]["file"])
    assert (rate, len(samples) / rate) == (24_000, pytest.approx(entries[-1]["audio_s"], abs=1e-3))


def noise_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = TorchDraws.fill
    monkeypatch.setattr(TorchDraws, "fill", lambda self, step, *rest: fill(self, 0, *rest))


def wrong_codebook_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = CodecDecoder.prepare
    monkeypatch.setattr(
        CodecDecoder,
        "prepare",
        lambda self, codes, *, check: [item.roll(1, 0) for item in prepare(self, codes, check=check)],
    )


def causal_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_reference, "varlen_attention", causal(engine_reference.varlen_attention))


def a_kernel_off_by_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_reference, "swiglu", off_by_one_column(engine_reference.swiglu))


def skipped_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_reference.packed_add_norm

    def skipping(delta: Any, residual: Any, *a: Any, **k: Any) -> None:
        residual.zero_()
        real(delta, residual, *a, **k)

    monkeypatch.setattr(engine_reference, "packed_add_norm", skipping)


def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = turbo.TurboHandle._sound
    monkeypatch.setattr(
        turbo.TurboHandle, "_sound", lambda self, *a: [audio[: len(audio) // 2] for audio in sound(self, *a)]
    )


def too_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = turbo.TurboHandle._sound
    monkeypatch.setattr(
        turbo.TurboHandle, "_sound", lambda self, *a: [(40 * audio).clip(-1, 1) for audio in sound(self, *a)]
    )


def mute(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = turbo.TurboHandle._sound
    monkeypatch.setattr(turbo.TurboHandle, "_sound", lambda self, *a: [0 * audio for audio in sound(self, *a)])


@pytest.mark.parametrize(
    ("plant", "seen_as"),
    [
        (noise_reused, "tokens_equal"),
        (skipped_residual, "tokens_equal"),
        (causal_attention, "tokens_equal"),
        (a_kernel_off_by_one_column, "tokens_equal"),
        (wrong_codebook_offset, "equal tokens, but samples"),
        (cut_short, "duration"),
        (too_loud, "clipping"),
        (mute, "silent"),
    ],
)
def test_planted_fault_fails(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], seen_as: str
) -> None:
    plant(monkeypatch)
    tier = run(tiny)
    assert not tier.passed
    assert tier.rows[0]["passed"], "base itself is not to blame"
    assert any(seen_as in problem for problem in tier.failures), tier.failures


def test_samples_that_were_not_compared_are_said(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("were not compared" in note for note in run(tiny).notes)
    noise_reused(monkeypatch)
    assert "turbo in float32: no utterance has all of base's tokens, so samples were not compared with base's" in (
        run(tiny).notes
    )


def test_base_that_is_not_upstream_is_seen(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = BaseRunner.generate
    monkeypatch.setattr(BaseRunner, "generate", lambda self, *a, seed, **k: generate(self, *a, seed=seed + 1, **k))
    tier = run(tiny)
    assert tier.rows[0]["problems"] == ["base's tokens are not upstream's own"]


@pytest.mark.parametrize(
    ("deaf", "real", "passed"),
    [
        (lambda n: n >= 3, True, False),  # turbo's recordings say nothing
        (lambda n: n < 3, True, True),  # base's do: turbo is better
        (lambda n: True, True, True),  # both are as bad
        (lambda n: n >= 3, False, True),  # random weights: shown, never judged
    ],
)
def test_cer_is_judged_by_the_difference(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, deaf: Callable[[int], bool], real: bool, passed: bool
) -> None:
    if real:
        monkeypatch.setattr(speech_tier, "is_random", lambda path: False)
    tier = run(tiny, recogniser=Parrot(deaf))
    assert tier.passed is passed, tier.failures
    figure = tier.rows[1]["comparisons"]["cer"]
    assert {figure["mode"], figure["base"]} <= {0.0, 1.0}
    assert (figure["verdict"] == "not judged") is not real
    if not real:
        assert any("not judged" in note for note in tier.notes)


def test_a_recogniser_is_asked_of_its_own_languages_only(tiny: Path) -> None:
    judge = Parrot(lambda n: False)
    judge.languages = {"en"}  # type: ignore[attr-defined]
    tier = run(tiny, recogniser=judge)
    assert judge.heard == 2  # base and turbo say one English sentence of the three
    assert tier.rows[1]["comparisons"]["cer"]["utterances"] == 1
    assert any("not of ko, zh" in note for note in tier.notes)


def test_base_alone_has_compared_nothing(tiny: Path) -> None:
    tier = run(tiny, "base")
    assert not tier.passed
    assert tier.failures == ["no mode was compared with base: name one"]


def test_a_reference_of_ones_own(tiny: Path, tmp_path: Path) -> None:
    t = np.arange(2 * 24_000) / 24_000
    path = tmp_path / "ref.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(18 * t)), 24_000)
    tier = run(tiny, voices=("clone",), sentences=1, reference=(str(path), "A tone."))
    assert tier.passed, tier.failures
    assert tier.rows[1]["comparisons"]["speaker_similarity"]["utterances"] == 1


def test_how_many_sentences_there_are() -> None:
    assert len(speaking.plan(4)) == 4 + 4 + 2
    with pytest.raises(InputError, match="sentences must be 1 to 16, not 17"):
        speaking.plan(17)


def test_agreement_needs_equal_lengths(tiny: Path) -> None:
    import torch

    one = speaking.Said(None, [torch.zeros(2, 3)])  # type: ignore[arg-type]
    assert one.agreement(replace(one, tokens=[torch.zeros(2, 3)])) == 1
    assert one.agreement(replace(one, tokens=[torch.zeros(2, 1), torch.ones(2, 2)])) == pytest.approx(1 / 3)
    assert one.agreement(replace(one, tokens=[torch.zeros(2, 4)])) == 0
