"""The CUDA C++ GEMMs for compute capability 9.0: compiled everywhere, computed on such a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import triton

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels import nvrtc, tables
from omnivoice_triton.kernels.hopper_gemm import (
    hopper_gate_up,
    hopper_gemm,
    hopper_qkv_rope,
    hopper_split_k,
    variant_source,
)
from omnivoice_triton.kernels.tiles import PARTIALS, QK_ROPE, REDUCE, STORE, SWIGLU, GemmTile, HopperTile

needs_hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="for compute capability 9.0",
)
TWIN_TILE = GemmTile(64, 128, 64, 1, 4, 3)

KINDS = [
    (STORE, HopperTile(80, 2, 2, 2, 4)),
    (PARTIALS, HopperTile(80, 2, 1, 1, 6, 4)),
    (SWIGLU, HopperTile(160, 2, 2, 1, 3)),
    (QK_ROPE, HopperTile(80, 2, 1, 1, 6)),
    (REDUCE, HopperTile(80, 1, 1, 2, 8, 2)),
]


def compile_kernel(tile: HopperTile, epilogue: int, *, bf16: bool = False) -> str:
    """The assembler's messages."""
    defines, prologue = variant_source(tile, epilogue, bf16, True)
    text = nvrtc.assembled("hopper_gemm", defines, prologue)
    code, messages = nvrtc.compile_cubin("hopper_gemm", text, "sm_90a", anew=True)
    assert code.startswith(b"\x7fELF")
    return messages


