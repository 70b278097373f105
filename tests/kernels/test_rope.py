"""QK-norm + RoPE against its twin, float64 and transformers' own functions."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, apply_rotary_pos_emb

from omnivoice_triton.kernels import reference, triton_qk_norm_rope

from .kernel_checks import DTYPES, Inputs, assert_as_accurate, assert_caught, assert_close, assert_same_bits, name

BOTH = (0, 1)


def make_inputs(
    seed: int,
    device: str,
    dtype: torch.dtype,
    batch: int,
    length: int,
    heads: tuple[int, int],
    dim: int,
    tables: int = 1,
) -> tuple[torch.Tensor, ...]:
    """q, k, their weights, cos and sin of the real rotary table; tables: 1 for all items, or one each."""
    make = Inputs(seed, device, dtype)
    q, k = make.hidden(batch, length, heads[0], dim), make.hidden(batch, length, heads[1], dim)
    frequencies = 1e6 ** (-torch.arange(0, dim, 2) / dim)
    start = 7 * torch.arange(tables)[:, None, None]
    angles = (start + torch.arange(length)[None, :, None]) * frequencies
    angles = torch.cat((angles, angles), -1)
    cos, sin = angles.cos().to(device, dtype), angles.sin().to(device, dtype)
    return q, k, make.weight(dim), make.weight(dim) * 2, cos, sin


def pair_length(twin: torch.Tensor) -> torch.Tensor:
    """Length of each rotated pair: both of its elements carry the rounding of both normed values."""
    low, high = twin.double().chunk(2, -1)
    return torch.hypot(low, high).repeat(1, 1, 1, 2)


def check(inputs: tuple[torch.Tensor, ...]) -> None:
    for out, twin in zip(triton_qk_norm_rope(*inputs), reference.qk_norm_rope(*inputs), strict=True):
        assert out.is_contiguous()
        assert_close(out, twin, pair_length(twin))


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(
    ("heads", "dim"),
    [((16, 8), 128), ((4, 4), 64), ((3, 1), 6), ((2, 1), 2), ((5, 3), 40), ((3, 2), 514), ((18, 6), 96)],
)
def test_equals_twin(heads: tuple[int, int], dim: int, dtype: torch.dtype, device: str) -> None:
    check(make_inputs(dim, device, dtype, 2, 3, heads, dim))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("batch", "length"), [(2, 145), (1, 512), (16, 300)])
def test_equals_twin_large(batch: int, length: int, dtype: torch.dtype, device: str) -> None:
    check(make_inputs(length, device, dtype, batch, length, (16, 8), 128))


def test_halves_of_the_tables_may_differ(device: str) -> None:
    q, k, q_weight, k_weight, cos, sin = make_inputs(9, device, torch.float32, 2, 3, (4, 2), 64)
    scale = torch.linspace(0.5, 1.5, 64, device=device)
    check((q, k, q_weight, k_weight, cos * scale, sin * scale.flip(0)))


def test_tables_per_item(device: str) -> None:
    inputs = make_inputs(1, device, torch.float32, 3, 2, (4, 2), 64, tables=3)
    check(inputs)
    shared = reference.qk_norm_rope(*inputs[:4], inputs[4][:1], inputs[5][:1])[0]
    assert_caught("first table for all", shared, reference.qk_norm_rope(*inputs)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_as_accurate_as_pytorch(dtype: torch.dtype, device: str, many_rows: int) -> None:
    inputs = make_inputs(2, device, dtype, 1, many_rows, (4, 2), 128)
    exact = reference.qk_norm_rope(*(x.double() for x in inputs))
    ours, eager = triton_qk_norm_rope(*inputs), reference.qk_norm_rope(*inputs)
    for i in BOTH:
        assert_as_accurate(ours[i], eager[i], exact[i])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_rounds_as_qwen3(dtype: torch.dtype, device: str, many_rows: int) -> None:
    inputs = make_inputs(3, device, dtype, 2, many_rows // 2, (4, 2), 128)
    q, k, q_weight, k_weight, cos, sin = inputs
    norms = [Qwen3RMSNorm(128, eps=1e-6).to(device, dtype) for _ in BOTH]
    norms[0].weight.data, norms[1].weight.data = q_weight, k_weight
    theirs = apply_rotary_pos_emb(norms[0](q).transpose(1, 2), norms[1](k).transpose(1, 2), cos, sin)
    ours = triton_qk_norm_rope(*inputs)
    for i in BOTH:
        assert_same_bits(ours[i], theirs[i].detach())
    wide = reference.qk_norm_rope(*(x.float() for x in inputs))  # the fault: rounded once, at the end
    with pytest.raises(AssertionError, match="bit-equal"):
        assert_same_bits(wide[0].to(dtype), theirs[0].detach())


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_strided_inputs(dtype: torch.dtype, device: str) -> None:
    q, k, q_weight, k_weight, cos, sin = make_inputs(4, device, dtype, 2, 3, (4, 2), 32)
    packed = torch.cat((q.flatten(2), k.flatten(2), k.flatten(2)), -1)  # (B, S, (Hq + 2 Hkv) D)
    slices = packed[..., :128].view(2, 3, 4, 32), packed[..., 128:192].view(2, 3, 2, 32)
    check((*slices, q_weight, k_weight, cos, sin))
    by_head = q.transpose(1, 2).contiguous().transpose(1, 2), k.transpose(0, 1).contiguous().transpose(0, 1)
    check((*by_head, q_weight, k_weight, cos, sin))
    wide = torch.cat((cos, cos), -1)
    check((q, k, torch.stack((q_weight, q_weight), 1)[:, 0], k_weight, wide[..., :32], wide[..., 32:]))
    check((q[:, ::2], k[:, ::2], q_weight, k_weight, cos[:, ::2], sin[:, ::2]))


def test_out_in_a_packed_buffer(device: str) -> None:
    inputs = make_inputs(5, device, torch.float32, 1, 5, (4, 2), 32)
    packed = torch.empty(5, 8 * 32, device=device)
    q_out = packed[:, :128].view(1, 5, 4, 32).transpose(1, 2)
    k_out = packed[:, 128:192].view(1, 5, 2, 32).transpose(1, 2)
    result = triton_qk_norm_rope(*inputs, out=(q_out, k_out))
    assert result[0] is q_out
    assert result[1] is k_out
    for out, twin in zip(result, reference.qk_norm_rope(*inputs), strict=True):
        assert_close(out, twin, pair_length(twin))
    assert packed[:, 192:].isnan().all()


@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0)])
def test_zero_rows(batch: int, length: int, device: str) -> None:
    x, k = torch.zeros(batch, length, 4, 32, device=device), torch.zeros(batch, length, 2, 32, device=device)
    table, weight = torch.zeros(1, length, 32, device=device), torch.ones(32, device=device)
    q_out, k_out = triton_qk_norm_rope(x, k, weight, weight, table, table)
    assert q_out.shape == (batch, 4, length, 32)
    assert k_out.shape == (batch, 2, length, 32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(q=lambda q: q.double()), "q is torch.float64"),
        (dict(q=lambda q: q[0]), r"wanted \(B, S, Hq, D\)"),
        (dict(q=lambda q: q[..., :31]), "with D even"),
        (dict(q=lambda q: q.transpose(2, 3).contiguous().transpose(2, 3)), "q has strides .*wanted 1"),
        (dict(q=lambda q: q.to("meta")), "wanted a CUDA device"),
        (dict(k=lambda k: k.half()), "k is torch.float16"),
        (dict(k=lambda k: k[:, :2]), r"k is .*\(2, 2, 2, 32\).*wanted torch.float32 \(2, 3, 2, 32\)"),
        (dict(k=lambda k: k[:, :, :0]), "k is .*wanted"),
        (dict(k=lambda k: k[..., :16]), "k is"),
        (dict(k=lambda k: None), "k is a NoneType"),
        (dict(q_weight=lambda w: w[:16]), r"q_weight is torch.float32 \(16,\)"),
        (dict(k_weight=lambda w: w.bfloat16()), "k_weight is torch.bfloat16"),
        (dict(cos=lambda c: c[0]), r"cos is torch.float32 \(3, 32\).*wanted"),
        (dict(cos=lambda c: c[:, :2]), "cos is"),
        (dict(cos=lambda c: c.half()), "cos is torch.float16"),
        (
            dict(sin=lambda s: s.expand(2, 3, 32)),
            r"sin is torch.float32 \(2, 3, 32\).*wanted .*\(1, 3, 32\)",
        ),
        (dict(sin=lambda s: s.mT.contiguous().mT), "sin has strides"),
        (dict(eps=lambda e: -1.0), "eps is -1.0"),
    ],
)
def test_refuses(change, said: str, device: str) -> None:
    names = ("q", "k", "q_weight", "k_weight", "cos", "sin")
    inputs = dict(zip(names, make_inputs(6, device, torch.float32, 2, 3, (4, 2), 32), strict=True)) | {"eps": 1e-6}
    with pytest.raises(ValueError, match=said):
        triton_qk_norm_rope(**{key: change.get(key, lambda x: x)(value) for key, value in inputs.items()})
    with pytest.raises(ValueError, match=r"out\[0\] is .*wanted torch.float32 \(2, 4, 3, 32\)"):
        triton_qk_norm_rope(**inputs, out=(inputs["q"], inputs["k"]))


def test_the_comparison_catches_planted_faults(device: str) -> None:
    q, k, q_weight, k_weight, cos, sin = inputs = make_inputs(7, device, torch.float16, 2, 5, (4, 2), 64)
    twin = reference.qk_norm_rope(*inputs)[0]
    faults = {
        "weights swapped": (q, k, k_weight, q_weight, cos, sin),
        "rotated the other way": (q, k, q_weight, k_weight, cos, -sin),
        "position off by one": (q, k, q_weight, k_weight, cos.roll(1, 1), sin.roll(1, 1)),
        "one column off": (q.roll(1, -1), k, q_weight, k_weight, cos, sin),
        "one head off": (q.roll(1, 2), k, q_weight, k_weight, cos, sin),
    }
    for case, wrong in faults.items():
        assert_caught(case, reference.qk_norm_rope(*wrong)[0], twin, pair_length(twin))
    normed = reference.rms_norm(q, q_weight).transpose(1, 2)
    pairs = torch.stack((-normed[..., 1::2], normed[..., ::2]), -1).flatten(-2)
    assert_caught("neighbours paired", normed * cos[:, None] + pairs * sin[:, None], twin, pair_length(twin))


@pytest.mark.gpu
def test_new_lengths_compile_nothing(device: str) -> None:
    from omnivoice_triton.kernels.rope import _qk_norm_rope_kernel as kernel

    for dim in (128, 40):
        triton_qk_norm_rope(*make_inputs(8, device, torch.float16, 2, 16, (4, 2), dim))
        before = len(kernel.device_caches[torch.cuda.current_device()][0])
        for batch, length in ((2, 17), (2, 33), (1, 100), (1, 1), (3, 290)):
            triton_qk_norm_rope(*make_inputs(8, device, torch.float16, batch, length, (4, 2), dim))
        assert len(kernel.device_caches[torch.cuda.current_device()][0]) == before
