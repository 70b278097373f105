"""The kernel benchmark: it checks before it times, counts its bytes, and refuses where it can't measure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from omnivoice_triton.bench import kernel_gemm_cases as gemm_cases
from omnivoice_triton.bench import kernel_packed
from omnivoice_triton.bench import kernels as bench
from omnivoice_triton.bench.kernel_case import Unmeasured, error_to, exact
from omnivoice_triton.bench.kernel_cases import ONCE, SIX_MODES, TURBO, plans
from omnivoice_triton.bench.kernel_packed import Batch
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels import nvrtc, tiles
from omnivoice_triton.kernels.utils import calculate_settings
from omnivoice_triton.speech import InputError


@pytest.fixture
def made(device: str) -> dict[tuple[str, object], bench.Case]:
    return {(case.kernel, case.shape.get("columns")): case for case in bench.cases(6, torch.float16, device)}


def test_every_kernel_is_a_case(made: dict[tuple[str, object], bench.Case]) -> None:
    assert set(made) == {
        ("rms_norm", 1024),
        ("swiglu", 1024),
        ("swiglu", 3072),
        ("fused_norm_residual", 1024),
        ("rope", None),
        ("attention", None),
    }


def test_right_kernels_pass(made: dict[tuple[str, object], bench.Case]) -> None:
    for case in made.values():
        errors = bench.check(case)
        assert 0 <= errors["error_to_twin"] < 1e-3
        assert errors["error_to_pytorch"] < (0.05 if case.kernel == "attention" else 1e-3)


def test_a_wrong_kernel_is_not_timed(made: dict[tuple[str, object], bench.Case]) -> None:
    case = made["rms_norm", 1024]
    for fault in (
        lambda x, w: case.twin(x, w).roll(1, -1),
        lambda x, w: case.twin(x, w) * 1.01,
        lambda x, w: case.twin(x, w).index_fill(1, torch.tensor([1023], device=x.device), float("nan")),
    ):
        with pytest.raises(bench.WrongResult, match=r"rms_norm .* nothing is timed"):
            bench.measure(dataclasses.replace(case, triton=fault))


def test_counts_bytes(made: dict[tuple[str, object], bench.Case]) -> None:
    def count(kernel: str, columns: int | None = None) -> int:
        case = made[kernel, columns]
        return case.bytes(case.make(0))

    assert count("rms_norm", 1024) == 2 * (2 * 6 * 1024 + 1024)
    assert count("fused_norm_residual", 1024) == 2 * (4 * 6 * 1024 + 1024)
    assert count("swiglu", 3072) == 2 * 3 * 6 * 3072
    padded = 2 * 4  # 6 rows are 4 conditional and 2 unconditional ones, padded to 4
    assert count("rope") == 2 * (2 * padded * 24 * 128 + 2 * 4 * 128 + 2 * 128)
    assert count("attention") == 2 * padded * (16 + 8 + 8 + 16) * 128 + 2 * 4


def test_rows_are_split_as_speech_is() -> None:
    assert bench.split_rows(290) == (165, 125)
    assert sum(bench.split_rows(512)) == 512


def test_sets_differ(made: dict[tuple[str, object], bench.Case]) -> None:
    for case in made.values():
        assert not torch.equal(case.make(0)[0], case.make(10)[0])
        assert torch.equal(case.make(0)[0], case.make(0)[0])


def test_summary() -> None:
    figures = bench.summary_us([float(i) for i in range(101)])
    assert figures == {"median": 50.0, "p5": 5.0, "p95": 95.0, "timings": 101}
    with pytest.raises(InputError, match="nothing was timed"):
        bench.summary_us([])


def test_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main(["--json", str(tmp_path / "kernels.json")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "GPU" in said.err
    assert not list(tmp_path.iterdir())


def test_refuses_what_it_cannot_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--dtypes", "int8"]) == 2
    assert "choose from fp32, fp16, bf16" in capsys.readouterr().err
    assert bench.main(["--rows", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err


# --- turbo's kernels


@pytest.fixture
def turbo(device: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bench.Case]:
    return of_turbo(device, monkeypatch, torch.float16)


def of_turbo(device: str, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> dict[str, bench.Case]:
    """Every case that can be built here, the products with Triton tiles where no table names any."""
    tile = tiles.GemmTile(16, 64, 64, 1, 4, 2)
    steps = {
        name: ((1 << 20, tile._replace(splits=2) if name in ("o", "down") else tile),)
        for name in ("qkv", "o", "gate_up", "down")
    }
    if device == "cpu":
        table = Tiles(tiles.varlen_tile(128, 2, 2, 80), gemm={**steps, "qkv": ((1 << 20, tile._replace(block_n=0)),)})
        monkeypatch.setattr(gemm_cases, "tiles_of", lambda dtype, device: table)
    made = {}
    for plan in plans(6, dtype, device):
        try:
            case = plan.build()
        except Unmeasured:
            continue
        made[plan.kernel] = case
    return made


def test_every_kernel_of_turbo_is_a_case(device: str, turbo: dict[str, bench.Case]) -> None:
    wanted = [plan.kernel for plan in plans(6, torch.float16, device)]
    assert wanted == [*SIX_MODES, *TURBO]
    unbuilt = set(wanted) - set(turbo)
    if device == "cpu":
        assert unbuilt == {"hopper_attention", "hopper_heads"}, "Triton tiles are for the others"
    assert {plan.kernel for plan in plans(6, torch.float16, device) if plan.once} == set(ONCE)


def test_right_kernels_of_turbo_pass(turbo: dict[str, bench.Case]) -> None:
    for name in TURBO:
        if name not in turbo:
            continue
        case = turbo[name]
        errors = bench.check(case)
        assert errors["error_to_twin"] < 0.02, name
        assert errors["error_to_pytorch"] < 0.05, name
        inputs = case.make(0)
        wanted = exact(case, inputs)
        assert error_to(wanted, case, inputs, case.pytorch) < 0.01, name
        assert error_to(wanted, case, inputs, case.triton) < 0.05, name
        assert all(torch.equal(a, b) for a, b in zip(case.make(0)[:1], inputs[:1], strict=True)), "a draw is kept"


def test_wrong_kernels_of_turbo_are_not_timed(turbo: dict[str, bench.Case]) -> None:
    """Every kernel with its first output off by one column, and with one element never written."""
    for name in TURBO:
        if name not in turbo:
            continue
        case = turbo[name]

        def off_by_one(*inputs: torch.Tensor, case: bench.Case = case) -> object:
            out = case.twin(*inputs)
            first, *rest = out if isinstance(out, tuple) else (out,)
            return (first.view(torch.uint8) if first.element_size() == 1 else first).roll(1, -1).view(
                first.dtype
            ), *rest

        def unwritten(*inputs: torch.Tensor, case: bench.Case = case) -> object:
            out = case.twin(*inputs)
            first, *rest = out if isinstance(out, tuple) else (out,)
            if first.is_floating_point() and first.element_size() > 1:
                first = first.clone()
                first.view(-1)[-1] = float("nan") if first.is_contiguous() else 0
            elif first.element_size() == 1:
                first = first.clone()
                first.view(torch.uint8).view(-1)[-1] = 0x7F
            else:
                first = first.clone()
                first.view(-1)[-1] = -7
            return first, *rest

        for fault in (off_by_one, unwritten):
            with pytest.raises(bench.WrongResult, match=r"nothing is timed"):
                bench.check(dataclasses.replace(case, triton=fault))


def test_a_scale_that_is_off_is_seen_in_bf16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = of_turbo(device, monkeypatch, torch.bfloat16)
    for name, factor in (("packed_add_norm", 1.04), ("packed_attention", 1.15), ("packed_int8_attention", 1.35)):
        case = cases[name]
        # The interpreter multiplies bfloat16 as integers: there the twin stands for the kernel.
        bench.check(dataclasses.replace(case, triton=case.twin) if device == "cpu" else case)

        def scaled(*inputs: torch.Tensor, case: bench.Case = case, factor: float = factor) -> object:
            out = case.twin(*inputs)
            return tuple(each * factor for each in out) if isinstance(out, tuple) else out * factor

        with pytest.raises(bench.WrongResult, match=r"nothing is timed"):
            bench.check(dataclasses.replace(case, triton=scaled))


def test_counts_turbos_bytes_and_operations(turbo: dict[str, bench.Case]) -> None:
    """6 rows are 4 conditional and 2 unconditional ones: 2 of prompt, 2 frames."""

    def count(kernel: str) -> int:
        return turbo[kernel].bytes(turbo[kernel].make(0))

    assert count("packed_add_norm") == 2 * (4 * 6 * 1024 + 1024)
    assert count("packed_attention") == count("packed_int8_attention") == 2 * 6 * (16 + 8 + 8 + 16) * 128
    assert turbo["packed_attention"].flop == 4 * (4**2 + 2**2) * 16 * 128
    assert count("packed_qk_norm_rope") == 2 * (2 * 6 * 24 * 128 + 2 * 128 + 2 * 4 * 64) + 4 * 6
    embed = turbo["embed_rows"]
    canvas = embed.make(0)[2] + torch.arange(8, device=embed.make(0)[2].device) * 1025
    gathered = len(set(canvas.flatten().tolist()))
    assert 8 <= gathered <= 16
    assert count("embed_rows") == 2 * 1024 * (gathered + 2 + 1 + 2 * 6) + 4 * (2 * 8 + 6 * 2)
    assert count("score_cells") == 2 * 4 * 8 * 1025 + 4 * (2 * 8 + 3 * 2 * 8)
    assert count("select_cells") == 4 * (2 * 8 + 2 * 1)
    assert count("snake") == 2 * 2 * 32 * 1920 + 2 * 4 * 32
    assert count("add_snake") == 2 * 4 * 32 * 1920 + 2 * 4 * 32
    assert count("quantise_rows") == 6 * (2 * 1024 + 1024 + 4)
    assert count("add_norm_quantise") == 6 * (3 * 2 * 1024 + 1024 + 4) + 2 * 1024
    assert count("swiglu_quantise") == 6 * (2 * 2 * 3072 + 3072 + 4)
    for kernel, depth, columns, written in (
        ("hopper_qkv_rope", 1024, 4096, 4096),
        ("hopper_gate_up", 1024, 6144, 3072),
        ("hopper_o", 2048, 1024, 1024),
        ("hopper_down", 3072, 1024, 1024),
    ):
        if kernel in turbo:
            assert count(kernel) == 2 * (6 * depth + depth * columns + 6 * written)
            assert turbo[kernel].flop == 2 * 6 * depth * columns


@pytest.mark.parametrize("rows", [2, 3, 64, 290, 4096, 8192])
def test_utterances_fill_the_rows(rows: int) -> None:
    batch = Batch(rows, "cpu")
    assert sum(batch.segments) == rows
    assert batch.prompt_rows + 2 * batch.canvas_rows == rows
    assert min(batch.frames) > 0
    if rows >= 64:
        assert all(64 <= c + u <= 300 for c, u in batch.lengths)
    tiles = batch["tiles"]
    assert sum(min(32, length - at) for _, length, at, _ in tiles.tolist() if length) == rows
    if rows == 290:
        assert batch.lengths == [(165, 125)]


def test_the_kernels_of_9_0_are_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but their launches, on any machine: names, tiles by the table, inputs that their twins take, bytes."""
    monkeypatch.setattr(kernel_packed, "capability", lambda device: 90)
    monkeypatch.setattr(nvrtc, "problem", lambda: None)
    wanted = ["hopper_attention", "hopper_qkv_rope", "hopper_gate_up", "hopper_o", "hopper_down", "hopper_heads"]
    named = [plan for plan in plans(6, torch.float16, "cpu") if plan.kernel.startswith("hopper")]
    found = [plan.build() for plan in named]
    assert [case.kernel for case in found] == wanted
    for case in found:
        errors = bench.check(dataclasses.replace(case, triton=case.twin))
        assert errors["error_to_twin"] == 0
        assert errors["error_to_pytorch"] < 1e-3, case.kernel
        assert case.bytes(case.make(0)) > 0
        with pytest.raises(ValueError, match=r"wanted (16 bit on )?a CUDA device"):
            case.triton(*case.make(0))
    reasons = {}
    for plan in plans(8192, torch.float16, "cpu"):
        if plan.kernel.startswith("hopper"):
            with pytest.raises(Unmeasured) as raised:
                plan.build()
            reasons[plan.kernel] = str(raised.value)
    assert "Triton kernel" in reasons.pop("hopper_attention")
    assert set(reasons.values()) == {"the tile table leaves these rows to cuBLAS"}


