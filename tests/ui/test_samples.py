"""The samples' tab: players of every mode beside each other, and a clear word where there are none."""

from __future__ import annotations

import io
import json
import shutil
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
from omnivoice_triton.cli import main
from omnivoice_triton.ui import commands, files, samples
from omnivoice_triton.ui.words import LANGUAGES, Words

APP = Path(omnivoice_triton.__file__).parent / "ui" / "app.py"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AppTest:
    report = {
        "environment": {
            "gpus": [], "cpu": {"model": "A processor", "cores": 2}, "memory_gib": 8.0, "os": "Linux",
            "versions": {"torch": "2", "triton": None}, "commit": None,
        },
        "modes": {name: {"runs": name == "base", "why": None} for name in MODES},
        "auto": "base",
        "model": {"name": "built-in", "weights": "demo", "problem": None},
    }  # fmt: skip
    monkeypatch.setattr(commands, "doctor", lambda model: report)
    monkeypatch.setattr(files, "_CHECKOUT", tmp_path / "no checkout")  # it may have samples of its own
    monkeypatch.delenv(files.SAMPLES_VARIABLE, raising=False)
    st.cache_data.clear()
    at = AppTest.from_file(str(APP), default_timeout=120).run()
    assert not at.exception
    return at


def opened(at: AppTest, folder: Path | str) -> AppTest:
    at.text_input(key="samples").set_value(str(folder)).run()
    assert not at.exception, at.exception[0].message
    return at


def sound() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(4800) / 20), 24_000, format="FLAC")
    return file.getvalue()


def write(folder: Path, modes: list[str], codes: tuple[str, ...] = ("en", "ko")) -> dict[str, Any]:
    """Recordings of `modes`, and their metadata as `omnivoice-triton samples` writes it."""
    document: dict[str, Any] = {
        "environment": {"date_utc": "2026-01-02T03:04:05Z", "commit": "0123456789abcdef", "gpus": []},
        "model": "a model", "checkpoint": "demo", "device": "cpu", "dtype": "float32", "steps": 32,
        "left_out": {"warp": "no drive"}, "samples": [],
        "references": [{"file": f"reference/{code}.flac", "text": f"reference in {code}"} for code in codes],
    }  # fmt: skip
    for code in codes:
        (folder / "reference").mkdir(parents=True, exist_ok=True)
        (folder / "reference" / f"{code}.flac").write_bytes(sound())
        for mode in modes:
            (folder / mode).mkdir(exist_ok=True)
            for voice in ("auto", "clone", "design"):
                file = f"{mode}/{code}-{voice}.flac"
                (folder / file).write_bytes(sound())
                document["samples"].append(
                    {
                        "file": file, "mode": mode, "language": code, "voice": voice, "text": f"{voice} in {code}",
                        "tokens_equal_to_base": 1.0 if mode == "base" else 0.75, "time_ms": 12.0, "audio_s": 0.2,
                        "instruct": "male, elderly" if voice == "design" else None,
                        "reference": f"reference/{code}.flac" if voice == "clone" else None,
                    }
                )  # fmt: skip
    save(folder, document)
    return document


def save(folder: Path, document: Any) -> None:
    (folder / "metadata.json").write_text(json.dumps(document))


def captions(at: AppTest) -> list[str]:
    return [caption.value for caption in at.caption]


def test_modes_stand_side_by_side(app: AppTest, tmp_path: Path) -> None:
    write(tmp_path, ["base", "turbo"])
    opened(app, tmp_path)
    assert len(app.get("audio")) == 2 * 3 * 2 + 2  # and two references
    said = captions(app)
    for share in ("100.0%", "75.0%"):
        assert sum(value.startswith(f"tokens equal to base: {share}  \n") for value in said) == 6
    assert said.count("The recording that is cloned: reference in ko") == 1
    assert said.count("male, elderly") == 2
    assert sum(value.endswith("made in 12 ms  \n0.20 s of audio") for value in said) == 12
    assert "Model a model, CPU, float32, 32 steps, 2026-01-02 0123456" in said
    assert "Not made: warp (no drive)" in said
    assert not app.warning
    order = [value.strip("*") for value in said if value.startswith("**")]
    assert order == ["base", "turbo"] * 6
    app.selectbox(key="sample-language-en").set_value("ko").run()
    assert len(app.get("audio")) == 3 * 2 + 1
    app.selectbox(key="sample-voice-en").set_value("auto").run()
    assert len(app.get("audio")) == 2


