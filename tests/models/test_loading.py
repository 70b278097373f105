"""Upstream's model on a device, whole or as the engine wants it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from omnivoice_triton.engine.weights import fuse_linears
from omnivoice_triton.models import loading
from omnivoice_triton.models.acceleration import accelerate
from omnivoice_triton.models.loading import load_for_engine, load_upstream
from omnivoice_triton.models.parking import ENCODER_PARTS

SMALL: dict[str, Any] = {"max_rows": 256, "max_items": 4}
EVERYTHING = ({}, {"reference_encoder": False}, {"host_embedding": False})


def named(model: Any) -> dict[str, torch.Tensor]:
    """Every parameter and buffer."""
    return dict([*model.named_parameters(), *model.named_buffers()])


def same(one: Any, other: Any) -> bool:
    """Whether two models have the same tensors, wherever they lie; buffers that no checkpoint has, too."""
    mine, theirs = named(one), named(other)
    return mine.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor.cpu(), theirs[name].cpu())
        for name, tensor in mine.items()
    )


def test_on_the_cpu_it_is_upstreams(tiny: Path) -> None:
    model = load_for_engine(tiny, "cpu", torch.float32, reference_encoder=False)
    assert not model.training
    assert same(model, load_upstream(tiny, "cpu", torch.float32))


def stays(name: str) -> bool:
    """Whether a tensor is one that speaking doesn't need on the GPU."""
    return name.startswith(("llm.embed_tokens.", *(f"audio_tokenizer.{part}." for part in ENCODER_PARTS)))


def test_everything_moves_but_what_stays(tiny: Path) -> None:
    """A move to another dtype stands for one to a GPU."""
    model = load_upstream(tiny, "cpu", torch.float32)
    loading._move(model, torch.float64, loading.host_prefixes(reference_encoder=False))
    assert any(stays(name) for name in named(model))
    assert all((tensor.dtype is torch.float64) != stays(name) for name, tensor in named(model).items())


def test_the_fused_matrices_lie_as_the_engine_takes_them(tiny: Path) -> None:
    model = load_upstream(tiny, "cpu", torch.float32)
    before = load_upstream(tiny, "cpu", torch.float32)
    for layer in model.llm.layers:
        fuse_linears(layer, torch.device("cpu"))
    assert same(model, before)
    places = [p.data_ptr() for p in model.llm.parameters()]
    with accelerate(model, "turbo", **SMALL) as handle:
        assert handle.turbo is not None
        layers = handle.turbo.engine.weights.layers
        assert [p.data_ptr() for p in model.llm.parameters()] == places
        assert [each.qkv.data_ptr() for each in layers] == [
            layer.self_attn.q_proj.weight.data_ptr() for layer in model.llm.layers
        ]
    assert same(model, before)


@pytest.mark.gpu
@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_it_has_upstreams_bits_and_stays_where_it_is(tiny: Path, options: dict[str, bool]) -> None:
    upstream = load_upstream(tiny, "cuda", torch.float16)
    model = load_for_engine(tiny, "cuda", torch.float16, **options)
    assert same(model, upstream)
    here = {name for name, tensor in named(model).items() if tensor.device.type == "cpu"}
    assert any("embed_tokens" in name for name in here) == options.get("host_embedding", True)
    assert any("acoustic_encoder" in name for name in here) != options.get("reference_encoder", True)
    places = {name: tensor.data_ptr() for name, tensor in named(model).items()}
    with accelerate(model, "turbo", **{"host_embedding": True, **options}, **SMALL):
        assert model.device.type == "cuda"
        assert {name: tensor.data_ptr() for name, tensor in named(model).items()} == places
    assert same(model, upstream)
    assert {tensor.device.type for tensor in named(model).values()} == {"cuda"}  # undo brings everything


@pytest.mark.gpu
def test_what_goes_gives_its_memory_back(tiny: Path) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    model = load_for_engine(tiny, "cuda", torch.float16)
    model.to("cpu")
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before  # less where another test's tensors went meanwhile
