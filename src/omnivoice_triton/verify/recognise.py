"""Recognisers that write down what a recording says, and the character error rate.

A recogniser is an object with a `name` and `transcribe(audio, rate, code) -> str`; one that knows some languages only
lists their codes in `languages`, and is asked of no other. Packages offer one under the entry
point group `omnivoice_triton.recognisers`: a function of the device that returns it.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from omnivoice_triton.checkpoint.demo import packaged_judge
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import plugins

GROUP = "omnivoice_triton.recognisers"
WHISPER = "openai/whisper-small"
WHISPER_RATE_HZ = 16_000


class Recogniser(Protocol):
    """What tier 3 needs to measure the character error rate."""

    name: str

    def transcribe(self, audio: npt.NDArray[np.float32], rate: int, code: str) -> str:
        """What samples (T,) at `rate` Hz say, in the language of that ISO 639-1 code."""


class Whisper:
    """OpenAI's Whisper through transformers; weights come from the hub or a directory (extra `eval`)."""

    def __init__(self, model: str = WHISPER, device: str = "cpu") -> None:
        from transformers import pipeline

        self.name = f"whisper ({model})"
        try:
            self._pipeline: Any = pipeline("automatic-speech-recognition", model=model, device=device)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"recogniser {model!r} can't be loaded: {str(error).splitlines()[0]}") from error

    def transcribe(self, audio: npt.NDArray[np.float32], rate: int, code: str) -> str:
        """What the recording says."""
        import torch
        import torchaudio

        resampled = torchaudio.functional.resample(torch.from_numpy(audio), rate, WHISPER_RATE_HZ).numpy()
        said = self._pipeline(
            {"raw": resampled, "sampling_rate": WHISPER_RATE_HZ},
            generate_kwargs={"language": code, "task": "transcribe"},
        )
        return str(said["text"])


def load_recogniser(spec: str, device: str, *, demo: bool = False) -> Recogniser | None:
    """The recogniser that `spec` names.

    Args:
        spec: `none`; `auto`, for the demo voice the packaged judge, else an installed package's if there is one;
            `judge`, the packaged one, or `judge:DIR`; `whisper` or `whisper:MODEL`, a hub id or directory; the name of
            an installed one; or `module:function`, called with the device.
        device: where it is to run.
        demo: whether the model is the demo voice.

    Raises:
        InputError: no such recogniser, or it can't be loaded.
    """
    points = plugins.installed(GROUP)
    if spec == "auto":
        spec = "judge" if demo and packaged_judge() is not None else min(points, default="none")
    if spec == "none":
        return None
    name, _, rest = spec.partition(":")
    if name == "judge":
        return _judge(rest, device)
    if name == "whisper":
        return Whisper(rest or WHISPER, device=device)
    if spec not in points and not rest:
        raise InputError(
            f"unknown recogniser {spec!r}: give none, auto, judge[:DIR], whisper[:MODEL] or module:function"
            + (f", or {', '.join(sorted(points))}" if points else "")
        )
    made: Recogniser = plugins.load("recogniser", spec, device, points)
    return made


def recogniser_for(spec: str, device: str, kind: str) -> Recogniser | None:
    """The recogniser that was asked for, for weights of that kind (`checkpoint_kind`).

    Of `auto` it is Whisper where the weights are real and nothing else is installed; without its weights and a network
    there is none, and standard error says so.
    """
    found = load_recogniser(spec, device, demo=kind == "trained-demo")
    if found is not None or spec != "auto" or kind != "real":
        return found
    try:
        return Whisper(device=device)
    except InputError as error:
        print(f"no character error rate: {error}; --recogniser whisper:DIR names a local one", file=sys.stderr)
        return None


def _judge(directory: str, device: str) -> Recogniser:
    from omnivoice_triton.verify.judge import JudgeRecogniser

    path = Path(directory).expanduser() if directory else packaged_judge()
    if path is None:
        raise InputError("this installation has no packaged judge: give judge:DIR, a directory with one")
    return JudgeRecogniser(path, device)


def knows(recogniser: Recogniser, code: str) -> bool:
    """Whether a recogniser can be asked of that language."""
    languages = getattr(recogniser, "languages", None)
    return languages is None or code in languages


def plain(text: str) -> str:
    """Letters and digits alone, NFKC and in lower case: spelling, without what recognisers are free to choose."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LNM")


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance (Wagner & Fischer 1974)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def character_error_rate(said: str, wanted: str) -> float:
    """Levenshtein distance of the plain texts over the length of the wanted one.

    Raises:
        InputError: the wanted text has no letter.
    """
    a, b = plain(said), plain(wanted)
    if not b:
        raise InputError(f"no letters in {wanted!r}: its error rate has no meaning")
    return edit_distance(a, b) / len(b)
