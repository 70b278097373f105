"""The kernel benchmark: it checks before it times, counts its bytes, and refuses where it can't measure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from omnivoice_triton.bench import kernels as bench
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


@pytest.mark.gpu
# torch.compile itself, on Python 3.12.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kernels.json"
    assert bench.main(["--rows", "290", "--dtypes", "fp16", "--json", str(path)]) == 0
    results = json.loads(path.read_text())["results"]
    assert len(results) == 6
    for result in results:
        for side in ("triton_us", "pytorch_us"):
            for figures in result[side].values():
                assert 0 < figures["p5"] <= figures["median"] <= figures["p95"]
                assert figures["median"] < 1000  # p95 may be another process's turn on the GPU
        assert result["speedup"]["graph"] > 0
        assert result["cold_sets"] * result["bytes"] > 2 * result["l2_bytes"]
        cold, warm = (result["triton_us"][clock]["median"] for clock in ("graph_cold", "graph"))
        assert cold > 0.8 * warm


@pytest.mark.parametrize(
    ("n", "wanted"), [(1, (1, 4)), (1024, (1024, 4)), (3072, (4096, 8)), (10_000, (16384, 16)), (65536, (65536, 32))]
)
def test_published_block_sizes(n: int, wanted: tuple[int, int]) -> None:
    assert calculate_settings(n) == wanted


def test_block_sizes_end_somewhere() -> None:
    for n in (0, 65537):
        with pytest.raises(ValueError, match=f"n is {n}: wanted 1 to 65536"):
            calculate_settings(n)
