"""The demo voice's training on made-up tones: every stage learns, resumes exactly, and the export speaks."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tools.demo_voice import codec as codecs
from tools.demo_voice import corpus as corpora
from tools.demo_voice import export, pictures, train
from tools.demo_voice import language_model as lm
from tools.demo_voice.batches import PromptRecipe
from tools.demo_voice.codec_stage import CodecRecipe, CodecStage, encode_corpus
from tools.demo_voice.judge import save_judge
from tools.demo_voice.judge_stage import JudgeRecipe, JudgeStage
from tools.demo_voice.model_stage import Lesson, ModelRecipe, ModelStage
from tools.demo_voice.recipe import Recipe
from tools.demo_voice.stages import Budget, Clock, run_stage

from omnivoice_triton.checkpoint import checkpoint_kind, is_demo, validate_checkpoint
from omnivoice_triton.verify import judge
from omnivoice_triton.verify.sentences import held_out

SMALL_CODEC = codecs.CodecShape(decoder_width=32, encoder_width=4, latent=8, codebook_dim=8)
SMALL_MODEL = lm.ModelShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128)
RECIPE = Recipe(
    clips=10,
    held_out=2,
    codec_shape=SMALL_CODEC,
    codec=CodecRecipe(batch=2, frames=6, peak_rate=4e-3),
    codec_budget=Budget(steps=40),
    judge=JudgeRecipe(batch=4, width=32, peak_rate=1e-2, disturbed=0.0),
    judge_budget=Budget(steps=120),
    model_shape=SMALL_MODEL,
    model=ModelRecipe(rows=512, peak_rate=4e-3, warmup=20, average=0.9, curriculum=()),
    model_budget=Budget(steps=8),
)
LETTER_FRAMES = 3


def _letter(letter: str, speaker: int) -> np.ndarray:
    """Three frames: a buzz whose pitch is the letter, whose brightness is the speaker, fading at both ends."""
    t = np.arange(LETTER_FRAMES * corpora.FRAME) / corpora.SAMPLE_RATE_HZ
    hz = 150.0 * 1.25 ** (ord(letter) - ord("a"))
    wave = sum(np.sin(2 * np.pi * hz * k * t) * (0.4 + 0.1 * speaker) ** k for k in range(1, 5))
    return 0.2 * wave * np.minimum(1, 8 * np.minimum(t, t[-1] - t) / t[-1])


def make_corpus(clips: int = 12, letters: int = 4) -> corpora.Corpus:
    """Random words of the letters a to f, spelled in tones by two speakers; the first two are held out."""
    rng = random.Random(0)
    made, audio = [], []
    for number in range(clips):
        text = "".join(rng.choice("abcdef") for _ in range(letters)) + "."
        speaker = (0, 5)[number % 2]
        made.append(corpora.Clip("en", speaker, text, 1.0, number < 2, LETTER_FRAMES * letters))
        audio.append(np.concatenate([_letter(letter, speaker) for letter in text[:-1]]))
    return corpora.from_clips(made, torch.from_numpy(np.round(np.concatenate(audio) * 20000).astype(np.int16)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Tiny models: more threads only wait for one another, and resumed sums must add up in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus() -> corpora.Corpus:
    return make_corpus()


def _run(stage: Any, directory: Path, steps: int, pause_at: int | None = None) -> bool:
    return run_stage(stage, directory, Budget(steps=steps), Clock(), pause_at=pause_at, log=lambda line: None)


def _values(directory: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / f"{stage}.curve.jsonl").read_text().splitlines()]


def test_codec_learns_and_is_the_class_that_upstream_loads(corpus: corpora.Corpus, tmp_path: Path) -> None:
    stage = CodecStage(corpus, SMALL_CODEC, RECIPE.codec, seed=0)
    wave = torch.stack([corpus.wave(i) for i in (2, 3)])
    with torch.no_grad():
        before = sum(stage.loss(codecs.decode(stage.codec, codecs.embed(stage.codec, wave)), wave)).item()
    assert _run(stage, tmp_path, 40)
    codes = encode_corpus(stage.codec, corpus)
    with torch.no_grad():
        quantized = stage.codec.quantizer.decode(codecs.encode(stage.codec, wave).transpose(0, 1)).transpose(1, 2)
        after = sum(stage.loss(codecs.decode(stage.codec, quantized), wave)).item()
    assert after < 0.5 * before
    assert codes[0].long().unique().numel() > 8

    export.export_codec(stage.codec, tmp_path)
    loaded = _load_codec(tmp_path)
    assert loaded.dtype == torch.float32
    with torch.no_grad():
        whole = loaded.encode(corpus.wave(2)[None, None]).audio_codes[0]
        again = loaded.decode(whole[None]).audio_values[0, 0]
    start = int(corpus.starts[2])
    assert torch.equal(whole, codecs.encode(loaded, corpus.wave(2)[None])[0])
    # fp16 on disk may move a code that lay on a border, no more.
    kept = (whole[0] == codes[0, start : start + whole.shape[1]]).float().mean().item()
    assert kept > 0.8
    assert again.numel() == corpus.wave(2).numel()


def _load_codec(directory: Path) -> Any:
    from transformers import HiggsAudioV2TokenizerModel

    return HiggsAudioV2TokenizerModel.from_pretrained(directory / "audio_tokenizer").eval()


def test_dead_codes_come_back(corpus: corpora.Corpus) -> None:
    stage = CodecStage(corpus, SMALL_CODEC, RECIPE.codec, seed=0)
    book = stage.codec.quantizer.quantizers[0].codebook
    stage.step(0, 0.5)
    book.embed[:900] = 1e3  # Far from everything: nothing will choose them
    book.embed_avg[:900] = 1e3
    book.cluster_size[:900] = 0.0
    stage.step(1, 0.5)
    assert float(book.embed.abs().max()) < 100


def test_judge_reads_what_it_has_heard_and_is_saved(corpus: corpora.Corpus, tmp_path: Path) -> None:
    stage = JudgeStage(corpus, RECIPE.judge, seed=0)
    members = corpus.indices(held_out=False)
    texts = [corpus.clips[i].text for i in members]
    assert judge.error_rate(texts, [stage.judge.transcribe(corpus.wave(i)) for i in members]) > 0.5
    stage.judge.train()
    assert _run(stage, tmp_path, 400)
    assert judge.error_rate(texts, [stage.judge.transcribe(corpus.wave(i)) for i in members]) < 0.2
    save_judge(stage.judge, tmp_path)
    loaded = judge.load_judge(tmp_path)
    assert [loaded.transcribe(corpus.wave(i)) for i in members] == [
        stage.judge.transcribe(corpus.wave(i)) for i in members
    ]
    assert judge.error_rate(texts[:1], [loaded.transcribe(torch.zeros(12000))]) > 0.5  # Silence is no speech


def _model_stage(corpus: corpora.Corpus, directory: Path, recipe: ModelRecipe = RECIPE.model) -> ModelStage:
    frames = int(corpus.starts[-1]) + corpus.clips[-1].frames
    codes = torch.randint(0, 1024, (8, frames), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    export.write_tokenizer(directory)
    return ModelStage(corpus, codes, train.load_tokenizer(directory), SMALL_MODEL, recipe, seed=0)


def test_model_learns_sentences_by_heart_and_generate_says_them(tmp_path: Path) -> None:
    from omnivoice.models.omnivoice import GenerationTask, OmniVoiceGenerationConfig

    small = make_corpus(clips=6, letters=3)
    prompts = PromptRecipe(dropped=0.1, reference=0.3)
    stage = _model_stage(small, tmp_path, replace(RECIPE.model, prompts=prompts))
    _run(stage, tmp_path, 300)
    model = stage.averaged()
    model.text_tokenizer = stage.prompts._tokenizer
    right: dict[str, list[float]] = {"plain": [], "cloned": []}
    for index in stage.members:
        clip = small.clips[index]
        other = next(i for i in stage.members if i != index and small.clips[i].speaker == clip.speaker)
        wanted = stage.codes[:, small.starts[index] : small.starts[index] + clip.frames].long()
        reference = stage.codes[:, small.starts[other] : small.starts[other] + clip.frames].long()
        asked = None if clip.speaker == 0 else "female, moderate pitch"
        plain = GenerationTask(1, [clip.text], [clip.frames], ["en"], [asked], [None], [None], [None])
        cloned = replace(plain, instructs=[None], ref_texts=[small.clips[other].text], ref_audio_tokens=[reference])
        for kind, task in {"plain": plain, "cloned": cloned}.items():
            torch.manual_seed(0)
            made = model._generate_iterative(task, OmniVoiceGenerationConfig(num_step=16))[0]
            right[kind].append(float((made == wanted).float().mean()))
    # One in 1024 would be luck. A slip of guidance costs a code here and there, and where depends on the processor.
    assert np.mean(right["plain"]) > 0.85
    assert np.mean(right["cloned"]) > 0.85


@pytest.mark.parametrize("kind", ["codec", "judge", "model"])
def test_a_run_in_pieces_is_the_run_in_one(kind: str, corpus: corpora.Corpus, tmp_path: Path) -> None:
    def make() -> Any:
        if kind == "codec":
            return CodecStage(corpus, SMALL_CODEC, RECIPE.codec, seed=1)
        if kind == "judge":
            return JudgeStage(corpus, replace(RECIPE.judge, disturbed=0.8), seed=1)
        return _model_stage(corpus, tmp_path / "tokenizer")

    whole = make()
    assert _run(whole, tmp_path / "whole", 6)
    first = make()
    assert not _run(first, tmp_path / "pieces", 6, pause_at=4)
    second = make()
    assert _run(second, tmp_path / "pieces", 6)
    states = whole.state(), second.state()
    trained = [state[kind] for state in states]
    assert trained[0].keys() == trained[1].keys()
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name
    assert any(not torch.equal(value, first.state()[kind][name]) for name, value in trained[0].items())
    if kind == "model":
        assert all(torch.equal(a, b) for a, b in zip(states[0]["average"], states[1]["average"], strict=True))
        assert (states[0]["epoch"], states[0]["position"]) == (states[1]["epoch"], states[1]["position"])


LESSONS = (
    Lesson(0.25, LETTER_FRAMES * 3, references=False, share=0.25),
    Lesson(0.5, LETTER_FRAMES * 4, references=False, share=0.5),
    Lesson(0.75, share=0.5),
)
"""As in the recipe: short clips, longer ones, all of them with references; then whole batches."""


def _lessons_stage(corpus: corpora.Corpus, directory: Path) -> tuple[ModelStage, list[dict[str, Any]]]:
    """A trainer in lessons, and what each of its steps was given."""
    prompts = PromptRecipe(reference=0.5)
    stage = _model_stage(corpus, directory, replace(RECIPE.model, rows=384, curriculum=LESSONS, prompts=prompts))
    seen: list[dict[str, Any]] = []
    step = stage.step

    def watched(number: int, progress: float) -> dict[str, torch.Tensor]:
        values = step(number, progress)
        plan = stage._plan
        assert plan is not None
        members = plan.batches[stage.position - 1]
        lengths = plan.samples.length[members]
        seen.append(
            {
                "lesson": stage.lesson,
                "progress": progress,
                "position": stage.position,
                "frames": int(stage.frames[plan.samples.clip[members]].max()),
                "references": int((plan.samples.reference[members] >= 0).sum()),
                "samples": len(members),
                "rows": len(members) * -(-int(lengths.max()) // 16) * 16,
                "loss": values["loss"].item(),
            }
        )
        return values

    stage.step = watched  # type: ignore[method-assign]
    return stage, seen


@pytest.fixture(scope="module")
def mixed() -> corpora.Corpus:
    """Clips of three, four and five letters."""
    made = [make_corpus(12, letters) for letters in (3, 4, 5)]
    return corpora.from_clips([clip for one in made for clip in one.clips], torch.cat([one.audio for one in made]))


@pytest.fixture(scope="module")
def taught_whole(
    mixed: corpora.Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelStage, list[dict[str, Any]]]:
    """A run through all lessons in one piece."""
    directory = tmp_path_factory.mktemp("whole")
    stage, seen = _lessons_stage(mixed, directory / "tokenizer")
    assert _run(stage, directory, 120)
    return stage, seen


def test_every_lesson_is_taught_with_its_clips_and_its_share_of_rows(
    taught_whole: tuple[ModelStage, list[dict[str, Any]]],
) -> None:
    _, seen = taught_whole
    by_lesson = {number: [row for row in seen if row["lesson"] == number] for number in range(4)}
    assert [row["lesson"] for row in seen] == sorted(row["lesson"] for row in seen)
    fullest = []
    for number, lesson in enumerate((*LESSONS, Lesson(1.0))):
        taught = by_lesson[number]
        # A lesson begins with the first epoch after the one before is over: an epoch is never broken off.
        began = LESSONS[number - 1].until if number else 0.0
        assert began <= taught[0]["progress"] < began + 0.2
        assert max(row["frames"] for row in taught) == min(lesson.longest or 99, LETTER_FRAMES * 5)
        assert any(row["references"] for row in taught) is lesson.references
        # More than its share only where a single sample takes more.
        assert all(row["rows"] <= 384 * lesson.share or row["samples"] == 1 for row in taught)
        fullest.append(max(row["rows"] for row in taught))
    assert fullest[0] < fullest[1] <= fullest[2] < fullest[3]


@pytest.mark.parametrize("lesson", range(4))
def test_a_lesson_goes_on_where_it_was_broken_off(
    mixed: corpora.Corpus,
    taught_whole: tuple[ModelStage, list[dict[str, Any]]],
    tmp_path: Path,
    lesson: int,
) -> None:
    whole, seen = taught_whole
    # Inside an epoch: where one begins, its lesson is found anew.
    steps = [number for number, row in enumerate(seen) if row["lesson"] == lesson and row["position"] > 1]
    pause = steps[len(steps) // 2]
    first, before = _lessons_stage(mixed, tmp_path / "tokenizer")
    assert not _run(first, tmp_path / "pieces", 120, pause_at=pause)
    second, after = _lessons_stage(mixed, tmp_path / "tokenizer")
    assert _run(second, tmp_path / "pieces", 120)
    assert before + after == seen
    assert first.lesson == lesson
    states = whole.state(), second.state()
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    assert all(torch.equal(a, b) for a, b in zip(states[0]["average"], states[1]["average"], strict=True))
    for key in ("epoch", "position", "lesson"):
        assert states[0][key] == states[1][key]


def test_a_diverged_stage_stops(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def step(self, number: int, progress: float) -> dict[str, torch.Tensor]:
            return {"loss": torch.tensor(float("nan"))}

        def state(self) -> dict[str, Any]:
            return {}

        def restore(self, state: dict[str, Any]) -> None:
            raise AssertionError

    with pytest.raises(FloatingPointError, match="broken diverged"):
        _run(Broken(), tmp_path, 3)
    assert not (tmp_path / "broken.state").exists()


def test_from_corpus_to_a_checkpoint_that_speaks(
    corpus: corpora.Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(RECIPE, codec_budget=Budget(steps=4), judge_budget=Budget(steps=2), model_budget=Budget(steps=4))
    shop = train.Workshop(tmp_path, recipe, torch.device("cpu"), corpus=corpus)
    assert not train.run_piece(shop, train.STAGES, Clock(), pause_at=2)
    assert not (tmp_path / "codes.pt").exists()
    assert train.run_piece(shop, train.STAGES, Clock())
    checkpoint = tmp_path / "checkpoint"
    validate_checkpoint(checkpoint)
    assert checkpoint_kind(checkpoint) == "trained-demo"
    assert is_demo(checkpoint)
    assert [sentence.text for sentence in held_out(checkpoint)] == [clip.text for clip in corpus.clips[:2]]
    curves = [tmp_path / f"{name}.curve.jsonl" for name in train.STAGES]
    pictures.curves(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    from omnivoice_triton.cli import main

    capsys.readouterr()
    lengths = []
    for mode in ("base", "turbo"):
        path = tmp_path / f"{mode}.wav"
        flags = ["--mode", mode, "--num-step", "4", "--seed", "1", "--output", str(path)]
        assert main(["say", "Hello world.", "--model", str(checkpoint), *flags]) == 0
        import soundfile

        audio, rate = soundfile.read(path)
        assert rate == 24000
        lengths.append(len(audio))
    assert min(lengths) > 2400
