"""What tier 3 lets a mode say, and saying it: utterances, voices to clone, and the tokens beside the sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError, Speech
from omnivoice_triton.verify import acoustics
from omnivoice_triton.verify.outcome import Progress, quiet
from omnivoice_triton.verify.recognise import Recogniser, character_error_rate, knows
from omnivoice_triton.verify.sentences import SENTENCES, Material, Sentence

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
