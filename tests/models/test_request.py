"""Bad input: one line that names what was given and says what to do, before anything runs."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnivoice_triton import BaseRunner, InputError, ModeUnavailable, UnknownMode, create_runner
from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.models.request import build_request
from omnivoice_triton.models.seeding import resolve_seed

FAST = {"num_step": 2, "duration": 0.4}


@pytest.fixture(scope="module")
def runner(tiny: Path) -> Iterator[BaseRunner]:
    with create_runner("base", device="cpu", model_id=tiny) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "text is empty: give at least one word"),
        (" \n\t", {}, "text is empty"),
        (["Fine.", " "], {}, "text 2 of 2 is empty"),
        ([], {}, "list of texts is empty"),
        (7, {}, "text must be a string or a list of strings, not int"),
        (["a", 7], {}, "text must be a string or a list of strings, not int"),
        ("Hi.", {"num_step": 0}, "num_step must be a whole number of at least 1, not 0"),
        ("Hi.", {"num_step": 2.5}, "num_step must be a whole number"),
        ("Hi.", {"num_steps": 8}, "unknown option 'num_steps': choose from"),
        ("Hi.", {"guidance_scale": float("nan")}, "guidance_scale must be a number, not nan"),
        ("Hi.", {"t_shift": 0}, "t_shift must be above 0"),
        ("Hi.", {"class_temperature": -1}, "class_temperature must not be negative"),
        ("Hi.", {"denoise": 1}, "denoise must be True or False"),
        ("Hi.", {"duration": -1.0}, "duration must be 0.04 to 3600 seconds, not -1.0"),
        ("Hi.", {"duration": 1e9}, "duration must be 0.04 to 3600 seconds"),
        ("Hi.", {"duration": float("nan")}, "duration must be"),
        ("Hi.", {"speed": -2}, "speed must be 0.1 to 10"),
        ("Hi.", {"speed": 0}, "speed must be 0.1 to 10"),
        ("Hi.", {"speed": [1.0, 1.0]}, r"speed has 2 entries for 1 text\(s\)"),
        ("Hi.", {"instruct": "femal"}, "unknown instruction 'femal': did you mean 'female'"),
        ("Hi.", {"instruct": "male, female"}, "Conflicting instruct items"),
        ("Hi.", {"instruct": " "}, "instruct is empty"),
        ("Hi.", {"ref_text": "No recording."}, "ref_text was given without ref_audio"),
        ("Hi.", {"voice": "missing.pt"}, r"voice file 'missing\.pt' does not exist"),
    ],
)
def test_bad_request(runner: BaseRunner, text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        runner.generate(text, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def references(tmp_path: Path) -> dict[str, Path]:
    """Recordings that no voice can be taken from."""
    made = {
        name: tmp_path / f"{name}.wav" for name in ("missing", "empty", "silent", "corrupt", "text", "short", "nan")
    }
    made["empty"].touch()
    soundfile.write(made["silent"], np.zeros(24_000, dtype=np.float32), 24_000)
    soundfile.write(made["short"], np.full(480, 0.3, dtype=np.float32), 24_000)
    soundfile.write(made["nan"], np.full(24_000, np.nan, dtype=np.float32), 24_000, subtype="FLOAT")
    soundfile.write(made["corrupt"], np.full(24_000, 0.3, dtype=np.float32), 24_000)
    made["corrupt"].write_bytes(b"RIFF" + bytes(range(200)))
    made["text"].write_text("This is no audio at all.\n" * 20, encoding="utf-8")
    made["folder"] = tmp_path
    return made


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("missing", "does not exist"),
        ("empty", "is an empty file"),
        ("silent", "is silent"),
        ("corrupt", "can't read .* as audio.*: give a WAV, FLAC, OGG or MP3 file"),
        ("text", "can't read .* as audio.*: give a WAV, FLAC, OGG or MP3 file"),
        ("short", "lasts 0.02 s: a reference needs 3 to 10 s"),
        ("nan", "holds NaN"),
        ("folder", "is a directory"),
    ],
)
def test_bad_reference(runner: BaseRunner, references: dict[str, Path], which: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        runner.generate_voice_clone("Hi.", references[which], "What it says.", **FAST)
    assert "\n" not in str(caught.value)


def test_reference_and_instruction(runner: BaseRunner, references: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="choose cloning or design"):
        runner.generate("Hi.", ref_audio=references["short"], ref_text="x", instruct="male")
    with pytest.raises(InputError, match="choose one"):
        runner.generate("Hi.", ref_audio=references["short"], voice="v.pt")
    with pytest.raises(InputError, match="cloning needs ref_audio"):
        runner.generate_voice_clone("Hi.")
    with pytest.raises(InputError, match="instruct is empty"):
        runner.generate_voice_design("Hi.", "")


def test_a_file_that_is_no_voice(runner: BaseRunner, tmp_path: Path) -> None:
    path = tmp_path / "voice.pt"
    path.write_bytes(b"not a voice")
    with pytest.raises(InputError, match="is not a saved voice"):
        runner.generate("Hi.", voice=path)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(4, 10, dtype=torch.long), r"codes are \(4, 10\), the model wants \(8, frames\)"),
        (torch.full((8, 10), 1024), "not all from 0 to 1023"),
        (torch.zeros(8, 10), "the model wants"),
    ],
)
def test_a_voice_of_another_model(runner: BaseRunner, tmp_path: Path, codes: torch.Tensor, message: str) -> None:
    from omnivoice import VoiceClonePrompt

    path = tmp_path / "voice.pt"
    VoiceClonePrompt(codes, "What it says.", 0.1).save(str(path))
    with pytest.raises(InputError, match=message):
        runner.generate("Hi.", voice=path)
    with pytest.raises(InputError, match="voice must be a prompt"):
        runner.generate("Hi.", voice=42)


def test_unknown_language_warns_as_upstream_does(runner: BaseRunner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        runner.generate("Hi.", "Klingonese", seed=1, **FAST)
    assert "Klingonese" in caplog.text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("EN", "en"), ("zh-CN", "zh"), ("pt_BR", "pt"), ("English", "English"), ("none", "none"), ("Klingon", "Klingon")],
)
def test_codes_are_taken_as_people_write_them(given: str, wanted: str) -> None:
    assert build_request("Hi.", language=given).languages == (wanted,)


@pytest.mark.parametrize(("name", "value"), [("language", 5), ("instruct", 5), ("language", ["en", 5])])
def test_values_of_another_type(name: str, value: Any) -> None:
    text = ["Hi.", "There."] if isinstance(value, list) else "Hi."
    with pytest.raises(InputError, match=f"{name} must be a .*, not int"):
        build_request(text, **{name: value})


def test_numbers_of_numpys_are_numbers() -> None:
    request = build_request("Hi.", speed=np.float32(1.5), duration=np.float32(2.0))
    assert request.upstream_kwargs()["speed"] == [1.5]
    assert [type(d) for d in request.upstream_kwargs()["duration"]] == [float]
    assert resolve_seed(np.int64(7)) == 7
    assert type(resolve_seed(np.int64(7))) is int


def test_numbers_of_other_languages_are_not_left_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    for there in (False, True):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, there=there: (there or None) if name == "num2words" else real(name),
        )
        for language in ("German", "de", "ko"):
            if there:
                assert build_request("5", language=language, normalize_text=True)
            else:
                with pytest.raises(InputError, match=r"normalize_text in .* pip install num2words"):
                    build_request("5", language=language, normalize_text=True)
        for language in (None, "none", "en", "Chinese"):
            assert build_request("5", language=language, normalize_text=True)


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("base", {"patch_range": "x"}, "patch_range must be two whole numbers"),
        ("triton", {"patch_range": (0, 1, 2)}, "patch_range must be two whole numbers"),
        ("base", {"patch_range": (0, 2)}, "patch_range is for modes that patch"),
        ("turbo", {"graph_budget_mb": -1}, "graph_budget_mb must be a whole number of at least 1, not -1"),
        ("turbo", {"graph_budget_mb": "x"}, "graph_budget_mb must be a whole number"),
        (None, {}, "mode must be a name"),
    ],
)
def test_options_are_looked_at_before_anything_is_loaded(mode: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_runner(mode, device="auto" if torch.cuda.is_available() else "cpu", **options)


def test_the_name_of_0_1_0s_parameter() -> None:
    assert create_runner(name="base", device="cpu").mode.name == "base"


def test_normalize_text_without_its_package(runner: BaseRunner) -> None:
    with pytest.raises(InputError, match=r"pip install 'omnivoice\[tn\]'"):
        runner.generate("It is 5 pm.", "en", normalize_text=True, **FAST)


def test_unknown_mode_is_also_a_key_error() -> None:
    with pytest.raises(UnknownMode, match="unknown mode 'warp': choose one of base, triton") as caught:
        create_runner("warp")
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("mode", ["triton", "triton_sage", "faster", "hybrid", "hybrid_sage"])
def test_gpu_mode_without_a_gpu(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ModeUnavailable, match=rf"mode {mode} can't run here: .*: use mode base"):
        create_runner(mode, device="cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "cuda:99"}, "no CUDA device|no device 'cuda:99'"),
        ({"device": "toaster"}, "unknown device 'toaster'"),
        ({"device": "xpu"}, "device 'xpu' can't be used here"),
        ({"dtype": "fp8", "device": "cpu"}, "unknown dtype 'fp8': give fp16, bf16 or fp32"),
        ({"graph_budget": 3}, "unknown runner option 'graph_budget'"),
    ],
)
def test_bad_runner_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_runner("base", **given)


def test_options_refuse_every_field_of_the_wrong_kind() -> None:
    for name in GenerationOptions.__dataclass_fields__:
        with pytest.raises(InputError, match=name):
            GenerationOptions(**{name: "loud"})
