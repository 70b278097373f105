"""The whole engine on the CPU: upstream's tokens, independence of companions, and everything a caller may do."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.kernels import unmask_reference
from omnivoice_triton.speech import InputError

from .tiny import generation_config, make_model, make_task


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def torch_engine(model: Any) -> Engine:
    return Engine(model, noise="torch", max_rows=512, max_items=8)


@pytest.fixture(scope="module")
def engine(model: Any) -> Engine:
    return Engine(model, max_rows=512, max_items=8)


def upstream_tokens(model: Any, task: Any, config: Any, seed: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    with torch.inference_mode():
        tokens: list[torch.Tensor] = type(model)._generate_iterative(model, task, config)
    return tokens


def turbo_tokens(engine: Engine, task: Any, config: Any, seed: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return engine.generate_tokens(task, config)


def all_equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


TASKS: dict[str, dict[str, Any]] = {
    "auto": {"frames": [17]},
    "one frame, one letter": {"frames": [1], "texts": ["a"]},
    "clone": {"frames": [12], "reference_frames": [9]},
    "design": {"frames": [11], "instructs": ["female, low pitch"], "langs": ["en"]},
    "mixed lengths": {"frames": [3, 21, 1, 9]},
    "mixed clones": {"frames": [8, 2, 13], "reference_frames": [1, 15, 6]},
}


@pytest.mark.parametrize("name", TASKS)
def test_tokens_are_upstreams(model: Any, torch_engine: Engine, name: str) -> None:
    task, config = make_task(model, **TASKS[name]), generation_config(num_step=8)
    assert all_equal(turbo_tokens(torch_engine, task, config), upstream_tokens(model, task, config))


@pytest.mark.parametrize(
    "options",
    [
        {"num_step": 32},
        {"num_step": 1},
        {"num_step": 100},  # more steps than the shorter item has cells
        {"num_step": 8, "guidance_scale": 0.0},
        {"num_step": 8, "guidance_scale": -0.7},
        {"num_step": 8, "class_temperature": 0.9},
        {"num_step": 8, "class_temperature": 0.9, "position_temperature": 0.0, "guidance_scale": 0.0},
        {"num_step": 8, "position_temperature": 0.0},
        {"num_step": 8, "t_shift": 1.0, "layer_penalty_factor": 0.5},
    ],
)
def test_tokens_are_upstreams_with_every_option(model: Any, torch_engine: Engine, options: dict[str, Any]) -> None:
    task, config = make_task(model, [7, 3], reference_frames=[5, 2]), generation_config(**options)
    assert all_equal(turbo_tokens(torch_engine, task, config), upstream_tokens(model, task, config))


def test_items_that_do_not_fit_together_still_get_upstreams_tokens(model: Any) -> None:
    """The draws of a batch are planned before its loop, so its items may run one after the other."""
    task, config = make_task(model, [20, 30, 25]), generation_config(num_step=4)
    small = Engine(model, noise="torch", max_rows=128)
    assert all_equal(turbo_tokens(small, task, config), upstream_tokens(model, task, config))
    assert small.runner.graphs.replays > 4


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from omnivoice import OmniVoice

    from omnivoice_triton.checkpoint import make_checkpoint

    path: Path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(path, "tiny")
    return OmniVoice.from_pretrained(str(path))


@pytest.mark.parametrize("class_temperature", [0.0, 0.8])
@pytest.mark.parametrize("guidance", [0.0, 2.0, 3.5, 8.0])
@pytest.mark.parametrize("penalty", [0.0, 5.0])
def test_without_noise_confidences_alone_rank_and_ties_are_upstreams(
    tiny_checkpoint: Any, penalty: float, guidance: float, class_temperature: float
) -> None:
    model = tiny_checkpoint
    engine = Engine(model, noise="torch", max_rows=1024)
    config = generation_config(
        num_step=8,
        position_temperature=0.0,
        layer_penalty_factor=penalty,
        guidance_scale=guidance,
        class_temperature=class_temperature,
    )
    for number in range(3):
        task = model._preprocess_all(text=f"Number {number} of these texts.", duration=1.0 + number)
        assert all_equal(turbo_tokens(engine, task, config), upstream_tokens(model, task, config))
    engine.close()


@pytest.mark.parametrize("with_reference", [False, True])
def test_upstreams_generate_with_the_engine_bound_in(tiny_checkpoint: Any, with_reference: bool) -> None:
    """generate() itself, on the tiny checkpoint: chunked long text beside a short one, audio from upstream's codec."""
    model = tiny_checkpoint
    text = ["First sentence, a little longer. Second one follows here. And a third.", "Short."]
    options: dict[str, Any] = {"num_step": 4, "audio_chunk_threshold": 1.6, "audio_chunk_duration": 0.8}
    if with_reference:
        from omnivoice.models.omnivoice import VoiceClonePrompt

        codes = torch.randint(0, 1024, (8, 10), generator=torch.Generator().manual_seed(4))
        options["voice_clone_prompt"] = VoiceClonePrompt(codes, "ten frames.", 0.2)
    batches: list[list[int]] = []
    engine = Engine(model, noise="torch", max_rows=1024)

    def counted(task: Any, config: Any) -> list[torch.Tensor]:
        batches.append(list(task.target_lens))
        return engine.generate_tokens(task, config)

    torch.manual_seed(2)
    want = model.generate(text, **options)
    model._generate_iterative = counted
    try:
        torch.manual_seed(2)
        got = model.generate(text, **options)
    finally:
        del model._generate_iterative
        engine.close()
    assert len(batches) > 2  # the short one, and at least two chunks
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, atol=1e-5)
        assert np.abs(w).max() > 0.01


