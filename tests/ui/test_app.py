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
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The doctor's answer without its seconds; its real one is in `test_doctor_is_asked`. No samples are there."""
    (tmp_path / "samples").mkdir()
    monkeypatch.setenv("OMNIVOICE_TRITON_SAMPLES", str(tmp_path / "samples"))
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


def test_the_overview_is_of_the_model_that_is_named(doctor: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def examined(model: str) -> dict[str, Any]:
        asked.append(model)
        problem = {"far/away": "not on this machine yet: the first use downloads it", "bad": "no config.json"}.get(
            model
        )
        return {**doctor, "model": {"name": model or "built-in", "weights": None, "problem": problem}}

    monkeypatch.setattr(commands, "doctor", examined)
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    at.text_input(key="model").set_value("far/away").run()
    assert [i.value for i in at.info if "far" in i.value] == [
        "far/away: not on this machine yet: the first use downloads it"
    ]
    assert not at.error
    at.text_input(key="model").set_value("bad").run()
    assert [error.value for error in at.error] == ["bad: no config.json"]
    assert asked == ["", "far/away", "bad"]
    assert not at.exception


@pytest.mark.parametrize("code", ["ko", "zh"])
def test_remarks_are_in_the_page_s_language(doctor: dict[str, Any], code: str) -> None:
    doctor["modes"]["hybrid"] = {"runs": False, "why": GPU_ONLY}
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    at.selectbox(key="language").set_value(code).run()
    (table,) = [text.value for text in at.markdown if "| hybrid |" in text.value]
    for letters in ("NVIDIA GPU", Words(code)("mode_hybrid"), Words(code)("no")):
        assert letters in table
    assert "it needs" not in table
    assert "Triton kernels" not in table


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
    app.text_area(key="text-en").set_value("My own text.")
    app.radio(key="voice-en").set_value("design")
    app.multiselect(key="tiers-en").set_value([2]).run()
    for code in ("ko", "zh", "en"):
        app.selectbox(key="language").set_value(code).run()
        assert app.text_area(key=f"text-{code}").value == "My own text."
        assert app.radio(key=f"voice-{code}").value == "design"
        assert app.multiselect(key=f"tiers-{code}").value == [2]
        assert not app.button(key="verify").disabled
    app.text_area(key="text-en").set_value(words.SENTENCES["en"]).run()
    app.selectbox(key="language").set_value("ko").run()
    assert app.text_area(key="text-ko").value == words.SENTENCES["ko"], "nobody's own text is the language's"


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


def test_a_result_below_other_settings_says_what_it_is_of(app: AppTest) -> None:
    app.multiselect(key="modes").set_value(["base"])
    app.number_input(key="steps").set_value(2)
    app.number_input(key="seconds").set_value(1.0)
    app.text_area(key="text-en").set_value("Said *first*.")
    press(app, "say")
    app.run()
    assert len(app.get("audio")) == 1
    assert not app.warning
    app.number_input(key="seed").set_value(8).run()
    assert len(app.get("audio")) == 1
    assert [warning.value for warning in app.warning] == [
        "Said before the settings above were changed: Said \\*first\\*."
    ]


def test_a_run_that_was_cut_off_is_said(app: AppTest) -> None:
    for flag in ("saying", "verifying"):
        app.session_state[flag] = True
        app.run()
        assert sum("ended the run before it was done" in warning.value for warning in app.warning) == 1, flag
        app.run()
        assert not app.warning


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


def speed_results(device: str, factor: float) -> dict[str, Any]:
    """As `bench speed` writes them."""
    row = {"dtype": "fp16", "runs": 5, "audio_s": 5.2}
    return {
        "kind": "speed", "checkpoint": "demo",
        "environment": {"gpus": [{"name": device}], "date_utc": "2026-01-02T03:04:05Z"},
        "results": [
            {**row, "mode": mode, "case": case, "batch": batch, "median_ms": ms * factor, "p5_ms": 0.9 * ms * factor,
             "p95_ms": 1.1 * ms * factor, "speed_x": 5200 / ms / factor}
            for mode, ms in (("base", 800.0), ("turbo", 40.0))
            for case, batch in (("en 5 s", 1), ("en 5 s x 8", 8))
        ],
    }  # fmt: skip


def test_kernels_are_drawn_over_rows(app: AppTest, tmp_path: Path) -> None:
    def row(kernel: str, rows: int) -> dict[str, Any]:
        clocks = {"graph": 2.0 + rows, "graph_cold": 1.5}
        return {
            "kernel": kernel, "dtype": "float16", "shape": {"rows": rows, "columns": 1024}, "speedup": clocks,
            "speedup_over": {"torch_compile": {"graph": 1.25}}, "percent_of_copy": clocks,
        }  # fmt: skip

    document = {
        "kind": "kernels", "environment": {"gpus": []},
        "results": [row(kernel, rows) for kernel in ("rms_norm", "swiglu") for rows in (290, 64, 8192)],
    }  # fmt: skip
    (tmp_path / "kernels.json").write_text(json.dumps(document))
    app.text_input(key="results").set_value(str(tmp_path)).run()
    bars, curves = (json.loads(chart.proto.spec) for chart in app.get("plotly_chart"))
    assert bars["data"][0]["x"] == ["rms_norm 1024", "swiglu 1024"]
    assert bars["data"][0]["y"] == [66.0, 66.0]
    app.selectbox(key="kernel-rows").set_value(290).run()
    assert json.loads(app.get("plotly_chart")[0].proto.spec)["data"][0]["y"] == [292.0, 292.0]
    assert [(line["name"], line["x"]) for line in curves["data"]] == [
        ("rms_norm 1024", [64, 290, 8192]),
        ("swiglu 1024", [64, 290, 8192]),
    ]
    app.selectbox(key="kernel-figure-en").set_value("speedup_over.torch_compile").run()
    figure = json.loads(app.get("plotly_chart")[1].proto.spec)
    assert figure["data"][0]["y"] == [1.25] * 3
    assert figure["layout"]["yaxis"]["title"]["text"] == "times torch_compile"
    app.multiselect(key="kernels-en").set_value(["swiglu 1024"]).run()
    figure = json.loads(app.get("plotly_chart")[1].proto.spec)
    assert [line["name"] for line in figure["data"]] == ["swiglu 1024"]
    assert not app.error


def test_results_of_ones_own_and_comparing(app: AppTest, tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps(speed_results("Their GPU", 1.0)))
    app.text_input(key="results").set_value(str(tmp_path)).run()
    mine = json.dumps(speed_results("My GPU", 10.0)).encode()
    app.file_uploader(key="add-results").set_value(
        [
            (name, content, "application/json")
            for name, content in (
                ("mine.json", mine),
                ("speed.json", mine),
                ("bad.json", b"[1]"),
                ("speed.json", mine + b" "),
            )
        ]
    ).run()
    assert app.multiselect(key="result-files").options == [
        "speed · Their GPU",
        "mine · My GPU",
        "speed (2) · My GPU",
    ]  # the same content once, and a name that is taken is numbered
    assert [error.value for error in app.error] == ["bad.json can't be used as results: no object with a kind"]
    app.multiselect(key="result-files").set_value(["speed", "mine"]).run()
    assert not app.exception
    captions = [caption.value for caption in app.caption]
    assert "mine: My GPU, 2026-01-02, demo" in captions
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    bars = {bar["name"]: bar for bar in figure["data"]}
    assert list(bars) == ["base, Their GPU", "turbo, Their GPU", "base, My GPU", "turbo, My GPU"]
    assert bars["turbo, My GPU"]["marker"]["color"] == bars["turbo, Their GPU"]["marker"]["color"]
    assert bars["turbo, My GPU"]["marker"]["pattern"] != bars["turbo, Their GPU"]["marker"]["pattern"]
    assert bars["turbo, My GPU"]["x"] == ["en 5 s", "en 5 s x 8"]
    app.selectbox(key="metric-speed-en").set_value("speed_x").run()
    assert not app.exception
    assert not [error for error in app.error if "tab failed" in error.value]
    assert json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]["yaxis"]["title"]["text"] == "times real time"
    app.selectbox(key="before").set_value("speed")
    app.selectbox(key="after").set_value("mine")
    press(app, "compare")
    errors = [error.value for error in app.error]
    assert any("Got worse" in value and "10.00x" in value for value in errors)
    assert any("device\\: " in warning.value and "My GPU" in warning.value for warning in app.warning)


