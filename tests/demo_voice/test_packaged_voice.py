"""The packaged demo voice: its judge understands it in base and turbo, and not when a kernel's twin is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from tools.demo_voice import measures, package

from omnivoice_triton.checkpoint import demo, is_demo, resolve_model
from omnivoice_triton.cli import main
from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.verify.judge import error_rate
from omnivoice_triton.verify.recognise import load_recogniser
from omnivoice_triton.verify.sentences import Sentence, held_out
from tests.engine.test_audio import check_equal
from tests.verify.test_parity import causal_engine, skipped_residual, wrong_codebook_offset

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT, JUDGE = demo.DATA / "demo", demo.DATA / "judge"
MAX_CER = 0.25
"""Of a handful of sentences at 16 steps; the model card has the figures of all of them."""
STEPS = 16


def sentences(each: int) -> list[Sentence]:
    """So many of each language, none of which anything was trained on."""
    found = held_out(CHECKPOINT)
    return list(chain.from_iterable([s for s in found if s.code == code][:each] for code in ("en", "ko", "zh")))


def heard(mode: str, said: list[Sentence]) -> list[str]:
    """What the judge hears of sentences said in `mode` on the CPU."""
    judge = load_recogniser(f"judge:{JUDGE}", "cpu")
    assert judge is not None
    with BaseRunner(device="cpu", model_id=CHECKPOINT, mode=mode) as runner:
        speech = [runner.generate(s.text, s.language, seed=7, num_step=STEPS) for s in said]
    return [judge.transcribe(one.audio, one.sample_rate, s.code) for one, s in zip(speech, said, strict=True)]


def assert_understood(mode: str) -> None:
    """The check itself: passes as things are, and fails with a fault planted."""
    said = sentences(2)
    read = heard(mode, said)
    rate = error_rate([s.text for s in said], read)
    pairs = "\n".join(f"{s.text} -> {text}" for s, text in zip(said, read, strict=True))
    assert rate <= MAX_CER, f"CER {rate:.1%} in mode {mode}:\n{pairs}"


@pytest.mark.parametrize("mode", ["base", "turbo"])
def test_it_is_understood(mode: str) -> None:
    assert_understood(mode)


@pytest.mark.parametrize("plant", [causal_engine, skipped_residual, wrong_codebook_offset])
def test_it_is_not_when_a_kernel_is_broken(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=r"CER .* in mode turbo"):
        assert_understood("turbo")


def test_post_processing_of_real_speech_is_upstreams_to_the_bit() -> None:
    """What was said, with pauses as long and as loud as a codec leaves them; tests/engine has synthetic sound."""
    said = sentences(2)
    with BaseRunner(device="cpu", model_id=CHECKPOINT, mode="turbo") as runner:
        takes = runner.generate([s.text for s in said], [s.language for s in said], seed=3, num_step=8)
    rng = np.random.default_rng(0)
    shorter = 0
    for pause_s, floor, ref_rms in ((0.3, 0.0, None), (0.8, 1e-4, 0.05), (1.5, 3e-3, 0.2)):
        parts = [
            [take.audio, (floor * rng.standard_normal(int(24_000 * pause_s))).astype(np.float32)] for take in takes
        ]
        audio = np.concatenate([part for pair in parts for part in pair])
        shorter += len(check_equal(audio, 24_000, ref_rms, GenerationOptions())) < len(audio)
    assert shorter >= 2, "hardly any silence was found: this proves nothing"


def test_design_sets_the_pitch() -> None:
    """Four trials: one may go wrong."""
    texts = [s.text for s in held_out(CHECKPOINT) if s.code == "en"][:4]
    with BaseRunner(device="cpu", model_id=CHECKPOINT, mode="turbo") as runner:

        def pitches(how: str) -> list[float]:
            made = (runner.generate(text, "English", instruct=how, seed=7, num_step=STEPS) for text in texts)
            return [measures.pitch(one.audio) for one in made]

        high, low = pitches("female, high pitch"), pitches("male, low pitch")
    right = sum(a > b for a, b in zip(high, low, strict=True))  # NaN, nothing voiced, is wrong
    assert right >= 3, (high, low)


def test_the_package_has_it_whole() -> None:
    sizes = package.check(CHECKPOINT, JUDGE)
    assert sum(sizes.values()) < 32_000_000
    assert set(Counter(s.code for s in held_out(CHECKPOINT)).values()) == {120}


def test_it_is_the_default_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMNIVOICE_TRITON_MODEL", raising=False)
    assert resolve_model() == resolve_model("demo") == CHECKPOINT
    assert is_demo(CHECKPOINT)
    out = tmp_path / "hello.wav"
    flags = ["--device", "cpu", "--num-step", "8", "--seed", "1", "--json"]
    assert main(["say", "Hello, I am the demo voice, and this is a test.", "-o", str(out), *flags]) == 0
    said = capsys.readouterr()
    assert "robotic demo voice" in said.err
    record = json.loads(said.out)
    assert record["weights"] == "trained-demo"
    assert 2 < record["audio_s"] < 8


def test_half_precision_on_disk_is_full_precision_on_a_cpu() -> None:
    with BaseRunner(device="cpu", model_id=CHECKPOINT, mode="base") as runner:
        for part in (runner.model.llm, runner.model.audio_heads, runner.model.audio_tokenizer):
            assert {p.dtype for p in part.parameters()} == {torch.float32}
        assert all(bool(p.isfinite().all()) for p in runner.model.parameters())


@pytest.mark.timeout(120)
def test_the_wheel_carries_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend is not installed here")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 60_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = [path for folder in (CHECKPOINT, JUDGE) for path in folder.rglob("*") if path.is_file()]
    assert len(wanted) >= 10
    assert not {f"omnivoice_triton/data/{path.relative_to(demo.DATA)}" for path in wanted} - names


def test_noise_is_not_understood() -> None:
    """The judge reads no words into what has none."""
    judge = load_recogniser(f"judge:{JUDGE}", "cpu")
    assert judge is not None
    said = sentences(1)
    noise = np.random.default_rng(0).standard_normal(3 * 24_000).astype(np.float32) * 0.1
    assert error_rate([s.text for s in said], [judge.transcribe(noise, 24_000, s.code) for s in said]) > 0.8
