"""The same sentences in every mode, to be heard side by side: what `omnivoice-triton samples` makes.

Text, seed and voice are the same in every mode. Mode turbo draws upstream's noise here: its own would give other
tokens, and nobody could tell by ear whether mode or noise made the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.checkpoint import checkpoint_kind
from omnivoice_triton.checkpoint.demo import DEMO
from omnivoice_triton.checkpoint.resolve import MODEL_VARIABLE
from omnivoice_triton.config import MODES
from omnivoice_triton.environment import describe
from omnivoice_triton.models.availability import interpreter_on, resolve_dtype, unavailable_reason
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import OmniVoiceTritonError, Speech
from omnivoice_triton.verify import sample_files, smoke
from omnivoice_triton.verify.sample_sentences import DESIGN, REFERENCE_INSTRUCT, REFERENCES, SPOKEN
from omnivoice_triton.verify.sentences import Sentence
from omnivoice_triton.verify.speaking import Said, kept_tokens

FORMATS = ("flac", "opus")
NOISE = "torch"


@dataclass(frozen=True)
class Reference:
    """The recording to clone, where the user gives one."""

    name: str
    """Its file's, without the folder."""
    samples: Any
    """(channels, T) float32."""
    rate: int
    """Hz."""
    text: str
    """What is said in it."""


def usable_modes(device: str) -> tuple[list[str], dict[str, str]]:
    """Modes that samples are made in on `device`, and the others with the reason."""
    usable, left_out = [], {}
    for name, mode in MODES.items():
        reason = unavailable_reason(mode, device)
        if reason is None and mode.triton and interpreter_on() and device == "cpu":
            reason = "Triton's interpreter takes minutes for a sentence"
        if reason is None:
            usable.append(name)
        else:
            left_out[name] = reason
    return usable, left_out


def model_name(given: str | None) -> str:
    """What the model is called, without the folder that it lies in: metadata is published."""
    name = given or os.environ.get(MODEL_VARIABLE)
    if not name:
        return DEMO
    return Path(name).resolve().name if Path(name).exists() else name


def run(
    out: Path,
    path: Path,
    modes: Sequence[str],
    *,
    device: str,
    dtype: str = "auto",
    steps: int = 32,
    seed: int = 7,
    audio_format: str = "flac",
    reference: Reference | None = None,
    name: str = "",
    left_out: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Say every sentence in every mode, and put the folder in the place of `out`.

    Args:
        out: folder; a former run's is replaced when all is done, and stays as it is if anything fails.
        path: checkpoint.
        modes: to speak in; base comes first, named or not, since the others' tokens are compared with its.
        device: where.
        dtype: of all modes.
        steps: decoding steps.
        seed: of every sentence.
        audio_format: `flac`, or `opus`, which is smaller and loses something.
        reference: the voice to clone; without one, base speaks in a designed voice, once a language, and is cloned.
        name: what to call the model.
        left_out: modes that were not run, and why.
        progress: told (recordings done, all).

    Returns:
        What is written to metadata.json.

    Raises:
        InputError: `out` can't be replaced.
        OmniVoiceTritonError: a recording is silent or differs from call to call, or the folder is too big.
    """
    wanted = ["base", *(mode for mode in dict.fromkeys(modes) if mode != "base")]
    resolved = str(resolve_dtype(dtype, device)).removeprefix("torch.")
    document: dict[str, Any] = {
        "kind": sample_files.KIND,
        "environment": describe(),
        "model": name or path.name,
        "checkpoint": checkpoint_kind(path),
        "device": device,
        "dtype": resolved,
        "steps": steps,
        "noise": NOISE,
        "modes": wanted,
        "left_out": dict(left_out or {}),
        "references": [],
        "samples": [],
    }
    total, base = len(wanted) * len(SPOKEN), list[Said]()
    with sample_files.replacing(out) as folder:
        for mode in wanted:
            noise: dict[str, Any] = {"noise": NOISE} if MODES[mode].engine else {}
            with BaseRunner(device=device, model_id=path, dtype=resolved, mode=mode, **noise) as runner:
                if mode == "base":
                    voices = _voices(runner, folder, document, steps, seed, audio_format, reference)
                for number, (voice, sentence) in enumerate(SPOKEN):
                    if progress is not None:
                        progress(len(document["samples"]), total)
                    about: dict[str, Any] = {"instruct": None, "reference": None}
                    extra: dict[str, Any] = {}
                    if voice == "design":
                        about["instruct"] = extra["instruct"] = DESIGN
                    elif voice == "clone":
                        extra["voice"], about["reference"] = voices[sentence.code]
                    said = say(runner, sentence, steps=steps, seed=seed, **extra)
                    if mode == "base":
                        base.append(said)
                    entry = sample_files.keep(
                        folder,
                        f"{mode}/{sentence.code}-{voice}.{audio_format}",
                        said.speech,
                        mode=mode,
                        language=sentence.code,
                        voice=voice,
                        text=sentence.text,
                        **about,
                        steps=steps,
                        tokens_equal_to_base=said.agreement(base[number]),
                    )
                    document["samples"].append(entry)
        sample_files.write_metadata(folder, document)
        if wrong := sample_files.faults(folder):
            hint = "; --format opus takes less" if audio_format != "opus" and "MB" in wrong[-1] else ""
            raise OmniVoiceTritonError(f"the samples can't be kept: {'; '.join(wrong[:3])}{hint}")
    if progress is not None:
        progress(total, total)
    return document


def say(runner: BaseRunner, sentence: Sentence, *, steps: int, seed: int, **extra: Any) -> Said:
    """One sentence, said twice: the second call is warm, and has to give the first one's bits.

    Raises:
        OmniVoiceTritonError: it doesn't, or nothing can be heard.
    """
    with kept_tokens(runner) as tokens:
        first, again = (
            runner.generate(sentence.text, sentence.language, seed=seed, num_step=steps, **extra) for _ in range(2)
        )
    if wrong := smoke.check(again, first, again.audio_s):
        raise OmniVoiceTritonError(f"mode {runner.mode.name}, {sentence.text!r}: {', '.join(wrong)}")
    return Said(again, tokens[-1])


def _voices(
    runner: BaseRunner,
    folder: Path,
    document: dict[str, Any],
    steps: int,
    seed: int,
    audio_format: str,
    given: Reference | None,
) -> dict[str, tuple[Any, str]]:
    """The voice to clone in each language, and its recording's file, which is written and described."""
    found: dict[str, tuple[Any, str]] = {}
    if given is not None:
        voice = runner.create_voice((given.samples, given.rate), given.text)
        mono = np.ascontiguousarray(np.atleast_2d(given.samples).mean(0), dtype=np.float32)
        file = "reference/given.flac"  # whatever the format: Opus takes few rates
        kept = sample_files.keep(folder, file, Speech(mono, given.rate, 0.0, 0, "none"), text=given.text)
        document["references"].append({k: v for k, v in kept.items() if k not in ("seed", "time_ms")})
        document["references"][-1]["given"] = given.name
        return {sentence.code: (voice, file) for sentence in REFERENCES}
    for sentence in REFERENCES:
        said = say(runner, sentence, steps=steps, seed=seed, instruct=REFERENCE_INSTRUCT)
        file = f"reference/{sentence.code}.{audio_format}"
        document["references"].append(
            sample_files.keep(
                folder,
                file,
                said.speech,
                language=sentence.code,
                text=sentence.text,
                instruct=REFERENCE_INSTRUCT,
                steps=steps,
            )
        )
        voice = runner.create_voice((said.speech.audio, said.speech.sample_rate), sentence.text)
        found[sentence.code] = (voice, file)
    return found
