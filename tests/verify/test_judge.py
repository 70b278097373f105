"""The packaged judge as a recogniser, and what tier 3 does differently for a demo voice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tools.demo_voice import judge as training

from omnivoice_triton.checkpoint import demo, make_checkpoint
from omnivoice_triton.speech import CheckpointError, InputError
from omnivoice_triton.verify import acoustics, judge, recognise, sentences, speaking, speech_figures, speech_tier
from omnivoice_triton.verify.parity import LAYERS, known_text
from omnivoice_triton.verify.recording import chosen_layers


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge that was never trained."""
    path = tmp_path_factory.mktemp("judge")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        training.save_judge(judge.Judge(training.symbols_of(["abc", "안녕", "你好"]), width=16), path)
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model under the demo voice's marker, with sentences of its own."""
    path = make_checkpoint(tmp_path_factory.mktemp("model") / "demo", "tiny", seed=0)
    config = json.loads((path / "config.json").read_text())
    config["omnivoice_triton"] = {"size": "demo", "weights": "trained"}
    (path / "config.json").write_text(json.dumps(config))
    texts = {"en": "Number {} is here.", "ko": "{}번은 여기 있다.", "zh": "这里有{}。"}
    rows = [{"language": code, "text": text.format(n)} for code, text in texts.items() for n in range(5)]
    (path / "sentences.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def packaged(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation with that judge."""
    monkeypatch.setattr(demo, "DATA", tmp_path)
    (tmp_path / "judge").symlink_to(directory)


def test_the_packaged_judge_is_the_demo_voices_own(packaged: None) -> None:
    for found in (recognise.load_recogniser("auto", "cpu", demo=True), recognise.load_recogniser("judge", "cpu")):
        assert found is not None
        assert "judge" in found.name
        assert [recognise.knows(found, code) for code in ("en", "ko", "zh", "ja", "de")] == [True] * 3 + [False] * 2
    assert recognise.load_recogniser("auto", "cpu") is None
    assert recognise.load_recogniser("none", "cpu", demo=True) is None


def test_an_installation_without_judge_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DATA", tmp_path)
    assert recognise.load_recogniser("auto", "cpu", demo=True) is None
    with pytest.raises(InputError, match="give judge:DIR"):
        recognise.load_recogniser("judge", "cpu")


def test_other_rates_are_resampled(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recognise.load_recogniser(f"judge:{directory}", "cpu")
    assert found is not None
    heard: list[int] = []
    monkeypatch.setattr(judge.Judge, "transcribe", lambda self, wave: heard.append(wave.numel()) or "")
    for rate in (24_000, 48_000, 16_000):
        found.transcribe(np.zeros(rate, np.float32), rate, "en")
    assert heard == [24_000] * 3


def test_a_judge_reads_any_clip(directory: Path) -> None:
    reader = judge.load_judge(directory)
    for samples in (0, 1, 1024, 1025, 5000):
        assert isinstance(reader.transcribe(torch.randn(samples)), str)
    quiet, loud = (judge.Features()(gain * torch.randn(1, 8000).sin()) for gain in (1e-4, 1.0))
    assert quiet.shape == loud.shape == (1, 80, 34)


def test_a_broken_judge_is_one_line(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks judge\.json"):
        recognise.load_recogniser(f"judge:{tmp_path}", "cpu")
    (tmp_path / "judge.safetensors").write_bytes((directory / "judge.safetensors").read_bytes())
    for about in ("no JSON", "{}", '{"symbols": ["a"], "width": 16}'):
        (tmp_path / "judge.json").write_text(about)
        with pytest.raises(InputError, match="can't be loaded"):
            judge.load_judge(tmp_path)
    (tmp_path / "judge.json").write_bytes((directory / "judge.json").read_bytes())
    (tmp_path / "judge.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="can't be loaded"):
        judge.load_judge(tmp_path)


def test_a_demo_voice_speaks_its_own_sentences_in_turn(voice: Path) -> None:
    own = sentences.material(voice)
    assert [s.code for s in own.sentences[:6]] == ["en", "ko", "zh", "ko", "zh", "en"]
    plan = speaking.plan(15, available=own.sentences)
    for kind, each in (("auto", 5), ("clone", 5)):
        assert set(Counter(u.sentence.code for u in plan if u.voice == kind).values()) == {each}
    assert {u.sentence.code for u in plan if u.voice == "design"} == {"en", "ko", "zh"}
    assert {s.code: s.text for s in own.references} == {
        "en": "Number 4 is here.",
        "ko": "4번은 여기 있다.",
        "zh": "这里有4。",
    }
    assert known_text(voice) == "Number 0 is here."
    with pytest.raises(InputError, match="sentences must be 1 to 15, not 16"):
        speaking.plan(16, available=own.sentences)


def test_its_reference_and_design_are_voices_that_it_knows() -> None:
    from tools.demo_voice.batches import instructs
    from tools.demo_voice.speakers import SPEAKERS

    known = {text for speaker in SPEAKERS for text, _ in instructs(speaker, chinese=False)}
    assert speaking.DESIGN in known
    assert sentences.DEMO_VOICE in known


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't read"),
        ("[", "is no JSON"),
        ("{}", "must hold a list"),
        ('[{"language": "fr", "text": "Oui."}]', "is no sentence of en, ko, zh"),
        ('[{"language": "ko", "text": "네."}]', "no English sentence"),
    ],
)
def test_a_demo_voice_without_its_sentences_is_refused(
    voice: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    (tmp_path / "config.json").write_bytes((voice / "config.json").read_bytes())
    if content is not None:
        (tmp_path / "sentences.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        sentences.material(tmp_path)


def test_its_margin_is_one_point(voice: Path, tmp_path: Path) -> None:
    tiny = make_checkpoint(tmp_path / "tiny", "tiny", seed=0)
    base, worse = [{"cer": 0.05}] * 8, [{"cer": 0.065}] * 8
    assert speech_figures.compared(worse, base, speech_figures.margins(voice))["cer"].failed
    assert not speech_figures.compared(worse, base, speech_figures.margins(tiny))["cer"].failed
    assert not speech_figures.compared(base, worse, speech_figures.margins(voice))["cer"].failed


class Scripted:
    """Hears every text as it is, but nothing of the recordings from number `deaf_from` on."""

    name, languages = "scripted", ("en", "ko", "zh")

    def __init__(self, texts: list[str], deaf_from: int) -> None:
        self.texts, self.deaf_from, self.heard = texts, deaf_from, 0

    def transcribe(self, audio: Any, rate: int, code: str) -> str:
        self.heard += 1
        return "" if self.heard > self.deaf_from else self.texts[(self.heard - 1) % len(self.texts)]


@pytest.mark.parametrize(("deaf_from", "passed"), [(99, True), (3, False)])
def test_tier_3_of_a_demo_voice(voice: Path, deaf_from: int, passed: bool) -> None:
    texts = [sentence.text for sentence in sentences.material(voice).sentences[:3]]
    settings: dict[str, Any] = {"device": "cpu", "steps": 2, "sentences": 3, "voices": ("auto",), "duration_s": 0.4}
    reader = Scripted(texts, deaf_from)
    tier = speech_tier.run_dtypes(voice, ["base", "turbo"], dtypes=["fp32"], recogniser=reader, **settings)
    assert tier.passed is passed, tier.failures
    assert [u["text"] for u in tier.details["utterances"]] == texts
    assert tier.thresholds["margins"]["cer"] == 0.01
    assert any("the demo voice's own" in note for note in tier.notes)
    assert tier.rows[1]["comparisons"]["cer"]["utterances"] == 3


@pytest.mark.parametrize("of_ones_own", [False, True])
def test_clones_have_a_reference_in_their_own_language(
    voice: Path, monkeypatch: pytest.MonkeyPatch, of_ones_own: bool
) -> None:
    prints: list[Any] = []
    similarity = acoustics.similarity
    monkeypatch.setattr(acoustics, "similarity", lambda a, b: prints.append(b) or similarity(a, b))
    cloned: list[tuple[str, Any]] = []
    say = speaking.say

    def seen(runner: Any, session: Any, utterance: Any) -> Any:
        if utterance.voice == "clone":
            one = session.cloned[utterance.sentence.code]
            assert one.voice.ref_text == one.text
            cloned.append((one.text, one.print))
        return say(runner, session, utterance)

    monkeypatch.setattr(speaking, "say", seen)
    given = (np.random.default_rng(0).standard_normal(30_000).astype(np.float32) * 0.1, 24_000), "A hiss."
    tier = speech_tier.run(
        voice,
        ["base", "turbo"],
        device="cpu",
        steps=2,
        sentences=3,
        voices=("clone",),
        duration_s=0.4,
        recogniser=Scripted([""], 99),
        reference=given if of_ones_own else None,
    )
    assert tier.passed, tier.failures
    texts = ["A hiss."] * 3 if of_ones_own else ["Number 4 is here.", "4번은 여기 있다.", "这里有4。"]
    rate = None if of_ones_own else 1.0
    assert tier.details["cloned"] == [
        {"sentences_in": code, "dtype": "float32", "text": text, "cer": rate}
        for code, text in zip(("en", "ko", "zh"), texts, strict=True)
    ]
    assert [text for text, _ in cloned] == texts * (len(cloned) // 3)
    assert len(prints) == 6  # base's and turbo's, each beside the recording that it was made from
    assert all(a is b for a, (_, b) in zip(prints, (cloned * 2)[:6], strict=True))
    assert any("in each language" in note for note in tier.notes) is not of_ones_own


def test_several_dtypes_are_one_tier(voice: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"device": "cpu", "steps": 2, "sentences": 1, "duration_s": 0.4}
    tier = speech_tier.run_dtypes(voice, ["base", "turbo"], dtypes=["fp32", "bf16"], samples=tmp_path, **settings)
    assert [row["name"] for row in tier.rows] == ["base float32", "turbo float32", "base bfloat16", "turbo bfloat16"]
    assert any("float32" in note for note in tier.notes)
    assert any("bfloat16" in note for note in tier.notes)
    assert {path.name for path in tmp_path.iterdir()} == {"fp32", "bf16"}
    assert [(one["sentences_in"], one["dtype"]) for one in tier.details["cloned"]] == [
        ("en", "float32"),
        ("en", "bfloat16"),
    ]


def test_layers_follow_the_depth() -> None:
    assert chosen_layers(LAYERS, 28) == LAYERS
    assert chosen_layers(LAYERS, 8) == (0, 2, 4, 5, 7)
    assert chosen_layers(LAYERS, 1) == (0,)
    assert chosen_layers(None, 3) == (0, 1, 2)
