"""Scorers that say how natural a recording sounds, as a mean opinion score (MOS).

A scorer is an object with a `name` and `score(recordings, rate) -> one number each`. Packages offer one under the entry
point group `omnivoice_triton.scorers`: a function of the device that returns it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

from omnivoice_triton.speech import InputError, OmniVoiceTritonError
from omnivoice_triton.verify import plugins
from omnivoice_triton.verify.acoustics import Samples

GROUP = "omnivoice_triton.scorers"
UTMOS = "utmos"
PACKAGE, MODULE = "utmos-pytorch", "utmos_pytorch"
UTMOS_RATE_HZ = 16_000


class Scorer(Protocol):
    """What tier 3 needs to compare naturalness."""

    name: str

    def score(self, recordings: Sequence[Samples], rate: int) -> Sequence[float]:
        """A score of each recording, samples (T,) at `rate` Hz: 1 is bad, 5 excellent."""


class Utmos:
    """UTMOS (Saeki et al. 2022, arXiv:2204.02152), its strong learner, as the package utmos-pytorch has it."""

    def __init__(self, device: str) -> None:
        self.name = f"UTMOS ({PACKAGE} {version(PACKAGE)})"
        self._device = device
        try:
            self._model: Any = import_module(MODULE).UTMOSScoreTorch(device=device)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"UTMOS can't be loaded ({reason}): its weights are a download on first use; --scorer none goes without"
            ) from error

    def score(self, recordings: Sequence[Samples], rate: int) -> list[float]:
        """A score of each, one at a time: padding to a common length would move them."""
        import torch
        import torchaudio

        found = []
        for samples in recordings:
            wave = torchaudio.functional.resample(torch.from_numpy(samples), rate, UTMOS_RATE_HZ)
            found.append(self._model.score(wave.to(self._device)).item())
        return found


def utmos_installed() -> bool:
    """Whether the package is here; its weights may not be."""
    return find_spec(MODULE) is not None


def load_scorer(spec: str, device: str) -> Scorer | None:
    """The scorer that `spec` names.

    Args:
        spec: `none`; `auto`, UTMOS where it is installed, else an installed package's if there is one; `utmos`; the
            name of an installed one; or `module:function`, called with the device.
        device: where it is to run.

    Raises:
        InputError: no such scorer, it isn't installed, or it can't be loaded.
    """
    points = plugins.installed(GROUP)
    if spec == "auto":
        spec = UTMOS if utmos_installed() else min(points, default="none")
    if spec == "none":
        return None
    if spec == UTMOS:
        if not utmos_installed():
            raise InputError(f"UTMOS is not installed: pip install {PACKAGE}, or --scorer none goes without")
        return Utmos(device)
    if spec not in points and not spec.partition(":")[2]:
        raise InputError(
            f"unknown scorer {spec!r}: give {', '.join(['none', 'auto', UTMOS, *sorted(points)])} or module:function"
        )
    made: Scorer = plugins.load("scorer", spec, device, points)
    if not isinstance(getattr(made, "name", None), str) or not callable(getattr(made, "score", None)):
        raise InputError(f"scorer {spec!r} made {type(made).__name__}: wanted a name and score(recordings, rate)")
    return made


def reason_for_none() -> str:
    """Why nothing is scored, where nothing is: half a sentence."""
    if utmos_installed() or plugins.installed(GROUP):
        return "--scorer none"
    return f"no naturalness scorer is installed ({PACKAGE} is one; or --scorer module:function)"


def scores(scorer: Scorer, recordings: Sequence[Samples], rate: int) -> list[float]:
    """What the scorer says of each recording, samples (T,) at `rate` Hz.

    Raises:
        OmniVoiceTritonError: it fails, or gives anything but one finite number for each.
    """
    try:
        found = [float(score) for score in scorer.score(recordings, rate)]
    except Exception as error:
        raise OmniVoiceTritonError(f"scorer {scorer.name} failed: {type(error).__name__}: {error}") from error
    if len(found) != len(recordings):
        raise OmniVoiceTritonError(f"scorer {scorer.name} gave {len(found)} scores for {len(recordings)} recordings")
    for number, score in enumerate(found, 1):
        if not math.isfinite(score):
            raise OmniVoiceTritonError(f"scorer {scorer.name} gave {score} for recording {number} of {len(found)}")
    return found