def test_manual_seed_is_torchs_seed_without_touching_the_global_one(model: Any, torch_engine: Engine) -> None:
    task, config = make_task(model, [6]), generation_config(num_step=4)
    want = upstream_tokens(model, task, config, seed=77)
    before = torch.get_rng_state()
    torch_engine.manual_seed(77)
    try:
        assert all_equal(torch_engine.generate_tokens(task, config), want)
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        torch_engine._source._seeds = torch_engine._source._draws = None


@pytest.mark.parametrize("planted", ["guidance", "penalty", "noise reused", "k"])
def test_planted_faults_change_tokens(
    model: Any, torch_engine: Engine, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would be a plausible bug; the comparison with upstream must see it."""
    task, config = make_task(model, [14]), generation_config(num_step=8)
    want = upstream_tokens(model, task, config)
    if planted == "noise reused":
        from omnivoice_triton.engine.noise import TorchDraws

        fill = TorchDraws.fill
        monkeypatch.setattr(TorchDraws, "fill", lambda self, step, *rest: fill(self, 0, *rest))
    elif planted == "k":
        counts = (config.num_step * (14,))[:8]
        monkeypatch.setattr("omnivoice_triton.engine.intake.working_counts", lambda *a: counts)
    else:
        field = {"guidance": "guidance", "penalty": "penalty"}[planted]

        class Wrong(unmask_reference.Slot):
            def __init__(self, row: torch.Tensor) -> None:
                super().__init__(row)
                setattr(self, field, getattr(self, field) + 0.5)

        monkeypatch.setattr(unmask_reference, "Slot", Wrong)
    assert not all_equal(turbo_tokens(torch_engine, task, config), want)


def request(frames: int, seed: int, *, text: int = 6, reference: int = 0, **options: Any) -> Request:
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(rng.integers(0, 32, (8, reference))) if reference else None
    return Request(Prompt(rng.integers(0, 64, text), codes, frames), DecodeOptions(**{"num_step": 6, **options}), seed)


ITEM = st.builds(
    request,
    frames=st.integers(1, 30),
    seed=st.integers(0, 2**63),
    text=st.integers(0, 20),
    reference=st.sampled_from([0, 0, 7]),
    num_step=st.integers(1, 9),
    guidance_scale=st.sampled_from([0.0, 2.0]),
    position_temperature=st.sampled_from([0.0, 5.0]),
    class_temperature=st.sampled_from([0.0, 0.8]),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(items=st.lists(ITEM, min_size=2, max_size=5), data=st.data())
def test_an_items_tokens_do_not_depend_on_its_companions(engine: Engine, items: list[Request], data: Any) -> None:
    """Alone, and joining others at any step in any order while some are cancelled: the same tokens."""
    alone = []
    for item in items:
        future = engine.submit(item)
        engine.run_until_idle()
        alone.append(future.result(0))
    order = data.draw(st.permutations(range(len(items))))
    futures = {}
    for index in order:
        futures[index] = engine.submit(items[index])
        if data.draw(st.integers(0, 3)) == 0:
            engine.submit(items[index]).cancel()
        for _ in range(data.draw(st.integers(0, 4))):
            engine.step()
    engine.run_until_idle()
    for index, want in enumerate(alone):
        assert torch.equal(futures[index].result(0), want)
        assert want.shape == (8, items[index].prompt.frames)
        assert want.max() < engine.shape.mask_id  # every cell is decided
    assert engine.runner.state.free == (512, 512, 8)


def test_seeds_matter_and_repeat(engine: Engine) -> None:
    futures = [engine.submit(request(9, 0)), engine.submit(request(9, 0))]
    other = engine.submit(Request(request(9, 0).prompt, DecodeOptions(num_step=6), seed=1))
    engine.run_until_idle()
    assert torch.equal(futures[0].result(0), futures[1].result(0))
    assert not torch.equal(futures[0].result(0), other.result(0))


def test_philox_seeds_follow_torchs_global_generator(model: Any, engine: Engine) -> None:
    task, config = make_task(model, [6, 6], texts=["same", "same"]), generation_config(num_step=4)
    first = turbo_tokens(engine, task, config, seed=3)
    assert not torch.equal(first[0], first[1])
    assert all_equal(turbo_tokens(engine, task, config, seed=3), first)
    assert not all_equal(turbo_tokens(engine, task, config, seed=4), first)
    alone = make_task(model, [6], texts=["same"])
    assert torch.equal(turbo_tokens(engine, alone, config, seed=3)[0], first[0])


def test_short_requests_stop_when_everything_is_decided(engine: Engine) -> None:
    before = engine.runner.graphs.replays
    future = engine.submit(request(1, 0, num_step=32))
    engine.run_until_idle()
    assert future.done()
    assert engine.runner.graphs.replays - before == 8


def test_a_background_thread_serves_many_callers(model: Any) -> None:
    config = generation_config(num_step=3)
    with Engine(model, max_rows=256, max_items=4) as engine:
        engine.start()
        engine.start()
        results: dict[int, list[torch.Tensor]] = {}

        def call(n: int) -> None:
            results[n] = engine.generate_tokens(make_task(model, [n, 2]), config)

        threads = [threading.Thread(target=call, args=(n,)) for n in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert {n: [tuple(t.shape) for t in r] for n, r in results.items()} == {
            n: [(8, n), (8, 2)] for n in range(1, 7)
        }
    assert not engine.weights.shared
    with pytest.raises(InputError, match="closed"):
        engine.submit(request(1, 0))


def test_callers_without_a_thread_share_the_steps(model: Any, engine: Engine) -> None:
    config = generation_config(num_step=4)
    results: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: results.append(engine.generate_tokens(make_task(model, [n]), config)[0].shape[1])
        )
        for n in (3, 8, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [3, 5, 8]


def test_closing_cancels_what_is_left(model: Any) -> None:
    engine = Engine(model, max_rows=128)
    future = engine.submit(request(3, 0))
    engine.step()
    engine.close()
    with pytest.raises(CancelledError):
        future.result(0)


def test_an_error_in_the_background_reaches_those_who_wait(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model, max_rows=128)
    monkeypatch.setattr(
        engine.runner.graphs, "warmup", lambda: (_ for _ in ()).throw(MemoryError("no room for graphs"))
    )
    monkeypatch.setattr("omnivoice_triton.engine.background.logger", SimpleNamespace(exception=lambda *a: None))
    engine.start()
    try:
        with pytest.raises(MemoryError, match="no room"):
            engine.submit(request(3, 0)).result(10)
    finally:
        engine.close()


def test_a_bad_item_leaves_the_others_alone(engine: Engine) -> None:
    good = engine.submit(request(4, 0))
    for bad, complaint in (
        (Request(Prompt(np.array([64], np.int64), None, 2)), "text ids must be 0 to 63"),
        (Request(Prompt(np.zeros(1, np.int64), torch.full((8, 2), 33), 2)), "reference codes must be 0 to 31"),
        (Request(Prompt(np.zeros(1, np.int64), torch.zeros(4, 2, dtype=torch.long), 2)), "4 codebooks, wanted 8"),
        (request(300, 0), r"takes 606 rows \(prompt 6, 300 frames, guided\), but the engine holds 512"),
    ):
        with pytest.raises(InputError, match=complaint):
            engine.submit(bad)
    engine.run_until_idle()
    assert good.result(0).shape == (8, 4)


def test_a_bad_item_of_a_batch_runs_none_of_it(model: Any, engine: Engine) -> None:
    before = engine.runner.graphs.replays
    with pytest.raises(InputError, match="but the engine holds 65536"):
        engine.generate_tokens(make_task(model, [3, 40_000]), generation_config(num_step=2))
    assert engine.runner.graphs.replays == before


def test_teacher_forced_logits_are_upstreams(model: Any, engine: Engine) -> None:
    task, config = make_task(model, [5, 3], reference_frames=[2, 4]), generation_config()
    generator = torch.Generator().manual_seed(9)
    tokens = [torch.randint(0, 33, (8, n), generator=generator) for n in (5, 3)]
    got = engine.logits(task, config, tokens)
    for index, (cond, uncond) in enumerate(got):
        prompt = engine.prompts.from_task(task, index, True)
        assert prompt.reference is not None
        text = torch.from_numpy(prompt.text_ids).expand(8, -1)
        ids = torch.cat((text, prompt.reference, tokens[index]), 1)
        for part, n_text, logits in ((ids, len(prompt.text_ids), cond), (tokens[index], 0, uncond)):
            n = part.shape[1]
            with torch.no_grad():
                want = model(
                    input_ids=part[None],
                    audio_mask=(torch.arange(n) >= n_text)[None],
                    attention_mask=torch.ones(1, 1, n, n, dtype=torch.bool),
                ).logits[0]
            torch.testing.assert_close(logits, want[:, -tokens[index].shape[1] :], rtol=1e-4, atol=1e-4)
    assert engine.runner.state.free == (512, 512, 8)
    assert engine.logits(task, generation_config(guidance_scale=0.0), tokens)[0][1] is None


def test_logits_between_two_steps_are_refused(model: Any, engine: Engine) -> None:
    future = engine.submit(request(4, 0))
    with pytest.raises(InputError, match="idle engine"):
        engine.logits(make_task(model, [2]), generation_config(), [torch.zeros(8, 2, dtype=torch.long)])
    engine.run_until_idle()
    assert future.done()


def test_engines_live_beside_upstream(model: Any) -> None:
    """Sharing and unsharing weights leaves upstream's own generation as it was."""
    task, config = make_task(model, [4]), generation_config(num_step=3)
    want = upstream_tokens(model, task, config)
    engine = Engine(model, noise="torch", max_rows=128)
    assert all_equal(upstream_tokens(model, task, config), want)
    assert all_equal(turbo_tokens(engine, task, config), want)
    engine.close()
    assert all_equal(upstream_tokens(model, task, config), want)
    assert "reference on cpu" in repr(engine)
    with pytest.raises(InputError, match="unknown noise"):
        Engine(model, noise="pink")
