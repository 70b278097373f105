"""The quick check of every mode, on the tiny model: it passes what speaks, and sees a path that wasn't taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import Speech
from omnivoice_triton.verify import smoke


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


def run(tiny: Path, *modes: str) -> int:
    return smoke.main(["--model", str(tiny), "--seconds", "0.6", "--steps", "2", "--device", "cpu", "--modes", *modes])


def test_turbo_speaks_in_every_voice(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "turbo") == 0
    assert capsys.readouterr().out.count("PASS") == 3


def test_turbo_without_its_engine_fails(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Upstream's own generate() in its place speaks just as well, so only the path tells."""
    load = BaseRunner.load_model

    def forget(self: BaseRunner) -> None:
        load(self)
        del self.model.generate, self.model._generate_iterative

    monkeypatch.setattr(BaseRunner, "load_model", forget)
    assert run(tiny, "turbo") == 1
    assert capsys.readouterr().out.count("the engine ran no step") == 3


def test_nothing_heard_is_a_failure_and_no_crash() -> None:
    nothing = Speech(np.zeros(0, np.float32), 24_000, 1.0, 1, "base")
    assert smoke.check(nothing, nothing, 1.0)[0] == "no samples"


def test_a_mode_that_raises_fails_and_the_others_speak(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = BaseRunner.generate

    def fails(self: BaseRunner, *args: Any, **keywords: Any) -> Any:
        if self.mode.engine and "ref_audio" in keywords:
            raise RuntimeError("no memory")
        return generate(self, *args, **keywords)

    monkeypatch.setattr(BaseRunner, "generate", fails)
    assert run(tiny, "turbo", "base") == 1
    out = capsys.readouterr().out
    assert out.count("PASS") == 1 + 3
    assert "clone" in out
    assert "FAIL (raised RuntimeError: no memory)" in out


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--seconds", "nan"], ["--seconds", "1e9"]])
def test_bad_flags_are_two(tiny: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert smoke.main(["--model", str(tiny), "--device", "cpu", *flags]) == 2
    assert f"{flags[0]} must be" in capsys.readouterr().err
