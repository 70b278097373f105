"""Mode turbo: base's sound with upstream's noise, its own promises with Philox, and everything around a call."""

from __future__ import annotations

import gc
import inspect
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton import BaseRunner, InputError, ModeUnavailable, accelerate, create_runner
from omnivoice_triton.engine.codec_graphs import CodecGraphs, ladder
from omnivoice_triton.models import turbo_install
from omnivoice_triton.models.acceleration import Acceleration
from omnivoice_triton.models.availability import choose
from omnivoice_triton.models.parking import ENCODER_PARTS, HostEmbedding
from omnivoice_triton.models.seeding import seeded
from omnivoice_triton.models.turbo import TurboHandle
from omnivoice_triton.models.turbo_install import install_turbo
from omnivoice_triton.models.turbo_pieces import item_seed
from tests.models.helpers import Standin, canvas, load_upstream

FAST: dict[str, Any] = {"num_step": 3, "duration": 0.6}
RAW: dict[str, Any] = {"num_step": 4, "postprocess_output": False}
TEXT = "Hello, world."
LONG: dict[str, Any] = {"duration": 3.0, "num_step": 2, "audio_chunk_duration": 1.0, "audio_chunk_threshold": 1.5}
SENTENCES = "The first sentence is here. The second one follows it. And a third one ends it all."
SMALL: dict[str, Any] = {"max_rows": 1024, "max_items": 8}


