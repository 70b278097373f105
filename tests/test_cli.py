"""The command line: what it writes, what it refuses and how, and that it keeps its output clean."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
import tqdm
from safetensors.torch import load_file, save_file

import omnivoice_triton
from omnivoice_triton import DownloadError, GenerationOptions, NotEnoughMemory, Speech, __version__, checkpoint
from omnivoice_triton.cli import VERBS, build_parser, console, flags, main, text
from omnivoice_triton.models.runner import BaseRunner

HAS_GPU = torch.cuda.is_available()
FAST = ["--num-step", "2", "--duration", "0.5", "--mode", "base"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tiny model is too small for threads: beside other work on the machine they triple the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; what libraries write past Python is seen too."""

    def call(*argv: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in argv])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a tone that swells, so that silence removal leaves it alone."""
    path = tmp_path_factory.mktemp("reference") / "ref.wav"
    time = np.arange(2 * 24_000) / 24_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)), 24_000)
    return path


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def refused(outcome: Outcome, *words: str, code: int = 2) -> str:
    """Exit code, nothing on stdout, one line on stderr that holds `words`; returns that line."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("omnivoice-triton: error: ")
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


# What works


def test_one_line_out_and_a_wav(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "hello.wav"
    done = run("say", "Hello.", "-o", out, "--model", model, "--seed", 5, *FAST)
    assert done.code == 0, done
    (line,) = done.out.splitlines()
    samples, rate = soundfile.read(out)
    device = "cuda" if HAS_GPU else "cpu"
    assert line.startswith(f"base on {device}: {len(samples) / rate:.2f} s of audio in ")
    assert " ms, " in line
    assert line.endswith(f"x real time, seed 5: {out}")
    assert rate == 24_000
    assert len(samples) > 6_000
    assert np.abs(samples).max() > 0.1
    (notice,) = done.err.splitlines()
    assert "noise, not speech" in notice
    assert "--model k2-fsa/OmniVoice" in notice
    assert [p.name for p in tmp_path.iterdir()] == ["hello.wav"]


def test_the_demo_voice_says_once_what_it_is(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its user asked for quiet, or for it."""
    packaged = Path(shutil.copytree(model, tmp_path / "data" / "demo"))
    config = json.loads((packaged / "config.json").read_text())
    config["omnivoice_triton"] = {"size": "demo", "weights": "trained"}
    (packaged / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(checkpoint.demo, "DATA", tmp_path / "data")
    monkeypatch.delenv("OMNIVOICE_TRITON_MODEL", raising=False)
    say = ["say", "Hello.", "-o", tmp_path / "x.wav", *FAST]
    (notice,) = run(*say).err.splitlines()
    assert "robotic demo voice" in notice
    assert notice.endswith("add --model k2-fsa/OmniVoice")
    quiet = [run(*say, "--quiet"), run(*say, "--model", "demo"), run(*say, "--model", packaged)]
    monkeypatch.setenv("OMNIVOICE_TRITON_MODEL", "demo")
    quiet.append(run(*say))
    assert [(done.code, done.err) for done in quiet] == [(0, "")] * 4


@pytest.mark.parametrize(("extension", "kind"), [("flac", "FLAC"), ("ogg", "OGG")])
def test_the_extension_chooses_the_format(run: Run, model: Path, tmp_path: Path, extension: str, kind: str) -> None:
    out = tmp_path / f"x.{extension}"
    assert run("say", "Hello.", "-o", out, "--model", model, *FAST).code == 0
    assert soundfile.info(out).format == kind


def test_json_is_one_line_with_every_figure(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.wav"
    done = run("say", "Hello.", "-o", out, "--model", model, "--json", *FAST)
    assert done.code == 0
    assert done.out.count("\n") == 1
    record = json.loads(done.out)
    samples, rate = soundfile.read(out)
    assert (record["samples"], record["sample_rate"]) == (len(samples), rate)
    assert record["audio_s"] == pytest.approx(len(samples) / rate)
    assert record["time_ms"] == pytest.approx(1000 * record["time_s"])
    assert record["speed_x"] == pytest.approx(record["audio_s"] / record["time_s"])
    assert (record["mode"], record["output"], record["model"]) == ("base", str(out), str(model))
    assert record["weights"] == "random-tiny"
    assert record["dtype"] == ("float16" if HAS_GPU else "float32")
    assert 0 <= record["seed"] < 2**31
    assert {"device", "peak_vram_gb", "load_s", "voice_s"} <= set(record)


def test_a_reported_seed_repeats_the_file_from_any_source_of_text(
    run: Run, model: Path, tmp_path: Path, stdin: Callable[[bytes], None]
) -> None:
    first, second, third = (tmp_path / name for name in ("a.wav", "b.wav", "c.wav"))
    seed = json.loads(run("say", "Hello there.", "-o", first, "--model", model, "--json", *FAST).out)["seed"]
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfHello\r\nthere.\n")
    assert run("say", "--file", tmp_path / "text.txt", "-o", second, "--model", model, "--seed", seed, *FAST).code == 0
    stdin(b"Hello there.\n")
    assert run("say", "-", "-o", third, "--model", model, "--seed", seed, *FAST).code == 0
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    run("say", "Hello there.", "-o", second, "--model", model, "--seed", seed + 1, *FAST)
    assert first.read_bytes() != second.read_bytes()


def test_a_saved_voice_speaks_as_its_reference(run: Run, model: Path, reference: Path, tmp_path: Path) -> None:
    common = ["--model", model, "--seed", 3, *FAST]
    clone = ["--ref-audio", reference, "--ref-text", "A tone.", "--save-voice", tmp_path / "voice.pt"]
    assert run("say", "Hello.", "-o", tmp_path / "a.wav", *clone, *common).code == 0
    assert run("say", "Hello.", "-o", tmp_path / "b.wav", "--voice", tmp_path / "voice.pt", *common).code == 0
    assert run("say", "Hello.", "-o", tmp_path / "c.wav", *common).code == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav"))
    assert a == b
    assert a != c
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav", "c.wav", "voice.pt"]


def test_design_changes_the_voice_and_snake_case_is_taken(run: Run, model: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    design = ["--instruct", "female, high pitch"]
    assert run("say", "Hello.", "-o", a, "--model", model, "--seed", 3, *FAST, *design).code == 0
    upstream = ["--text", "Hello.", "--output", b, "--model", model, "--seed", 3, "--mode", "base"]
    upstream += ["--num_step", 2, "--duration", 0.5, "--denoise", "True", "--postprocess_output", "true"]
    assert run("say", *upstream).code == 0
    assert a.read_bytes() != b.read_bytes()
    assert run("say", *upstream, *design).code == 0
    assert a.read_bytes() == b.read_bytes()


def test_an_unknown_language_is_a_warning(run: Run, model: Path, tmp_path: Path) -> None:
    done = run("say", "Hello.", "-o", tmp_path / "a.wav", "--model", model, "--language", "Klingonese", *FAST)
    assert done.code == 0
    warnings = [line for line in done.err.splitlines() if line.startswith("omnivoice-triton: warning: ")]
    assert len(warnings) == 1
    assert "'Klingonese' is not recognized" in warnings[0]


def test_auto_says_what_it_took_and_why_and_quiet_says_nothing(run: Run, model: Path, tmp_path: Path) -> None:
    argv = [
        "say",
        "Hello.",
        "-o",
        tmp_path / "a.wav",
        "--model",
        model,
        "--num-step",
        2,
        "--duration",
        0.5,
        "--device",
        "cpu",
    ]
    done = run(*argv)
    assert done.code == 0, done
    assert any(
        line.startswith("omnivoice-triton: mode base: the fastest that runs on cpu") for line in done.err.splitlines()
    )
    assert run(*argv, "--quiet", "--language", "Klingonese") == Outcome(0, "", "")
    quiet = run(*argv, "--quiet", "--json")
    assert json.loads(quiet.out)["mode"] == "base"
    assert quiet.err == ""


def test_the_built_in_model_is_the_default(tmp_path: Path) -> None:
    """As a process of its own, to see what a user sees: no bars, no foreign warnings."""
    command = [sys.executable, "-m", "omnivoice_triton", "say", "Hello.", "-o", "x.wav", *FAST]
    environ = {k: v for k, v in os.environ.items() if k not in ("OMNIVOICE_TRITON_MODEL", "PYTHONWARNINGS")}
    environ["OMP_NUM_THREADS"] = "1"
    here = str(Path(omnivoice_triton.__file__).parents[1])  # also where the package is not installed
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, environ.get("PYTHONPATH")]))
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.endswith(": x.wav\n")
    (notice,) = done.stderr.splitlines()
    assert "demo voice" in notice
    assert soundfile.info(tmp_path / "x.wav").frames > 6_000


def test_every_flag_reaches_the_runner(
    run: Run, model: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def load(self: BaseRunner) -> None:
        seen["runner"] = (self.mode.name, self.device, self.dtype, self.graph_budget_mb, self.model_id)

    def create_voice(self: BaseRunner, audio: Any, transcript: str, *, preprocess_prompt: bool) -> str:
        seen["voice"] = (audio[1], audio[0].shape, transcript, preprocess_prompt)
        return "a voice"

    def generate(self: BaseRunner, text: str, language: str, **rest: Any) -> Speech:
        seen["generate"] = {"text": text, "language": language, **rest}
        return Speech(np.zeros(2400, np.float32), 24_000, time_s=0.5, seed=rest["seed"], mode="base")

    for method in (load, create_voice, generate):
        monkeypatch.setattr(BaseRunner, "load_model" if method is load else method.__name__, method)
    options = GenerationOptions(3, 1.5, 0.2, 4.0, 6.0, 0.5, False, False, False, 10.0, 20.0, 0.2, 0.3)
    argv: list[object] = []
    for name, value in vars(options).items():
        flag = name.replace("_", "-")
        argv += [f"--no-{flag}"] if value is False else [f"--{flag}", value]
    argv += ["--device", "cpu", "--dtype", "bf16", "--graph-budget-mb", 77, "--mode", "base", "--model", model]
    argv += ["--language", "en", "--ref-audio", reference, "--ref-text", "A tone.", "--seed", 11]
    argv += ["--duration", 4, "--speed", 1.25, "--normalize-text"]
    done = run("say", "Hello.", "-o", tmp_path / "x.wav", *argv)
    assert done.out == f"base on cpu: 0.10 s of audio in 500 ms, 0.20x real time, seed 11: {tmp_path / 'x.wav'}\n"
    assert seen["runner"] == ("base", "cpu", torch.bfloat16, 77, model)
    assert seen["voice"] == (24_000, (1, 48_000), "A tone.", False)
    expected = {"text": "Hello.", "language": "en", "instruct": None, "voice": "a voice", "seed": 11, "progress": None}
    expected |= {"duration": 4.0, "speed": 1.25, "normalize_text": True}
    assert seen["generate"] == {**expected, **vars(options)}


# What is refused before a model is loaded

TEXT_FAULTS = {
    "empty": ([""], "empty"),
    "blank": ([" \n\t"], "empty"),
    "none": ([], "exactly once"),
    "twice": (["Hello", "--text", "Hello"], "exactly once"),
    "no such file": (["--file", "nothing.txt"], "does not exist"),
    "folder as file": (["--file", "."], "is a directory"),
    "not UTF-8": (["--file", "latin1.txt"], "not UTF-8"),
    "empty file": (["--file", "empty.txt"], "empty"),
    "stray bytes": (["Hello \udcff"], "not UTF-8"),
}
VALUE_FAULTS = {
    "mode": (["--mode", "warp"], "unknown mode 'warp'"),
    "num-step 0": (["--num-step", "0"], "num_step must be a whole number of at least 1"),
    "num-step -1": (["--num_step=-1"], "num_step"),
    "num-step word": (["--num-step", "many"], "invalid int value"),
    "duration -1": (["--duration", "-1"], "duration must be"),
    "duration 0": (["--duration", "0"], "duration must be"),
    "duration of a year": (["--duration", "3e7"], "duration must be"),
    "duration nan": (["--duration", "nan"], "duration must be"),
    "speed 0": (["--speed", "0"], "speed must be"),
    "speed -1": (["--speed", "-1"], "speed must be"),
    "speed 1000": (["--speed", "1000"], "speed must be"),
    "guidance nan": (["--guidance-scale", "nan"], "guidance_scale must be a number"),
    "t_shift": (["--t-shift", "0"], "t_shift must be above 0"),
    "seed": (["--seed", "-3"], "seed must be a whole number"),
    "dtype": (["--dtype", "int3"], "unknown dtype"),
    "device": (["--device", "abacus"], "unknown device"),
    "budget": (["--graph-budget-mb", "0"], "--graph-budget-mb must be at least 1"),
    "instruction": (["--instruct", "femal"], "unknown instruction 'femal': did you mean 'female'?"),
    "blank instruction": (["--instruct", " "], "instruct is empty"),
    "reference and instruction": (
        ["--ref-audio", "ref.wav", "--instruct", "female"],
        "--ref-audio and --instruct were both",
    ),
    "voice and instruction": (["--voice", "v.pt", "--instruct", "female"], "--voice and --instruct were both"),
    "transcript alone": (["--ref-text", "Hi"], "--ref-text was given without --ref-audio"),
    "nothing to save": (["--save-voice", "v.pt"], "--save-voice was given without --ref-audio"),
    "unknown flag": (["--warp"], "unrecognized arguments: --warp"),
    "abbreviation": (["--num", "3"], "unrecognized arguments"),
    "text without quotes": (["world"], "unrecognized arguments: world"),
}
REFERENCE_FAULTS = {
    "missing.wav": "does not exist",
    ".": "is a directory",
    "empty.wav": "is an empty file",
    "silent.wav": "is silent",
    "short.wav": "lasts 0.05 s",
    "corrupt.wav": "can't read",
    "text.wav": "can't read",
    "picture.png": "can't read",
    "noise.mp3": "can't read",
    "nan.wav": "NaN",
}
OUTPUT_FAULTS = {
    "nowhere/x.wav": "does not exist",
    ".": "the extension",
    "folder.wav": "is a directory",
    "x.xyz": "the extension",
    "x": "the extension",
    "": "the extension",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Path) -> Path:
    """A folder with good and bad files, which is the current one; loading a model there is a failure."""
    (tmp_path / "latin1.txt").write_bytes("Grüße".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"\n")
    (tmp_path / "empty.wav").write_bytes(b"")
    shutil.copy(reference, tmp_path / "ref.wav")
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt \xff\xff" + bytes(range(256)) * 4)
    (tmp_path / "text.wav").write_text("I am no audio. " * 50, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    (tmp_path / "noise.mp3").write_bytes(b"\xff\xfb\x90\x64" + bytes(range(1, 256)) * 8)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "bad.pt").write_bytes(b"no voice")
    soundfile.write(tmp_path / "silent.wav", np.zeros(48_000), 24_000)
    soundfile.write(tmp_path / "short.wav", np.full(1_200, 0.5), 24_000)
    soundfile.write(tmp_path / "nan.wav", np.full(48_000, np.nan), 24_000, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)

    def load(self: BaseRunner) -> None:
        raise AssertionError("a model is loaded for a request that can't be met")

    monkeypatch.setattr(BaseRunner, "load_model", load)
    return tmp_path


@pytest.fixture
def untouched(place: Path) -> Any:
    """After the test the folder holds what it held before."""
    before = sorted(place.rglob("*"))
    yield
    assert sorted(place.rglob("*")) == before


@pytest.mark.usefixtures("untouched")
class TestRefusedAtOnce:
    @pytest.mark.parametrize("fault", TEXT_FAULTS)
    def test_text(self, run: Run, model: Path, fault: str) -> None:
        argv, words = TEXT_FAULTS[fault]
        refused(run("say", *argv, "-o", "out.wav", "--model", model), words)

    def test_empty_stdin(self, run: Run, stdin: Callable[[bytes], None]) -> None:
        stdin(b" \n")
        refused(run("say", "-", "-o", "out.wav"), "standard input is empty")
        stdin(b"\xff\xfe")
        refused(run("say", "-", "-o", "out.wav"), "standard input is not UTF-8")

    @pytest.mark.parametrize("fault", VALUE_FAULTS)
    def test_value(self, run: Run, model: Path, fault: str) -> None:
        argv, words = VALUE_FAULTS[fault]
        Path("v.pt").touch()
        outcome = run("say", "Hello", "-o", "out.wav", "--model", model, "--mode", "base", *argv)
        Path("v.pt").unlink()
        refused(outcome, words)

    @pytest.mark.parametrize("name", REFERENCE_FAULTS)
    def test_reference(self, run: Run, model: Path, name: str) -> None:
        clone = ["--ref-audio", name, "--ref-text", "Hi", "--save-voice", "v.pt"]
        refused(run("say", "Hello", "-o", "out.wav", "--model", model, *clone), REFERENCE_FAULTS[name], repr(name))

    @pytest.mark.parametrize("name", OUTPUT_FAULTS)
    def test_output(self, run: Run, model: Path, name: str) -> None:
        refused(run("say", "Hello", "-o", name, "--model", model), OUTPUT_FAULTS[name])

    def test_no_output(self, run: Run) -> None:
        refused(run("say", "Hello"), "required: -o/--output", "omnivoice-triton say --help")

    def test_read_only_folder(self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(*_: object, **__: object) -> None:  # what root, who may write anywhere, never meets
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("omnivoice_triton.audio_files.tempfile.mkstemp", denied)
        refused(run("say", "Hello", "-o", "x.wav"), "Permission denied")

    def test_saved_voice(self, run: Run, model: Path) -> None:
        refused(run("say", "Hello", "-o", "out.wav", "--model", model, "--voice", "none.pt"), "does not exist")
        refused(run("say", "Hello", "-o", "out.wav", "--model", model, "--voice", "bad.pt"), "is not a saved voice")
        clone = ["--ref-audio", "ref.wav", "--ref-text", "Hi"]
        refused(run("say", "Hello", "-o", "out.wav", *clone, "--save-voice", "none/v.pt"), "does not exist")
        refused(run("say", "Hello", "-o", "out.wav", *clone, "--save-voice", "folder.wav"), "is a directory")
        for same in ("out.wav", Path.cwd() / "out.wav", "./folder.wav/../out.wav"):
            refused(run("say", "Hello", "-o", "out.wav", *clone, "--save-voice", same), "each its own file")

    def test_what_is_read_is_not_overwritten(self, run: Run, model: Path) -> None:
        clone = ["--ref-audio", "ref.wav", "--ref-text", "Hi", "--model", model]
        refused(run("say", "Hello", "-o", "./ref.wav", *clone), "would overwrite --ref-audio")

    @pytest.mark.skipif(HAS_GPU, reason="for machines without a GPU")
    @pytest.mark.parametrize("mode", ["triton", "triton_sage", "faster", "hybrid", "hybrid-sage"])
    def test_gpu_modes(self, run: Run, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        refused(run("say", "Hello", "-o", "out.wav", "--mode", mode), "can't run here", "NVIDIA GPU", "use mode base")

    @pytest.mark.skipif(HAS_GPU, reason="for machines without a GPU")
    def test_gpu_device(self, run: Run) -> None:
        refused(
            run("say", "Hello", "-o", "out.wav", "--mode", "base", "--device", "cuda"), "no CUDA device can be used"
        )


# Models that can't be used


@pytest.fixture
def damaged(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "damaged")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "audio_tokenizer/model.safetensors"]
)
def test_model_that_lacks_a_file(run: Run, damaged: Path, tmp_path: Path, name: str) -> None:
    (damaged / name).unlink()
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", damaged, *FAST), name)
    assert [p.name for p in tmp_path.iterdir()] == ["damaged"]


def test_model_whose_tensors_do_not_fit(run: Run, damaged: Path, tmp_path: Path) -> None:
    weights = load_file(damaged / "model.safetensors")
    weights["audio_heads.weight"] = weights["audio_heads.weight"][:-1].clone()
    save_file(weights, damaged / "model.safetensors")
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", damaged, *FAST), "audio_heads.weight")
    (damaged / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", damaged, *FAST), "model.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["damaged"]


def test_model_that_is_no_directory(run: Run, tmp_path: Path) -> None:
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", tmp_path / "none", *FAST), "none")


# Failures


def test_a_failed_download_is_exit_1(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: Any) -> None:
        raise DownloadError("can't reach the hub")

    monkeypatch.setattr(checkpoint, "resolve_model", fail)
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", "a/b", *FAST), "can't reach the hub", code=1)


def test_too_little_memory_is_bad_input(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(self: BaseRunner) -> None:
        raise NotEnoughMemory("the model needs about 3.1 GiB")

    monkeypatch.setattr(BaseRunner, "load_model", load)
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", model, "--quiet", *FAST), "needs about 3.1 GiB")


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return fail


def test_the_unexpected_is_one_line_or_a_traceback(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(BaseRunner, "load_model", raising(RuntimeError("two\nlines")))
    argv = ["say", "Hello", "-o", tmp_path / "x.wav", "--model", model, "--quiet", *FAST]
    refused(run(*argv), "RuntimeError: two lines (OMNIVOICE_TRITON_DEBUG=1 shows where)", code=1)
    monkeypatch.setenv("OMNIVOICE_TRITON_DEBUG", "1")
    loud = run(*argv)
    assert loud.code == 1
    assert "Traceback (most recent call last)" in loud.err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def half_written(path: Path, *args: Any, **kwargs: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile, "write", half_written)
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", model, "--quiet", *FAST), "interrupted", code=130)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_file(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def disk_full(path: Path, *args: Any, **kwargs: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", disk_full)
    refused(run("say", "Hello", "-o", tmp_path / "x.wav", "--model", model, "--quiet", *FAST), "No space left")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "omnivoice_triton", "--version"]
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}  # argparse's own print would swallow it
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, env=environ, text=True, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_closed_streams() -> None:
    command = f"{shlex.quote(sys.executable)} -m omnivoice_triton"
    for shell, code in ((f"{command} sing 2>&-", 2), (f"{command} --version >&-", 0)):
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


# make-checkpoint


def test_make_checkpoint(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "new"
    done = run("make-checkpoint", target, "--size", "tiny", "--seed", 4)
    assert done.code == 0, done
    (line,) = done.out.splitlines()
    megabytes = sum(p.stat().st_size for p in target.rglob("*") if p.is_file()) / 1e6
    assert line.startswith(f"{target}: tiny checkpoint, {megabytes:.1f} MB, in ")
    assert line.endswith(" s, seed 4")
    assert "noise, not speech" in done.err
    checkpoint.validate_checkpoint(target)

    refused(run("make-checkpoint", target), "is not empty", "--force")
    before = (target / "model.safetensors").read_bytes()
    assert run("make-checkpoint", target, "--seed", 5, "--force", "--quiet") == Outcome(0, "", "")
    assert (target / "model.safetensors").read_bytes() != before
    assert run("make-checkpoint", target, "--seed", 5, "--force", "--quiet", "--dtype", "bf16").code == 0
    assert load_file(target / "model.safetensors")["audio_heads.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--size", "huge"], "unknown size 'huge'"),
        (["--seed", "-1"], "seed must be"),
        (["--dtype", "int8"], "unknown dtype 'int8'"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_make_checkpoint_refuses(run: Run, tmp_path: Path, argv: list[str], words: str) -> None:
    refused(run("make-checkpoint", tmp_path / "new", *argv), words)
    assert list(tmp_path.iterdir()) == []


def test_make_checkpoint_needs_a_directory(run: Run, tmp_path: Path) -> None:
    refused(run("make-checkpoint"), "required: DIR")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    refused(run("make-checkpoint", tmp_path / "file"), "is a file")


# The program itself


def test_no_arguments_is_help_and_exit_2(run: Run) -> None:
    done = run()
    assert (done.code, done.out) == (2, "")
    for verb in VERBS:
        assert f"\n    {verb.name}" in done.err


@pytest.mark.parametrize("argv", [["--help"], *([verb.name, "--help"] for verb in VERBS)])
def test_help(run: Run, argv: list[str]) -> None:
    done = run(*argv)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("usage: omnivoice-triton")
    assert "num_step " not in done.out  # other spellings stay out of sight


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, f"omnivoice-triton {__version__}\n", "")


def test_unknown_verb(run: Run) -> None:
    refused(run("sing", "Hello"), "invalid choice: 'sing'", "make-checkpoint")


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys, omnivoice_triton.config\n"
        "before = set(sys.modules)\n"
        "from omnivoice_triton.cli import main\n"
        "assert main(['say', '--help']) == 0\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "foreign = new - set(sys.stdlib_module_names) - {'omnivoice_triton'}\n"
        "assert not foreign, foreign\n"
        "assert not {'torch', 'soundfile', 'transformers', 'omnivoice', 'triton'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# Flags


def parse(*argv: str) -> Any:
    return build_parser().parse_args(flags.fold_booleans(["say", "Hello", "-o", "x.wav", *argv]))


def test_every_generation_option_is_a_flag_with_its_default_and_both_spellings() -> None:
    assert flags.generation_options(parse()) == GenerationOptions()
    for field in fields(GenerationOptions):
        for spelling in (field.name, field.name.replace("_", "-")):
            if field.type == "bool":
                assert getattr(parse(f"--{spelling}"), field.name) is True
                for argv in ([f"--no-{spelling}"], [f"--{spelling}", "False"], [f"--{spelling}=false"]):
                    assert getattr(parse(*argv), field.name) is False, argv
            else:
                value = getattr(parse(f"--{spelling}", "7"), field.name)
                assert (value, type(value).__name__) == (7, field.type)


def test_every_flag_of_upstreams_program_is_taken() -> None:
    """omnivoice-infer's own, read from its parser; `--text` and `--output` are given otherwise in `parse`."""
    from omnivoice.cli.infer import get_parser

    ours = {name for action in _say_parser()._actions for name in action.option_strings}
    theirs = {name for action in get_parser()._actions for name in action.option_strings}
    assert len(theirs) > 15
    assert theirs <= ours


def _say_parser() -> Any:
    return next(action.choices["say"] for action in build_parser()._actions if getattr(action, "choices", None))


def test_every_visible_flag_is_explained() -> None:
    for action in _say_parser()._actions:
        assert action.help, action
        snake = [name for name in action.option_strings if "_" in name]
        assert not snake or action.help == "==SUPPRESS=="


def test_booleans_fold_only_where_they_belong() -> None:
    assert flags.fold_booleans(["--denoise", "false", "x"]) == ["--no-denoise", "x"]
    assert flags.fold_booleans(["--denoise", "fair words"]) == ["--denoise", "fair words"]
    assert flags.fold_booleans(["--denoise"]) == ["--denoise"]
    assert flags.fold_booleans(["--ref-text", "false"]) == ["--ref-text", "false"]
    assert flags.fold_booleans(["--", "--denoise", "false"]) == ["--", "--denoise", "false"]


def test_lines_are_joined_as_they_are_read() -> None:
    assert text.join_lines("one \r\n two\n\nthree\n") == "one two three"
    assert text.join_lines("今天\n天气，\n很好") == "今天天气，很好"
    assert text.join_lines("안녕\n하세요") == "안녕 하세요"
    assert text.join_lines("AI\n模型") == "AI 模型"


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_bar_but_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with console.Console().progress("step") as report:
        assert report is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    for settings in ({"quiet": True}, {"json": True}):
        with console.Console(**settings).progress("step") as report:
            assert report is None


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal, where bars draw every change at once. (No fixture: pytest sets stderr anew.)"""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(console, "BAR_DELAY_S", 0.0)
    monkeypatch.setattr(tqdm, "tqdm", partial(tqdm.tqdm, mininterval=0))
    return terminal


def test_the_bar_keeps_up_with_a_total_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with console.Console().progress("step") as report:
        report(1, 2)
        report(4, 6)
    assert " 1/2 " in terminal.getvalue()
    assert " 4/6 " in terminal.getvalue()


def test_the_bar_follows_a_text_that_is_split(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = on_a_terminal(monkeypatch)
    long = "This is a sentence. " * 4
    split = ["--audio-chunk-threshold", 1, "--audio-chunk-duration", 2, "--num-step", 2, "--mode", "base"]
    assert run("say", long, "-o", tmp_path / "x.wav", "--model", model, *split).code == 0
    drawn = terminal.getvalue()
    done, total = map(int, re.findall(r" (\d+)/(\d+) ", drawn)[-1])
    assert done == total
    assert total >= 3 * 2  # several pieces of two steps each
    assert "Loading weights" not in drawn


def test_third_parties_are_as_before_afterwards() -> None:
    import logging

    import huggingface_hub.utils as hub
    from transformers.utils import logging as transformers_logging

    def state() -> tuple[Any, ...]:
        loggers = [
            logging.getLogger(name) for name in ("transformers", "omnivoice", "omnivoice_triton", "huggingface_hub")
        ]
        bars = transformers_logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
        return *bars, *((logger.level, tuple(logger.handlers)) for logger in loggers)

    before = state()
    with console.Console().calm():
        assert state() != before
    assert state() == before
