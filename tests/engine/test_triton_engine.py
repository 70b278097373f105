"""The engine on its Triton kernels: the same tokens as on their twins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.step_graphs import run_eagerly
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile

from .tiny import generation_config, make_model, make_task


def small_model(device: str) -> Any:
    return make_model(hidden=32, intermediate=32, layers=1, heads=2, kv_heads=1, codebooks=2, audio_vocab=21).to(device)


@pytest.mark.parametrize(
    ("noise", "options"),
    [
        ("philox", {}),
        ("philox", {"class_temperature": 0.8}),
        ("torch", {"class_temperature": 0.8}),
        ("torch", {"guidance_scale": 0.0, "position_temperature": 0.0}),
    ],
)
def test_tokens_equal_the_twins(device: str, noise: str, options: dict[str, Any]) -> None:
    model = small_model(device)
    tile = GemmTile(16, 16, 16, 2, 4, 1)
    tiles = Tiles(VarlenTile(16, 16, 4, 1), gemm={"o": ((64, tile),), "down": ((64, tile),)})
    task = make_task(model, [2, 1], texts=["a", "b"])
    config = generation_config(num_step=2, **options)
    tokens = []
    for backend in ("reference", "triton"):
        engine = Engine(
            model, backend=backend, noise=noise, max_rows=40, max_items=2, granule=40, tiles=tiles, capture=run_eagerly
        )
        torch.manual_seed(1)
        tokens.append(engine.generate_tokens(task, config))
    for want, got in zip(*tokens, strict=True):
        assert torch.equal(got, want)
        assert got.max() < 20


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_replay_equals_eager_bit_for_bit(dtype: torch.dtype) -> None:
    model = make_model(hidden=256, intermediate=512, layers=3, heads=4, kv_heads=2, head_dim=128, dtype=dtype).cuda()
    task = make_task(model, [40, 7, 23], reference_frames=[5, 30, 9])
    config = generation_config(num_step=16)
    tokens = []
    for capture in (None, run_eagerly):
        engine = Engine(model, max_rows=512, capture=capture)
        engine.warmup()
        before = engine.runner.graphs.captures
        for _ in range(2):
            engine.manual_seed(3)
            tokens.append(engine.generate_tokens(task, config))
        assert engine.runner.graphs.captures == before
    for other in tokens[1:]:
        assert all(torch.equal(a, b) for a, b in zip(tokens[0], other, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_request_wider_than_the_engine_leaves_nothing_behind(dtype: torch.dtype) -> None:
    model = make_model(hidden=256, intermediate=512, layers=3, heads=4, kv_heads=2, head_dim=128, dtype=dtype).cuda()
    config = generation_config(num_step=4)
    engine = Engine(model, max_rows=512)
    engine.warmup()
    short = make_task(model, [40])
    (before,) = engine.generate_tokens(short, config, seeds=[3])
    used = torch.cuda.memory_allocated()
    (wide,) = engine.generate_tokens(make_task(model, [4000]), config, seeds=[5])
    assert wide.shape == (8, 4000)
    del wide
    assert torch.cuda.memory_allocated() <= used
    (after,) = engine.generate_tokens(short, config, seeds=[3])
    assert torch.equal(before, after)


@pytest.mark.gpu
@pytest.mark.parametrize("max_rows", [256, 64])  # in the second the longer one runs alone, without a graph
def test_fp32_tokens_on_the_gpu_are_upstreams(max_rows: int) -> None:
    model = make_model(hidden=128, intermediate=256, heads=4, kv_heads=2, head_dim=32).cuda()
    task = make_task(model, [30, 11], reference_frames=[4, 9])
    config = generation_config(num_step=16)
    torch.manual_seed(4)
    with torch.inference_mode():
        want = model._generate_iterative(task, config)
    engine = Engine(model, noise="torch", max_rows=max_rows)
    torch.manual_seed(4)
    got = engine.generate_tokens(task, config)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
