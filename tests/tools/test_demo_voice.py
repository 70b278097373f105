"""The demo voice's parts that need no training: sentences, tokens, prompts, masks, judge's arithmetic, measures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tools.demo_voice import batches, corpus, espeak, measures, tokenizer
from tools.demo_voice import language_model as lm
from tools.demo_voice.speakers import SPEAKERS
from tools.demo_voice.text import chinese, english, korean

from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import judge

TINY = lm.ModelShape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=48)


@pytest.fixture(scope="module")
def tok(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write_tokenizer(directory)
    return tokenizer.load_tokenizer(directory)


@pytest.mark.parametrize("module", [english, korean, chinese])
def test_sentences_are_many_and_end(module: Any) -> None:
    rng = random.Random(0)
    made = [module.sentence(rng) for _ in range(2000)]
    assert len(set(made)) > 1500
    assert all(text[-1] in ".?。？" and text == text.strip() and "  " not in text for text in made)
    assert not any(character.isdigit() and character.isascii() for text in made for character in text)


def test_numbers_are_spelled_out() -> None:
    assert [english.spell(n) for n in (0, 13, 42, 100, 999, 1001, 45000)] == [
        "zero", "thirteen", "forty two", "one hundred", "nine hundred and ninety nine", "one thousand one",
        "forty five thousand",
    ]  # fmt: skip
    assert [korean.spell(n) for n in (0, 10, 11, 999, 1000, 10000, 23000)] == [
        "영", "십", "십일", "구백구십구", "천", "만", "이만삼천",
    ]  # fmt: skip
    assert [korean.spell_native(n) for n in (1, 20, 21, 99)] == ["한", "스무", "스물한", "아흔아홉"]
    assert [chinese.spell(n) for n in (0, 10, 15, 20, 101, 110, 1005, 9999, 20030)] == [
        "零", "十", "十五", "二十", "一百零一", "一百一十", "一千零五", "九千九百九十九",
        "二万零三十",
    ]  # fmt: skip


def test_korean_particles_follow_the_final_consonant() -> None:
    assert korean.particle("책", "을", "를") == "책을"
    assert korean.particle("모자", "을", "를") == "모자를"
    assert korean.particle("물", "으로", "로") == "물로"
    assert korean.particle("돈", "으로", "로") == "돈으로"


def test_no_training_sentence_is_held_out() -> None:
    clips = corpus.plan(3, train=4000, held_out=30)
    reserved = {clip.text for clip in clips if clip.held_out}
    trained = [clip for clip in clips if not clip.held_out]
    assert len(reserved) == 90
    assert len(trained) == 4000
    assert not reserved & {clip.text for clip in trained}
    assert {clip.speaker for clip in trained} == set(range(len(SPEAKERS)))
    assert corpus.plan(3, train=50, held_out=30) == clips[:140]
    assert corpus.plan(4, train=0, held_out=30) != clips[:90]
    held = [
        text for code in ("en", "ko", "zh") for text in (c.text for c in clips if c.held_out and c.language == code)
    ]
    assert all(corpus.estimate_frames(text) >= 50 for text in held)


def test_a_missing_espeak_is_named(tmp_path: Path) -> None:
    with pytest.raises(espeak.EspeakError, match=r"libmissing\.so.*Debian packages"):
        espeak._load("libmissing.so", tmp_path)


def test_tokens_of_a_text_are_the_tokens_of_its_parts(tok: Any) -> None:
    def ids(text: str) -> list[int]:
        return tok(text, add_special_tokens=False).input_ids

    rng = random.Random(5)
    for module in (english, korean, chinese):
        a, b = module.sentence(rng), module.sentence(rng)
        assert ids(f"<|text_start|>{a} {b}<|text_end|>") == [
            *ids("<|text_start|>"), *ids(a), *ids(" "), *ids(b), *ids("<|text_end|>"),
        ]  # fmt: skip
        assert tok.decode(ids(a)) == a
    assert len(ids("오늘")) == len(ids("今天")) == len(ids("it")) == 2
    assert tok.decode(ids("뷁🙂")) == "뷁🙂"  # Unknown characters are bytes
    assert 1025 <= len(tok) < 2000


@pytest.fixture(scope="module")
def material(tok: Any) -> tuple[list[corpus.Clip], np.ndarray, torch.Tensor, batches.Prompts, Any]:
    """Sixty clips with random codes, and an untrained model."""
    rng = random.Random(1)
    clips = [
        corpus.Clip(code, rng.randrange(8), corpus.GENERATORS[code](rng), 1.0, frames=rng.randint(8, 30))
        for code in ("en", "ko", "zh")
        for _ in range(20)
    ]
    frames = np.array([clip.frames for clip in clips])
    starts = np.cumsum(frames) - frames
    codes = torch.randint(0, 1024, (8, int(frames.sum())), generator=torch.Generator().manual_seed(0))
    model = lm.new_model(TINY, tok, seed=0)
    model.text_tokenizer = tok
    return clips, starts, codes, batches.Prompts(clips, tok, "cpu"), model


def _batches(material: Any, recipe: batches.PromptRecipe) -> Any:
    clips, starts, codes, prompts, _ = material
    frames = np.array([clip.frames for clip in clips])
    epoch = batches.Epoch(clips, np.arange(len(clips)), prompts, recipe, seed=7, rows=1500)
    generator = torch.Generator().manual_seed(0)
    for members in epoch.batches:
        yield (
            epoch.samples,
            members,
            batches.assemble(prompts, frames, starts, codes, epoch.samples, members, recipe, generator),
        )


def test_prompts_are_laid_out_as_upstream_does(material: Any, tok: Any) -> None:
    clips, starts, codes, prompts, model = material
    kinds = {"dropped": 0, "plain": 0, "cloned": 0}
    for samples, members, batch in _batches(material, batches.PromptRecipe(reference=0.5)):
        for row, i in enumerate(members):
            clip, other, style = (int(column[i]) for column in (samples.clip, samples.reference, samples.style))
            length = int(batch.valid[row].sum())
            real = codes[:, starts[clip] : starts[clip] + clips[clip].frames]
            seen = batch.codes[row, :, length - real.shape[1] : length]
            assert bool(((seen == lm.MASK) | (seen == real)).all())
            if style < 0:
                kinds["dropped"] += 1
                assert length == real.shape[1]
                assert bool(batch.audio[row, :length].all())
                continue
            at, size = prompts.style_start[style], prompts.style_length[style]
            words = tok.decode(prompts.tokens[at : at + size])
            language, instruct = (
                words.split(f"<|{name}_start|>")[1].split(f"<|{name}_end|>")[0] for name in ("lang", "instruct")
            )
            reference = None if other < 0 else codes[:, starts[other] : starts[other] + clips[other].frames]
            kinds["plain" if other < 0 else "cloned"] += 1
            wanted = model._prepare_inference_inputs(
                clips[clip].text,
                real.shape[1],
                None if other < 0 else clips[other].text,
                reference,
                None if language == "None" else language,
                None if instruct == "None" else instruct,
                denoise="<|denoise|>" in words,
            )
            ids, audio = wanted["input_ids"][0], wanted["audio_mask"][0]
            assert ids.shape[1] == length
            assert torch.equal(audio, batch.audio[row, :length])
            assert torch.equal(ids[0][~audio], batch.text[row, :length][~audio])
            if reference is not None:
                where = slice(length - real.shape[1] - reference.shape[1], length - real.shape[1])
                assert torch.equal(batch.codes[row, :, where], reference)
                assert clips[other].speaker == clips[clip].speaker
    assert all(kinds.values())


def test_the_default_speaker_alone_comes_without_a_wish(material: Any, tok: Any) -> None:
    clips, _, _, prompts, _ = material
    for samples, members, _ in _batches(material, batches.PromptRecipe()):
        for i in members:
            if samples.style[i] >= 0 and samples.reference[i] < 0 and clips[samples.clip[i]].speaker != 0:
                at = prompts.style_start[samples.style[i]]
                words = tok.decode(prompts.tokens[at : at + prompts.style_length[samples.style[i]]])
                assert "<|instruct_start|>None" not in words


def test_loss_and_gradients_are_upstreams(material: Any) -> None:
    model = material[4]
    _, _, batch = next(_batches(material, batches.PromptRecipe()))
    size, length = batch.text.shape
    labels = torch.full((size * length, 8), -100)
    labels[batch.rows] = batch.labels
    upstream = model(
        input_ids=torch.where(batch.audio[:, None], batch.codes, batch.text[:, None]),
        audio_mask=batch.audio,
        labels=labels.view(size, length, 8).permute(0, 2, 1),
        attention_mask=batch.valid[:, None, None].expand(size, 1, length, length),
    ).loss
    own = lm.weighted(model, lm.loss(model, batch))
    assert own.item() == pytest.approx(upstream.item(), rel=1e-5)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(upstream, parameters), torch.autograd.grad(own, parameters), strict=True):
        torch.testing.assert_close(b, a, rtol=2e-4, atol=1e-7)


def test_masks_hide_targets_only_and_late_codebooks_first() -> None:
    target = torch.zeros(400, 64, dtype=torch.bool)
    target[:, 20:60] = True
    frames = torch.full((400,), 40)
    recipe = batches.PromptRecipe(sampler_masks=1.0)
    masked = batches.mask_cells(target, frames, recipe, torch.Generator().manual_seed(0))
    assert not bool((masked & ~target[:, None]).any())
    assert bool(masked.flatten(1).any(1).all())  # Something is always left to learn
    shares = masked.float().sum((0, 2)) / (400 * 40)
    assert bool((shares.diff() > 0).all())
    assert 0.7 < float(shares.mean()) < 0.9  # Most of decoding happens with most cells masked
    uniform = batches.mask_cells(
        target, frames, batches.PromptRecipe(sampler_masks=0.0), torch.Generator().manual_seed(0)
    )
    assert float(uniform.float().sum() / (400 * 40 * 8)) == pytest.approx(0.5, abs=0.05)


def test_error_rates() -> None:
    assert judge.error_rate(["Hello, World."], ["hello world"]) == 0.0
    assert judge.error_rate(["abcd"], ["abxd"]) == 0.25
    assert judge.error_rate(["오늘은 좋다."], ["오늘은좋아"]) == 0.2
    assert judge.error_rate(["今天，很好。", "你好"], ["今天很", "你好"]) == pytest.approx(1 / 6)
    with pytest.raises(InputError, match="no characters"):
        judge.error_rate(["."], ["a"])


def _tone(hz: float, seconds: float, brightness: float, seed: int = 0) -> np.ndarray:
    """A buzz with harmonics falling off by `brightness` and a little noise."""
    t = np.arange(int(seconds * 24000)) / 24000
    wave = sum(np.sin(2 * np.pi * hz * k * t) * brightness**k for k in range(1, 12))
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.2 * wave + 0.003 * noise).astype(np.float32)


@pytest.mark.parametrize("hz", [72.0, 110.0, 190.0, 300.0, 410.0])
def test_pitch_is_found(hz: float) -> None:
    assert measures.pitch(_tone(hz, 0.5, 0.8)) == pytest.approx(hz, rel=0.02)


def test_noise_has_no_pitch_and_speakers_are_told_apart() -> None:
    assert np.isnan(measures.pitch(np.random.default_rng(0).standard_normal(24000)))
    voices = {0: (100.0, 0.6), 1: (100.0, 0.9), 2: (220.0, 0.6)}
    waves, owners = [], []
    for name, (hz, brightness) in voices.items():
        for take in range(3):
            waves.append(_tone(hz * (1 + 0.01 * take), 0.4, brightness, take))
            owners.append(name)
    known = measures.SpeakerStatistics.fit(waves, owners)
    for name, (hz, brightness) in voices.items():
        assert known.nearest(_tone(hz * 1.015, 0.4, brightness, seed=9)) == name
