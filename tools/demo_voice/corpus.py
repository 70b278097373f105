"""The recordings: who says what, synthesised on all cores, stored as whole codec frames, loaded to one device.

Files of a corpus directory: `clips.json` (language, speaker, text, frames of each clip; train and held out) and
`audio-0000.i16`, ...: the clips of a shard one after the other, int16 at 22,050 Hz, each a whole number of frames
(882 samples = 40 ms). What a shard holds depends on the seed alone, not on the number of processes.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import random
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tools.demo_voice.espeak import RATE_RANGE, Espeak
from tools.demo_voice.speakers import DEFAULT_SHARE, LANGUAGES, SPEAKERS, Speaker
from tools.demo_voice.text import chinese, english, korean

SAMPLE_RATE_HZ = 24_000
FRAME = 960
"""Samples of a codec frame at 24 kHz: 40 ms."""
RECORDED_HZ = 22_050
RECORDED_FRAME = 882
LOUDNESS = 0.1
"""Root mean square of a clip: upstream scales references to it."""
SHARD = 1000

GENERATORS = {"en": english.sentence, "ko": korean.sentence, "zh": chinese.sentence}
_SHARE = {"en": 0.4, "ko": 0.3, "zh": 0.3}


@dataclass(frozen=True)
class Clip:
    """One recording; `frames` is 0 until it is spoken."""

    language: str
    speaker: int
    text: str
    pace: float
    """Length wanted, as a multiple of upstream's estimate."""
    held_out: bool = False
    frames: int = 0


@dataclass
class Corpus:
    """All recordings on one device.

    audio: (samples,) int16 at 24 kHz, clips one after the other; starts: first frame of each clip, on the host.
    """

    clips: list[Clip]
    audio: torch.Tensor
    starts: np.ndarray

    def indices(self, *, held_out: bool) -> np.ndarray:
        """Numbers of the clips that are held out, or of the others."""
        return np.array([i for i, clip in enumerate(self.clips) if clip.held_out == held_out], dtype=np.int64)

    def wave(self, index: int) -> torch.Tensor:
        """One clip as float32 in [-1, 1], shape (samples,)."""
        start = int(self.starts[index]) * FRAME
        return self.audio[start : start + self.clips[index].frames * FRAME].float() / 32768


def estimate_frames(text: str) -> float:
    """Upstream's estimate of a text's frames without a reference (25 for "Nice to meet you.")."""
    return float(_estimator().estimate_duration(text, "Nice to meet you.", 25))


