"""Tier 3: what every mode says, beside what base says: same texts, same seeds, same voice.

Figures are paired by utterance, and a mode fails only where the 95 % interval of the mean difference lies wholly on the
worse side of the margin. Tokens are compared with base in fp32, the mode's and base's alike, since two precisions never
give the same tokens; mode turbo draws upstream's noise for that, and its own for everything that is heard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnivoice_triton.checkpoint import is_demo, is_random
from omnivoice_triton.config import MODES
from omnivoice_triton.models.availability import resolve_dtype
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError, Speech
from omnivoice_triton.verify import acoustics, statistics
from omnivoice_triton.verify.outcome import Progress, Tier, quiet
from omnivoice_triton.verify.recognise import Recogniser, character_error_rate, knows
from omnivoice_triton.verify.sentences import SENTENCES, Material, Sentence, material

MARGINS = {
    "tokens_equal": 0.10,
    "cer": 0.02,
    "speaker_similarity": 0.05,
    "duration": 0.10,
    "clipping": 0.001,
    "silence": 0.10,
}
"""By how much the mean may be worse: shares of 1; duration in natural logarithms of the ratio."""
DEMO_MARGINS = {"cer": 0.01}
"""Narrower ones for the demo voice, whose own recogniser reads it."""
MAX_WAVEFORM_ERROR = 0.02
"""Relative error of the samples where the tokens are equal: TF32 in the codec makes about 0.001."""
DESIGN = "female, high pitch"
VOICES = ("auto", "clone", "design")


@dataclass(frozen=True)
class Utterance:
    """One thing to say, in one kind of voice, with one seed."""

    number: int
    sentence: Sentence
    voice: str

    @property
    def name(self) -> str:
        """For rows and files."""
        return f"{self.number:02d}-{self.sentence.code}-{self.voice}"

    @property
    def seed(self) -> int:
        """The same in every mode."""
        return 1000 + self.number


@dataclass
class Said:
    """What one mode made of one utterance."""

    speech: Speech
    tokens: list[torch.Tensor]
    """[C, T] of each chunk, on the CPU."""

    def agreement(self, other: Said) -> float:
        """Share of equal tokens; 0 if the lengths differ."""
        mine, theirs = torch.cat(self.tokens, 1), torch.cat(other.tokens, 1)
        return float((mine == theirs).double().mean()) if mine.shape == theirs.shape else 0.0


@dataclass(frozen=True)
class Cloned:
    """A voice that all modes clone."""

    voice: Any
    """As runners take it."""
    print: Any
    """Of its recording, by `acoustics.voice_print`."""
    text: str
    cer: float | None = None
    """What a recogniser makes of the recording, if base made it up."""


@dataclass
class Session:
    """How to speak: the same for every mode."""

    path: Path
    device: str
    dtype: str
    steps: int
    utterances: list[Utterance]
    material: Material
    duration_s: float | None = None
    cloned: dict[str, Cloned] = field(default_factory=dict)
    """Whom to clone, by the language of the sentence to be said."""
    kept: dict[str, list[Said]] = field(default_factory=dict)
    """Recordings with upstream's noise in every mode, to be heard side by side."""
    progress: Progress = quiet
    done: int = 0
    total: int = 0


def plan(sentences: int, voices: Sequence[str] = VOICES, available: Sequence[Sentence] = SENTENCES) -> list[Utterance]:
    """The first `sentences` of those available, each in a voice of the model's choice and a cloned one; some designed.

    Raises:
        InputError: fewer than one sentence, or more than there are.
    """
    if not 1 <= sentences <= len(available):
        raise InputError(f"sentences must be 1 to {len(available)}, not {sentences}")
    kinds = [(s, v) for n, s in enumerate(available[:sentences]) for v in voices if v != "design" or n % 3 == 0]
    return [Utterance(number, sentence, voice) for number, (sentence, voice) in enumerate(kinds)]


@contextmanager
def kept_tokens(runner: BaseRunner) -> Iterator[list[list[torch.Tensor]]]:
    """The tokens of each item that is turned into sound within the block."""
    kept: list[list[torch.Tensor]] = []
    acceleration = runner.acceleration
    assert acceleration is not None

    def keep(tokens: Any) -> None:
        chunks = tokens if isinstance(tokens, list | tuple) else [tokens]
        kept.append([chunk.detach().cpu() for chunk in chunks])

    if acceleration.turbo is not None:
        holder: Any = acceleration.turbo
        name = "_sound"
        original = holder._sound

        def through(tokens: Any, *rest: Any) -> Any:
            for item in tokens:
                keep(item)
            return original(tokens, *rest)
    else:
        holder, name = runner.model, "_decode_and_post_process"
        original = holder._decode_and_post_process

        def through(tokens: Any, *rest: Any) -> Any:
            keep(tokens)
            return original(tokens, *rest)

    holder.__dict__[name] = through
    try:
        yield kept
    finally:
        del holder.__dict__[name]