def test_a_call_again_does_the_same_work(turbo: dict[str, bench.Case]) -> None:
    """Kernels are timed on one set of inputs again and again: selection must not run out of steps."""
    for name in ("select_cells", "score_cells", "packed_attention", "embed_rows"):
        case = turbo[name]
        inputs = case.make(0)
        first = case.triton(*inputs)
        copies = [x.clone() for x in (first if isinstance(first, tuple) else (first,))]
        if name == "select_cells":
            assert (copies[0] != 1024).sum() == 1
            inputs[2].fill_(1024)
        again = case.triton(*inputs)
        assert all(map(torch.equal, copies, again if isinstance(again, tuple) else (again,)))


@pytest.mark.gpu
# torch.compile itself, on Python 3.12.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kernels.json"
    assert bench.main(["--rows", "290", "--dtypes", "fp16", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    results = document["results"]
    # Each kernel has a figure or a reason; those of the six modes and turbo's plain Triton ones run on every GPU.
    reasons = {entry["kernel"]: entry["reason"] for entry in document["not_measured"]}
    assert len(results) + len(reasons) == len(SIX_MODES) + len(TURBO)
    assert {r["kernel"] for r in results} >= {*SIX_MODES, "packed_attention", "score_cells", "select_cells", "snake"}
    assert all(name.startswith("hopper_") or name.endswith("_quantise") or "FP8" in reasons[name] for name in reasons)
    for result in results:
        for side in ("triton_us", "pytorch_us"):
            for figures in result[side].values():
                assert 0 < figures["p5"] <= figures["median"] <= figures["p95"]
                assert figures["median"] < 1000  # p95 may be another process's turn on the GPU
        assert result["speedup"]["graph"] > 0
        if result["cold_sets"] == 0:
            assert "graph_cold" not in result["triton_us"]
            continue
        assert result["cold_sets"] * result["bytes"] > 2 * result["l2_bytes"]
        cold, warm = (result["triton_us"][clock]["median"] for clock in ("graph_cold", "graph"))
        assert cold > 0.5 * warm  # about equal, or more; other processes may have their turns meanwhile


@pytest.mark.parametrize(
    ("n", "wanted"), [(1, (1, 4)), (1024, (1024, 4)), (3072, (4096, 8)), (10_000, (16384, 16)), (65536, (65536, 32))]
)
def test_published_block_sizes(n: int, wanted: tuple[int, int]) -> None:
    assert calculate_settings(n) == wanted


def test_block_sizes_end_somewhere() -> None:
    for n in (0, 65537):
        with pytest.raises(ValueError, match=f"n is {n}: wanted 1 to 65536"):
            calculate_settings(n)
