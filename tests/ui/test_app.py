"""The dashboard in Streamlit's own test harness: every tab, a sentence, a bad upload, three languages."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
import soundfile
import streamlit as st
from streamlit.testing.v1 import AppTest

import omnivoice_triton
from omnivoice_triton import MODES
from omnivoice_triton.checkpoint import demo
from omnivoice_triton.ui import commands, words
from omnivoice_triton.ui.words import Words

APP = Path(omnivoice_triton.__file__).parent / "ui" / "app.py"
ROOT = Path(__file__).resolve().parents[2]
GPU_ONLY = "it needs an NVIDIA GPU, not device cpu: use mode base"


def report_of(passed: bool) -> dict[str, Any]:
    problems = [] if passed else ["triton_swiglu 5 x 77: y: 0.3 from the twin"]
    row = {"name": "triton_swiglu 5 x 77", "passed": passed, "problems": problems, "error_to_twin": 1e-7}
    tier = {
        "tier": 1, "name": "kernels", "what": "kernels", "passed": passed, "checks": 1, "failed": int(not passed),
        "seconds": 1.0, "thresholds": {}, "notes": ["on paper"], "problems": problems, "rows": [row], "details": {},
    }  # fmt: skip
    return {"kind": "verify", "environment": {}, "device": "cpu", "passed": passed, "results": [tier]}


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The doctor's answer without its seconds; its real one is in `test_doctor_is_asked`."""
    runs = {name: {"runs": name in ("base", "turbo"), "why": None} for name in MODES}
    report = {
        "environment": {
            "gpus": [], "cpu": {"model": "A processor", "cores": 2}, "memory_gib": 8.0, "os": "Linux",
            "versions": {"torch": "2", "triton": None}, "commit": None,
        },
        "modes": runs,
        "auto": "base",
        "model": {"name": "built-in", "weights": "random-tiny", "problem": None},
    }  # fmt: skip
    monkeypatch.setattr(commands, "doctor", lambda model: report)
    st.cache_data.clear()
    return report


@pytest.fixture
def app(doctor: dict[str, Any]) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=120).run()
    assert not at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click().run()
    assert not at.exception, at.exception[0].message
    return at


def recording(seconds: float = 1.0) -> bytes:
    t = np.arange(int(24_000 * seconds)) / 24_000
    samples = 0.3 * np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(18 * t))
    file = io.BytesIO()
    soundfile.write(file, samples, 24_000, format="WAV")
    return file.getvalue()


def test_every_tab_is_there_and_nothing_is_wrong(app: AppTest) -> None:
    assert [tab.label for tab in app.tabs] == ["Overview", "Side by side", "Benchmarks", "Verification", "Samples"]
    assert not app.error
    assert {metric.value for metric in app.metric} >= {"A processor", "base", "random-tiny"}
    assert any("what it says is noise" in caption.value for caption in app.caption)
    assert len(app.get("plotly_chart")) >= 1  # of the committed results


def test_the_demo_voice_says_what_it_is(doctor: dict[str, Any]) -> None:
    doctor["model"] = {"name": "demo", "weights": "trained-demo", "problem": None}
    at = AppTest.from_file(str(APP), default_timeout=120).run()
    assert not at.exception
    captions = [caption.value for caption in at.caption]
    assert any("This is the demo voice" in caption for caption in captions)
    assert not any("noise" in caption for caption in captions)


@pytest.mark.parametrize("code", ["ko", "zh"])
def test_other_languages(app: AppTest, code: str) -> None:
    app.selectbox(key="language").set_value(code).run()
    assert not app.exception
    texts = Words(code)
    assert app.tabs[1].label == texts("tab_inference")
    assert app.text_area(key=f"text-{code}").value == words.SENTENCES[code]
    assert app.button(key="say").label == texts("say_it")
    assert app.selectbox(key=f"spoken-{code}").value == {"ko": "Korean", "zh": "Chinese"}[code]


def test_a_change_of_language_loses_no_choice(app: AppTest) -> None:
    for code in ("ko", "zh", "en"):
        app.selectbox(key="language").set_value(code).run()
        assert app.multiselect(key=f"tiers-{code}").value == [1, 2, 3]
        assert app.radio(key=f"voice-{code}").value == "auto"
        assert not app.button(key="verify").disabled


