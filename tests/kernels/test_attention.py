"""INT8-QK attention against its twin, float64 and PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from omnivoice_triton.kernels import int8_qk_attention, launch, launch_count, reference, reset_launch_count
from omnivoice_triton.kernels.counter import LaunchCounter

from .kernel_checks import DTYPES, Inputs, assert_caught, assert_close, assert_same_bits, name, relative_error

Heads = tuple[int, int]


def make_inputs(
    seed: int, device: str, dtype: torch.dtype, lengths: Sequence[int], size: int, heads: Heads, dim: int
) -> tuple[torch.Tensor, ...]:
    """q, k, v and lengths; padding rows hold NaN, some channels of K stand far off zero in all rows."""
    make = Inputs(seed, device, torch.float32)
    batch = len(lengths)
    q, v = make.normal(batch, heads[0], size, dim), make.hidden(batch, heads[1], size, dim)
    k = make.normal(batch, heads[1], size, dim) + 4 * make.normal(1, heads[1], 1, dim)
    for x in (q, k, v):
        for item, length in enumerate(lengths):
            x[item, :, length:] = float("nan")
    return *(x.to(dtype) for x in (q, k, v)), torch.tensor(lengths, dtype=torch.int32, device=device)


def exact_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """float64 attention by PyTorch's own op: each item alone, cut to its length, heads repeated."""
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    group = q.shape[1] // k.shape[1]
    for item, length in enumerate(lengths.tolist()):
        parts = [x[item : item + 1, :, :length].double() for x in (q, k, v)]
        parts[1:] = [x.repeat_interleave(group, 1) for x in parts[1:]]
        out[item : item + 1, :, :length] = F.scaled_dot_product_attention(*parts)
    return out.transpose(1, 2)


def check(inputs: tuple[torch.Tensor, ...], scale: float | None = None) -> torch.Tensor:
    out = int8_qk_attention(*inputs, scale=scale)
    assert out.is_contiguous()
    assert_close(out, reference.int8_qk_attention(*inputs, scale=scale))
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(
    ("lengths", "size", "heads", "dim"),
    [
        ((70, 33), 70, (4, 2), 128),
        ((130, 1), 140, (2, 1), 64),
        ((64, 65), 65, (2, 2), 32),
        ((17,), 17, (3, 1), 40),
        ((5, 40), 40, (4, 4), 80),
        ((33,), 47, (2, 1), 96),
        ((20,), 20, (2, 1), 256),
        ((9,), 9, (2, 1), 8),
    ],
)
def test_equals_twin(
    lengths: Sequence[int], size: int, heads: Heads, dim: int, dtype: torch.dtype, device: str
) -> None:
    check(make_inputs(dim, device, dtype, lengths, size, heads, dim))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(
    ("lengths", "size", "dim"),
    [
        ((165, 125), 165, 128),
        ((290,), 320, 128),
        ((512, 512, 100, 7), 512, 128),
        ((1100,), 1100, 64),
        ((300,), 300, 256),
    ],
)
def test_equals_twin_large(lengths: Sequence[int], size: int, dim: int, dtype: torch.dtype, device: str) -> None:
    check(make_inputs(size, device, dtype, lengths, size, (16, 8), dim))


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("dim", [64, 128])
def test_as_accurate_as_its_quantisation_allows(dim: int, dtype: torch.dtype, device: str) -> None:
    inputs = make_inputs(1, device, dtype, (100, 60), 100, (4, 2), dim)
    exact = exact_sdpa(*inputs)
    ours, twin = int8_qk_attention(*inputs), reference.int8_qk_attention(*inputs)
    assert relative_error(ours, exact) <= 1.2 * relative_error(twin, exact)
    assert relative_error(ours, exact) < 0.03
    cosine = F.cosine_similarity(ours.double().flatten(), exact.flatten(), dim=0).item()
    assert cosine > 0.99, f"cosine {cosine:.5f}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_probabilities_are_rounded(dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P V is a product of 16-bit values, as on tensor cores; only its sum is kept in fp32."""
    inputs = make_inputs(20, device, dtype, (100, 60), 100, (4, 2), 64)
    twin = reference.int8_qk_attention(*inputs)
    assert_same_bits(int8_qk_attention(*inputs), twin, rate=0.99)
    monkeypatch.setattr(reference, "attention_tile", lambda dim, _, cores: launch.attention_tile(dim, dtype, cores))
    unrounded = reference.int8_qk_attention(*(x.float() for x in inputs[:3]), inputs[3])
    with pytest.raises(AssertionError, match="bit-equal"):
        assert_same_bits(unrounded.to(dtype), twin, rate=0.99)