def say(runner: BaseRunner, session: Session, utterance: Utterance) -> Said:
    """One utterance in the runner's mode."""
    extra: dict[str, Any] = {}
    if utterance.voice == "clone":
        extra["voice"] = session.cloned[utterance.sentence.code].voice
    elif utterance.voice == "design":
        extra["instruct"] = DESIGN
    with kept_tokens(runner) as tokens:
        speech = runner.generate(
            utterance.sentence.text,
            utterance.sentence.language,
            seed=utterance.seed,
            num_step=session.steps,
            duration=session.duration_s,
            **extra,
        )
    return Said(speech, tokens[0])


def speak(session: Session, mode: str, **options: Any) -> list[Said]:
    """Every utterance in one mode; options as `BaseRunner` takes them."""
    dtype = options.pop("dtype", session.dtype)
    said: list[Said] = []
    with BaseRunner(device=session.device, model_id=session.path, dtype=dtype, mode=mode, **options) as runner:
        for utterance in session.utterances:
            session.progress(3, f"{mode} in {dtype}: {utterance.name}", session.done, session.total)
            said.append(say(runner, session, utterance))
            session.done += 1
    return said


def make_voices(session: Session, given: tuple[Any, str] | None, recogniser: Recogniser | None) -> None:
    """Set whom all modes clone: the given recording (path, or samples and rate; transcript), or what base makes up.

    Of what base makes up, sentences of one language share a voice: a demo voice clones within a language only.
    """
    codes = dict.fromkeys(utterance.sentence.code for utterance in session.utterances if utterance.voice == "clone")
    with BaseRunner(device=session.device, model_id=session.path, dtype=session.dtype, mode="base") as runner:
        if given is not None:
            recording, transcript = given
            one = Cloned(runner.create_voice(recording, transcript), _print_of(recording), transcript)
            session.cloned = dict.fromkeys(codes, one)
            return
        made: dict[Sentence, Cloned] = {}
        for code in codes:
            wanted = session.material.reference(code)
            if wanted not in made:
                made[wanted] = _made_up(runner, session, wanted, recogniser)
            session.cloned[code] = made[wanted]


def _made_up(runner: BaseRunner, session: Session, wanted: Sentence, recogniser: Recogniser | None) -> Cloned:
    own = session.material
    speech = runner.generate(
        wanted.text,
        wanted.language,
        instruct=own.reference_instruct,
        seed=1,
        num_step=session.steps,
        duration=own.reference_s,
    )
    recording = (speech.audio, speech.sample_rate)
    heard = recogniser.transcribe(*recording, wanted.code) if recogniser and knows(recogniser, wanted.code) else None
    rate = None if heard is None else character_error_rate(heard, wanted.text)
    return Cloned(runner.create_voice(recording, wanted.text), _print_of(recording), wanted.text, rate)


def _print_of(recording: Any) -> Any:
    if isinstance(recording, str | Path):
        import soundfile

        samples, rate = soundfile.read(str(recording), dtype="float32", always_2d=True)
        recording = (samples.mean(1), rate)
    return acoustics.voice_print(*recording)


def is_upstreams(session: Session) -> bool:
    """Whether base's tokens are those of upstream's own generate() after torch.manual_seed."""
    utterance = Utterance(0, session.utterances[0].sentence, "auto")
    with BaseRunner(device=session.device, model_id=session.path, dtype=session.dtype, mode="base") as runner:
        ours = say(runner, session, utterance)
        with kept_tokens(runner) as tokens, torch.random.fork_rng():
            torch.manual_seed(utterance.seed)
            runner.model.generate(
                text=utterance.sentence.text,
                language=utterance.sentence.language,
                duration=session.duration_s,
                num_step=session.steps,
            )
    return all(torch.equal(a, b) for a, b in zip(ours.tokens, tokens[0], strict=True))


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
    return {"utterances": len(errors), "worst": max(errors) if errors else None}


