"""Paired differences with bootstrap confidence intervals (Efron's percentile bootstrap)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnivoice_triton.speech import InputError

RESAMPLES = 2000
CONFIDENCE = 0.95

HIGHER_IS_WORSE = "higher"
LOWER_IS_WORSE = "lower"
EITHER_IS_WORSE = "either"


@dataclass(frozen=True)
class Comparison:
    """A figure of a mode beside base's, over the same utterances."""

    metric: str
    base: float
    """Mean over base's utterances."""
    mode: float
    difference: float
    """Mean of the paired differences, mode less base."""
    low: float
    """Ends of the 95 % interval of that mean."""
    high: float
    margin: float
    worse: str
    """Which direction is worse: `higher`, `lower` or `either`."""
    utterances: int

    @property
    def failed(self) -> bool:
        """Whether the whole interval is worse than base by more than the margin, or is no interval of numbers."""
        if not np.isfinite([self.difference, self.low, self.high]).all():
            return True
        too_high, too_low = self.low > self.margin, self.high < -self.margin
        return {
            HIGHER_IS_WORSE: too_high,
            LOWER_IS_WORSE: too_low,
            EITHER_IS_WORSE: too_high or too_low,
        }[self.worse]

    @property
    def open(self) -> bool:
        """Whether the interval leaves it open: part of it is worse than the margin allows."""
        above, below = self.high > self.margin, self.low < -self.margin
        return (
            not self.failed
            and {
                HIGHER_IS_WORSE: above,
                LOWER_IS_WORSE: below,
                EITHER_IS_WORSE: above or below,
            }[self.worse]
        )

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        figures = ("base", "mode", "difference", "low", "high", "margin", "worse", "utterances")
        verdict = "worse" if self.failed else "open" if self.open else "within"
        return {**{name: getattr(self, name) for name in figures}, "verdict": verdict}


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values`, from resamples of whole utterances.

    Raises:
        InputError: no values.
    """
    if len(values) == 0:
        raise InputError("no values to take an interval of")
    data = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), (RESAMPLES, len(data)))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(data[draws].mean(1), [tail, 100 - tail])
    return float(low), float(high)


def compare(metric: str, mode: Sequence[float], base: Sequence[float], *, margin: float, worse: str) -> Comparison:
    """Pair the two and take the interval of the difference.

    Raises:
        InputError: they aren't pairs, or there are none.
    """
    if len(mode) != len(base):
        raise InputError(f"{metric}: {len(mode)} values of the mode, {len(base)} of base: wanted pairs")
    differences = [a - b for a, b in zip(mode, base, strict=True)]
    low, high = interval(differences)
    return Comparison(
        metric,
        float(np.mean(base)),
        float(np.mean(mode)),
        float(np.mean(differences)),
        low,
        high,
        margin,
        worse,
        len(differences),
    )
