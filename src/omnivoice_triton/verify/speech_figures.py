"""Figures of what a mode said, beside base's, and by how much each may be worse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.checkpoint import is_demo
from omnivoice_triton.verify import acoustics, statistics
from omnivoice_triton.verify.recognise import Recogniser, character_error_rate, knows
from omnivoice_triton.verify.scorer import Scorer, scores
from omnivoice_triton.verify.speaking import Cloned, Said, Utterance

MARGINS = {
    "tokens_equal": 0.10,
    "cer": 0.02,
    "speaker_similarity": 0.05,
    "duration": 0.10,
    "clipping": 0.001,
    "silence": 0.10,
    "naturalness": 0.10,
}
"""By how much the mean may be worse: shares of 1; duration in natural logarithms of the ratio, naturalness in MOS."""
DEMO_MARGINS = {"cer": 0.01}
"""Narrower ones for the demo voice, whose own recogniser reads it."""
MAX_WAVEFORM_ERROR = 0.02
"""Relative error of the samples where the tokens are equal: TF32 in the codec makes about 0.001."""


def measured(
    said: Said, utterance: Utterance, recogniser: Recogniser | None, cloned: dict[str, Cloned]
) -> dict[str, Any]:
    """Figures of one recording by itself; a clone is compared with the recording in `cloned` that it was made from."""
    audio, rate = said.speech.audio, said.speech.sample_rate
    figures: dict[str, Any] = {
        "duration": float(np.log(max(said.speech.audio_s, 1e-3))),
        "clipping": acoustics.clipping(audio),
        "silence": acoustics.silence(audio, rate),
    }
    if utterance.voice == "clone":
        of = cloned[utterance.sentence.code].print
        figures["speaker_similarity"] = acoustics.similarity(acoustics.voice_print(audio, rate), of)
    if recogniser is not None and knows(recogniser, utterance.sentence.code):
        heard = recogniser.transcribe(audio, rate, utterance.sentence.code)
        figures["cer"] = character_error_rate(heard, utterance.sentence.text)
    return figures


_WORSE = {
    "tokens_equal": statistics.LOWER_IS_WORSE,
    "cer": statistics.HIGHER_IS_WORSE,
    "speaker_similarity": statistics.LOWER_IS_WORSE,
    "duration": statistics.EITHER_IS_WORSE,
    "clipping": statistics.HIGHER_IS_WORSE,
    "silence": statistics.HIGHER_IS_WORSE,
    "naturalness": statistics.LOWER_IS_WORSE,
}


def margins(path: Path) -> dict[str, float]:
    """What the modes of the checkpoint at `path` are held to."""
    return MARGINS | DEMO_MARGINS if is_demo(path) else dict(MARGINS)


def compared(
    mode: list[dict[str, Any]], base: list[dict[str, Any]], allowed: dict[str, float]
) -> dict[str, statistics.Comparison]:
    """Every figure that both have, paired, beside the margin `allowed` for it."""
    found = {}
    for name, margin in allowed.items():
        pairs = [(m[name], b[name]) for m, b in zip(mode, base, strict=True) if name in m and name in b]
        if pairs:
            ours, theirs = zip(*pairs, strict=True)
            found[name] = statistics.compare(name, ours, theirs, margin=margin, worse=_WORSE[name])
    return found


def waveform_error(mode: list[Said], base: list[Said]) -> dict[str, Any]:
    """Relative error of the samples of utterances whose tokens are all equal to base's."""
    errors: list[float] = []
    for ours, theirs in zip(mode, base, strict=True):
        if ours.agreement(theirs) == 1:
            a, b = ours.speech.audio.astype(np.float64), theirs.speech.audio.astype(np.float64)
            same_length = a.shape == b.shape
            errors.append(float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-12) if same_length else 1.0)
    return {"utterances": len(errors), "worst": float(np.max(errors)) if errors else None}


def add_naturalness(figures: Sequence[dict[str, Any]], said: Sequence[Said], scorer: Scorer) -> None:
    """Set `naturalness` in the figures of each recording; of what can't be heard there is none.

    Raises:
        OmniVoiceTritonError: the scorer gives anything but one number for each; no figure is set then.
    """
    heard = [number for number, one in enumerate(said) if _fault(one) is None]
    if not heard:
        return
    found = scores(scorer, [said[number].speech.audio for number in heard], said[0].speech.sample_rate)
    for number, score in zip(heard, found, strict=True):
        figures[number]["naturalness"] = score


def broken(said: Sequence[Said], utterances: Sequence[Utterance]) -> list[str]:
    """What is wrong with recordings whatever base says."""
    faults = [(utterance.name, _fault(one)) for one, utterance in zip(said, utterances, strict=True)]
    return [f"{name}: {fault}" for name, fault in faults if fault is not None]


def _fault(one: Said) -> str | None:
    audio = one.speech.audio
    if not audio.size or not np.isfinite(audio).all():
        return "no finite sound"
    return "silent" if np.abs(audio).max() < 0.01 else None
