"""How good is a demo voice? `python -m tools.demo_voice.evaluate --model DIR --judge DIR --out DIR`.

Held-out sentences are said by espeak-ng, passed through the codec, and said by the voice in each mode at each number of
steps; the judge reads all of them. Then voice design (is "female, high pitch" higher than "male, low pitch"?), cloning
(is the nearest speaker the reference's?), what the judge reads of both, and the speed. Writes evaluation.json and
spectrograms.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tools.demo_voice import codec as codecs
from tools.demo_voice import corpus as corpora
from tools.demo_voice import measures, pictures
from tools.demo_voice.speakers import LANGUAGES, SPEAKERS

from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import write_json
from omnivoice_triton.models.acceleration import Acceleration, accelerate
from omnivoice_triton.verify import judge as judges

SAMPLE_RATE_HZ = corpora.SAMPLE_RATE_HZ
HIGH, LOW = "female, high pitch", "male, low pitch"
"""The two voices that are told apart by their pitch."""


@dataclass
class Voice:
    """A loaded checkpoint in one mode and how it is asked."""

    model: Any
    acceleration: Acceleration
    batch: int
    seed: int = 0

    def say(self, texts: Sequence[str], language: str, steps: int, **settings: Any) -> list[np.ndarray]:
        """Each text as audio; settings are generate()'s, lists as long as texts are cut along."""
        made: list[np.ndarray] = []
        for number, part in enumerate(_chunks(range(len(texts)), self.batch)):
            chosen = {
                key: [value[i] for i in part] if isinstance(value, list) else value for key, value in settings.items()
            }
            with self.acceleration.call(self.model, self.seed + number):
                made += self.model.generate([texts[i] for i in part], language=language, num_step=steps, **chosen)
        return [np.asarray(wave, np.float32) for wave in made]


def held_out(directory: Path, seed: int, count: int, espeak: str | None) -> corpora.Corpus:
    """The held-out recordings, spoken anew unless they are there: the plan follows from the seed alone."""
    path = directory / f"held-out-{seed}-{count}"
    if not (path / "clips.json").exists():
        corpora.build(path, corpora.plan(seed, 0, count), espeak_root=espeak, processes=1)
    return corpora.load(path)


def read(judge: judges.Judge, waves: Iterable[Any]) -> list[str]:
    """The judge's reading of clips at 24 kHz."""
    return [judge.transcribe(torch.as_tensor(np.asarray(wave, np.float32))) for wave in waves]


def teachers(codec: Any, judge: judges.Judge, corpus: corpora.Corpus, count: int) -> dict[str, Any]:
    """CER by language of what bounds the voice: espeak-ng's own recordings, and these through the codec."""
    found: dict[str, Any] = {}
    for language in LANGUAGES:
        texts, waves = _spoken(corpus, language.code, count)
        found[language.code] = {
            "sentences": len(texts),
            "espeak": judges.error_rate(texts, read(judge, waves)),
            "codec": judges.error_rate(texts, read(judge, [through_codec(codec, wave) for wave in waves])),
        }
        row = found[language.code]
        print(
            f"{language.code}: CER of espeak-ng {row['espeak']:.2%}, through the codec {row['codec']:.2%}", flush=True
        )
    return found


def intelligibility(
    voice: Voice, judge: judges.Judge, corpus: corpora.Corpus, count: int, steps: Sequence[int]
) -> dict[str, Any]:
    """CER and speed of the voice by language and number of steps."""
    found: dict[str, Any] = {}
    name = voice.acceleration.mode.name
    for language in LANGUAGES:
        texts, _ = _spoken(corpus, language.code, count)
        for number in steps:
            voice.say(texts[:1], language.code, 2)  # What is done once is no part of the speed
            began = time.perf_counter()
            made = voice.say(texts, language.code, number)
            seconds = time.perf_counter() - began
            heard = read(judge, made)
            row = {
                "cer": judges.error_rate(texts, heard),
                "audio_s": sum(len(wave) for wave in made) / SAMPLE_RATE_HZ,
                "time_s": seconds,
                "examples": list(zip(texts, heard, strict=True))[:5],
            }
            row["speed_x"] = row["audio_s"] / seconds
            found.setdefault(language.code, {})[str(number)] = row
            print(
                f"{language.code}: CER of the voice {row['cer']:.2%}, {name}, {number} steps, "
                f"{row['speed_x']:.2f}x real time",
                flush=True,
            )
    return found


