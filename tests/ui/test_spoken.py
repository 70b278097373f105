"""One text in several modes: tokens beside base's, the order, what one mode breaks on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from omnivoice_triton import BaseRunner, Speech
from omnivoice_triton.ui import runners, spoken, tokens
from omnivoice_triton.ui.runners import Runners
from omnivoice_triton.verify import speaking

SAY: dict[str, Any] = {"seed": 7, "num_step": 4, "duration": 0.6}


@pytest.mark.parametrize("mode", ["base", "turbo"])
def test_tokens_are_those_of_the_third_tier(mode: str) -> None:
    with BaseRunner(model_id="tiny", device="cpu", mode=mode) as runner:
        with speaking.kept_tokens(runner) as wanted:
            runner.generate("Hello there.", "English", **SAY)
        with tokens.kept(runner) as kept:
            runner.generate("Hello there.", "English", **SAY)
        (chunks,) = wanted
        assert len(kept) == len(chunks) == 1
        assert kept[0].shape == (8, 15)
        assert (kept[0] == chunks[0].numpy()).all()
        runner.generate("Hello there.", "English", **SAY)
        assert len(kept) == 1, "nothing is kept after the block"
        said = speaking.Said(Speech(np.zeros(1, np.float32), 24_000, 1.0, 7, mode), chunks)
        with tokens.kept(runner) as others:
            runner.generate("Hello there.", "English", **{**SAY, "seed": 8})
        assert tokens.agreement(kept, kept) == said.agreement(said) == 1.0
        assert 0 < tokens.agreement(kept, others) < 1


def test_agreement_of_what_cannot_be_compared() -> None:
    one = np.zeros((8, 3), np.int64)
    assert tokens.agreement([one, one], [np.zeros((8, 6), np.int64)]) == 1.0  # pieces don't matter
    assert tokens.agreement([one], [one, one]) == 0.0
    assert tokens.agreement([], [one]) == tokens.agreement([], []) == 0.0


def test_a_long_text_keeps_all_its_pieces() -> None:
    text = "The train leaves at seven, and the coffee is hot. " * 4
    options = {"audio_chunk_threshold": 4.0, "audio_chunk_duration": 2.0, "num_step": 1, "seed": 7}
    kept = {}
    for mode in ("base", "turbo"):
        extra = {"noise": runners.UPSTREAMS_NOISE} if mode == "turbo" else {}
        with BaseRunner(model_id="tiny", device="cpu", mode=mode, **extra) as runner, tokens.kept(runner) as chunks:
            runner.generate(text, "English", **options)
        kept[mode] = chunks
    assert len(kept["base"]) == len(kept["turbo"]) > 1
    assert tokens.agreement(kept["turbo"], kept["base"]) > 0.9


def test_base_comes_first() -> None:
    assert spoken.in_order(["turbo", "hybrid", "base"]) == ["base", "turbo", "hybrid"]
    assert spoken.in_order(["turbo", "hybrid"]) == ["turbo", "hybrid"]


def made(mode: str, token: int, speaks: bool = True) -> spoken.Made:
    speech = Speech(np.zeros(1, np.float32), 24_000, 1.0, 7, mode) if speaks else None
    return spoken.Made(mode, speech, tokens=[np.array([[1, 2, 3, token]])])


def test_what_tokens_are_compared_with() -> None:
    base, turbo = made("base", 4), made("turbo", 5)
    first = spoken._compared(base, [], True)
    assert (first.equal, first.beside) == (1.0, "base")
    second = spoken._compared(turbo, [first], True)
    assert (second.equal, second.beside) == (0.75, "base")
    broken = made("base", 4, speaks=False)
    assert spoken._compared(broken, [], True).equal is None
    alone = spoken._compared(turbo, [broken], True)
    assert (alone.equal, alone.beside) == (1.0, "turbo"), "base said nothing: the first that did is the measure"
    other = spoken._compared(turbo, [first], False)
    assert (other.equal, other.beside) == (None, "base"), "other noise: nothing to compare"


def test_only_an_engine_is_asked_for_noise() -> None:
    asked: list[dict[str, Any]] = []

    class Runner:
        def __init__(self, **keywords: Any) -> None:
            asked.append(keywords)

        def load_model(self) -> None: ...

        def unload_model(self) -> None: ...

    held = Runners(3, Runner)
    for mode, noise in (("base", "torch"), ("base", ""), ("turbo", "torch"), ("turbo", ""), ("turbo", "torch")):
        with held.borrow(mode, "", noise):
            pass
    assert asked == [
        {"mode": "base", "model_id": None},
        {"mode": "turbo", "model_id": None, "noise": "torch"},
        {"mode": "turbo", "model_id": None},
    ]


def test_a_run_that_is_left_leaves_the_runner_well(tmp_path: Path) -> None:
    """Streamlit ends a script by an exception out of whatever it draws: here the progress."""

    class Left(BaseException):
        pass

    def leave(done: int, total: int) -> None:
        if done == 2:
            raise Left

    held = Runners(1)
    for noise in ("torch", ""):
        with held.borrow("turbo", "tiny", noise) as runner:
            wanted = runner.generate("Hello there.", "English", **SAY).audio
        with pytest.raises(Left), held.borrow("turbo", "tiny", noise) as runner, tokens.kept(runner):
            runner.generate("Hello there.", "English", progress=leave, **SAY)
        with held.borrow("turbo", "tiny", noise) as runner, tokens.kept(runner) as kept:
            assert (runner.generate("Hello there.", "English", **SAY).audio == wanted).all()
        assert len(kept) == 1
