"""The quick check of every mode, on the tiny model: it passes what speaks, and sees a path that wasn't taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.models.runner import BaseRunner
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
