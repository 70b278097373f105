"""Modes that take turns: each round runs every mode once, in rotating order, so that drift of the host hits all alike.

Ratios are taken within a round. Where time is short, rounds are cut before anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from omnivoice_triton.bench.speed_cases import STEPS, Budget, Case
from omnivoice_triton.evidence import summary
from omnivoice_triton.speech import InputError, Speech

Row = dict[str, Any]
Generate = Callable[..., list[Speech]]


class OutOfTime(InputError):
    """The time ran out before one round was done: there is nothing to report."""


@dataclass
class Turns:
    """What came of one case."""

    rows: dict[str, Row]
    """Figures by mode."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a mode has none."""
    round_s: float = 0.0
    """How long a round of all modes took."""


def speak(runner: Any, seed: int, keywords: Case) -> list[Speech]:
    """The results of one call, of one text or of many."""
    made = runner.generate(seed=seed, **keywords)
    speeches = made if isinstance(made, list) else [made]
    if not speeches:
        raise InputError("generate() gave nothing")
    return speeches


def take_turns(
    runners: Mapping[str, Any],
    keywords: Case,
    runs: int,
    warm: int,
    budget: Budget | None = None,
    share_s: float = math.inf,
    allocated_mb: Callable[[], float] | None = None,
    reference: str = "base",
) -> Turns:
    """Figures of one case for every mode: first calls, unmeasured rounds, `runs` rounds, or fewer if time is short.

    A case that was begun gets one round at least, if its first calls left any of the budget.

    Args:
        share_s: seconds after which no further round begins.
        allocated_mb: what is allocated on the GPU now; gives `call_peak_mb`, by how much a call raises it.
        reference: the mode that ratios are to.

    Raises:
        InputError: `reference` is not among the runners, or can't run this case.
        OutOfTime: the first calls took all that was left.
    """
    if reference not in runners:
        raise InputError(f"ratios are to {reference}, which is not among {', '.join(runners)}")
    budget = Budget() if budget is None else budget
    began = budget.clock()
    cold, failed = _first_calls(runners, keywords, reference)
    if budget.left <= 0:
        raise OutOfTime("its first calls took all the time that was left")
    if budget.clock() - began > share_s / 2:
        warm = 0  # the first calls have warmed what can be warmed
    rounds: list[dict[str, tuple[float, float, float | None]]] = []
    order, round_s = list(cold), 0.0
    for turn in range(warm + runs):
        if rounds and (budget.clock() - began + round_s > share_s or round_s > budget.left):
            break
        order = order[1:] + order[:1]
        round_began = budget.clock()
        made = {mode: _call(runners[mode], turn, keywords, allocated_mb) for mode in order}
        round_s = budget.clock() - round_began
        if turn >= warm:
            rounds.append(made)
    rows = {mode: _figures(mode, reference, rounds, cold[mode]) for mode in cold}
    return Turns(rows, failed, round_s)


def _first_calls(runners: Mapping[str, Any], keywords: Case, reference: str) -> tuple[dict[str, float], dict[str, str]]:
    """Milliseconds of each mode's first call, and why a mode can't run this case."""
    cold: dict[str, float] = {}
    failed: dict[str, str] = {}
    for mode, runner in runners.items():
        try:
            cold[mode] = speak(runner, 0, keywords)[0].time_ms
        except InputError as error:  # too little memory, or a graph over its budget
            if mode == reference:
                raise
            failed[mode] = str(error)
    return cold, failed


def _call(
    runner: Any, seed: int, keywords: Case, allocated_mb: Callable[[], float] | None
) -> tuple[float, float, float | None]:
    """Milliseconds, seconds of audio, and MB by which the call raised what is allocated."""
    before = allocated_mb() if allocated_mb is not None else 0.0
    made = speak(runner, seed, keywords)
    raised = made[0].peak_vram_gb * 1024 - before if allocated_mb is not None else None
    return made[0].time_ms, sum(speech.audio_s for speech in made), raised


def _figures(
    mode: str, reference: str, rounds: list[dict[str, tuple[float, float, float | None]]], cold_ms: float
) -> Row:
    times = [made[mode][0] for made in rounds]
    base = [made[reference][0] for made in rounds]
    figures = summary(times)
    ratios = [own / other for own, other in zip(times, base, strict=True)]
    _, audio_s, raised = rounds[-1][mode]
    row: Row = {
        **figures,
        "cold_ms": cold_ms,
        "ratio_to_base": median(ratios),
        "ratio_p5": float(np.percentile(ratios, 5)),
        "ratio_p95": float(np.percentile(ratios, 95)),
        "ratio_to_base_p5": figures["median_ms"] / summary(base)["p5_ms"],
        "audio_s": audio_s,
        "speed_x": audio_s / figures["median_ms"] * 1000,
        "rtf": figures["median_ms"] / 1000 / audio_s,
        "steps": STEPS,
    }
    if raised is not None:
        row["call_peak_mb"] = raised
    return row