def joined(voice: Voice, judge: judges.Judge, corpus: corpora.Corpus, trials: int, steps: int) -> dict[str, Any]:
    """CER by language of two sentences in one text, which is more than was ever trained at once."""
    rates: dict[str, float] = {}
    for language, count in zip(LANGUAGES, _spread(trials), strict=True):
        texts = _texts(corpus, language.code, 2 * count)
        both = [f"{one} {other}" for one, other in zip(texts[::2], texts[1::2], strict=True)]
        if both:
            rates[language.code] = judges.error_rate(both, read(judge, voice.say(both, language.code, steps)))
    return {"trials": trials, "cer": rates}


def through_codec(codec: Any, wave: np.ndarray) -> np.ndarray:
    """A recording encoded and decoded by the checkpoint's codec."""
    with torch.no_grad():
        codes = codecs.encode(codec, torch.from_numpy(wave)[None].to(codec.device))
        return codec.decode(codes).audio_values[0, 0].cpu().numpy()


def design(voice: Voice, judge: judges.Judge, corpus: corpora.Corpus, trials: int, steps: int) -> dict[str, Any]:
    """Share of trials in which "female, high pitch" has a higher F0 than "male, low pitch" in the same sentence.

    Trials are spread over the languages; `cer` is what the judge reads of each voice, by language.
    """
    pitches: list[tuple[float, float]] = []
    rates: dict[str, dict[str, float]] = {HIGH: {}, LOW: {}}
    for language, count in zip(LANGUAGES, _spread(trials), strict=True):
        texts = _texts(corpus, language.code, count)
        if not texts:
            continue
        said = {how: voice.say(texts, language.code, steps, instruct=how) for how in (HIGH, LOW)}
        pitches += [(measures.pitch(a), measures.pitch(b)) for a, b in zip(said[HIGH], said[LOW], strict=True)]
        for how, waves in said.items():
            rates[how][language.code] = judges.error_rate(texts, read(judge, waves))
    right = [bool(a > b) for a, b in pitches]  # NaN, nothing voiced, is wrong
    voiced = [[value for value in column if not np.isnan(value)] for column in zip(*pitches, strict=True)]
    medians = [float(np.median(column)) if column else None for column in voiced]
    return {
        "trials": len(right),
        "right": sum(right) / len(right),
        "high_hz": medians[0],
        "low_hz": medians[1],
        "cer": rates,
    }