def machine_code(tile: HopperTile, epilogue: int, tmp_path: Path, change: tuple[str, str] = ("", "")) -> str:
    """The disassembly, by the tool that comes with Triton."""
    defines, prologue = variant_source(tile, epilogue, False, True)
    text = nvrtc.assembled("hopper_gemm", defines, prologue)
    assert change[0] in text
    code, _ = nvrtc.compile_cubin("hopper_gemm", text.replace(*change), "sm_90a")
    path = tmp_path / "kernel.cubin"
    path.write_bytes(code)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    assert shutil.which(str(tool)), "Triton comes with nvdisasm"
    return subprocess.run([tool, "-c", path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("epilogue", "tile"), KINDS)
def test_nothing_spills_and_no_product_waits_for_another(epilogue: int, tile: HopperTile, bf16: bool) -> None:
    messages = compile_kernel(tile, epilogue, bf16=bf16)
    assert "0 bytes spill stores, 0 bytes spill loads" in messages
    assert "wgmma.mma_async instructions are serialized" not in messages


def test_too_many_accumulators_would_show() -> None:
    """The check above can fail: 2 x 128 accumulators fit no thread."""
    assert HopperTile(256, 2, 2, 1, 2).problem(STORE, 1024) is not None
    assert re.search(r"[1-9]\d* bytes spill stores", compile_kernel(HopperTile(256, 2, 2, 1, 2), STORE))


def test_no_memory_barrier_in_the_loop(tmp_path: Path) -> None:
    """A release at cluster scope put MEMBAR.GPU into every turn of the loop: twice the time of the whole kernel."""
    tile = HopperTile(80, 2, 2, 2, 4)
    assert "MEMBAR" not in machine_code(tile, STORE, tmp_path)
    slow = ("mbarrier.arrive.shared::cluster.b64", "mbarrier.arrive.release.cluster.shared::cluster.b64")
    assert "MEMBAR" in machine_code(tile, STORE, tmp_path, slow)


@pytest.mark.parametrize(
    ("tile", "epilogue", "depth", "message"),
    [
        (HopperTile(72, 1, 1, 1, 4), STORE, 1024, "multiple of 16"),
        (HopperTile(80, 3, 1, 1, 4), STORE, 1024, "1 or 2 warpgroups"),
        (HopperTile(80, 1, 1, 9, 4), STORE, 1024, "clusters of 1 to 8"),
        (HopperTile(192, 2, 2, 1, 2), STORE, 1024, "accumulators"),
        (HopperTile(80, 1, 1, 1, 4, 3), PARTIALS, 1024, "parts that are multiples of 64"),
        (HopperTile(80, 1, 1, 1, 4, 2), STORE, 1024, "where nothing adds them up"),
        (HopperTile(80, 1, 1, 1, 4), SWIGLU, 1024, "gate and up"),
        (HopperTile(80, 1, 1, 1, 4), QK_ROPE, 1024, "a head of 128"),
        (HopperTile(80, 2, 2, 2, 8), STORE, 1024, "8 stages"),
        (HopperTile(80, 1, 1, 3, 4), STORE, 1024, "shares of 8"),
        (HopperTile(128, 2, 2, 2, 3, 2), REDUCE, 2048, "can't add up"),
    ],
)
def test_tiles_that_cannot_be_say_why(tile: HopperTile, epilogue: int, depth: int, message: str) -> None:
    assert message in (tile.problem(epilogue, depth) or "")


@pytest.mark.parametrize(("epilogue", "tile"), KINDS)
def test_tiles_that_can_be(epilogue: int, tile: HopperTile) -> None:
    assert tile.problem(epilogue, 2048) is None


def test_only_16_bit_on_a_gpu() -> None:
    x, w = torch.zeros(4, 64), torch.zeros(64, 64)
    with pytest.raises(ValueError, match="a CUDA device"):
        hopper_gemm(x, w, HopperTile(80, 1, 1, 1, 4), out=torch.zeros(4, 64))
    with pytest.raises(ValueError, match="weight is"):
        hopper_gemm(x, w[:, :32], HopperTile(80, 1, 1, 1, 4), out=torch.zeros(4, 64))


def randn(*shape: int, seed: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to("cuda", dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def assert_as_good(got: torch.Tensor, base: torch.Tensor, want: torch.Tensor) -> None:
    """No further from float64 than PyTorch's own operations are, a little for the order of sums aside."""
    assert torch.isfinite(got).all()
    assert error(got, want) <= 1.2 * error(base, want)


ROWS = [1, 17, 290, 333]
DTYPES = [torch.float16, torch.bfloat16]


@needs_hopper
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    "tile",
    [
        HopperTile(80, 2, 2, 2, 3),
        HopperTile(16, 1, 2, 1, 3),
        HopperTile(160, 1, 1, 2, 4),
        HopperTile(80, 1, 1, 2, 8, 2),
        HopperTile(160, 1, 1, 4, 4, 4),
    ],
)
def test_product(dtype: torch.dtype, rows: int, tile: HopperTile) -> None:
    x = randn(rows, 2048, seed=0, dtype=dtype)
    w = randn(1032, 2048, seed=1, dtype=dtype, scale=0.03)  # no multiple of a tile
    out = torch.empty(rows, 1032, dtype=dtype, device="cuda")
    hopper_gemm(x, w, tile, out=out, pdl=True)
    assert_as_good(out, x @ w.t(), x.double() @ w.double().t())
    again = torch.empty_like(out)
    hopper_gemm(x, w, tile, out=again)
    assert torch.equal(again, out)  # neither time nor the way it is launched changes a bit


@needs_hopper
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tile", [HopperTile(80, 1, 1, 1, 8, 2), HopperTile(64, 2, 2, 1, 4, 4)])
def test_partial_sums(dtype: torch.dtype, rows: int, tile: HopperTile) -> None:
    x, w = randn(rows, 2048, seed=0, dtype=dtype), randn(1024, 2048, seed=1, dtype=dtype, scale=0.03)
    got, want = (torch.empty(tile.splits, rows, 1024, device="cuda") for _ in range(2))
    hopper_split_k(x, w, tile, partials=got, pdl=True)
    ref.split_k(x, w, tile, partials=want)
    torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-3)
    assert_as_good(got.sum(0).to(dtype), x @ w.t(), x.double() @ w.double().t())


@needs_hopper
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tile", [HopperTile(64, 2, 2, 1, 5), HopperTile(160, 2, 2, 2, 3), HopperTile(96, 1, 2, 2, 4)])
def test_gate_up(dtype: torch.dtype, rows: int, tile: HopperTile) -> None:
    x, w = randn(rows, 1024, seed=0, dtype=dtype), randn(6144, 1024, seed=1, dtype=dtype, scale=0.05)
    got, base = (torch.empty(rows, 3072, dtype=dtype, device="cuda") for _ in range(2))
    hopper_gate_up(x, w, tile, out=got, pdl=True)
    ref.gate_up(x, w, tile, out=base)
    gate, up = (x.double() @ w.double().t()).chunk(2, dim=-1)
    assert_as_good(got, base, torch.nn.functional.silu(gate) * up)


@needs_hopper
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tile", [HopperTile(80, 2, 1, 1, 6), HopperTile(48, 1, 2, 2, 4), HopperTile(208, 2, 1, 1, 4)])
def test_qkv_rope(dtype: torch.dtype, rows: int, tile: HopperTile) -> None:
    x, w = randn(rows, 1024, seed=0, dtype=dtype), randn(4096, 1024, seed=1, dtype=dtype, scale=0.03)
    table = torch.zeros(rows, tables.ROW_WIDTH, dtype=torch.int32, device="cuda")
    table[:, tables.ROW_POSITION] = torch.randperm(rows, generator=torch.Generator().manual_seed(2)).int()
    angle = torch.rand(rows, 64, generator=torch.Generator().manual_seed(3)).cuda() * 6
    norms = [torch.rand(128, generator=torch.Generator().manual_seed(s)).to("cuda", dtype) + 0.5 for s in (4, 5)]
    results = []
    for kind in (dtype, torch.float64):
        out = torch.empty(rows, 4096, dtype=kind, device="cuda")
        cos, sin = (f(angle).to(dtype).to(kind) for f in (torch.cos, torch.sin))
        weights = [n.to(kind) for n in norms]
        heads = {"q_heads": 16, "kv_heads": 8, "qkv": out}
        ref.qkv_rope(x.to(kind), w.to(kind), table, cos, sin, *weights, 1e-6, TWIN_TILE, **heads)
        results.append(out)
    got = torch.empty(rows, 4096, dtype=dtype, device="cuda")
    cos, sin = torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)
    hopper_qkv_rope(x, w, table, cos, sin, *norms, 1e-6, tile, q_heads=16, kv_heads=8, qkv=got, pdl=True)
    assert_as_good(got, results[0], results[1])