def test_every_committed_file_can_be_drawn(app: AppTest) -> None:
    names = [path.stem for path in sorted((ROOT / "bench" / "results").glob("*.json"))]
    app.multiselect(key="result-files").set_value(names).run()
    assert not app.exception
    assert not app.error


def test_a_folder_without_results(app: AppTest, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    app.text_input(key="results").set_value(str(tmp_path)).run()
    assert not app.exception
    assert any("broken.json can't be used as results: no JSON" in error.value for error in app.error)
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


def test_a_report_says_what_it_is_of(app: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = report_of(True)
    report |= {"checkpoint": "random-tiny", "environment": {"gpus": [{"name": "A GPU"}], "cpu": {"model": "A CPU"}}}
    (tier,) = report["results"]
    tier |= {"tier": 2, "rows": [{**tier["rows"][0], "mode": mode} for mode in ("base", "turbo")]}
    monkeypatch.setattr(commands, "verify", lambda *_: report)
    (tmp_path / "own report.json").write_text(json.dumps(report))
    (tmp_path / "odd.json").write_text(json.dumps({**report, "results": [tier, tier]}))
    app.text_input(key="results").set_value(str(tmp_path)).run()
    press(app, "verify")
    said = [caption.value for caption in app.caption]
    assert said.count("A CPU, random-tiny") == 2, "it ran on the CPU, though there is a GPU"
    assert said.count("Modes\\: base, turbo") == 2
    assert any(value.startswith("Not run\\: triton") for value in said)
    assert any("odd.json" in error.value and "tier is missing" in error.value for error in app.error)
    app.text_input(key="model").set_value("/another/model").run()
    assert "PASS" not in [box.value for box in app.success], "another model's report"


def test_the_pages_own_model_is_verified(doctor: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what `verify` would take by itself where there is a GPU: full-size random weights."""
    seen: list[list[str]] = []
    doctor["model"] |= {"name": "demo", "weights": "trained-demo"}
    monkeypatch.setattr(commands, "verify", lambda flags, tell: seen.append(flags) or report_of(True))
    at = AppTest.from_file(str(APP), default_timeout=120).run()
    press(at, "verify")
    assert seen[0][-2:] == ["--model", "demo"]


def test_nothing_compared_is_no_verdict(app: AppTest, tmp_path: Path) -> None:
    before, after = speed_results("A GPU", 1.0), speed_results("A GPU", 10.0)
    for row in after["results"]:
        row["runs"] = 2
    (tmp_path / "a.json").write_text(json.dumps(before))
    (tmp_path / "b.json").write_text(json.dumps(after))
    app.text_input(key="results").set_value(str(tmp_path)).run()
    press(app, "compare")
    assert not app.success
    assert any("No verdict" in info.value for info in app.info)
    for row in after["results"]:
        if row["mode"] == "turbo":
            del row["median_ms"], row["p5_ms"], row["p95_ms"]
        else:
            row |= {"runs": 9, **{key: before["results"][0][key] for key in ("median_ms", "p5_ms", "p95_ms")}}
    (tmp_path / "b.json").write_text(json.dumps(after))
    press(app, "compare")
    assert not app.success
    assert any("missing in the second" in warning.value for warning in app.warning)


def test_failures_of_tests_are_shown(app: AppTest, tmp_path: Path) -> None:
    document = {
        "kind": "tests", "environment": {"gpus": []}, "passed": 8, "failed": 1, "skipped": 2, "error": 0,
        "failures": ["tests/a.py::test_b"], "results": {"tests/a.py": 9},
    }  # fmt: skip
    (tmp_path / "tests.json").write_text(json.dumps(document))
    app.text_input(key="results").set_value(str(tmp_path)).run()
    assert any("FAIL, 9 checks, 1 failed" in box.label for box in app.expander)
    assert sum("test\\_b" in caption.value for caption in app.caption) == 2


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