@pytest.mark.parametrize("code", list(words.LANGUAGES))
def test_the_demo_voice_starts_with_a_sentence_it_can_say(doctor: dict[str, Any], code: str) -> None:
    doctor["model"] |= {"name": "demo", "weights": "trained-demo"}
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    at.selectbox(key="language").set_value(code).run()
    text = at.text_area(key=f"text-{code}").value
    folder = demo.packaged_demo()
    assert folder is not None
    assert {"language": code, "text": text} in json.loads((folder / demo.SENTENCES).read_text(encoding="utf-8"))


def test_a_sentence_in_two_modes(app: AppTest) -> None:
    app.number_input(key="steps").set_value(4)
    app.number_input(key="seconds").set_value(1.0)
    press(app, "say")
    said = app.session_state["said"]
    assert [one.mode for one in said] == ["base", "turbo"]
    for one in said:
        speech = one.speech
        assert speech.mode == one.mode
        assert 1.0 <= speech.audio_s <= 1.5
        assert np.abs(speech.audio).max() > 0.01
    assert len(app.get("audio")) == 2
    assert [metric.label for metric in app.metric].count("times real time") == 2
    assert [metric.value for metric in app.metric if metric.label == "tokens equal to base"] == [
        "100.0%",
        f"{said[1].equal:.1%}",
    ]
    assert said[1].equal > 0.5, "the same noise"
    assert [one.first for one in said] == [True, True]
    assert not app.error
    app.checkbox(key="same-noise").set_value(False)
    press(app, "say")
    said = app.session_state["said"]
    assert [one.equal for one in said] == [None, None]
    assert [one.first for one in said] == [False, True], "base is loaded still; turbo with another noise is another"
    assert [m.value for m in app.metric if m.label == "tokens equal to base"] == ["-", "-"]
    app.text_area(key="text-en").set_value("  ")
    press(app, "say")
    assert [warning.value for warning in app.warning] == ["Give a text."]
    assert "said" not in app.session_state, "no old result below a complaint"


def test_modes_that_cannot_run_are_named_and_break_nothing(doctor: dict[str, Any]) -> None:
    doctor["modes"]["faster"]["why"] = doctor["modes"]["hybrid"]["why"] = GPU_ONLY
    doctor["modes"]["hybrid"]["runs"] = True  # the doctor is wrong: it looked minutes ago
    at = AppTest.from_file(str(APP), default_timeout=120).run()
    assert any(c.value.startswith("Can't run here: faster (it needs an NVIDIA GPU") for c in at.caption)
    at.multiselect(key="modes").set_value(["hybrid", "base"])
    at.number_input(key="steps").set_value(2)
    at.number_input(key="seconds").set_value(0.6)
    press(at, "say")
    assert [error.value for error in at.error] == [
        "mode hybrid can't run here: it needs an NVIDIA GPU, not device cpu: use mode base"
    ]
    assert len(at.get("audio")) == 1


