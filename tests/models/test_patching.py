"""The typed seam: what is patched computes the same, and undo restores the original bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm

from omnivoice_triton.kernels.attention import launch_count, reset_launch_count
from omnivoice_triton.kernels.rms_norm import TritonRMSNorm
from omnivoice_triton.models.patching import apply_sage_attention, apply_triton_kernels, find_patchable_model
from omnivoice_triton.speech import InputError
from tests.models.helpers import canvas, counting_rows


def logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits.clone()


def worst(model: Any, before: torch.Tensor, after: torch.Tensor, prompt: int = 6, target: int = 10) -> float:
    """Largest difference on the rows that count."""
    return max(
        (before[row][:, at] - after[row][:, at]).abs().max().item()
        for row, at in counting_rows(target, prompt, before.shape[0] // 2)
    )


def state(model: Any) -> list[tuple[str, type, tuple[str, ...]]]:
    return [(name, type(m), tuple(sorted(m.__dict__))) for name, m in model.named_modules()]


def test_patched_forward_computes_the_same(model: Any) -> None:
    inputs = canvas(model)
    before = logits(model, **inputs)
    apply_triton_kernels(model.llm)
    after = logits(model, **inputs)
    assert worst(model, before, after) < 1e-4
    assert not torch.equal(before, after)  # or nothing ran


@pytest.mark.parametrize("options", [{}, {"int8_qk": True}, {"enable_fused_norm": False}, {"patch_range": (1, 3)}])
def test_undo_restores_bit_for_bit(model: Any, options: dict[str, Any]) -> None:
    inputs = canvas(model)
    before, was, names = logits(model, **inputs), state(model), list(model.state_dict())
    weights = {name: (p.data_ptr(), p.clone()) for name, p in model.named_parameters()}
    handle = apply_triton_kernels(model.llm, **options)
    logits(model, **inputs)
    assert state(model) != was
    assert list(model.state_dict()) == names
    handle.undo()
    assert not handle.active
    assert [s[:2] for s in state(model)] == [s[:2] for s in was]
    assert torch.equal(logits(model, **inputs), before)
    for name, p in model.named_parameters():
        pointer, value = weights[name]
        assert p.data_ptr() == pointer
        assert torch.equal(p, value)
    handle.undo()  # again is harmless


def test_counts_and_repr(model: Any) -> None:
    layers = len(model.llm.layers)
    handle = apply_triton_kernels(model.llm)
    assert handle.counts == {
        "decoder layer": layers,
        "qk-norm + RoPE": layers,
        "SwiGLU": layers,
        "RMSNorm": 4 * layers + 1,
        "add + RMSNorm": 2 * layers,
    }
    assert f"{2 * layers} add + RMSNorm" in repr(handle)
    assert "active" in repr(handle)
    assert isinstance(model.llm.norm, TritonRMSNorm)
    assert isinstance(model.llm.norm, Qwen3RMSNorm)
    assert "TritonQwen3MLP" in repr(model)
    handle.undo()
    assert "undone" in repr(handle)
    assert "Triton" not in repr(model)


def test_audio_tokenizer_is_never_touched(model: Any) -> None:
    before = [type(m) for m in model.audio_tokenizer.modules()]
    apply_triton_kernels(model)
    assert [type(m) for m in model.audio_tokenizer.modules()] == before


def test_patch_range_leaves_the_rest(model: Any) -> None:
    inputs = canvas(model)
    before = logits(model, **inputs)
    apply_triton_kernels(model.llm, patch_range=(1, 3))
    kinds = [type(layer) is Qwen3DecoderLayer for layer in model.llm.layers]
    assert kinds == [not 1 <= i < 3 for i in range(len(kinds))]
    assert type(model.llm.norm) is Qwen3RMSNorm
    assert worst(model, before, logits(model, **inputs)) < 1e-4


@pytest.mark.parametrize("wrong", [(2, 2), (-1, 2), (0, 99), (3, 1)])
def test_bad_range(model: Any, wrong: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="patch_range must satisfy"):
        apply_triton_kernels(model.llm, patch_range=wrong)


def test_second_patch_is_refused_and_leaves_the_first(model: Any) -> None:
    handle = apply_triton_kernels(model.llm)
    with pytest.raises(InputError, match="patched already"):
        apply_triton_kernels(model.llm)
    assert handle.active
    assert isinstance(model.llm.norm, TritonRMSNorm)


def test_a_layer_that_cannot_be_patched_is_an_error(model: Any) -> None:
    class Odd(type(model.llm.layers[2].mlp)):  # type: ignore[misc]
        pass

    model.llm.layers[2].mlp.__class__ = Odd
    was = state(model)
    with pytest.raises(InputError, match=r"layer 2\.mlp can't be patched"):
        apply_triton_kernels(model.llm)
    assert state(model) == was  # nothing was changed half way


def test_find_patchable_model(model: Any) -> None:
    assert find_patchable_model(model) is model.llm
    assert find_patchable_model(model.llm) is model.llm
    with pytest.raises(InputError, match="no Qwen3 backbone in Linear"):
        find_patchable_model(nn.Linear(2, 2))


def test_a_hook_that_replaces_hidden_states_is_obeyed(model: Any) -> None:
    """The norm handed from layer to layer belongs to one tensor: another tensor gets its own norm."""
    inputs = canvas(model)

    def double(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output * 2

    hook = model.llm.layers[1].register_forward_hook(double)
    want = logits(model, **inputs)
    apply_triton_kernels(model.llm)
    assert worst(model, want, logits(model, **inputs)) < 1e-4
    hook.remove()


def test_skipping_a_residual_would_be_seen(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: the comparison above must fail when a residual is dropped."""
    from omnivoice_triton.models import layers

    inputs = canvas(model)
    before = logits(model, **inputs)
    real = layers.triton_fused_add_rms_norm
    monkeypatch.setattr(
        layers, "triton_fused_add_rms_norm", lambda x, residual, *a, **k: real(x, torch.zeros_like(residual), *a, **k)
    )
    apply_triton_kernels(model.llm)
    assert worst(model, before, logits(model, **inputs)) > 0.1


def test_int8_attention_runs_and_is_close(model: Any) -> None:
    inputs = canvas(model, prompt=20, target=30)
    before = logits(model, **inputs)
    handle = apply_sage_attention(model.llm)
    assert handle.counts["INT8-QK attention"] == len(model.llm.layers)
    reset_launch_count()
    after = logits(model, **inputs)
    assert launch_count() == len(model.llm.layers)
    for row, at in counting_rows(30, 20, 1):
        x, y = before[row][:, at].flatten(), after[row][:, at].flatten()
        assert torch.cosine_similarity(x, y, dim=0) > 0.999
        assert not torch.equal(x, y)


def test_int8_attention_refuses_other_masks(model: Any) -> None:
    inputs = canvas(model)
    apply_triton_kernels(model.llm, int8_qk=True)
    causal = {**inputs, "attention_mask": inputs["attention_mask"].tril()}
    with pytest.raises(InputError, match="whole leading blocks"):
        logits(model, **causal)
    with pytest.raises(InputError, match="bool attention mask"):
        logits(model, **{**inputs, "attention_mask": None})
    logits(model, **inputs)


def test_causal_attention_would_be_seen(model: Any) -> None:
    """Planted fault: an attention that looks back only is far from the bidirectional one."""
    inputs = canvas(model)
    before = logits(model, **inputs)
    causal = {**inputs, "attention_mask": inputs["attention_mask"].tril()}
    assert worst(model, before, logits(model, **causal)) > 0.1
