"""Statistics, error rate, acoustics and recognisers of tier 3."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import acoustics, plugins, statistics
from omnivoice_triton.verify.recognise import character_error_rate, load_recogniser, plain

RATE = 24_000


def compare(mode: Any, base: Any, worse: str = "higher", margin: float = 0.1) -> statistics.Comparison:
    return statistics.compare("cer", mode, base, margin=margin, worse=worse)


def test_only_an_interval_beyond_the_margin_fails() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 0.2, 12)
    worse = compare(base + 0.3 + rng.normal(0, 0.02, 12), base)
    assert worse.failed
    assert 0.28 < worse.low < worse.difference < worse.high < 0.32
    better = compare(base - 0.3, base)
    assert not better.failed
    assert not better.open
    assert compare(base - 0.3, base, "lower").failed
    assert compare(base - 0.3, base, "either").failed
    slightly = compare(base + 0.05, base)
    assert slightly.document()["verdict"] == "within"
    unsure = compare(base + rng.normal(0.1, 0.4, 12), base)
    assert unsure.document()["verdict"] == "open"
    assert not unsure.failed


def test_a_difference_that_is_no_number_is_a_failure() -> None:
    lost = compare(np.array([0.1, float("nan"), 0.1]), np.full(3, 0.1))
    assert lost.failed
    assert lost.document()["verdict"] == "worse"


def test_pairing_removes_what_utterances_share() -> None:
    """Utterances differ by 10, the modes by 0.2: only paired differences see it."""
    base = np.linspace(0, 10, 12)
    assert compare(base + 0.2, base).failed


def test_no_pairs_are_an_error() -> None:
    with pytest.raises(InputError, match="wanted pairs"):
        compare([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="no values"):
        compare([], [])


@pytest.mark.parametrize(
    ("said", "wanted", "rate"),
    [
        ("Hello, world!", "hello world", 0.0),
        ("", "hello", 1.0),
        ("hallo", "hello", 0.2),
        ("hello hello", "hello", 1.0),
        ("안녕 하세요", "안녕하세요.", 0.0),
        ("请把窗户打开", "请把窗户关上，", 1 / 3),
        ("kitten", "sitting", 3 / 7),
    ],
)
def test_character_error_rate(said: str, wanted: str, rate: float) -> None:
    assert character_error_rate(said, wanted) == pytest.approx(rate)


def test_text_without_letters_has_no_error_rate() -> None:
    assert plain("ＡBC 가!") == "abc가"
    with pytest.raises(InputError, match="no letters"):
        character_error_rate("x", "...")


def tone(hertz: float, seconds: float = 1.0) -> acoustics.Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 20))
    return (0.2 * buzz * (0.6 + 0.4 * np.sin(18 * t))).astype(np.float32)


def test_silence_and_clipping() -> None:
    sound = tone(150)
    assert acoustics.silence(sound, RATE) == 0
    half = np.concatenate((sound, np.zeros_like(sound)))
    assert acoustics.silence(half, RATE) == pytest.approx(0.5, abs=0.02)
    assert acoustics.silence(np.zeros(10, np.float32), RATE) == 1
    assert acoustics.clipping(sound) == 0
    assert acoustics.clipping(np.sign(sound)) > 0.99


def test_voices_are_nearer_to_themselves() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, RATE).astype(np.float32)
    low, again, other = (acoustics.voice_print(x, RATE) for x in (tone(120), tone(122, 0.8), noise))
    assert acoustics.similarity(low, low) == pytest.approx(1)
    assert acoustics.similarity(low, again) > acoustics.similarity(low, other) + 0.2


def test_mfcc_is_orthonormal_and_shifts_with_level() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    one, twice = acoustics.mfcc(noise, RATE), acoustics.mfcc(2 * noise, RATE)
    assert one.shape == (98, 20)
    np.testing.assert_allclose(twice[:, 1:], one[:, 1:], atol=0.05)
    np.testing.assert_allclose(twice[:, 0] - one[:, 0], np.log(4) * np.sqrt(40), atol=0.05)


def test_recognisers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("made_up_judge")
    made.build = lambda device: f"judge on {device}"  # type: ignore[attr-defined]

    def broken(device: str) -> None:
        raise OSError("no weights")

    made.broken = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_judge", made)
    assert load_recogniser("none", "cpu") is None
    assert load_recogniser("auto", "cpu") is None
    assert load_recogniser("made_up_judge:build", "cpu") == "judge on cpu"
    for spec, message in (
        ("made_up_judge:broken", "can't be loaded: no weights"),
        ("made_up_judge:nothing", "can't be imported"),
        ("nonsense", "unknown recogniser 'nonsense'"),
        ("whisper:/nowhere/at/all", "can't be loaded"),
    ):
        with pytest.raises(InputError, match=message):
            load_recogniser(spec, "cpu")


def test_an_installed_recogniser_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "demo"

        @staticmethod
        def load() -> Any:
            return lambda device: f"demo on {device}"

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point])
    assert load_recogniser("auto", "cpu") == load_recogniser("demo", "cpu") == "demo on cpu"
    assert load_recogniser("none", "cpu") is None
