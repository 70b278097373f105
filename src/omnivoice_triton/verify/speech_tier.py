"""Tier 3: what every mode says, beside what base says: same texts, same seeds, same voice.

Figures are paired by utterance, and a mode fails only where the 95 % interval of the mean difference lies wholly on the
worse side of the margin. Tokens are compared with base in fp32, the mode's and base's alike, since two precisions never
give the same tokens; mode turbo draws upstream's noise for that, and its own for everything that is heard.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.checkpoint import is_demo, is_random
from omnivoice_triton.config import MODES
from omnivoice_triton.models.availability import resolve_dtype
from omnivoice_triton.speech import OmniVoiceTritonError
from omnivoice_triton.verify import sample_files, statistics
from omnivoice_triton.verify.outcome import NOT_JUDGED, Progress, Tier, quiet, raised
from omnivoice_triton.verify.recognise import Recogniser, knows
from omnivoice_triton.verify.scorer import Scorer, reason_for_none
from omnivoice_triton.verify.sentences import material
from omnivoice_triton.verify.speaking import VOICES, Said, Session, is_upstreams, make_voices, plan, speak
from omnivoice_triton.verify.speech_figures import (
    MAX_WAVEFORM_ERROR,
    add_naturalness,
    broken,
    compared,
    margins,
    measured,
    waveform_error,
)

OF_SPEECH = {"cer", "naturalness"}
"""Figures that mean nothing of the noise that random weights make: shown, not judged."""


def run(
    path: Path,
    modes: Sequence[str],
    *,
    device: str,
    dtype: str = "auto",
    sentences: int = 8,
    steps: int = 32,
    voices: Sequence[str] = VOICES,
    duration_s: float | None = None,
    recogniser: Recogniser | None = None,
    scorer: Scorer | None = None,
    reference: tuple[Any, str] | None = None,
    samples: Path | None = None,
    progress: Progress = quiet,
) -> Tier:
    """Tier 3 on the checkpoint at `path`.

    Args:
        path: checkpoint.
        modes: to be compared with base.
        device: where.
        dtype: of the modes and base.
        sentences: how many of the fixed set, or of a demo voice's own.
        steps: decoding steps.
        voices: kinds of voice, of `VOICES`.
        duration_s: seconds of each utterance; None is the model's estimate.
        recogniser: for the character error rate; without one it isn't measured.
        scorer: for naturalness; without one it isn't measured, and one that fails fails the tier.
        reference: (recording, transcript) of the voice to clone, in every language; None lets base make it up: once,
            for a demo voice once a language.
        samples: folder to keep the recordings in.
        progress: told what comes next.
    """
    resolved = str(resolve_dtype(dtype, device)).removeprefix("torch.")
    random_weights = is_random(path)
    allowed, own = margins(path), material(path)
    tier = Tier(
        3,
        "speech",
        "the same texts, seeds and voice in every mode beside base",
        {
            "margins": allowed,
            "waveform_error": MAX_WAVEFORM_ERROR,
            "confidence": statistics.CONFIDENCE,
            "rule": "a mode fails where the whole interval of the mean difference is worse by more than the margin",
        },
    )
    start = time.perf_counter()
    utterances = plan(sentences, voices, own.sentences)
    session = Session(path, device, resolved, steps, utterances, own, duration_s, progress=progress)
    in_full = resolved != "float32"
    others = [mode for mode in modes if mode != "base"]
    passes = 1 + in_full + len(others) + sum(MODES[mode].engine for mode in others)
    session.total = passes * len(session.utterances)
    tier.notes += _notes(random_weights, recogniser, scorer, session)
    if "clone" in voices:
        make_voices(session, reference, recogniser)
        if len(own.references) > 1 and reference is None:
            tier.notes.append("the voice to clone says a sentence in each language; clones keep to their own")
    base = session.kept["base"] = speak(session, "base")
    exact = speak(session, "base", dtype="float32") if in_full else base
    unjudged = OF_SPEECH if random_weights else set()

    def add_scores(mode: str, figures: list[dict[str, Any]], said: list[Said]) -> None:
        nonlocal scorer
        if scorer is None:
            return
        try:
            add_naturalness(figures, said, scorer)
        except OmniVoiceTritonError as error:
            tier.problems.append(f"naturalness of {mode}: {error}")
            scorer = None  # it would fail again: the rest of the report is still worth its time

    base_figures = [
        {**measured(said, utterance, recogniser, session.cloned), "tokens_equal": said.agreement(true)}
        for said, utterance, true in zip(base, session.utterances, exact, strict=True)
    ]
    add_scores("base", base_figures, base)
    floor = float(np.mean([figures["tokens_equal"] for figures in base_figures]))
    if floor < 0.3:
        tier.notes.append(
            f"base in {resolved} repeats only {floor:.0%} of its fp32 tokens: their agreement says little"
        )
    same = is_upstreams(session)
    wrong = broken(base, session.utterances) + ([] if same else ["base's tokens are not upstream's own"])
    tier.rows.append(_row("base", resolved, {}, base, wrong, {"tokens_are_upstreams": same}))

    def judged(mode: str) -> dict[str, Any]:
        said = speak(session, mode)
        paired = session.kept[mode] = speak(session, mode, noise="torch") if MODES[mode].engine else said
        figures = [
            {**measured(one, utterance, recogniser, session.cloned), "tokens_equal": with_noise.agreement(true)}
            for one, with_noise, utterance, true in zip(said, paired, session.utterances, exact, strict=True)
        ]
        add_scores(mode, figures, said)
        found = compared(figures, base_figures, allowed)
        not_judged = unjudged | ({"tokens_equal"} if MODES[mode].int8_qk else set())
        waveform = waveform_error(paired, base)
        wrong = broken(said, session.utterances)
        for name, comparison in found.items():
            if name not in not_judged and comparison.failed:
                wrong.append(
                    f"{name}: {comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}], "
                    f"margin {comparison.margin:g}"
                )
        if waveform["worst"] is not None and not waveform["worst"] <= MAX_WAVEFORM_ERROR:
            wrong.append(f"equal tokens, but samples {waveform['worst']:.2g} from base's")
        to_base = float(np.mean([a.agreement(b) for a, b in zip(paired, base, strict=True)]))
        extra = {"tokens_equal_to_base": to_base, "waveform_where_tokens_equal": waveform}
        documents = {
            name: {**comparison.document(), **({"verdict": NOT_JUDGED} if name in not_judged else {})}
            for name, comparison in found.items()
        }
        if waveform["worst"] is None:
            tier.notes.append(
                f"{mode} in {resolved}: no utterance has all of base's tokens, so samples were not compared with base's"
            )
        return _row(mode, resolved, documents, said, wrong, extra)

    for mode in others:
        try:
            tier.rows.append(judged(mode))
        except Exception as error:  # the other modes' figures are still worth their time
            tier.rows.append(_row(mode, resolved, {}, [], [raised(error)], {}))
    if not others:
        tier.problems.append("no mode was compared with base: name one")
    tier.details["utterances"] = [
        {"name": u.name, "language": u.sentence.code, "text": u.sentence.text, "voice": u.voice, "seed": u.seed}
        for u in session.utterances
    ]
    tier.details["cloned"] = [
        {"sentences_in": code, "dtype": resolved, "text": one.text, "cer": one.cer}
        for code, one in session.cloned.items()
    ]
    if samples is not None:
        save_samples(samples, session)
    tier.seconds = time.perf_counter() - start
    return tier


def run_dtypes(
    path: Path, modes: Sequence[str], *, dtypes: Sequence[str], samples: Path | None = None, **settings: Any
) -> Tier:
    """Tier 3 in several dtypes, as one tier; settings as `run` takes them, recordings in a folder for each dtype."""
    if len(dtypes) == 1:
        return run(path, modes, dtype=dtypes[0], samples=samples, **settings)
    whole, *rest = (
        run(path, modes, dtype=dtype, samples=None if samples is None else samples / dtype, **settings)
        for dtype in dtypes
    )
    for tier in rest:
        whole.rows += tier.rows
        whole.notes += [note for note in tier.notes if note not in whole.notes]
        whole.problems += [problem for problem in tier.problems if problem not in whole.problems]
        whole.details["cloned"] += tier.details["cloned"]
        whole.seconds += tier.seconds
    return whole


def save_samples(folder: Path, session: Session) -> None:
    """Write every recording as FLAC under its mode, and `metadata.json` with what the dashboard shows of them.

    Mode turbo speaks with upstream's noise here, so that its tokens are comparable with base's.
    """
    entries = [
        sample_files.keep(
            folder,
            f"{mode}/{utterance.name}.flac",
            one.speech,
            mode=mode,
            language=utterance.sentence.code,
            voice=utterance.voice,
            text=utterance.sentence.text,
            tokens_equal_to_base=one.agreement(theirs),
        )
        for mode, said in session.kept.items()
        for one, theirs, utterance in zip(said, session.kept["base"], session.utterances, strict=True)
    ]
    document = {
        "model": session.path.name,
        "dtype": session.dtype,
        "steps": session.steps,
        "noise": "torch",
        "samples": entries,
    }
    sample_files.write_metadata(folder, document)


def _row(
    mode: str,
    dtype: str,
    comparisons: dict[str, Any],
    said: list[Said],
    wrong: list[str],
    extra: dict[str, Any],
) -> dict[str, Any]:
    return {
        "name": f"{mode} {dtype}",
        "mode": mode,
        "dtype": dtype,
        "utterances": len(said),
        "audio_s": sum(one.speech.audio_s for one in said),
        "comparisons": comparisons,
        **extra,
        "passed": bool(said) and not wrong,
        "problems": wrong,
    }


def _notes(random_weights: bool, recogniser: Recogniser | None, scorer: Scorer | None, session: Session) -> list[str]:
    notes = [f"{len(session.utterances)} utterances, {session.steps} steps, {session.dtype}"]
    of_noise = ": of noise, so it is shown and not judged" if random_weights else ""
    if recogniser is None:
        notes.append("CER: not measured, no recogniser (--recogniser whisper, extra eval, or module:function)")
    else:
        notes.append(f"CER by {recogniser.name}{of_noise}")
        codes = sorted({utterance.sentence.code for utterance in session.utterances})
        unknown = [code for code in codes if not knows(recogniser, code)]
        if unknown:
            notes.append(f"CER: not of {', '.join(unknown)}, which {recogniser.name} doesn't know")
    if scorer is None:
        notes.append(f"naturalness: not measured, {reason_for_none()}")
    else:
        notes.append(f"naturalness by {scorer.name}{of_noise}")
    if is_demo(session.path):
        notes.append("the demo voice's own held-out sentences, English, Korean and Chinese in turn")
    if random_weights:
        notes.append("random weights: speech is noise; nothing here says how the real weights sound")
    notes.append("speaker similarity: cosine of MFCC means and spreads, no speaker model")
    return notes