def broken(said: list[Said], utterances: Sequence[Utterance]) -> list[str]:
    """What is wrong with recordings whatever base says."""
    wrong = []
    for one, utterance in zip(said, utterances, strict=True):
        audio = one.speech.audio
        if not audio.size or not np.isfinite(audio).all():
            wrong.append(f"{utterance.name}: no finite sound")
        elif np.abs(audio).max() < 0.01:
            wrong.append(f"{utterance.name}: silent")
    return wrong


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
    tier.notes += _notes(random_weights, recogniser, session)
    if "clone" in voices:
        make_voices(session, reference, recogniser)
        if len(own.references) > 1 and reference is None:
            tier.notes.append("the voice to clone says a sentence in each language; clones keep to their own")
    base = session.kept["base"] = speak(session, "base")
    exact = speak(session, "base", dtype="float32") if in_full else base
    judge_cer = recogniser is not None and not random_weights
    base_figures = [
        {**measured(said, utterance, recogniser, session.cloned), "tokens_equal": said.agreement(true)}
        for said, utterance, true in zip(base, session.utterances, exact, strict=True)
    ]
    floor = float(np.mean([figures["tokens_equal"] for figures in base_figures]))
    if floor < 0.3:
        tier.notes.append(
            f"base in {resolved} repeats only {floor:.0%} of its fp32 tokens: their agreement says little"
        )
    same = is_upstreams(session)
    wrong = broken(base, session.utterances) + ([] if same else ["base's tokens are not upstream's own"])
    tier.rows.append(_row("base", resolved, {}, base, wrong, {"tokens_are_upstreams": same}))
    for mode in others:
        said = speak(session, mode)
        paired = session.kept[mode] = speak(session, mode, noise="torch") if MODES[mode].engine else said
        figures = [
            {**measured(one, utterance, recogniser, session.cloned), "tokens_equal": with_noise.agreement(true)}
            for one, with_noise, utterance, true in zip(said, paired, session.utterances, exact, strict=True)
        ]
        found = compared(figures, base_figures, allowed)
        waveform = waveform_error(paired, base)
        wrong = broken(said, session.utterances)
        for name, comparison in found.items():
            if name == "cer" and not judge_cer:
                continue
            if name == "tokens_equal" and MODES[mode].int8_qk:
                continue
            if comparison.failed:
                wrong.append(
                    f"{name}: {comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}], "
                    f"margin {comparison.margin:g}"
                )
        if waveform["worst"] is not None and not waveform["worst"] <= MAX_WAVEFORM_ERROR:
            wrong.append(f"equal tokens, but samples {waveform['worst']:.2g} from base's")
        to_base = float(np.mean([a.agreement(b) for a, b in zip(paired, base, strict=True)]))
        extra = {"tokens_equal_to_base": to_base, "waveform_where_tokens_equal": waveform}
        tier.rows.append(_row(mode, resolved, found, said, wrong, extra))
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
        save_samples(samples, session, tier)
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


def save_samples(folder: Path, session: Session, tier: Tier) -> None:
    """Write every recording as FLAC under its mode, and `metadata.json` with what the dashboard shows of them.

    Mode turbo speaks with upstream's noise here, so that its tokens are comparable with base's.
    """
    import json

    entries = []
    base = session.kept["base"]
    for mode, said in session.kept.items():
        (folder / mode).mkdir(parents=True, exist_ok=True)
        for one, theirs, utterance in zip(said, base, session.utterances, strict=True):
            file = f"{mode}/{utterance.name}.flac"
            one.speech.save(folder / file)
            entries.append(
                {
                    "file": file,
                    "mode": mode,
                    "language": utterance.sentence.code,
                    "voice": utterance.voice,
                    "text": utterance.sentence.text,
                    "seed": utterance.seed,
                    "audio_s": one.speech.audio_s,
                    "time_ms": one.speech.time_ms,
                    "tokens_equal_to_base": one.agreement(theirs),
                }
            )
    document = {
        "model": session.path.name,
        "dtype": session.dtype,
        "steps": session.steps,
        "noise": "torch",
        "samples": entries,
    }
    (folder / "metadata.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(
    mode: str,
    dtype: str,
    found: dict[str, statistics.Comparison],
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
        "comparisons": {name: comparison.document() for name, comparison in found.items()},
        **extra,
        "passed": bool(said) and not wrong,
        "problems": wrong,
    }


def _notes(random_weights: bool, recogniser: Recogniser | None, session: Session) -> list[str]:
    notes = [f"{len(session.utterances)} utterances, {session.steps} steps, {session.dtype}"]
    if recogniser is None:
        notes.append("CER: not measured, no recogniser (--recogniser whisper, extra eval, or module:function)")
    elif random_weights:
        notes.append(f"CER by {recogniser.name}: of noise, so it is shown and not judged")
    else:
        notes.append(f"CER by {recogniser.name}")
    if recogniser is not None:
        codes = sorted({utterance.sentence.code for utterance in session.utterances})
        unknown = [code for code in codes if not knows(recogniser, code)]
        if unknown:
            notes.append(f"CER: not of {', '.join(unknown)}, which {recogniser.name} doesn't know")
    if is_demo(session.path):
        notes.append("the demo voice's own held-out sentences, English, Korean and Chinese in turn")
    if random_weights:
        notes.append("random weights: speech is noise; nothing here says how the real weights sound")
    notes.append("speaker similarity: cosine of MFCC means and spreads, no speaker model")
    return notes
