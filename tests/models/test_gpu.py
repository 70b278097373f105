"""What only a GPU can show: real capture, real memory, the same bits again in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton import MODES, InputError, accelerate, create_runner
from omnivoice_triton.kernels.attention import launch_count, reset_launch_count
from omnivoice_triton.models.graphs import GraphedForward, capture_cuda_graph
from tests.models.helpers import canvas, counting_rows, load_upstream

pytestmark = pytest.mark.gpu

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SAY: dict[str, Any] = {"text": "Hello, world.", "num_step": 6}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["faster", "hybrid", "hybrid_sage"])
def test_replay_equals_eager_of_the_same_padded_input(tiny: Path, mode: str, dtype: torch.dtype) -> None:
    model = load_upstream(tiny, "cuda", dtype)
    with accelerate(model, mode) as handle:
        graphed = handle.graphs
        assert isinstance(graphed, GraphedForward)
        for seed, target in enumerate((10, 40, 25, 10)):
            inputs = canvas(model, target=target, seed=seed)
            assert torch.equal(graphed(**inputs).logits, graphed.run_eager(**inputs))
        assert graphed.replays == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", [m for m in MODES if m != "base" and not MODES[m].engine])
def test_logits_stay_near_base(tiny: Path, mode: str, dtype: torch.dtype) -> None:
    model = load_upstream(tiny, "cuda", dtype)
    exact = load_upstream(tiny, "cuda", torch.float32)
    inputs = canvas(model, prompt=20, target=60, items=2)
    with torch.inference_mode():
        true, base = exact(**inputs).logits, model(**inputs).logits
        with accelerate(model, mode):
            got = model(**inputs).logits

    def error(x: torch.Tensor) -> float:
        rows = counting_rows(60, 20, 2)
        far = torch.cat([(x[r][:, at].float() - true[r][:, at]).flatten() for r, at in rows]).norm()
        return float(far / torch.cat([true[r][:, at].flatten() for r, at in rows]).norm())

    assert error(got) < (8 if MODES[mode].int8_qk else 1.25) * error(base)


@pytest.mark.parametrize("mode", list(MODES))
def test_same_seed_same_bits_whatever_ran_before(tiny: Path, mode: str) -> None:
    with create_runner(mode, model_id=tiny) as runner:
        assert runner.device == "cuda"
        state = torch.cuda.get_rng_state()
        first = runner.generate(seed=5, duration=2.0, **SAY)
        for seed, duration in enumerate((0.4, 6.0, 2.0)):
            runner.generate(seed=seed, duration=duration, **SAY)
        again = runner.generate(seed=5, duration=2.0, **SAY)
        assert np.array_equal(first.audio, again.audio)
        assert torch.equal(torch.cuda.get_rng_state(), state)
        assert first.peak_vram_gb > 0


def test_base_is_upstream_bit_for_bit(tiny: Path) -> None:
    upstream = load_upstream(tiny, "cuda", torch.float16)
    torch.cuda.manual_seed(5)
    want = upstream.generate(text="Hello, world.", num_step=6, duration=2.0)[0]
    with create_runner("base", model_id=tiny) as runner:
        assert np.array_equal(runner.generate(seed=5, duration=2.0, **SAY).audio, want)


def test_int8_attention_runs_inside_the_graph(tiny: Path) -> None:
    model = load_upstream(tiny, "cuda", torch.float16)
    with accelerate(model, "hybrid_sage"), torch.inference_mode():
        reset_launch_count()
        model(**canvas(model))
        assert launch_count() == 2 * len(model.llm.layers)  # one warm-up and one capture
        model(**canvas(model))
        assert launch_count() == 2 * len(model.llm.layers)


def test_undo_gives_the_memory_back(tiny: Path) -> None:
    model = load_upstream(tiny, "cuda", torch.float16)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    handle = capture_cuda_graph(model)
    with torch.inference_mode():
        for target in (50, 200, 400):
            model(**canvas(model, target=target))
    assert handle.forward.used_bytes > 0
    handle.undo()
    torch.cuda.empty_cache()
    # cuBLAS keeps a workspace for the capture stream; nothing else may stay.
    assert torch.cuda.memory_reserved() - before <= 40 * 2**20


def test_budget_holds_over_many_buckets(tiny: Path) -> None:
    model = load_upstream(tiny, "cuda", torch.float16)
    budget = 64
    handle = capture_cuda_graph(model, budget_mb=budget)
    with torch.inference_mode():
        for seed in range(40):
            target = 20 + (seed * 97) % 700
            inputs = canvas(model, target=target, seed=seed)
            got = handle.forward(**inputs).logits
            assert handle.forward.used_bytes <= budget * 2**20
            assert torch.equal(got, handle.forward.run_eager(**inputs))
    assert handle.forward.captures > len(handle.forward.buckets)
    handle.undo()


def test_a_bucket_over_the_budget_says_so(tiny: Path) -> None:
    model = load_upstream(tiny, "cuda", torch.float16)
    with (
        capture_cuda_graph(model, budget_mb=1),
        torch.inference_mode(),
        pytest.raises(InputError, match="raise graph_budget_mb"),
    ):
        model(**canvas(model, target=600))


def test_streams_share_the_buffers_safely(tiny: Path) -> None:
    model = load_upstream(tiny, "cuda", torch.float16)
    handle = capture_cuda_graph(model)
    inputs = [canvas(model, target=30, seed=seed) for seed in range(2)]
    with torch.inference_mode():
        want = [handle.forward(**each).logits for each in inputs]
        streams = [torch.cuda.Stream() for _ in range(2)]
        torch.cuda.synchronize()
        for _ in range(20):
            got = []
            for stream, each in zip(streams, inputs, strict=True):
                with torch.cuda.stream(stream):
                    got.append(handle.forward(**each).logits)
            torch.cuda.synchronize()
            assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
    handle.undo()