def test_seven_modes_keep_their_columns(app: AppTest, tmp_path: Path) -> None:
    document = write(tmp_path, list(MODES), ("zh",))
    document["samples"] = [e for e in document["samples"] if e["file"] != "triton/zh-auto.flac"]
    save(tmp_path, document)
    opened(app, tmp_path)
    order = [value.strip("*") for value in captions(app) if value.startswith("**")]
    assert order == list(MODES) * 3, "a mode that lacks a sentence keeps its place"
    assert captions(app).count("–") == 1
    assert len(app.get("audio")) == 7 * 3 - 1 + 1


@pytest.mark.parametrize("code", list(LANGUAGES))
def test_nothing_to_hear_is_said_clearly(app: AppTest, tmp_path: Path, code: str) -> None:
    words = Words(code)
    app.selectbox(key="language").set_value(code).run()
    assert words("no_samples") in [box.value for box in app.info]
    assert "make generate-samples" in words("no_samples")
    opened(app, tmp_path / "nowhere")
    assert [box.value for box in app.warning] == [words("no_samples_folder", folder=tmp_path / "nowhere")]
    (tmp_path / "empty").mkdir()
    opened(app, tmp_path / "empty")
    assert words("no_samples_there", folder=tmp_path / "empty") in [box.value for box in app.info]
    for text in ("{", "[]", '{"samples": []}', '{"samples": [{"file": "gone.flac"}]}', '{"samples": 3}'):
        (tmp_path / "empty" / "metadata.json").write_text(text)
        opened(app, "")  # the same value twice would not run again
        opened(app, tmp_path / "empty")
        assert [box.value for box in app.warning] == [words("samples_unusable", folder=tmp_path / "empty")]
    assert not app.get("audio")


def test_missing_files_are_counted(app: AppTest, tmp_path: Path) -> None:
    write(tmp_path, ["base", "turbo"])
    (tmp_path / "turbo" / "ko-auto.flac").unlink()
    shutil.rmtree(tmp_path / "reference")
    opened(app, tmp_path)
    assert [box.value for box in app.warning] == ["1 of the listed samples are missing."]
    assert len(app.get("audio")) == 11


@pytest.mark.parametrize("value", ["text", None, [], {}, True, -1, 1e400])
def test_odd_entries_are_no_traceback(app: AppTest, tmp_path: Path, value: Any) -> None:
    document = write(tmp_path, ["base"], ("en",))
    keys = ("mode", "language", "voice", "text", "tokens_equal_to_base", "time_ms", "audio_s", "instruct", "reference")
    for entry, key in zip(document["samples"] * 3, keys, strict=False):
        entry[key] = value
    document["environment"]["gpus"] = [{"name": value}]
    document["device"] = "cuda"
    save(tmp_path, document)
    opened(app, tmp_path)
    assert len(app.get("audio")) >= 3
    assert not app.error


@pytest.mark.parametrize(
    "spoilt",
    [
        {"references": 3},
        {"references": ["x"]},
        {"left_out": 3},
        {"environment": None},
        {"environment": {"gpus": 3}, "device": "cuda"},
        {"environment": {"gpus": [{}]}, "device": "cuda"},
    ],
)
def test_odd_metadata_is_no_traceback(app: AppTest, tmp_path: Path, spoilt: dict[str, Any]) -> None:
    save(tmp_path, write(tmp_path, ["base"]) | spoilt)
    opened(app, tmp_path)
    assert len(app.get("audio")) >= 6


def test_a_reference_outside_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for path in (tmp_path / "secret.flac", inner / "own.flac"):
        path.write_bytes(b"x")

    def found(file: str) -> Any:
        document = {"references": [{"file": file, "text": "t"}]}
        return samples.reference_of(str(inner), document, {"reference": file})

    assert found("own.flac") == (str(inner / "own.flac"), "t")
    assert found("../secret.flac") is None
    assert found(str(tmp_path / "secret.flac")) is None
    assert samples.reference_of(str(inner), {}, {"reference": "own.flac"}) is None


def test_what_the_command_makes_can_be_played(app: AppTest, tmp_path: Path) -> None:
    flags = ["--model", "tiny", "--modes", "base", "--steps", "1", "--device", "cpu", "--quiet"]
    assert main(["samples", "--out", str(tmp_path / "made"), *flags]) == 0
    opened(app, tmp_path / "made")
    assert len(app.get("audio")) == 9 + 3
    assert not app.warning
    assert sum(value.startswith("tokens equal to base: 100.0%") for value in captions(app)) == 9
    assert any("random weights" in value for value in captions(app))
    (left_out,) = [value for value in captions(app) if value.startswith("Not made: ")]
    assert "turbo (not asked for)" in left_out