def test_what_a_mode_breaks_on_is_one_line(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivoice_triton.ui.tokens.agreement", lambda *chunks: 1 / 0)
    press(app, "say")
    (error,) = app.error
    assert error.value.startswith("This tab failed: ZeroDivisionError: division by zero")
    assert "\n" not in error.value
    monkeypatch.undo()
    monkeypatch.setattr("omnivoice_triton.ui.spoken.peak_gib", lambda runner: {}["gone\nmissing"])
    app.multiselect(key="modes").set_value(["base"])
    press(app, "say")
    assert [error.value for error in app.error] == [
        "base failed: KeyError: 'gone\\nmissing' (the terminal has the whole message)"
    ]


def test_a_designed_voice_and_what_is_missing(app: AppTest) -> None:
    app.radio(key="voice-en").set_value("design").run()
    app.text_input(key="instruct").set_value(" ")
    press(app, "say")
    assert [warning.value for warning in app.warning] == ["Describe the voice."]
    app.text_input(key="instruct").set_value("nonsense, purple")
    app.multiselect(key="modes").set_value(["base"])
    press(app, "say")
    assert len(app.error) == 1
    assert "purple" in app.error[0].value or "nonsense" in app.error[0].value
    app.multiselect(key="modes").set_value([])
    press(app, "say")
    assert [warning.value for warning in app.warning] == ["Choose at least one mode."]


def test_an_upload_that_is_no_audio(app: AppTest) -> None:
    app.radio(key="voice-en").set_value("clone").run()
    press(app, "say")
    assert "Upload or record a reference" in app.warning[0].value
    app.file_uploader(key="upload").set_value(("notes.txt", b"these are not samples", "text/plain")).run()
    assert not app.exception
    assert len(app.error) == 1
    assert app.error[0].value.startswith("can't read 'notes.txt' as audio")
    assert "give a WAV, FLAC, OGG or MP3 file" in app.error[0].value


def test_a_cloned_voice(app: AppTest) -> None:
    app.radio(key="voice-en").set_value("clone").run()
    app.multiselect(key="modes").set_value(["base"])
    app.file_uploader(key="upload").set_value(("me.wav", recording(), "audio/wav"))
    app.number_input(key="steps").set_value(2)
    app.number_input(key="seconds").set_value(0.6)
    press(app, "say")
    assert [warning.value for warning in app.warning] == ["Write what is said in the recording."]
    app.text_input(key="transcript").set_value("A tone.")
    press(app, "say")
    assert app.session_state["said"][0].speech.audio_s > 0.5
    assert any("1.0 s at 24000 Hz" in caption.value for caption in app.caption)


def test_results_of_ones_own_and_comparing(app: AppTest, tmp_path: Path) -> None:
    mine = json.loads((ROOT / "bench" / "results" / "speed.json").read_text())
    mine["environment"]["gpus"][0]["name"] = "My GPU"
    for row in mine["results"]:
        for key in ("median_ms", "p5_ms", "p95_ms"):
            row[key] *= 10
    app.file_uploader(key="add-results").set_value(
        [("mine.json", json.dumps(mine).encode(), "application/json"), ("bad.json", b"[1]", "application/json")]
    ).run()
    assert [error.value for error in app.error] == ["bad.json is no result file: no object with a kind"]
    app.multiselect(key="result-files").set_value(["speed", "mine"]).run()
    assert not app.exception
    captions = [caption.value for caption in app.caption]
    assert any(value.startswith("mine: My GPU") for value in captions)
    app.selectbox(key="before").set_value("speed")
    app.selectbox(key="after").set_value("mine")
    press(app, "compare")
    errors = [error.value for error in app.error]
    assert any("Slower beyond noise" in value and "10.00x" in value for value in errors)
    assert any("device: " in warning.value and "My GPU" in warning.value for warning in app.warning)


def test_every_committed_file_can_be_drawn(app: AppTest) -> None:
    names = [path.stem for path in sorted((ROOT / "bench" / "results").glob("*.json"))]
    app.multiselect(key="result-files").set_value(names).run()
    assert not app.exception
    assert not app.error


def test_a_folder_without_results(app: AppTest, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    app.text_input(key="results").set_value(str(tmp_path)).run()
    assert not app.exception
    assert any("broken.json is no result file" in error.value for error in app.error)
    assert any("No result files found" in info.value for info in app.info)


@pytest.mark.parametrize("passed", [True, False])
def test_verification_shows_its_verdict(app: AppTest, monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    seen: list[list[str]] = []

    def verify(flags: list[str], tell: Any) -> dict[str, Any]:
        seen.append(flags)
        tell(1, "triton_swiglu", 0, 2)
        return report_of(passed)

    monkeypatch.setattr(commands, "verify", verify)
    app.multiselect(key="tiers-en").set_value([1])
    press(app, "verify")
    assert seen == [["--tier", "1", "--sentences", "2"]]
    assert [box.value for box in app.success] == (["PASS"] if passed else [])
    assert ("FAIL" in [box.value for box in app.error]) is not passed
    metrics = {metric.label: metric.value for metric in reversed(app.metric)}  # committed reports come after the run
    assert metrics["checks"] == "1"
    assert metrics["failed"] == str(int(not passed))


def test_a_verification_that_breaks(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(flags: list[str], tell: Any) -> dict[str, Any]:
        raise commands.CommandFailed("no such model")

    monkeypatch.setattr(commands, "verify", verify)
    press(app, "verify")
    assert [error.value for error in app.error] == ["The verification could not run: no such model"]
    assert "report" not in app.session_state


def test_a_doctor_that_fails_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: str) -> dict[str, Any]:
        raise commands.CommandFailed("torch can't be imported")

    monkeypatch.setattr(commands, "doctor", broken)
    st.cache_data.clear()
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    assert [error.value for error in at.error] == ["torch can't be imported"]