def test_exact_twin_is_sdpa(device: str) -> None:
    inputs = make_inputs(2, device, torch.float32, (40, 7), 45, (6, 2), 40)
    wide = *(x.double() for x in inputs[:3]), inputs[3]
    torch.testing.assert_close(reference.attention(*wide), exact_sdpa(*inputs))


def test_rounding_vanishes_in_float64(device: str) -> None:
    """The float64 twin keeps the INT8 values, so what is left of its error is theirs alone."""
    inputs = make_inputs(3, device, torch.float32, (50,), 50, (2, 1), 64)
    wide = reference.int8_qk_attention(*(x.double() for x in inputs[:3]), inputs[3])
    assert wide.dtype == torch.float64
    torch.testing.assert_close(reference.int8_qk_attention(*inputs).double(), wide, rtol=1e-4, atol=1e-4)


def test_padding_rows_are_zeros_and_never_read(device: str) -> None:
    inputs = make_inputs(4, device, torch.float16, (70, 3, 0), 90, (4, 2), 64)
    out = check(inputs)
    for item, length in enumerate((70, 3, 0)):
        assert out[item, :length].abs().amax() > 0 if length else True
        assert torch.equal(out[item, length:], torch.zeros_like(out[item, length:]))
    # The same valid rows behind other padding: the same bits.
    other = *(x.nan_to_num(1e4) for x in inputs[:3]), inputs[3]
    assert torch.equal(int8_qk_attention(*other), out)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_all_lengths_zero(dtype: torch.dtype, device: str) -> None:
    out = int8_qk_attention(*make_inputs(5, device, dtype, (0, 0), 40, (2, 1), 32))
    assert torch.equal(out, torch.zeros_like(out))


def test_lengths_are_clamped(device: str) -> None:
    q, k, v, full = make_inputs(6, device, torch.float32, (30, 30), 30, (2, 1), 32)
    wanted = int8_qk_attention(q, k, v, full)
    assert torch.equal(int8_qk_attention(q, k, v, torch.full_like(full, 1000)), wanted)
    assert not int8_qk_attention(q, k, v, torch.full_like(full, -5)).any()


