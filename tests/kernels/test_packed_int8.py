"""Packed attention with INT8 query-key products against its twin, the exact twin and float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnivoice_triton.kernels import engine_reference, packed_int8
from omnivoice_triton.kernels.int8_keys import Int8Keys, padded_width
from omnivoice_triton.kernels.int8_reference import key_mean, packed_int8_attention
from omnivoice_triton.kernels.packed_int8 import triton_packed_int8_attention
from omnivoice_triton.kernels.tiles import VarlenTile

from .kernel_checks import assert_caught, name, relative_error
from .packed import Packed, make_packed

REQUESTS = [(1, 1, True), (20, 17, True), (30, 2, False), (9, 40, True)]  # segments of 2, 1, 37, 17, 32, 49, 40 rows
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
BAR = 0.02
"""Norm of the error over norm of the float64 result: what INT8 queries and keys may cost on the inputs below."""


def make_qkv(
    packed: Packed, q_heads: int, kv_heads: int, dim: int, dtype: torch.dtype, device: str, seed: int = 3
) -> torch.Tensor:
    """Normal values; in all rows of a key head some channels stand far off zero, as those of the real model do."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(packed.bucket.rows, q_heads + 2 * kv_heads, dim, generator=generator)
    qkv[:, q_heads : q_heads + kv_heads] += 4 * torch.randn(1, kv_heads, dim, generator=generator)
    return qkv.flatten(1).to(device, dtype)


def attend(function: Any, qkv: torch.Tensor, packed: Packed, **settings: Any) -> tuple[torch.Tensor, Int8Keys]:
    """The function's output, NaN where it wrote nothing, and its key buffers, poisoned before."""
    kv_heads, tile = settings["kv_heads"], settings["tile"]
    dim = qkv.shape[1] // (settings["q_heads"] + 2 * kv_heads)
    keys = Int8Keys.allocate(len(qkv) + 3, kv_heads, dim, qkv.device)
    keys.values.fill_(127)
    keys.scales.fill_(float("nan"))
    keys.means.fill_(float("nan"))
    out = torch.full((len(qkv), settings["q_heads"] * dim), float("nan"), dtype=qkv.dtype, device=qkv.device)
    function(qkv, packed.table("tiles"), **{"scale": dim**-0.5, **settings, "tile": tile}, keys=keys, out=out)
    return out, keys


def exact(qkv: torch.Tensor, packed: Packed, **settings: Any) -> torch.Tensor:
    """float64, no quantisation."""
    wide = qkv.double()
    dim = qkv.shape[1] // (settings["q_heads"] + 2 * settings["kv_heads"])
    out = torch.zeros(len(qkv), settings["q_heads"] * dim, dtype=torch.float64, device=qkv.device)
    engine_reference.varlen_attention(wide, packed.table("tiles"), scale=dim**-0.5, out=out, **settings)
    return out


