"""The fused weights: right rows, one copy, strict keys, and a way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.speech import CheckpointError

from .tiny import make_model


@pytest.fixture
def model() -> Any:
    return make_model()


def snapshot(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: Any, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("share", [True, False])
def test_fused_rows_are_upstreams(model: Any, share: bool) -> None:
    before = snapshot(model)
    weights = BackboneWeights.from_upstream(model, share=share)
    assert unchanged(model, before)
    for index, layer in enumerate(weights.layers):
        at = f"llm.layers.{index}."
        qkv = [before[f"{at}self_attn.{n}_proj.weight"] for n in "qkv"]
        assert torch.equal(layer.qkv, torch.cat(qkv))
        assert torch.equal(layer.gate_up, torch.cat([before[f"{at}mlp.{n}_proj.weight"] for n in ("gate", "up")]))
        assert torch.equal(layer.o, before[f"{at}self_attn.o_proj.weight"])
        assert torch.equal(layer.down, before[f"{at}mlp.down_proj.weight"])
        one_copy = model.llm.layers[index].self_attn.v_proj.weight.untyped_storage().data_ptr()
        assert (one_copy == layer.qkv.untyped_storage().data_ptr()) == share


def test_unshare_gives_upstream_its_own_tensors(model: Any) -> None:
    before = snapshot(model)
    weights = BackboneWeights.from_upstream(model)
    assert weights.shared
    weights.unshare()
    weights.unshare()
    assert not weights.shared
    assert unchanged(model, before)
    layer = model.llm.layers[0]
    assert layer.self_attn.q_proj.weight.untyped_storage().data_ptr() != weights.layers[0].qkv.data_ptr()
    weights.layers[0].qkv.zero_()
    assert unchanged(model, before)


def test_a_second_engine_reuses_the_fused_tensors(model: Any) -> None:
    first = BackboneWeights.from_upstream(model)
    second = BackboneWeights.from_upstream(model)
    assert second.layers[1].gate_up.data_ptr() == first.layers[1].gate_up.data_ptr()
    assert torch.equal(second.layers[1].gate_up, first.layers[1].gate_up)


def test_missing_surplus_and_misshapen_tensors_raise(model: Any) -> None:
    model.llm.layers[1].mlp.extra = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(CheckpointError, match=r"surplus tensor llm\.layers\.1\.mlp\.extra\.weight \(1 in all\)"):
        BackboneWeights.from_upstream(model)
    del model.llm.layers[1].mlp.extra
    removed = model.llm.layers[0].self_attn.q_norm.weight
    del model.llm.layers[0].self_attn.q_norm.weight
    with pytest.raises(CheckpointError, match=r"lacks llm\.layers\.0\.self_attn\.q_norm\.weight"):
        BackboneWeights.from_upstream(model)
    model.llm.layers[0].self_attn.q_norm.weight = torch.nn.Parameter(removed[:-1])
    with pytest.raises(CheckpointError, match=r"q_norm\.weight has shape \(15,\), wanted \(16,\)"):
        BackboneWeights.from_upstream(model)
    model.llm.layers[0].self_attn.q_norm.weight = torch.nn.Parameter(removed.half())
    with pytest.raises(CheckpointError, match="one dtype and one device"):
        BackboneWeights.from_upstream(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_tables_are_upstreams_bits(dtype: torch.dtype) -> None:
    model = make_model(dtype=dtype)
    cos, sin = BackboneWeights.from_upstream(model).rotary_tables(50)
    want_cos, want_sin = model.llm.rotary_emb(torch.zeros(1, dtype=dtype), torch.arange(50)[None])
    assert torch.equal(torch.cat((cos, cos), -1), want_cos[0])
    assert torch.equal(torch.cat((sin, sin), -1), want_sin[0])
