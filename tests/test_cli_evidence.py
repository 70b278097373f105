"""`bench`, `verify` and `tune` hand their flags on, and their exit codes back."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.bench import soak
from omnivoice_triton.cli import evidence, main
from omnivoice_triton.verify import parity


def test_flags_are_handed_on_and_the_verdict_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def failing(rest: list[str]) -> int:
        seen.append(rest)
        return 1

    monkeypatch.setattr(parity, "main", failing)
    monkeypatch.setattr(soak, "main", failing)
    assert main(["verify", "parity", "--model", "x", "--modes", "base"]) == 1
    assert main(["bench", "soak", "--runs", "3"]) == 1
    assert seen == [["--model", "x", "--modes", "base"], ["--runs", "3"]]


@pytest.mark.parametrize("what", [*(("bench", b) for b in evidence.BENCHES), *(("verify", c) for c in evidence.CHECKS)])
def test_every_name_is_a_module_with_help(what: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*what, "--help"]) == 0
    assert "usage:" in capsys.readouterr().out


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nothing"]) == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_tuning_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["tune", "model", "out.json"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