@needs_hopper
@pytest.mark.gpu
def test_bad_input_is_refused_before_a_launch() -> None:
    x, w = randn(8, 64, seed=0, dtype=torch.float16), randn(64, 64, seed=1, dtype=torch.float16)
    out = torch.empty(8, 64, dtype=torch.float16, device="cuda")
    with pytest.raises(ValueError, match="contiguous and on 16 bytes"):
        hopper_gemm(x.t().contiguous().t(), w, HopperTile(80, 1, 1, 1, 4), out=out)
    with pytest.raises(ValueError, match="multiple of 16"):
        hopper_gemm(x, w, HopperTile(72, 1, 1, 1, 4), out=out)
    hopper_gemm(x[:0], w, HopperTile(80, 1, 1, 1, 4), out=out[:0])  # nothing to do is done


def test_an_empty_log_is_not_written_into_an_object_of_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVRTC's own cache gives no messages: a log of one byte. CPython has one object of each such bytes."""
    from cuda.bindings import nvrtc as bindings

    done = bindings.nvrtcResult.NVRTC_SUCCESS
    rooms: list[bytes] = []
    monkeypatch.setattr(bindings, "nvrtcGetProgramLogSize", lambda program: (done, 1))
    monkeypatch.setattr(bindings, "nvrtcGetProgramLog", lambda program, room: rooms.append(room) or (done,))
    nvrtc.compile_cubin("empty", "__global__ void empty() {}", "sm_90a")
    shared = {id(bytes([value])) for value in range(256)} | {id(b"")}
    assert len(rooms) == 1
    assert id(rooms[0]) not in shared
