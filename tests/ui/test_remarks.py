"""Remarks of other parts in three languages: each is drawn from where it is made."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import string
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnivoice_triton import InputError, ModeUnavailable, doctor
from omnivoice_triton.checkpoint.resolve import MODEL_VARIABLE
from omnivoice_triton.config import MODES
from omnivoice_triton.kernels import nvrtc
from omnivoice_triton.models import availability
from omnivoice_triton.ui import files, remarks, words
from omnivoice_triton.ui.runners import read_upload
from omnivoice_triton.verify import hopper_grid, kernel_tier, samples, scorer, speech_tier

OWN = {"ko": r"[가-힣]", "zh": r"[一-鿿]"}


def check(text: str | None) -> None:
    """`text` is known in every language, its parts included."""
    assert text
    assert remarks.translated("en", text) == text
    for code, letters in OWN.items():
        said = remarks.translated(code, text)
        assert re.search(letters, said), f"{code}: {text!r} is in no template"
        assert "torch finds" not in said, "a part stayed in English"


def test_templates_have_the_same_fields() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for template in remarks.templates():
        assert len({frozenset(fields(text)) for text in template}) == 1, template[0]
        assert all(template)


def test_an_unknown_remark_stays_as_it_is() -> None:
    assert remarks.translated("ko", "nobody has said this before") == "nobody has said this before"
    assert remarks.translated("zh", "not asked for, but more follows") == "not asked for, but more follows"


def test_modes_are_described_as_the_table_does() -> None:
    for name, mode in MODES.items():
        assert words.Words("en")(f"mode_{name}") == mode.summary


def test_why_a_mode_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, engine = MODES["hybrid"], MODES["turbo"]
    check(availability.unavailable_reason(graph, "cpu"))
    with pytest.raises(ModeUnavailable) as caught:
        availability.choose("hybrid", "cpu")
    check(str(caught.value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda in ("13.0", None):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        check(availability.unavailable_reason(graph, "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    reason = availability.unavailable_reason(engine, "cuda")
    check(reason)
    assert "7.0" in remarks.translated("ko", str(reason))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check(availability.unavailable_reason(engine, "cpu"))


def test_why_cuda_kernels_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    check(nvrtc.problem())


def test_what_the_doctor_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    seen = {found["why"] for found in doctor.modes_on("cpu")["modes"].values()} - {None}
    assert len(seen) == 3
    for why in seen:
        check(why)
    monkeypatch.setattr(doctor, "import_error", lambda name: "no such library")
    check(doctor.examine({"gpus": []})["modes"]["base"]["why"])
    monkeypatch.setenv(MODEL_VARIABLE, "nobody/has-this")
    check(doctor.default_model()["problem"])


def test_why_samples_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for why in samples.usable_modes("cpu")[1].values():
        check(why)
    check("not asked for")


def wav(values: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, 24_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not samples", wav(np.zeros(24_000)), wav(np.ones(100)), wav(np.full(24_000, np.nan))],
    ids=["empty", "text", "silent", "short", "nan"],
)
def test_why_an_upload_is_no_voice(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_upload("me.wav", content)
    check(str(caught.value))
    assert "me.wav" in remarks.translated("ko", str(caught.value))


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "a", "results": [], "environment": {}}'])
def test_why_a_file_holds_no_results(text: str) -> None:
    with pytest.raises(ValueError, match="no ") as caught:
        files.parse(text)
    check(str(caught.value))


def test_why_a_file_is_damaged() -> None:
    row = {"mode": "base", "case": "en", "dtype": "fp16", "median_ms": 2.0, "p5_ms": 1.0, "p95_ms": 3.0}
    document: dict[str, Any] = {"kind": "speed", "environment": {"gpus": []}, "results": [row]}
    spoilers: list[Callable[[], object]] = [
        lambda: document["results"][0].pop("mode"),
        lambda: document["environment"].update(gpus="none"),
    ]
    for spoil in spoilers:
        spoil()
        with pytest.raises(ValueError, match="damaged") as caught:
            files.parse(json.dumps(document))
        check(str(caught.value))


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


@pytest.mark.parametrize("name", ["verify", "demo_voice_modes", "demo_voice_modes_cpu"])
def test_what_tiers_say_of_themselves(name: str) -> None:
    for tier in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]:
        check(tier["what"])
        for note in tier["notes"]:
            check(note)


def test_what_the_kernel_tier_says_on_a_cpu() -> None:
    tier = kernel_tier.run("cpu", cases=[])
    check(tier.what)
    for note in (*tier.notes, f"not checked here: a, b: {hopper_grid.problem('cpu')}"):
        check(note)
    check("not in bfloat16, whose products the interpreter can't form: a, b")


def test_what_the_speech_tier_says_of_its_judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ear:
        name, languages = "an ear", ("en",)

    session: Any = SimpleNamespace(
        utterances=[SimpleNamespace(sentence=SimpleNamespace(code="ko"))], steps=8, dtype="float16", path=tmp_path
    )
    monkeypatch.setattr(speech_tier, "is_demo", lambda path: True)
    said = {
        note
        for noise in (False, True)
        for judge in (None, Ear())
        for note in speech_tier._notes(noise, judge, judge, session)
    }
    monkeypatch.setattr(scorer, "utmos_installed", lambda: True)
    said.add(f"naturalness: not measured, {scorer.reason_for_none()}")
    said.add("base in float16 repeats only 12% of its fp32 tokens: their agreement says little")
    assert len(said) > 8
    for note in said:
        check(note)