@cache
def _estimator() -> Any:
    """Upstream's estimator, from its file: the package would load transformers into every worker."""
    package = importlib.util.find_spec("omnivoice")
    if package is None or not package.submodule_search_locations:
        raise ImportError("the package omnivoice is not installed")
    path = Path(package.submodule_search_locations[0]) / "utils" / "duration.py"
    spec = importlib.util.spec_from_file_location("_omnivoice_duration", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"can't read {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RuleDurationEstimator()


def plan(seed: int, train: int, held_out: int) -> list[Clip]:
    """Who says what: `held_out` sentences a language first, then `train` others in all.

    No training sentence is a held-out one. The same seed gives the same plan; a longer training plan begins as the
    shorter one does.
    """
    clips: list[Clip] = []
    reserved: set[str] = set()
    for language in LANGUAGES:
        rng = random.Random(f"{seed} held out {language.code}")
        texts: list[str] = []
        while len(texts) < held_out:
            text = GENERATORS[language.code](rng)
            # Fixed phrases are for training: held-out sentences have to be new ones.
            if estimate_frames(text) >= 50 and text not in reserved and not _fixed(language.code, text):
                texts.append(text)
                reserved.add(text)
        for index, text in enumerate(texts):
            clips.append(Clip(language.code, index % len(SPEAKERS), text, 1.0, held_out=True))
    rng = random.Random(f"{seed} train")
    codes, shares = list(_SHARE), list(_SHARE.values())
    others = len(SPEAKERS) - 1
    weights = [DEFAULT_SHARE] + [(1 - DEFAULT_SHARE) / others] * others
    while len(clips) < train + held_out * len(LANGUAGES):
        code = rng.choices(codes, shares)[0]
        speaker = rng.choices(range(len(SPEAKERS)), weights)[0]
        text, pace = GENERATORS[code](rng), round(rng.uniform(0.9, 1.12), 3)
        if text not in reserved:
            clips.append(Clip(code, speaker, text, pace))
    return clips


def _fixed(code: str, text: str) -> bool:
    module = {"en": english, "ko": korean, "zh": chinese}[code]
    return text in module.SHORT or text in module.ABOUT


def speak(espeak: Espeak, clip: Clip) -> np.ndarray:
    """One clip as int16 at 22,050 Hz, whole frames, loudness set; its length is near pace x upstream's estimate.

    espeak-ng's rate is found in two passes: the second corrects what the first measures. What is still missing to the
    wanted length (short texts, which upstream gives extra time) is silence.
    """
    speaker: Speaker = SPEAKERS[clip.speaker]
    spec = next(item for item in LANGUAGES if item.code == clip.language)
    rng = random.Random(f"{clip.text} {clip.speaker}")
    lead, trail = rng.uniform(0.04, 0.10), rng.uniform(0.08, 0.16)
    wanted_s = max(0.3, estimate_frames(clip.text) * clip.pace / 25 - lead - trail)

    def record(rate: int) -> np.ndarray:
        voice = spec.espeak + speaker.variant
        return _trim(espeak.say(clip.text, voice, rate, speaker.pitch, speaker.pitch_range))

    samples = record(spec.words_per_minute)
    rate = spec.words_per_minute * (len(samples) / RECORDED_HZ) / wanted_s
    # A very slow short word is worse to listen to than a pause after it.
    low, high = max(RATE_RANGE[0], int(0.75 * spec.words_per_minute)), RATE_RANGE[1]
    samples = record(int(min(max(round(rate), low), high)))
    frames = round((lead + trail + max(wanted_s, len(samples) / RECORDED_HZ)) * 25)
    frames = max(frames, -(-len(samples) // RECORDED_FRAME) + 1)
    clip_samples = np.zeros(frames * RECORDED_FRAME, np.float32)
    room = len(clip_samples) - len(samples)
    start = min(int(lead * RECORDED_HZ), room)
    clip_samples[start : start + len(samples)] = samples
    level = float(np.sqrt(np.mean((clip_samples / 32768) ** 2))) or 1.0
    peak = float(np.abs(clip_samples).max()) / 32768 or 1.0
    return np.round(clip_samples * min(LOUDNESS / level, 0.95 / peak)).astype(np.int16)


def build(directory: Path, clips: list[Clip], *, espeak_root: str | Path | None, processes: int | None = None) -> None:
    """Speak all clips into `directory`; shards that are there already are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    shards = [
        (str(directory / f"audio-{number:04d}.i16"), clips[start : start + SHARD])
        for number, start in enumerate(range(0, len(clips), SHARD))
    ]
    root = None if espeak_root is None else str(espeak_root)
    todo = [shard for shard in shards if not _frames_file(Path(shard[0])).exists()]
    processes = min(processes or os.cpu_count() or 1, max(len(todo), 1))
    if processes == 1:
        _start_worker(root)
        for shard in todo:
            _speak_shard(shard)
    else:
        # espeak-ng's state is one per process, and a fork of a process with threads may hang: spawn.
        with multiprocessing.get_context("spawn").Pool(processes, _start_worker, (root,)) as pool:
            for _ in pool.imap_unordered(_speak_shard, todo):
                pass
    frames = np.concatenate([np.load(_frames_file(Path(path))) for path, _ in shards])
    rows = [asdict(clip) | {"frames": int(count)} for clip, count in zip(clips, frames, strict=True)]
    (directory / "clips.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def load(directory: Path, device: torch.device | str = "cpu") -> Corpus:
    """Read a corpus and resample it to 24 kHz on the device."""
    parts = []
    for path in sorted(directory.glob("audio-*.i16")):
        recorded = torch.from_numpy(np.fromfile(path, np.int16)).to(device)
        # Some clips at a time, a minute or two: one convolution over a whole shard would be an odd shape to ask for.
        counts = np.load(_frames_file(path))
        sizes = [int(part.sum()) * RECORDED_FRAME for part in np.array_split(counts, -(-len(counts) // 25))]
        parts += [_resample(part) for part in recorded.split(sizes)]
    return from_clips(load_texts(directory).clips, torch.cat(parts))


def load_texts(directory: Path) -> Corpus:
    """A corpus without its audio: who says what, and which frames are whose."""
    clips = [Clip(**row) for row in json.loads((directory / "clips.json").read_text(encoding="utf-8"))]
    lengths = np.array([clip.frames for clip in clips], dtype=np.int64)
    return Corpus(clips, torch.zeros(0, dtype=torch.int16), np.cumsum(lengths) - lengths)


def from_clips(clips: list[Clip], audio: torch.Tensor) -> Corpus:
    """A corpus of audio that is there already: (samples,) int16 at 24 kHz."""
    lengths = np.array([clip.frames for clip in clips], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    if int(lengths.sum()) * FRAME != audio.numel():
        raise ValueError(f"clips.json counts {int(lengths.sum())} frames, but the audio has {audio.numel() / FRAME}")
    return Corpus(clips, audio, starts)


def _resample(recorded: torch.Tensor) -> torch.Tensor:
    """22,050 -> 24,000 Hz; clips begin and end silent, so that running them together does no harm."""
    import torchaudio

    with torch.backends.cudnn.flags(allow_tf32=False):
        wave = torchaudio.functional.resample(recorded.float(), RECORDED_HZ, SAMPLE_RATE_HZ)
    return wave.round_().clamp_(-32768, 32767).to(torch.int16)


def _trim(samples: np.ndarray, threshold: int = 200) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > threshold)
    if not len(loud):
        return samples[:0]
    margin = RECORDED_HZ // 200
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


def _frames_file(path: Path) -> Path:
    return path.with_suffix(".npy")


_worker: Espeak | None = None


def _start_worker(root: str | None) -> None:
    global _worker  # noqa: PLW0603 - the library is one per process
    _worker = Espeak(root)


def _speak_shard(shard: tuple[str, list[Clip]]) -> None:
    path, clips = Path(shard[0]), shard[1]
    if _worker is None:
        raise RuntimeError("espeak-ng was not started in this process")
    spoken = [speak(_worker, clip) for clip in clips]
    np.concatenate(spoken).tofile(path)
    # Written last: its presence says that the shard is whole.
    np.save(_frames_file(path), np.array([len(samples) // RECORDED_FRAME for samples in spoken]))
