"""One generate for every voice: parity with upstream, seeds, batches, chunks, voices, threads."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnivoice_triton import BaseRunner, InputError, NotLoaded, Speech, create_runner
from tests.models.helpers import load_upstream

FAST = {"num_step": 3, "duration": 0.6}
TEXT = "Hello, world."


@pytest.fixture(scope="module")
def runner(tiny: Path) -> Iterator[BaseRunner]:
    with create_runner("base", device="cpu", model_id=tiny) as made:
        yield made


@pytest.fixture(scope="module")
def upstream(tiny: Path) -> Any:
    return load_upstream(tiny)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.2 s of a buzzing tone at 24 kHz."""
    path = tmp_path_factory.mktemp("voice") / "ref.wav"
    t = np.arange(int(1.2 * 24_000)) / 24_000
    wave = 0.3 * np.sign(np.sin(2 * np.pi * 140 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    soundfile.write(path, wave.astype(np.float32), 24_000)
    return path


def by_hand(upstream: Any, seed: int, **kwargs: Any) -> list[np.ndarray]:
    """Upstream's own generate after upstream's own way to seed it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return upstream.generate(**kwargs)


class TestParityWithUpstream:
    """Base is upstream bit for bit."""

    def test_auto_voice(self, runner: BaseRunner, upstream: Any) -> None:
        want = by_hand(upstream, 11, text=TEXT, duration=0.6, num_step=5)
        got = runner.generate(TEXT, seed=11, duration=0.6, num_step=5)
        assert np.array_equal(got.audio, want[0])
        assert not np.array_equal(got.audio, by_hand(upstream, 12, text=TEXT, duration=0.6, num_step=5)[0])

    def test_design(self, runner: BaseRunner, upstream: Any) -> None:
        want = by_hand(
            upstream, 1, text=TEXT, instruct="female, high pitch", language="English", duration=0.6, num_step=3
        )
        got = runner.generate_voice_design(TEXT, "female, high pitch", "English", seed=1, **FAST)
        assert np.array_equal(got.audio, want[0])

    def test_clone(self, runner: BaseRunner, upstream: Any, reference: Path) -> None:
        # Upstream's encoder moves the global RNG (HuBERT's layer drop), so its voice is encoded before the seed is set.
        with torch.inference_mode():
            prompt = upstream.create_voice_clone_prompt(str(reference), "A tone.")
        want = by_hand(upstream, 2, text=TEXT, voice_clone_prompt=prompt, duration=0.6, num_step=3)
        got = runner.generate_voice_clone(TEXT, str(reference), "A tone.", seed=2, **FAST)
        assert np.array_equal(got.audio, want[0])

    def test_batch_with_every_option(self, runner: BaseRunner, upstream: Any) -> None:
        options: dict[str, Any] = {
            "num_step": 4,
            "guidance_scale": 1.5,
            "t_shift": 0.3,
            "layer_penalty_factor": 2.0,
            "position_temperature": 1.0,
            "class_temperature": 0.7,
            "denoise": False,
            "preprocess_prompt": False,
            "postprocess_output": False,
            "audio_chunk_duration": 5.0,
            "audio_chunk_threshold": 10.0,
            "pad_duration": 0.0,
            "fade_duration": 0.05,
        }
        texts, languages, speeds = ["One.", "Two words.", "Now three words."], ["en", None, "English"], [1.0, 2.0, 0.8]
        want = by_hand(upstream, 5, text=texts, language=languages, speed=speeds, **options)
        got = runner.generate(texts, languages, speed=speeds, seed=5, **options)
        assert [len(w) for w in want] == [len(g.audio) for g in got]
        assert all(np.array_equal(g.audio, w) for g, w in zip(got, want, strict=True))

    def test_long_text_in_chunks(self, runner: BaseRunner, upstream: Any) -> None:
        text = "The first sentence is here. The second one follows it. And a third one ends it all."
        options = {"num_step": 2, "audio_chunk_duration": 1.0, "audio_chunk_threshold": 1.5}
        want = by_hand(upstream, 3, text=text, duration=3.0, **options)
        steps: list[tuple[int, int]] = []
        got = runner.generate(text, seed=3, duration=3.0, progress=lambda *s: steps.append(s), **options)
        assert np.array_equal(got.audio, want[0])
        done, total = steps[-1]
        assert done == total > 2  # more than one chunk
        assert [d for d, _ in steps] == sorted(d for d, _ in steps)


class TestSeeds:
    def test_same_seed_same_bits_whatever_ran_before(self, runner: BaseRunner) -> None:
        first = runner.generate(TEXT, seed=7, **FAST)
        runner.generate("Something else entirely.", seed=99, num_step=2, duration=1.0)
        torch.rand(3)
        assert np.array_equal(first.audio, runner.generate(TEXT, seed=7, **FAST).audio)

    def test_an_unset_seed_is_random_but_reported(self, runner: BaseRunner) -> None:
        one, two = (runner.generate(TEXT, **FAST) for _ in range(2))
        assert one.seed != two.seed
        assert np.array_equal(one.audio, runner.generate(TEXT, seed=one.seed, **FAST).audio)

    def test_global_rng_is_not_disturbed(self, runner: BaseRunner, reference: Path) -> None:
        torch.manual_seed(123)
        before = torch.get_rng_state()
        runner.generate(TEXT, class_temperature=0.5, **FAST)
        runner.generate_voice_clone(TEXT, reference, "A tone.", **FAST)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_model_is_left_as_it_was(self, runner: BaseRunner) -> None:
        before = set(runner.model.__dict__)
        runner.generate(TEXT, progress=lambda *_: None, **FAST)
        assert set(runner.model.__dict__) == before

    @pytest.mark.parametrize("seed", [-1, 1.5, "7", True, 2**63])
    def test_bad_seed(self, runner: BaseRunner, seed: Any) -> None:
        with pytest.raises(InputError, match="seed must be a whole number"):
            runner.generate(TEXT, seed=seed, **FAST)


class TestVoices:
    def test_encoded_once_saved_loaded_and_reused(
        self, runner: BaseRunner, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        voice = runner.create_voice(reference, "A tone.")
        voice.save(str(tmp_path / "voice.pt"))
        want = runner.generate_voice_clone(TEXT, reference, "A tone.", seed=4, **FAST)
        monkeypatch.setattr(runner.model.audio_tokenizer, "encode", None)  # encoding again would now fail
        for given in (voice, tmp_path / "voice.pt", str(tmp_path / "voice.pt")):
            got = runner.generate(TEXT, voice=given, seed=4, **FAST)
            assert np.array_equal(got.audio, want.audio)

    def test_batch_of_voices(self, runner: BaseRunner, reference: Path) -> None:
        voice = runner.create_voice(reference, "A tone.")
        both = runner.generate(["One.", "Two."], voice=[voice, voice], seed=1, **FAST)
        assert [s.batch_size for s in both] == [2, 2]

    def test_samples_instead_of_a_file(self, runner: BaseRunner, reference: Path) -> None:
        samples, rate = soundfile.read(reference, dtype="float32")
        want = runner.generate_voice_clone(TEXT, reference, "A tone.", seed=4, **FAST)
        for given in (samples, torch.from_numpy(samples)[None]):
            got = runner.generate_voice_clone(TEXT, (given, rate), "A tone.", seed=4, **FAST)
            assert np.array_equal(got.audio, want.audio)

    def test_the_voice_matters(self, runner: BaseRunner, reference: Path) -> None:
        plain = runner.generate(TEXT, seed=4, **FAST)
        cloned = runner.generate_voice_clone(TEXT, reference, "A tone.", seed=4, **FAST)
        assert not np.array_equal(plain.audio, cloned.audio)

    def test_without_transcript_or_recogniser(self, runner: BaseRunner, reference: Path) -> None:
        from omnivoice_triton import DownloadError

        with pytest.raises(DownloadError, match=r"give ref_text \(--ref-text\)") as caught:
            runner.create_voice(reference)
        assert "\n" not in str(caught.value)


class TestResult:
    def test_a_value_that_is_also_a_mapping(self, runner: BaseRunner, tmp_path: Path) -> None:
        result = runner.generate(TEXT, seed=7, **FAST)
        assert isinstance(result, Speech)
        assert result.audio.dtype == np.float32
        assert result.audio.ndim == 1
        assert result["audio"] is result.audio
        assert result["sample_rate"] == result.sample_rate == 24_000
        assert result["time_ms"] == pytest.approx(1000 * result["time_s"])
        assert result.audio_s == pytest.approx(len(result.audio) / 24_000)
        assert result.speed_x == pytest.approx(result.audio_s / result.time_s)
        assert result["peak_vram_gb"] == 0.0
        assert (result.seed, result.mode) == (7, "base")
        assert {"audio", "sample_rate", "time_ms", "time_s", "peak_vram_gb", "seed", "mode"} <= set(dict(result))
        assert result.get("nonsense") is None
        with pytest.raises(KeyError):
            result["nonsense"]
        with pytest.raises(AttributeError):
            result.seed = 8  # type: ignore[misc]
        saved = result.save(tmp_path / "out.flac")
        samples, rate = soundfile.read(saved)
        assert (len(samples), rate) == (len(result.audio), 24_000)

    def test_a_list_gives_a_list(self, runner: BaseRunner) -> None:
        assert isinstance(runner.generate([TEXT], seed=1, **FAST), list)


class TestLife:
    def test_not_loaded(self, tiny: Path) -> None:
        runner = create_runner("base", device="cpu", model_id=tiny)
        for call in (lambda: runner.generate(TEXT), lambda: runner.create_voice("x.wav"), runner.warmup):
            with pytest.raises(NotLoaded, match=r"call load_model\(\) first"):
                call()

    def test_unload_and_load_again(self, tiny: Path) -> None:
        runner = BaseRunner("cpu", str(tiny), "fp32")
        runner.load_model()
        runner.load_model()
        runner.warmup()
        first = runner.generate(TEXT, seed=1, **FAST)
        runner.unload_model()
        assert runner.model is None
        runner.unload_model()
        with runner:
            assert np.array_equal(runner.generate(TEXT, seed=1, **FAST).audio, first.audio)
            assert "loaded" in repr(runner)

    def test_unloading_frees_everything(self, tiny: Path, reference: Path) -> None:
        with create_runner("base", device="cpu", model_id=tiny) as runner:
            runner.generate_voice_clone(TEXT, reference, "A tone.", seed=1, **FAST)
            alive = weakref.ref(runner.model), weakref.ref(runner.model.audio_tokenizer)
        gc.collect()
        assert [each() for each in alive] == [None, None]

    def test_threads_take_turns(self, runner: BaseRunner) -> None:
        want = {seed: runner.generate(TEXT, seed=seed, **FAST).audio for seed in range(4)}
        got: dict[int, np.ndarray] = {}
        threads = [
            threading.Thread(target=lambda s=seed: got.update({s: runner.generate(TEXT, seed=s, **FAST).audio}))
            for seed in want
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert all(np.array_equal(got[s], want[s]) for s in want)

    def test_bf16_on_the_cpu(self, tiny: Path) -> None:
        with create_runner("base", device="cpu", model_id=tiny, dtype="bf16") as runner:
            assert runner.model.dtype == torch.bfloat16
            assert np.isfinite(runner.generate(TEXT, seed=1, **FAST).audio).all()