def test_is_bidirectional(device: str) -> None:
    """The first query sees the last key."""
    q, k, v, lengths = make_inputs(7, device, torch.float32, (70,), 70, (2, 1), 64)
    before = int8_qk_attention(q, k, v, lengths)
    v[:, :, -1] += 100
    assert (int8_qk_attention(q, k, v, lengths)[:, 0] - before[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_strided_inputs(dtype: torch.dtype, device: str) -> None:
    q, k, v, lengths = make_inputs(8, device, dtype, (40, 23), 40, (4, 2), 40)
    wanted = check((q, k, v, lengths))
    by_row = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(int8_qk_attention(*by_row, lengths), wanted)
    packed = torch.cat([x.transpose(1, 2).flatten(2) for x in (q, k, v)], -1)  # (B, S, (Hq + 2 Hkv) D)
    slices = [
        packed[..., start * 40 : (start + heads) * 40].unflatten(-1, (heads, 40)).transpose(1, 2)
        for start, heads in ((0, 4), (4, 2), (6, 2))
    ]
    assert torch.equal(int8_qk_attention(*slices, torch.stack((lengths, lengths), 1)[:, 0]), wanted)
    wide = torch.cat((q, q), -1)
    assert torch.equal(int8_qk_attention(wide[..., :40], k, v, lengths), wanted)


def test_inputs_are_not_changed(device: str) -> None:
    inputs = make_inputs(9, device, torch.bfloat16, (40, 40), 40, (4, 2), 64)
    before = [x.clone() for x in inputs]
    int8_qk_attention(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_scale(device: str) -> None:
    inputs = make_inputs(10, device, torch.float32, (40,), 40, (2, 1), 64)
    check(inputs, scale=0.05)
    uniform = check(inputs, scale=0.0)
    assert_close(uniform, inputs[2].mean(2)[:, None].expand(1, 40, 1, 64).expand_as(uniform))


def test_out(device: str) -> None:
    inputs = make_inputs(11, device, torch.float32, (40, 30), 40, (2, 1), 32)
    packed = torch.empty(2, 40, 2, 64, device=device)
    out = packed[..., 32:]
    assert int8_qk_attention(*inputs, out=out) is out
    assert_close(out, reference.int8_qk_attention(*inputs))
    assert packed[..., :32].isnan().all()


def test_constant_and_zero_values(device: str) -> None:
    """Blocks whose largest magnitude is 0: a scale of 0 would divide by it."""
    zeros = torch.zeros(1, 2, 40, 32, device=device)
    lengths = torch.tensor([40], dtype=torch.int32, device=device)
    v = Inputs(12, device, torch.float32).normal(1, 2, 40, 32)
    mean = v.mean(2, keepdim=True).expand_as(v).transpose(1, 2)
    assert_close(int8_qk_attention(zeros, zeros, v, lengths), mean)
    assert_close(int8_qk_attention(zeros + 3, zeros + 7, v, lengths), mean)
    assert_close(int8_qk_attention(v, zeros, v, lengths), mean)


@pytest.mark.parametrize(("batch", "size"), [(0, 5), (2, 0)])
def test_zero_rows(batch: int, size: int, device: str) -> None:
    q, k = torch.zeros(batch, 4, size, 32, device=device), torch.zeros(batch, 2, size, 32, device=device)
    lengths = torch.zeros(batch, dtype=torch.int32, device=device)
    assert int8_qk_attention(q, k, k, lengths).shape == (batch, size, 4, 32)


def test_smoothing_is_what_saves_a_shifted_key(device: str) -> None:
    q, k, _, lengths = make_inputs(13, device, torch.float32, (64,), 64, (2, 1), 64)
    make = Inputs(14, device, torch.float32)
    v, k = make.normal(1, 1, 64, 64), k + 100 * make.normal(1, 1, 1, 64).sign()
    exact = exact_sdpa(q, k, v, lengths)
    assert relative_error(int8_qk_attention(q, k, v, lengths), exact) < 0.03
    step = k.abs().max() / 127  # the fault: quantised as it is
    rough = exact_sdpa(q, torch.round(k / step) * step, v, lengths)
    assert relative_error(rough, exact) > 0.1


def test_counts_its_launches(device: str) -> None:
    inputs = make_inputs(15, device, torch.float16, (20,), 20, (2, 1), 32)
    reset_launch_count()
    assert launch_count() == 0
    for n in (1, 2):
        int8_qk_attention(*inputs)
        assert launch_count() == n
    int8_qk_attention(*(x[:0] for x in inputs))  # nothing to do: not launched
    with pytest.raises(ValueError, match="lengths"):
        int8_qk_attention(*inputs[:3], inputs[3].long())
    assert launch_count() == 2
    reset_launch_count()
    assert launch_count() == 0


def test_the_counter_is_thread_safe() -> None:
    counter = LaunchCounter()
    threads = [threading.Thread(target=lambda: [counter.add_one() for _ in range(5000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read() == 40_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(q=lambda q: q.double()), "q is torch.float64"),
        (dict(q=lambda q: q[0]), r"wanted \(B, Hq, S, D\)"),
        (dict(q=lambda q: q.new_zeros(2, 4, 8, 257)), "D of at most 256"),
        (dict(q=lambda q: q[:, :3]), "q has 3 heads and k has 2: wanted a multiple"),
        (dict(q=lambda q: q.mT.contiguous().mT), "q has strides .* wanted 1"),
        (dict(q=lambda q: q.to("meta")), "wanted a CUDA device"),
        (dict(k=lambda k: k.half()), "k is torch.float16"),
        (dict(k=lambda k: k[:, :, :7]), r"k is .*\(2, 2, 7, 32\).*wanted torch.float32 \(2, 2, 8, 32\)"),
        (dict(k=lambda k: k[:1]), "k is"),
        (dict(k=lambda k: k[:, :0]), "v is|heads"),
        (dict(k=lambda k: [k]), "k is a list"),
        (dict(v=lambda v: v[:, :1]), r"v is .*\(2, 1, 8, 32\).*wanted"),
        (dict(v=lambda v: v[..., :16]), "v is"),
        (dict(v=lambda v: v.mT.contiguous().mT), "v has strides"),
        (dict(lengths=lambda x: x.long()), r"lengths is torch.int64 \(2,\).*wanted torch.int32 \(2,\)"),
        (dict(lengths=lambda x: x[:1]), r"lengths is torch.int32 \(1,\)"),
        (dict(lengths=lambda x: [8, 8]), "lengths is a list"),
        (dict(lengths=lambda x: x.to("meta")), "lengths is .* on meta"),
        (dict(scale=lambda s: float("nan")), "scale is nan"),
        (dict(scale=lambda s: "1"), "scale is '1'"),
        (dict(out=lambda o: torch.zeros(2, 4, 8, 32)), r"out is .*wanted torch.float32 \(2, 8, 4, 32\)"),
    ],
)
def test_refuses(change, said: str, device: str) -> None:
    names = ("q", "k", "v", "lengths")
    inputs = dict(zip(names, make_inputs(16, device, torch.float32, (8, 8), 8, (4, 2), 32), strict=True))
    inputs |= {"scale": None, "out": None}
    with pytest.raises(ValueError, match=said):
        int8_qk_attention(**{key: change.get(key, lambda x: x)(value) for key, value in inputs.items()})


def test_the_comparison_catches_planted_faults(device: str) -> None:
    inputs = make_inputs(17, device, torch.float16, (70, 33), 70, (4, 2), 64)
    q, k, v, lengths = inputs
    twin = reference.int8_qk_attention(*inputs)
    clean = *(x.nan_to_num(1.0) for x in inputs[:3]), lengths
    order = torch.tensor([0, 2, 1, 3], device=device)
    faults = {
        "padding attended": reference.int8_qk_attention(*clean[:3], torch.full_like(lengths, 70)),
        "a key short": reference.int8_qk_attention(*inputs[:3], lengths - 1),
        "heads interleaved": reference.int8_qk_attention(q[:, order], k, v, lengths)[:, :, order],
        "values one row off": reference.int8_qk_attention(q, k, clean[2].roll(1, 2), lengths),
        "scale forgotten": reference.int8_qk_attention(*inputs, scale=1.0),
        "queries one column off": reference.int8_qk_attention(q.roll(1, -1), k, v, lengths),
        "not quantised": reference.attention(*inputs),
    }
    for case, wrong in faults.items():
        assert_caught(case, wrong, twin)


@pytest.mark.gpu
def test_runs_in_a_graph_whose_lengths_change(device: str) -> None:
    q, k, v, lengths = make_inputs(18, device, torch.float16, (64, 64), 64, (16, 8), 128)
    int8_qk_attention(q, k, v, lengths)  # compiled outside the capture
    graph, out = torch.cuda.CUDAGraph(), torch.empty(2, 64, 16, 128, dtype=q.dtype, device=device)
    with torch.cuda.graph(graph):
        int8_qk_attention(q, k, v, lengths, out=out)
    for now in ((64, 64), (10, 0), (33, 64)):
        lengths.copy_(torch.tensor(now, dtype=torch.int32))
        graph.replay()
        assert torch.equal(out, int8_qk_attention(q, k, v, lengths))


@pytest.mark.gpu
def test_new_lengths_compile_nothing(device: str) -> None:
    from omnivoice_triton.kernels.attention import _int8_attention_kernel
    from omnivoice_triton.kernels.quantise_keys import _quantise_keys_kernel

    here = torch.cuda.current_device()
    for dim in (128, 40):
        int8_qk_attention(*make_inputs(19, device, torch.float16, (16, 16), 16, (4, 2), dim))
        before = [len(kernel.device_caches[here][0]) for kernel in (_int8_attention_kernel, _quantise_keys_kernel)]
        for size in (1, 17, 33, 100, 290):
            int8_qk_attention(*make_inputs(19, device, torch.float16, (size,), size, (4, 2), dim))
        after = [len(kernel.device_caches[here][0]) for kernel in (_int8_attention_kernel, _quantise_keys_kernel)]
        assert after == before