def reference() -> tuple[np.ndarray, int]:
    """1.2 s of a buzzing tone at 24 kHz."""
    t = np.arange(int(1.2 * 24_000)) / 24_000
    wave = 0.3 * np.sign(np.sin(2 * np.pi * 140 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    return wave.astype(np.float32), 24_000


@pytest.fixture(scope="module")
def base(tiny: Path) -> Iterator[BaseRunner]:
    with create_runner("base", device="cpu", model_id=tiny) as made:
        yield made


@pytest.fixture(scope="module")
def upstream_noise(tiny: Path) -> Iterator[BaseRunner]:
    with create_runner("turbo", device="cpu", model_id=tiny, noise="torch", **SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def runner(tiny: Path) -> Iterator[BaseRunner]:
    with create_runner("turbo", device="cpu", model_id=tiny, **SMALL) as made:
        yield made


def handle_of(runner: BaseRunner) -> TurboHandle:
    assert runner.acceleration is not None
    assert runner.acceleration.turbo is not None
    return runner.acceleration.turbo


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[list[list[torch.Tensor]]]:
    """The tokens of every generate(): by item, by chunk."""
    seen: list[list[list[torch.Tensor]]] = []
    sound = TurboHandle._sound

    def keep(self: TurboHandle, tokens: Any, *rest: Any) -> Any:
        seen.append(tokens)
        return sound(self, tokens, *rest)

    monkeypatch.setattr(TurboHandle, "_sound", keep)
    return seen


CASES: dict[str, dict[str, Any]] = {
    "auto": {"text": TEXT, "duration": 0.6},
    "estimated length": {"text": "Hi."},
    "design": {"text": TEXT, "instruct": "female, high pitch", "language": "English", "duration": 0.6},
    "clone": {"text": TEXT, "ref_audio": reference(), "ref_text": "A tone.", "duration": 0.6},
    "batch": {"text": ["One.", "Two words.", "Now three."], "language": ["en", None, "English"], "speed": 2.0},
    "no guidance": {"text": TEXT, "guidance_scale": 0.0, "duration": 0.6},
    "class temperature": {"text": TEXT, "class_temperature": 0.7, "duration": 0.4},
    "chunks": {"text": SENTENCES, **LONG},
    "chunks in a voice": {"text": SENTENCES, "ref_audio": reference(), "ref_text": "A tone.", **LONG},
    "chunks beside a short one": {
        "text": [SENTENCES, "Short."],
        **LONG,
        "duration": [3.0, 0.5],
    },
    "every step of the way": {"text": TEXT, "duration": 0.2, "num_step": 32, "t_shift": 0.5, "denoise": False},
    "faded and padded": {"text": TEXT, "duration": 0.6, "pad_duration": 0.02, "fade_duration": 0.3},
}


class TestParityWithBase:
    """fp32 and upstream's noise: the same tokens, so the same sound up to the codec's rounding."""

    @pytest.mark.parametrize("name", CASES)
    def test_same_audio(self, base: BaseRunner, upstream_noise: BaseRunner, name: str) -> None:
        request = {**RAW, **CASES[name]}
        want, got = (runner.generate(seed=11, **request) for runner in (base, upstream_noise))
        wants, gots = (each if isinstance(each, list) else [each] for each in (want, got))
        assert len(wants) == len(gots)
        for w, g in zip(wants, gots, strict=True):
            assert np.abs(w.audio).max() > 0.01
            np.testing.assert_allclose(g.audio, w.audio, rtol=0, atol=1e-5)

    def test_same_audio_after_silence_removal(self, base: BaseRunner, upstream_noise: BaseRunner) -> None:
        """It goes through 16-bit samples, where a last bit can become 1/32768, then louder by the gain."""
        want, got = (r.generate(SENTENCES, seed=1, **LONG).audio for r in (base, upstream_noise))
        np.testing.assert_allclose(got, want, rtol=0, atol=20 / 32768)

    def test_another_seed_sounds_otherwise(self, base: BaseRunner, upstream_noise: BaseRunner) -> None:
        want = base.generate(TEXT, seed=11, **RAW, duration=0.6).audio
        got = upstream_noise.generate(TEXT, seed=12, **RAW, duration=0.6).audio
        assert np.abs(want - got).max() > 0.01

    def test_a_planted_fault_is_heard(
        self, base: BaseRunner, upstream_noise: BaseRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            handle_of(upstream_noise)._finisher, "finish", lambda items: [i.chunks[-1].numpy() for i in items]
        )
        want, got = (r.generate(TEXT, seed=1, **RAW, duration=0.6).audio for r in (base, upstream_noise))
        assert want.shape != got.shape or np.abs(want - got).max() > 1e-3


class TestSeeds:
    def test_same_seed_same_bits_whatever_ran_before(self, runner: BaseRunner) -> None:
        first = runner.generate(TEXT, seed=7, **FAST)
        runner.generate(["Something else entirely.", "Two."], seed=99, num_step=2, duration=1.0)
        torch.rand(3)
        assert np.array_equal(first.audio, runner.generate(TEXT, seed=7, **FAST).audio)
        assert not np.array_equal(first.audio, runner.generate(TEXT, seed=8, **FAST).audio)

    def test_an_unset_seed_is_random_but_reported(self, runner: BaseRunner) -> None:
        one, two = (runner.generate(TEXT, **FAST) for _ in range(2))
        assert one.seed != two.seed
        assert np.array_equal(one.audio, runner.generate(TEXT, seed=one.seed, **FAST).audio)
        assert one.mode == "turbo"

    @pytest.mark.parametrize("noise", ["philox", "torch"])
    def test_global_rng_is_not_disturbed(self, runner: BaseRunner, upstream_noise: BaseRunner, noise: str) -> None:
        torch.manual_seed(123)
        before = torch.get_rng_state()
        chosen = runner if noise == "philox" else upstream_noise
        chosen.generate([TEXT, SENTENCES], class_temperature=0.5, **LONG)
        assert torch.equal(torch.get_rng_state(), before)

    def test_without_a_runner_torchs_seed_counts(self, tiny: Path) -> None:
        model = load_upstream(tiny)
        audios = []
        with accelerate(model, "turbo", **SMALL):
            for seed in (5, 5, 6):
                torch.manual_seed(seed)
                audios.append(model.generate(text=TEXT, **FAST)[0])
        assert np.array_equal(audios[0], audios[1])
        assert not np.array_equal(audios[0], audios[2])

    def test_the_first_of_a_batch_is_decoded_as_alone(self, runner: BaseRunner, decoded: list[Any]) -> None:
        """Tokens to the bit, chunks of a long text included; the codec batches, which may round otherwise."""
        for text, options in ((TEXT, FAST), (SENTENCES, LONG)):
            decoded.clear()
            alone = runner.generate(text, seed=3, **options)
            batch = runner.generate([text, "Another one.", text], seed=3, **options)
            (one,), (first, _, third) = decoded
            assert len(one) == len(first)
            assert all(torch.equal(a, b) for a, b in zip(one, first, strict=True))
            assert not torch.equal(first[0], third[0])  # the same text, but not the same noise
            np.testing.assert_allclose(batch[0].audio, alone.audio, rtol=0, atol=20 / 32768)

    def test_seeds_of_items_and_chunks_differ(self) -> None:
        seeds = {item_seed(s, i, c) for s in (0, 1, 11) for i in (0, 1, 11) for c in (0, 1, 11)}
        assert len(seeds) == 27
        assert all(0 <= seed < 2**64 for seed in seeds)

    def test_the_other_modes_way_to_seed_is_refused(self, runner: BaseRunner) -> None:
        """It would put upstream's decode loop back in place, and nobody would notice."""
        with pytest.raises(InputError, match="decode loop is not upstream's"), seeded(runner.model, 1):
            pass


class TestLongText:
    def test_chunks_that_wait_for_nobody_run_together(
        self, runner: BaseRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[tuple[int, list[Any]]] = []
        engine = handle_of(runner).engine
        run = engine.generate_tokens

        def count(task: Any, *rest: Any, **options: Any) -> Any:
            batches.append((task.batch_size, task.ref_texts))
            return run(task, *rest, **options)

        monkeypatch.setattr(engine, "generate_tokens", count)
        runner.generate([SENTENCES, "Short."], seed=1, **LONG)
        (one, _), (two, voices) = batches
        assert one == 2
        assert two >= 2
        assert set(voices) == {voices[0]}  # all in the voice of the first chunk
        assert voices[0] is not None
        batches.clear()
        runner.generate(SENTENCES, ref_audio=reference(), ref_text="A tone.", seed=1, **LONG)
        assert [n for n, _ in batches] == [two + 1]

    def test_every_long_text_keeps_its_own_voice(
        self, runner: BaseRunner, decoded: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks: list[Any] = []
        engine = handle_of(runner).engine
        run = engine.generate_tokens
        monkeypatch.setattr(
            engine, "generate_tokens", lambda task, *r, **o: (tasks.append(task), run(task, *r, **o))[1]
        )
        other = "Quite another text begins. It goes on for a while. Then it comes to its end."
        runner.generate([SENTENCES, other], seed=1, **LONG)
        (items,), (_, later) = decoded, tasks
        voices = [items[0][0]] * (len(items[0]) - 1) + [items[1][0]] * (len(items[1]) - 1)
        assert not torch.equal(items[0][0], items[1][0])
        for given, want in zip(later.ref_audio_tokens, voices, strict=True):
            assert torch.equal(given, want)

    def test_lengths_are_upstreams(self, runner: BaseRunner, upstream_noise: BaseRunner, decoded: list[Any]) -> None:
        for each in (runner, upstream_noise):
            each.generate(SENTENCES, seed=1, speed=1.3, **{**LONG, "duration": None})
        ours, upstreams = ([chunk.shape for chunk in chunks[0]] for chunks in decoded)
        assert ours == upstreams
        assert len(ours) > 1

    @pytest.mark.parametrize("noise", ["philox", "torch"])
    def test_progress(self, runner: BaseRunner, upstream_noise: BaseRunner, noise: str) -> None:
        chosen = runner if noise == "philox" else upstream_noise
        for text, options in ((TEXT, FAST), ([SENTENCES, "Short."], LONG)):
            steps: list[tuple[int, int]] = []
            chosen.generate(text, seed=1, progress=lambda *s, to=steps: to.append(s), **options)
            assert [d for d, _ in steps] == sorted(d for d, _ in steps)
            assert len({total for _, total in steps}) == 1
            done, total = steps[-1]
            assert done == total
            assert total == FAST["num_step"] if text is TEXT else total >= 2 * LONG["num_step"]
            assert steps[0][0] < total

    def test_progress_that_raises_ends_the_call_alone(self, runner: BaseRunner) -> None:
        want = runner.generate(TEXT, seed=1, **FAST).audio

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runner.generate(TEXT, seed=1, progress=stop, **FAST)
        assert np.array_equal(runner.generate(TEXT, seed=1, **FAST).audio, want)


class TestOnAnUpstreamInstance:
    def test_generate_takes_what_upstreams_takes(self, runner: BaseRunner) -> None:
        from omnivoice import OmniVoice

        ours, theirs = inspect.signature(runner.model.generate), inspect.signature(OmniVoice.generate)
        assert {n: (p.kind, p.default) for n, p in ours.parameters.items()} == {
            n: (p.kind, p.default) for n, p in theirs.parameters.items() if n != "self"
        }

    def test_undo_is_exact(self, tiny: Path) -> None:
        model = load_upstream(tiny)
        inputs = canvas(model)
        with torch.inference_mode():
            before = model(**inputs).logits
        attributes = dict(model.__dict__)
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        torch.manual_seed(1)
        said = model.generate(text=TEXT, **FAST)[0]
        handle = accelerate(model, "turbo", noise="torch", **SMALL)
        assert isinstance(handle, Acceleration)
        assert model.generate.__self__ is handle.turbo
        with torch.inference_mode():
            assert torch.equal(model(**inputs).logits, before)  # upstream's forward stays upstream's
        torch.manual_seed(1)
        np.testing.assert_allclose(model.generate(text=TEXT, **FAST)[0], said, rtol=0, atol=20 / 32768)
        engine = handle.turbo.engine
        assert engine.runner.graphs.replays == 3
        assert engine.weights.shared
        handle.undo()
        handle.undo()
        assert not engine.weights.shared
        assert model.__dict__ == attributes
        after = model.state_dict()
        assert weights.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
        storages = [p.untyped_storage().data_ptr() for layer in model.llm.layers for p in layer.parameters()]
        assert len(set(storages)) == len(storages)
        with torch.inference_mode():
            assert torch.equal(model(**inputs).logits, before)
        torch.manual_seed(1)
        assert np.array_equal(model.generate(text=TEXT, **FAST)[0], said)

    def test_training_mode_ends_where_it_would_be_heard(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As upstream's generate(), which walks all modules each time; here only if there is something to do."""
        model = load_upstream(tiny)
        walks: list[int] = []
        walk = type(model).eval
        monkeypatch.setattr(type(model), "eval", lambda self: (walks.append(1), walk(self))[1])
        with accelerate(model, "turbo", **SMALL):
            model.generate(text=TEXT, **FAST)
            assert not walks
            model.train()
            model.generate(text=TEXT, **FAST)
            assert len(walks) == 1
            assert not any(module.training for module in model.modules())
            model.audio_tokenizer.train()
            model.generate(text=TEXT, ref_audio=(torch.from_numpy(reference()[0])[None], 24_000), ref_text="A.", **FAST)
            assert not any(module.training for module in model.modules())

    def test_repr(self, tiny: Path) -> None:
        model = load_upstream(tiny)
        handle = install_turbo(model, **SMALL)
        assert "reference on cpu" in repr(handle)
        assert "philox" in repr(handle)
        assert "CodecDecoder" in repr(handle)
        handle.undo()
        assert repr(handle) == "<turbo: undone>"
        assert not handle.active
        with pytest.raises(InputError, match="was undone"):
            _ = handle.engine

    def test_graphs_of_the_codec(self, tiny: Path) -> None:
        """Through a stand-in for capture: the ladder is captured once, and generate() replays."""
        model = load_upstream(tiny)
        handle = install_turbo(model, codec_capture=Standin(), warm=True, **SMALL)
        codec = handle.codec
        assert isinstance(codec, CodecGraphs)
        captures = codec.captures
        assert captures == len(ladder())
        assert "codec graphs" in repr(handle)
        model.generate(text=["One.", "Two words."], num_step=2)
        assert codec.replays > 0
        assert codec.captures == captures
        handle.undo()
        assert codec.shapes == ()

    def test_patched_twice(self, tiny: Path, device: str) -> None:
        model = load_upstream(tiny, device)
        with accelerate(model, "turbo", **SMALL):
            for mode in ("turbo", "base"):
                with pytest.raises(InputError, match="replaced already"):
                    accelerate(model, mode)
        with (
            accelerate(model, "faster", capture=Standin()),
            pytest.raises(InputError, match="forward is replaced already"),
        ):
            install_turbo(model)

    def test_a_failed_warm_up_leaves_nothing(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = load_upstream(tiny)
        attributes = dict(model.__dict__)

        def fail(self: TurboHandle) -> None:
            raise MemoryError

        monkeypatch.setattr(TurboHandle, "warmup", fail)
        with pytest.raises(MemoryError):
            install_turbo(model, warm=True, **SMALL)
        assert model.__dict__ == attributes


class TestWithoutTheReferenceEncoder:
    def test_saved_voices_speak_and_recordings_are_refused(
        self, tiny: Path, tmp_path: Path, runner: BaseRunner
    ) -> None:
        saved = tmp_path / "tone.pt"
        runner.create_voice(reference(), "A tone.").save(str(saved))
        want = runner.generate(TEXT, voice=saved, seed=3, **FAST).audio
        with create_runner("turbo", device="cpu", model_id=tiny, reference_encoder=False, **SMALL) as lean:
            assert np.array_equal(lean.generate(TEXT, voice=saved, seed=3, **FAST).audio, want)
            assert np.array_equal(lean.generate_voice_clone(TEXT, voice=str(saved), seed=3, **FAST).audio, want)
            assert lean.generate(TEXT, seed=3, **FAST).audio_s > 0.3
            for call in (
                lambda: lean.generate(TEXT, ref_audio=reference(), ref_text="A tone.", **FAST),
                lambda: lean.generate_voice_clone(TEXT, reference(), "A tone.", **FAST),
                lambda: lean.create_voice(reference()),  # before anybody loads a recogniser
                lambda: lean.model.generate(text=TEXT, ref_audio=reference(), ref_text="A tone.", **FAST),
            ):
                with pytest.raises(InputError, match=r"^reference_encoder=False left nothing here that encodes"):
                    call()

    def test_what_is_parked_is_all_that_speaking_does_not_need(self, tiny: Path) -> None:
        """Nothing of what the decoder reads; everything else but what upstream's own decode() takes."""
        model = load_upstream(tiny)
        handle = install_turbo(model, reference_encoder=False, **SMALL)
        parts = [getattr(model.audio_tokenizer, name) for name in ENCODER_PARTS]
        parked = {p.data_ptr() for part in parts for p in part.parameters()}
        weights = handle.codec.weights
        units = [unit for block in weights.blocks for unit in block.units]
        read = [weights.conv_in.weight, weights.conv_out.weight, *(block.up.weight for block in weights.blocks)]
        read += [conv.weight for unit in units for conv in (unit.conv1, unit.conv2)]
        assert not parked & {tensor.data_ptr() for tensor in read}
        left = {name for name, _ in model.audio_tokenizer.named_children()} - set(ENCODER_PARTS)
        assert left == {"acoustic_decoder", "quantizer", "fc2"}
        handle.undo()

    def test_undo_brings_it_back(self, tiny: Path) -> None:
        model = load_upstream(tiny)
        attributes = dict(model.__dict__)
        before = {name: tensor.clone() for name, tensor in model.audio_tokenizer.state_dict().items()}
        with accelerate(model, "turbo", reference_encoder=False, **SMALL):
            assert "create_voice_clone_prompt" in model.__dict__
        assert model.__dict__ == attributes
        after = model.audio_tokenizer.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        wave = torch.from_numpy(reference()[0])[None]
        assert model.create_voice_clone_prompt((wave, 24_000), "A tone.").ref_audio_tokens.shape[0] == 8

    def test_another_codec_is_refused_and_left_alone(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from omnivoice_triton import UpstreamChanged

        model = load_upstream(tiny)
        attributes = dict(model.__dict__)
        monkeypatch.setattr("omnivoice_triton.models.parking.ENCODER_PARTS", ("acoustic_encoder", "ear"))
        with pytest.raises(UpstreamChanged, match="no ear"):
            install_turbo(model, reference_encoder=False, **SMALL)
        assert model.__dict__ == attributes


class TestTextEmbeddingOnTheHost:
    def test_nothing_sounds_otherwise_and_undo_is_exact(self, tiny: Path) -> None:
        model = load_upstream(tiny)
        inputs = canvas(model)
        parameter, weight = model.llm.embed_tokens.weight, model.llm.embed_tokens.weight.detach().clone()
        names, attributes = list(dict(model.named_parameters())), dict(model.__dict__)
        with torch.inference_mode():
            before = model(**inputs).logits
        keys = list(model.state_dict())
        with accelerate(model, "turbo", **SMALL):
            torch.manual_seed(1)
            want = model.generate(text=[TEXT, "Two."], **FAST)
        with accelerate(model, "turbo", host_embedding=True, **SMALL) as handle:
            embedding = model.llm.embed_tokens
            assert type(embedding) is HostEmbedding
            assert embedding.weight.data_ptr() == handle.turbo.engine.weights.text_embedding.data_ptr()
            assert parameter.numel() == 0  # the device's copy is gone
            assert sorted(model.state_dict()) == sorted(keys)
            torch.manual_seed(1)
            for got, wanted in zip(model.generate(text=[TEXT, "Two."], **FAST), want, strict=True):
                assert np.array_equal(got, wanted)
            with torch.inference_mode():
                assert torch.equal(model(**inputs).logits, before)
        assert type(model.llm.embed_tokens) is torch.nn.Embedding
        assert model.llm.embed_tokens.weight is parameter
        assert torch.equal(parameter, weight)
        assert sorted(dict(model.named_parameters())) == sorted(names)
        assert model.__dict__ == attributes
        assert not model.llm.embed_tokens._buffers
        with torch.inference_mode():
            assert torch.equal(model(**inputs).logits, before)

    def test_a_runner_keeps_it_there_and_accelerate_does_not(self, tiny: Path) -> None:
        for given, kind in (({}, HostEmbedding), ({"host_embedding": False}, torch.nn.Embedding)):
            with BaseRunner("cpu", tiny, mode="turbo", **given, **SMALL) as runner:
                assert type(runner.model.llm.embed_tokens) is kind
        with BaseRunner("cpu", tiny, mode="base") as runner:
            assert type(runner.model.llm.embed_tokens) is torch.nn.Embedding
            with accelerate(runner.model, "turbo", **SMALL):
                assert type(runner.model.llm.embed_tokens) is torch.nn.Embedding

    def test_another_embedding_is_refused_and_left_alone(self, tiny: Path) -> None:
        from omnivoice_triton import UpstreamChanged

        class Scaled(torch.nn.Embedding):
            pass

        model = load_upstream(tiny)
        attributes = dict(model.__dict__)
        model.llm.embed_tokens.__class__ = Scaled
        with pytest.raises(UpstreamChanged, match="not a plain embedding"):
            install_turbo(model, host_embedding=True, **SMALL)
        assert model.__dict__ == attributes


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"noise": "pink"}, "unknown noise 'pink'"),
            ({"codec_precision": "fp8"}, "unknown codec precision 'fp8'"),
            ({"attention": "sage"}, "unknown attention 'sage': choose one of exact, int8"),
            ({"precision": "int8"}, "unknown precision 'int8': choose 'fp8', or None for the model's dtype"),
            ({"precision": torch.float16}, r"unknown precision torch\.float16"),
            ({"max_rows": 100}, "max_rows must be a multiple of 64, not 100"),
            ({"reference_encoder": "no"}, "reference_encoder must be True or False, not 'no'"),
            ({"host_embedding": 1}, "host_embedding must be True or False, not 1"),
            ({"max_items": 0}, "max_items must be a whole number of at least 1, not 0"),
            ({"tiles": 7}, "tiles must be a file that `omnivoice-triton tune` has written, not 7"),
            ({"tiles": "none.json"}, "can't read the tile table 'none.json': no such file"),
            ({"patch_range": (0, 1)}, "patch_range and enable_fused_norm are for modes that patch"),
            ({"max_row": 64}, "unknown runner option 'max_row': there are patch_range"),
        ],
    )
    def test_options(self, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            create_runner("turbo", device="cpu", **options)

    @pytest.mark.parametrize(
        "name",
        [
            "noise",
            "max_rows",
            "max_items",
            "attention",
            "precision",
            "codec_precision",
            "reference_encoder",
            "host_embedding",
            "tiles",
        ],
    )
    def test_engine_options_are_for_turbo(self, name: str, tiny: Path) -> None:
        with pytest.raises(InputError, match=f"{name} is for mode turbo, not base"):
            create_runner("base", device="cpu", **{name: 64})

    def test_accelerate_refuses_unknown_options(self, model: Any) -> None:
        with pytest.raises(InputError, match="unknown option 'colour'"):
            accelerate(model, "turbo", colour="pink")
        with pytest.raises(InputError, match="for modes that patch"):
            accelerate(model, "turbo", enable_fused_norm=False)

    def test_too_long_for_its_rows(self, runner: BaseRunner) -> None:
        """Upstream decodes it all the same, and so does turbo: alone, in buffers of its own."""
        assert runner.generate(TEXT, duration=25.0, num_step=1, postprocess_output=False).audio_s > 24
        assert runner.generate(TEXT, seed=1, **FAST).audio_s > 0.3

    def test_bad_sound_of_an_item_is_raised(self, runner: BaseRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handle_of(runner)._finisher, "finish", lambda items: [InputError("not finite")])
        with pytest.raises(InputError, match="not finite"):
            runner.generate(TEXT, **FAST)

    def test_a_checked_request(self, runner: BaseRunner) -> None:
        with pytest.raises(InputError, match="text is empty"):
            runner.generate(" ")
        with pytest.raises(InputError, match="pad_duration must not be negative"):
            runner.model.generate(text=TEXT, pad_duration=-1.0)


class TestLife:
    def test_auto_on_a_cpu_stays_base(self) -> None:
        choice = choose("auto", "cpu")
        assert choice.mode.name == "base"
        assert "NVIDIA GPU" in choice.reason

    def test_unloading_frees_everything(self, tiny: Path) -> None:
        with create_runner("turbo", device="cpu", model_id=tiny, **SMALL) as runner:
            runner.warmup(lengths=[10])
            runner.generate(TEXT, ref_audio=reference(), ref_text="A tone.", seed=1, **FAST)
            acceleration = runner.acceleration
            turbo = handle_of(runner)
            alive = [
                weakref.ref(each)
                for each in (
                    runner.model,
                    runner.model.audio_tokenizer,
                    turbo.engine,
                    turbo.codec,
                    turbo.engine.weights,
                )
            ]
        gc.collect()
        assert [each() for each in alive] == [None] * 5  # though both handles are still held
        assert acceleration is not None
        assert "undone" in repr(acceleration)
        assert acceleration.turbo is turbo

    def test_unload_and_load_again(self, tiny: Path) -> None:
        runner = create_runner("turbo", device="cpu", model_id=tiny, **SMALL)
        audios = []
        for _ in range(2):
            with runner:
                audios.append(runner.generate(TEXT, seed=1, **FAST).audio)
        assert np.array_equal(*audios)

    def test_threads_take_turns(self, runner: BaseRunner) -> None:
        want = {seed: runner.generate(TEXT, seed=seed, **FAST).audio for seed in range(4)}
        got: dict[int, np.ndarray] = {}
        threads = [
            threading.Thread(target=lambda s=seed: got.update({s: runner.generate(TEXT, seed=s, **FAST).audio}))
            for seed in want
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(np.array_equal(got[seed], want[seed]) for seed in want)

    def test_threads_on_the_model_itself(self, runner: BaseRunner) -> None:
        """No runner in between: the engine batches them, the codec serves one at a time, seeds stay each thread's."""
        turbo = handle_of(runner)
        want = {seed: runner.generate(TEXT, seed=seed, **RAW, duration=0.6).audio for seed in range(4)}
        got: dict[int, np.ndarray] = {}

        def say(seed: int) -> None:
            with turbo.call(seed):
                got[seed] = runner.model.generate(text=[TEXT], **RAW, duration=0.6)[0]

        threads = [threading.Thread(target=say, args=(seed,)) for seed in want]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed, audio in want.items():
            np.testing.assert_array_equal(got[seed], audio)

    def test_the_codec_serves_one_thread_at_a_time(self, runner: BaseRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        codec = handle_of(runner).codec
        decode, inside, crowds = codec.decode, threading.Semaphore(1), []

        def alone(*args: Any, **options: Any) -> Any:
            if not inside.acquire(blocking=False):
                crowds.append(1)
                return decode(*args, **options)
            try:
                time.sleep(0.05)
                return decode(*args, **options)
            finally:
                inside.release()

        monkeypatch.setattr(codec, "decode", alone)
        say = partial(runner.model.generate, text=TEXT, **FAST)
        threads = [threading.Thread(target=say) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not crowds

    def test_bf16_on_the_cpu(self, tiny: Path) -> None:
        with create_runner("turbo", device="cpu", model_id=tiny, dtype="bf16", **SMALL) as runner:
            assert runner.model.dtype == torch.bfloat16
            assert np.isfinite(runner.generate(TEXT, seed=1, **FAST).audio).all()

    def test_the_command_line(self, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from omnivoice_triton.cli import main

        out = tmp_path / "a.wav"
        words = f"say Hello. -o {out} --model {tiny} --mode turbo --device cpu --seed 1 --num-step 2 --duration 0.5"
        assert main(words.split()) == 0
        assert out.stat().st_size > 1000
        assert capsys.readouterr().out.startswith("turbo on cpu: ")

    def test_without_triton_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ModeUnavailable, match="turbo can't run here: Triton is not installed"):
            create_runner("turbo", device="cpu")


def test_a_changed_upstream_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivoice_triton import UpstreamChanged

    monkeypatch.setattr(turbo_install, "_USED", ("_decode_by_telepathy",))
    with pytest.raises(UpstreamChanged, match="no _decode_by_telepathy"):
        install_turbo(model)


def waits_of(run: Any) -> int:
    """How often torch says that the host waited for the device."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in seen)


@pytest.mark.gpu
class TestOnAGpu:
    DTYPES = (torch.float16, torch.bfloat16, torch.float32)

    def test_graphs_are_replayed_and_bits_repeat(self, tiny: Path) -> None:
        with create_runner("turbo", model_id=tiny) as runner:
            assert runner.device == "cuda"
            runner.warmup()
            turbo = handle_of(runner)
            codec = turbo.codec
            assert isinstance(codec, CodecGraphs)
            captured = turbo.engine.runner.graphs.captures, codec.captures
            state = torch.cuda.get_rng_state()
            first = runner.generate(TEXT, seed=5, duration=2.0)
            steps, replays = turbo.engine.runner.graphs.replays, codec.replays
            for seed, duration in enumerate((0.4, 6.0, 2.0)):
                runner.generate([TEXT, "Two."], seed=seed, duration=duration)
            again = runner.generate(TEXT, seed=5, duration=2.0)
            assert np.array_equal(first.audio, again.audio)
            assert np.isfinite(first.audio).all()
            assert torch.equal(torch.cuda.get_rng_state(), state)
            assert turbo.engine.runner.graphs.replays - steps == 4 * 32
            assert codec.replays > replays
            assert codec.eager_calls == 0
            assert (turbo.engine.runner.graphs.captures, codec.captures) == captured

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_logits_are_as_near_to_fp32_as_upstreams(self, tiny: Path, dtype: torch.dtype) -> None:
        """Teacher forcing on half-decided tokens, both branches."""
        from omnivoice import OmniVoiceGenerationConfig

        exact, model = load_upstream(tiny, "cuda", torch.float32), load_upstream(tiny, "cuda", dtype)
        task = model._preprocess_all(text=TEXT, duration=2.0)
        config = OmniVoiceGenerationConfig()
        mask = model.config.audio_mask_id
        tokens = torch.randint(0, mask, (8, 50), generator=torch.Generator().manual_seed(0))
        tokens[torch.rand(8, 50, generator=torch.Generator().manual_seed(1)) < 0.5] = mask

        def forward(upstream: Any) -> torch.Tensor:
            inputs = upstream._prepare_inference_inputs(TEXT, 50, None, None, None, None, config.denoise)
            ids, audio = inputs["input_ids"].clone(), inputs["audio_mask"]
            ids[0, :, -50:] = tokens.to(ids.device)
            branches = []
            for at in (slice(None), slice(-50, None)):
                length = ids[..., at].shape[-1]
                seen = torch.ones(1, 1, length, length, dtype=torch.bool, device=ids.device)
                made = upstream(input_ids=ids[..., at], audio_mask=audio[:, at], attention_mask=seen)
                branches.append(made.logits[0, :, -50:].float())
            return torch.stack(branches)

        with torch.inference_mode():
            true, base = forward(exact), forward(model)
        with accelerate(model, "turbo") as handle:
            assert handle.turbo is not None
            (both,) = handle.turbo.engine.logits(task, config, [tokens])
            assert both[1] is not None
            got = torch.stack([both[0], both[1]])

        def error(x: torch.Tensor) -> float:
            return float((x - true).norm() / true.norm())

        assert error(got) < max(1.25 * error(base), 1e-5)

    def test_with_the_text_embedding_on_the_host(self, tiny: Path) -> None:
        model = load_upstream(tiny, "cuda", torch.float16)
        inputs = canvas(model)
        weight = model.llm.embed_tokens.weight.detach().clone()
        with torch.inference_mode():
            before = model(**inputs).logits
        sounds = []
        for host in (False, True):
            with accelerate(model, "turbo", host_embedding=host, **SMALL):
                torch.manual_seed(1)
                sounds.append(model.generate(text=TEXT, duration=1.0, num_step=4)[0])
                assert model.device.type == "cuda"
                assert model.llm.embed_tokens.weight.device.type == ("cpu" if host else "cuda")
                with torch.inference_mode():
                    assert torch.equal(model(**inputs).logits, before)
        assert np.array_equal(*sounds)
        assert torch.equal(model.llm.embed_tokens.weight, weight)

    def test_without_the_reference_encoder(self, tiny: Path) -> None:
        """Its weights leave the device, speaking goes on, and undo brings them back."""
        model = load_upstream(tiny, "cuda", torch.float16)
        tokenizer = model.audio_tokenizer
        parts = [getattr(tokenizer, name) for name in ENCODER_PARTS]
        before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
        with accelerate(model, "turbo", **SMALL):
            torch.manual_seed(1)
            want = model.generate(text=TEXT, duration=1.0, num_step=4)[0]
        handle = install_turbo(model, reference_encoder=False, **SMALL)
        assert {p.device.type for part in parts for p in part.parameters()} == {"cpu"}
        torch.manual_seed(1)
        assert np.array_equal(model.generate(text=TEXT, duration=1.0, num_step=4)[0], want)
        handle.undo()
        assert {p.device.type for part in parts for p in part.parameters()} == {"cuda"}
        after = tokenizer.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    def test_the_host_waits_once(self, tiny: Path) -> None:
        """For the samples. Any other wait would leave the device idle while the host goes on."""
        voice = torch.randint(0, 1024, (8, 30), generator=torch.Generator().manual_seed(0))
        with create_runner("turbo", model_id=tiny) as runner:
            from omnivoice import VoiceClonePrompt

            runner.warmup()
            prompt = VoiceClonePrompt(voice, "A tone.", 0.2)
            for text, options in ((TEXT, {}), ([TEXT, "Two.", "And three."], {"voice": prompt})):
                say = partial(runner.generate, text, duration=2.0, num_step=4, **options)
                say()  # looks at the voice's codes
                # What the one wait that is meant counts as is torch's affair.
                assert waits_of(say) == waits_of(torch.cuda.current_stream().synchronize)
                assert waits_of(partial(torch.Tensor.cuda, torch.zeros(1))) > 0

    def test_undo_gives_the_memory_back(self, tiny: Path) -> None:
        model = load_upstream(tiny, "cuda", torch.float16)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        handle = accelerate(model, "turbo")
        model.generate(text=TEXT, duration=2.0, num_step=4)
        handle.undo()
        gc.collect()
        torch.cuda.empty_cache()
        # cuBLAS and cuDNN keep workspaces for the capture streams; nothing else may stay.
        assert torch.cuda.memory_reserved() - before <= 96 * 2**20