@pytest.mark.parametrize(
    ("dtype", "q_heads", "kv_heads", "dim", "tile"),
    [
        (torch.float32, 4, 2, 16, VarlenTile(8, 16, 4, 1)),
        (torch.float32, 3, 1, 24, VarlenTile(5, 16, 4, 1)),  # odd group, odd width, blocks that begin within a tile
        (torch.float16, 2, 1, 128, VarlenTile(32, 64, 4, 2)),
        (torch.float16, 2, 2, 40, VarlenTile(32, 16, 4, 1)),  # two blocks to a tile
        (torch.bfloat16, 4, 2, 64, VarlenTile(16, 32, 4, 1)),
    ],
    ids=name,
)
def test_equals_twin(device: str, dtype: torch.dtype, q_heads: int, kv_heads: int, dim: int, tile: VarlenTile) -> None:
    packed = make_packed(REQUESTS, device=device, tile_rows=tile.rows)
    qkv = make_qkv(packed, q_heads, kv_heads, dim, dtype, device)
    used = packed.used_rows
    qkv[used:] = float("nan")  # rows that nobody has
    before = qkv.clone()
    settings = {"q_heads": q_heads, "kv_heads": kv_heads, "tile": tile}
    want, want_keys = attend(packed_int8_attention, qkv, packed, **settings)
    got, keys = attend(triton_packed_int8_attention, qkv, packed, **settings)
    torch.testing.assert_close(got[:used], want[:used], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert got[used:].isnan().all()
    assert torch.equal(qkv[:used], before[:used])  # smoothing leaves the caller's keys alone
    assert torch.equal(keys.values[:used], want_keys.values[:used])
    assert torch.equal(keys.values[:used].abs().amax((1, 2)) <= 127, torch.ones(used, dtype=torch.bool, device=device))
    for start, length in packed.segments:
        assert torch.equal(keys.means[start], want_keys.means[start])
        blocks = slice(start, start + length, tile.block_n)
        assert torch.equal(keys.scales[blocks], want_keys.scales[blocks])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_equals_twin_at_the_sizes_of_speech(device: str, dtype: torch.dtype) -> None:
    tile = VarlenTile(32, 64, 4, 2)
    packed = make_packed(
        [(40, 125, True), (170, 375, True), (12, 1, True), (200, 900, True)], device=device, tile_rows=32
    )
    settings = {"q_heads": 16, "kv_heads": 8, "tile": tile}
    qkv = make_qkv(packed, 16, 8, 128, dtype, device)
    want, want_keys = attend(packed_int8_attention, qkv, packed, **settings)
    got, keys = attend(triton_packed_int8_attention, qkv, packed, **settings)
    used = packed.used_rows
    torch.testing.assert_close(got[:used], want[:used], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert torch.equal(keys.values[:used], want_keys.values[:used])
    again, _ = attend(triton_packed_int8_attention, qkv, packed, **settings)
    assert torch.equal(again[:used], got[:used])
    assert relative_error(got[:used], exact(qkv, packed, **settings)[:used]) < BAR


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=name)
def test_error_against_float64(device: str, dtype: torch.dtype) -> None:
    """As accurate as its twin, within the bar, and the quantisation is there: the exact kernel errs less."""
    tile = VarlenTile(32, 64, 4, 2)
    packed = make_packed([(60, 70, True)], device=device, tile_rows=32)
    settings = {"q_heads": 4, "kv_heads": 2, "tile": tile}
    qkv = make_qkv(packed, 4, 2, 128, dtype, device)
    used, want = packed.used_rows, exact(qkv, packed, **settings)
    ours = relative_error(attend(triton_packed_int8_attention, qkv, packed, **settings)[0][:used], want[:used])
    twin = relative_error(attend(packed_int8_attention, qkv, packed, **settings)[0][:used], want[:used])
    wide = relative_error(attend(packed_int8_attention, qkv.double(), packed, **settings)[0][:used], want[:used])
    assert ours <= 1.2 * twin
    assert 1e-3 < wide <= ours * 1.05
    assert ours < BAR


def test_smoothing_is_what_saves_a_shifted_key(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = VarlenTile(16, 32, 4, 1)
    packed = make_packed([(30, 20, True)], device=device, tile_rows=16)
    settings = {"q_heads": 2, "kv_heads": 1, "tile": tile}
    qkv = make_qkv(packed, 2, 1, 64, torch.float32, device)
    qkv[:, 2 * 64 : 3 * 64] += 100 * torch.randn(64, generator=torch.Generator().manual_seed(1)).sign().to(device)
    used, want = packed.used_rows, exact(qkv, packed, **settings)
    assert relative_error(attend(triton_packed_int8_attention, qkv, packed, **settings)[0][:used], want[:used]) < BAR
    monkeypatch.setattr("omnivoice_triton.kernels.int8_reference.key_mean", lambda k: torch.zeros_like(k[:, :1]))
    rough = attend(packed_int8_attention, qkv, packed, **settings)[0]
    assert relative_error(rough[:used], want[:used]) > 5 * BAR


def test_the_mean_is_a_mean(device: str) -> None:
    k = torch.randn(2, 200, 16, generator=torch.Generator().manual_seed(0)) + 5
    torch.testing.assert_close(key_mean(k), k.mean(1, keepdim=True), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, of the interpreter: infinities are multiplied
def test_an_item_depends_on_nobody_beside_it(device: str) -> None:
    """Neighbours full of infinities, another place in the matrix, another company: the same bits."""
    tile = VarlenTile(8, 16, 4, 1)
    settings = {"q_heads": 2, "kv_heads": 1, "tile": tile}
    packed = make_packed([(7, 10, True), (3, 20, True), (1, 1, True)], device=device, tile_rows=8)
    qkv = make_qkv(packed, 2, 1, 16, torch.float16, device)
    before, _ = attend(triton_packed_int8_attention, qkv, packed, **settings)
    for start, length in packed.segments:
        rows = slice(start, start + length)
        others = torch.full_like(qkv, float("inf"))
        others[rows] = qkv[rows]
        assert torch.equal(attend(triton_packed_int8_attention, others, packed, **settings)[0][rows], before[rows])
    alone = make_packed([(3, 20, True)], device=device, tile_rows=8)
    moved = torch.full((alone.bucket.rows, qkv.shape[1]), float("nan"), dtype=qkv.dtype, device=device)
    first = packed.segments[2][0]
    moved[: alone.used_rows] = qkv[first : first + alone.used_rows]
    got, _ = attend(triton_packed_int8_attention, moved, alone, **settings)
    assert torch.equal(got[: alone.used_rows], before[first : first + alone.used_rows])


def test_every_query_sees_every_key_of_its_segment(device: str) -> None:
    """Planted fault: a causal kernel leaves query 0 untouched by the last value."""
    packed = make_packed([(3, 30, True)], device=device, tile_rows=8)
    settings = {"q_heads": 2, "kv_heads": 1, "tile": VarlenTile(8, 16, 4, 1)}
    qkv = make_qkv(packed, 2, 1, 16, torch.float32, device)
    qkv[:, 2 * 16 : 3 * 16] = 0  # all keys alike: each counts the same
    before, _ = attend(triton_packed_int8_attention, qkv, packed, **settings)
    start, length = packed.segments[0]
    qkv[start + length - 1, 3 * 16 :] += 10.0
    moved = (attend(triton_packed_int8_attention, qkv, packed, **settings)[0] - before).abs().amax(dim=1) > 1e-3
    assert moved[start : start + length].all()
    assert not moved[start + length : packed.used_rows].any()


def test_rows_of_zeros_and_segments_of_one(device: str) -> None:
    packed = make_packed([(0, 1, True), (1, 0, False), (4, 3, True)], device=device, tile_rows=8)
    settings = {"q_heads": 2, "kv_heads": 1, "tile": VarlenTile(8, 16, 4, 1)}
    qkv = make_qkv(packed, 2, 1, 16, torch.float32, device)
    qkv[:, : 3 * 16] = 0
    got, _ = attend(triton_packed_int8_attention, qkv, packed, **settings)
    for start, length in packed.segments:
        mean = qkv[start : start + length, 3 * 16 :].mean(0).repeat(2)
        torch.testing.assert_close(got[start : start + length], mean.expand(length, -1), rtol=1e-5, atol=1e-5)


def test_the_comparison_catches_planted_faults(device: str) -> None:
    packed = make_packed([(20, 17, True)], device=device, tile_rows=8)
    settings = {"q_heads": 4, "kv_heads": 2, "tile": VarlenTile(8, 16, 4, 1)}
    qkv = make_qkv(packed, 4, 2, 64, torch.float16, device)
    used = packed.used_rows
    twin = attend(packed_int8_attention, qkv, packed, **settings)[0][:used]
    dim, order = 64, [0, 2, 1, 3, 4, 5, 6, 7]
    swapped = qkv.view(len(qkv), 8, dim)[:, order].flatten(1).contiguous()
    short = make_packed([(20, 17, True)], device=device, tile_rows=8)
    short.table("tiles")[:, 1] -= (short.table("tiles")[:, 1] > 0).int()
    faults = {
        "heads interleaved": attend(packed_int8_attention, swapped, packed, **settings)[0],
        "a key short": attend(packed_int8_attention, qkv, short, **settings)[0].nan_to_num(),
        "scale forgotten": attend(packed_int8_attention, qkv, packed, scale=1.0, **settings)[0],
        "not quantised": exact(qkv, packed, **settings).to(qkv.dtype),
    }
    for case, wrong in faults.items():
        assert_caught(case, wrong[:used], twin)


def test_counts_its_launches(device: str) -> None:
    packed = make_packed([(3, 5, True)], device=device, tile_rows=8)
    settings = {"q_heads": 2, "kv_heads": 1, "tile": VarlenTile(8, 16, 4, 1)}
    qkv = make_qkv(packed, 2, 1, 16, torch.float32, device)
    packed_int8.reset_launch_count()
    for n in (1, 2):
        attend(triton_packed_int8_attention, qkv, packed, **settings)
        assert packed_int8.launch_count() == n


@pytest.mark.gpu
def test_runs_in_a_graph_whose_segments_change(device: str) -> None:
    tile = VarlenTile(32, 64, 4, 2)
    packed = make_packed([(40, 60, True)], device=device, tile_rows=32)
    qkv = make_qkv(packed, 16, 8, 128, torch.float16, device)
    keys = Int8Keys.allocate(len(qkv), 8, 128, qkv.device)
    out = torch.zeros(len(qkv), 16 * 128, dtype=qkv.dtype, device=device)
    settings = {"q_heads": 16, "kv_heads": 8, "scale": 128**-0.5, "tile": tile, "keys": keys}
    table = packed.table("tiles")
    triton_packed_int8_attention(qkv, table, out=out, **settings)  # compiled outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        triton_packed_int8_attention(qkv, table, out=out, **settings)
    whole = table.clone()
    for less in (0, 1, 37):
        table.copy_(whole)
        table[:, 1] = torch.where(whole[:, 1] > 0, (whole[:, 1] - less).clamp(min=1), 0)
        out.zero_()
        graph.replay()
        want = torch.zeros_like(out)
        triton_packed_int8_attention(qkv, table, out=want, **settings)
        assert torch.equal(out, want)
        assert out.any()


def test_bad_input_names_the_fault(device: str) -> None:
    packed = make_packed([(3, 5, True)], device=device, tile_rows=8)
    qkv = make_qkv(packed, 2, 1, 16, torch.float32, device)
    good = {
        "q_heads": 2,
        "kv_heads": 1,
        "scale": 0.25,
        "tile": VarlenTile(8, 16, 4, 1),
        "keys": Int8Keys.allocate(len(qkv), 1, 16, qkv.device),
        "out": torch.zeros(len(qkv), 32, device=device),
    }
    for change, said in (
        ({"kv_heads": 3}, r"wanted 2 \+ 2 x 3 heads"),
        ({"out": good["out"].half()}, r"out is torch\.float16"),
        (
            {"keys": Int8Keys.allocate(len(qkv) - 1, 1, 16, qkv.device)},
            r"keys\.values is .*wanted contiguous torch\.int8",
        ),
        ({"keys": good["keys"]._replace(scales=good["keys"].scales.half())}, r"keys\.scales is torch\.float16"),
    ):
        with pytest.raises(ValueError, match=said):
            triton_packed_int8_attention(qkv, packed.table("tiles"), **{**good, **change})
    with pytest.raises(ValueError, match="wanted at most 256"):
        triton_packed_int8_attention(qkv.repeat(1, 20), packed.table("tiles"), **good)


def test_width_of_a_head_in_an_int8_product() -> None:
    assert [padded_width(d) for d in (8, 32, 40, 64, 128)] == [32, 32, 64, 64, 128]
