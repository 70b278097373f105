"""Upstream's model on a device, in one block or in many."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from transformers import modeling_utils

from omnivoice_triton.models.loading import load_upstream, separate_allocations


def test_the_block_is_left_out_and_put_back() -> None:
    theirs = modeling_utils.caching_allocator_warmup  # gone in a newer transformers: nothing to leave out any more
    within = []

    def broken() -> None:
        with separate_allocations():
            within.append(modeling_utils.caching_allocator_warmup)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert within[0] is not theirs
    assert within[0](None, {}, hf_quantizer=None) is None
    assert modeling_utils.caching_allocator_warmup is theirs


def test_a_transformers_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(modeling_utils, "caching_allocator_warmup")
    with separate_allocations():
        assert not hasattr(modeling_utils, "caching_allocator_warmup")
    assert not hasattr(modeling_utils, "caching_allocator_warmup")


@pytest.mark.parametrize("parts_will_leave", [False, True])
def test_the_same_weights_either_way(tiny: Path, monkeypatch: pytest.MonkeyPatch, parts_will_leave: bool) -> None:
    asked = []
    monkeypatch.setattr(modeling_utils, "caching_allocator_warmup", lambda *args, **kwargs: asked.append(args))
    model = load_upstream(tiny, "cpu", torch.float32, parts_will_leave=parts_will_leave)
    assert not model.training
    # Twice upstream: the language model, then the codec.
    assert len(asked) == (0 if parts_will_leave else 2)
    assert all(p.dtype is torch.float32 and bool(p.isfinite().all()) for p in model.llm.parameters())


@pytest.mark.gpu
def test_a_part_that_leaves_gives_its_memory_back(tiny: Path) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    model = load_upstream(tiny, "cuda", torch.float16, parts_will_leave=True)
    model.to("cpu")
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before  # less where another test's tensors went meanwhile