def cloning(voice: Voice, judge: judges.Judge, corpus: corpora.Corpus, trials: int, steps: int) -> dict[str, Any]:
    """Share of trials in which a cloned sentence is nearest to the speaker of its reference; and espeak-ng's share.

    Speakers are known by one half of the recordings; references and espeak-ng's own trials come from the other, a
    reference in the language of its sentence. `cer` is what the judge reads of the clones, by the reference's language
    and the sentence's, two different ones too.
    """
    waves = [corpus.wave(i).numpy() for i in range(len(corpus.clips))]
    halves = np.arange(len(waves)) // len(SPEAKERS) % 2
    known = measures.SpeakerStatistics.fit(
        [waves[i] for i in np.flatnonzero(halves == 0)], [corpus.clips[i].speaker for i in np.flatnonzero(halves == 0)]
    )
    others = np.flatnonzero(halves == 1)
    own = [known.nearest(waves[i]) == corpus.clips[i].speaker for i in others]
    rng = np.random.default_rng(voice.seed)
    pairs: list[tuple[int, int]] = []
    rates: dict[str, dict[str, float]] = {language.code: {} for language in LANGUAGES}
    for said, of in itertools.product(LANGUAGES, LANGUAGES):
        mine = [i for i in others if corpus.clips[i].language == of.code]
        # Across languages it is only asked whether the sentence is understood: half as many will do.
        count = -(-trials // (len(LANGUAGES) if said == of else 2 * len(LANGUAGES)))
        references = [mine[k] for k in rng.permutation(len(mine))][:count]
        prompts = [
            voice.model.create_voice_clone_prompt((corpus.wave(i)[None], SAMPLE_RATE_HZ), corpus.clips[i].text)
            for i in references
        ]
        texts = _texts(corpus, said.code, len(references) + 1)[1:]
        made = voice.say(texts, said.code, steps, voice_clone_prompt=prompts)
        rates[of.code][said.code] = judges.error_rate(texts, read(judge, made))
        if said == of:
            pairs += [(corpus.clips[i].speaker, known.nearest(wave)) for i, wave in zip(references, made, strict=True)]
    right = [asked == heard for asked, heard in pairs]
    return {
        "trials": len(right),
        "right": sum(right) / len(right),
        "espeak_right": sum(own) / len(own),
        "chance": 1 / len(SPEAKERS),
        "cer": rates,
        "asked_and_heard": pairs,
    }


def _spread(trials: int) -> list[int]:
    """So many trials a language, all of them together `trials`."""
    return [len(range(number, trials, len(LANGUAGES))) for number in range(len(LANGUAGES))]


def _spoken(corpus: corpora.Corpus, language: str, count: int) -> tuple[list[str], list[np.ndarray]]:
    rows = [i for i, clip in enumerate(corpus.clips) if clip.language == language][:count]
    return [corpus.clips[i].text for i in rows], [corpus.wave(i).numpy() for i in rows]


def _texts(corpus: corpora.Corpus, language: str, count: int) -> list[str]:
    texts = [clip.text for clip in corpus.clips if clip.language == language]
    return [texts[i % len(texts)] for i in range(count)]


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _pictured(corpus: corpora.Corpus, language: str) -> tuple[str, np.ndarray]:
    """Text and recording of the default speaker's first sentence."""
    index = next(i for i, clip in enumerate(corpus.clips) if clip.language == language and clip.speaker == 0)
    return corpus.clips[index].text, corpus.wave(index).numpy()


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model, unless there is none yet, and its codec."""
    from omnivoice.models.omnivoice import OmniVoice
    from transformers import HiggsAudioV2TokenizerModel

    if options.codec_only:
        codec = HiggsAudioV2TokenizerModel.from_pretrained(options.model / "audio_tokenizer")
        return None, codec.to(options.device).eval()
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[options.dtype]
    model = OmniVoice.from_pretrained(str(options.model), device_map=options.device, dtype=dtype).eval()
    return model, model.audio_tokenizer


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voice.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--judge", type=Path, required=True, help="directory of the judge")
    parser.add_argument("--out", type=Path, required=True, help="where results and recordings go")
    parser.add_argument("--espeak", help="folder with espeak-ng's packages unpacked (default: the installed one)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "fp16", "bf16"])
    parser.add_argument(
        "--mode", nargs="+", default=["base"], choices=list(MODES), help="design and cloning: the first"
    )
    parser.add_argument("--sentences", type=int, default=120, help="a language (default: all 120)")
    parser.add_argument("--steps", type=int, nargs="+", default=[32, 16])
    parser.add_argument("--trials", type=int, default=40, help="of design, cloning, two sentences; 0: none")
    parser.add_argument("--batch", type=int, default=4, help="sentences said at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec-only", action="store_true", help="judge and codec; there may be no model yet")
    options = parser.parse_args(arguments)

    options.out.mkdir(parents=True, exist_ok=True)
    corpus = held_out(options.out, options.seed, 120, options.espeak)
    judge = judges.load_judge(options.judge, options.device)
    results: dict[str, Any] = {
        "device": options.device,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "steps": options.steps,
    }
    model, codec = _load(options)
    results["teachers"] = teachers(codec, judge, corpus, options.sentences)
    results["voice"] = {}
    said: dict[str, np.ndarray] = {}
    for number, mode in enumerate(() if model is None else options.mode):
        with accelerate(model, mode) as acceleration:
            voice = Voice(model, acceleration, options.batch, options.seed)
            results["voice"][mode] = intelligibility(voice, judge, corpus, options.sentences, options.steps)
            if number == 0:
                said = {
                    language.code: voice.say([_pictured(corpus, language.code)[0]], language.code, options.steps[0])[0]
                    for language in LANGUAGES
                }
            if number == 0 and options.trials:
                results["trials"] = {"mode": mode, "steps": options.steps[-1]}
                results["joined"] = joined(voice, judge, corpus, options.trials, options.steps[-1])
                print(json.dumps({"joined": results["joined"]}), flush=True)
                results["design"] = design(voice, judge, corpus, options.trials, options.steps[-1])
                print(json.dumps({"design": results["design"]}), flush=True)
                results["cloning"] = cloning(voice, judge, corpus, options.trials, options.steps[-1])
                print(json.dumps({"cloning": {k: v for k, v in results["cloning"].items() if k != "asked_and_heard"}}))
    checkpoint = None if model is None else options.model
    write_json(options.out / "evaluation.json", "demo_voice", checkpoint, {"results": [results]})
    rows = []
    for language in LANGUAGES:
        _, original = _pictured(corpus, language.code)
        rows.append((f"{language.code}: espeak-ng", original))
        rows.append((f"{language.code}: espeak-ng through the codec", through_codec(codec, original)))
        if said:
            rows.append((f"{language.code}: demo voice, {options.steps[0]} steps", said[language.code]))
    pictures.spectrograms(rows, options.out / "spectrograms.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
