"""`bench kernels` without a GPU: yardsticks are checked, percentages follow, budgets name what they left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from omnivoice_triton.bench import ceilings, kernel_clocks, kernels, yardsticks
from omnivoice_triton.bench.kernel_case import Case, Unmeasured, WrongResult, error_to, exact
from omnivoice_triton.bench.kernel_cases import Plan, cases, plans
from omnivoice_triton.evidence import write_json
from omnivoice_triton.kernels import reference
from omnivoice_triton.speech import InputError
from tests.bench.test_schema import faults

CEILINGS = {"copy_gb_per_s": 4000.0, "copy_bytes": 1, "matmul_tflops": {"float16": 800.0}, "matmul_size": 8192}
EAGER = kernels.Others(backend="eager")
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""torch.compile looks at whatever else is installed beside it: what that deprecates is no matter of ours."""


def rope(q: Any, k: Any, cos: Any, sin: Any) -> Any:
    def turn(x: Any) -> Any:
        half = x.shape[-1] // 2
        return x * cos[:, None] + torch.cat((-x[..., half:], x[..., :half]), -1) * sin[:, None]

    return turn(q), turn(k)


def liger(**faults: Any) -> SimpleNamespace:
    """Stands in for Liger-Kernel's functional module."""
    functions = {
        "liger_rms_norm": reference.rms_norm,
        "liger_swiglu": reference.swiglu,
        "liger_rope": rope,
        "liger_fused_add_rms_norm": reference.add_rms_norm,
    }
    return SimpleNamespace(**{**functions, **faults})


@pytest.fixture(scope="module")
def made() -> dict[str, Case]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {case.kernel: case for case in cases(6, torch.float16, device)}


# --- other people's kernels


@compiles
def test_every_yardstick_is_checked_against_float64(made: dict[str, Case]) -> None:
    for name, case in made.items():
        others = kernels.Others(backend="eager", library=liger())
        good, missing, figures = kernels.right_ones(case, case.make(0), others)
        wanted = {"torch_compile", *(["liger"] if name != "attention" else [])}
        assert set(good) == wanted, missing
        errors = figures["error_to_float64"]
        assert set(errors) == {"triton", "pytorch", *wanted}
        assert 0 < errors["pytorch"] < 1e-3
        assert errors["torch_compile"] <= max(2 * errors["pytorch"], 1e-3)
        assert figures["torch_compile_s"] > 0
    assert missing == {"liger": "the installed Liger-Kernel has no such kernel"}


def test_a_wrong_yardstick_gets_no_time(made: dict[str, Case]) -> None:
    faulty: list[Callable[..., Any]] = [
        lambda x, w, eps: reference.rms_norm(x, w, eps).roll(1, -1),
        lambda x, w, eps: reference.rms_norm(x, w, eps) * 1.01,
        lambda x, w, eps: reference.rms_norm(x, w, eps) * float("nan"),
    ]
    case = made["rms_norm"]
    for fault in faulty:
        others = kernels.Others(compile=False, library=liger(liger_rms_norm=fault))
        good, missing, figures = kernels.right_ones(case, case.make(0), others)
        assert good == {}
        assert missing["liger"].startswith("its result is wrong: error to float64")
        assert "liger" not in figures["error_to_float64"]

    def broken(*_: Any) -> Any:
        raise RuntimeError("no\nkernel")

    others = kernels.Others(compile=False, library=liger(liger_rms_norm=broken))
    assert kernels.right_ones(case, case.make(0), others)[1] == {
        "torch_compile": "left out by --no-compile",
        "liger": "RuntimeError: no kernel",
    }


def test_liger_is_named_as_missing_where_it_is(made: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks.importlib.util, "find_spec", lambda name: None)
    _, missing = kernels.Others(compile=False).functions(made["rms_norm"])
    assert "not installed" in missing["liger"]
    _, missing = kernels.Others(compile=False, liger=False).functions(made["rms_norm"])
    assert missing["liger"] == "left out by --no-liger"
    older = liger()
    del older.liger_fused_add_rms_norm
    assert yardsticks.liger_for("fused_norm_residual", older) is None


def test_attention_is_compared_without_its_padding(made: dict[str, Case]) -> None:
    case = made["attention"]
    inputs = case.make(0)
    wanted = exact(case, inputs)

    def elsewhere(*given: Any) -> Any:
        out = case.pytorch(*given).clone()
        out[1, 2:] = 99.0  # of 4 and 2 rows
        return out

    assert error_to(wanted, case, inputs, elsewhere) == error_to(wanted, case, inputs, case.pytorch) < 1e-3
    assert error_to(wanted, case, inputs, lambda *given: case.pytorch(*given) * 2) == pytest.approx(1, rel=1e-3)
    assert error_to(wanted, case, inputs, lambda *given: case.pytorch(*given) * float("inf")) == float("inf")


# --- ceilings and percentages


def test_ceilings_count_bytes_and_operations() -> None:
    def time_ms(call: Callable[[], object]) -> list[float]:
        call()
        return [1.0, 2.0, 9.0]

    found = ceilings.measure([torch.float32], "cpu", copy_bytes=1000, size=10, time_ms=time_ms)
    assert found["copy_gb_per_s"] == pytest.approx(2 * 1000 / 2e-3 / 1e9)
    assert found["matmul_tflops"] == {"float32": pytest.approx(2 * 10**3 / 2e-3 / 1e12)}
    assert ceilings.percent_of_copy(CEILINGS, 4_000_000, 2.0) == pytest.approx(50)
    assert ceilings.percent_of_matmul(CEILINGS, 8e8, 2.0, "float16") == pytest.approx(50)
    with pytest.raises(InputError, match="above 0"):
        ceilings.percent_of_copy(CEILINGS, 1, 0.0)


@pytest.mark.parametrize(("call_ms", "calls"), [(1.5, 23), (40.0, 16), (137.0, 8)])
def test_a_ceiling_of_slow_products_has_fewer_timings(
    monkeypatch: pytest.MonkeyPatch, call_ms: float, calls: int
) -> None:
    """fp32 on a small GPU: about a second, not three."""
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: MagicMock(**{"elapsed_time.return_value": call_ms}))
    made = MagicMock()
    times = ceilings.event_times_ms(made)
    assert made.call_count == calls
    assert len(times) == calls - 3


def test_a_ceiling_is_of_its_own_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        seen.extend((left, right, out))

    monkeypatch.setattr(torch, "mm", multiply)
    made = ceilings.matmul_tflops(torch.bfloat16, "cpu", 16, lambda call: [call() or 2.0])
    assert made == pytest.approx(2 * 16**3 / 2e-3 / 1e12)
    assert {(t.dtype, tuple(t.shape)) for t in seen} == {(torch.bfloat16, (16, 16))}


def clocks(us: float) -> dict[str, dict[str, float]]:
    timed = {"median": us, "p5": us, "p95": us, "timings": 9}
    return {"do_bench": timed, "graph": timed, "graph_cold": {**timed, "median": 2 * us}}


def test_speeds(made: dict[str, Case]) -> None:
    times = {"triton": clocks(10.0), "pytorch": clocks(40.0), "torch_compile": clocks(15.0), "liger": clocks(12.0)}
    row = kernels.speeds(made["attention"], 4_000_000, times, CEILINGS)
    assert row["speedup"] == {"do_bench": 4.0, "graph": 4.0, "graph_cold": 4.0}
    assert row["speedup_over"]["torch_compile"]["graph"] == 1.5
    assert row["liger_us"] == clocks(12.0)
    assert row["percent_of_copy"] == pytest.approx({"do_bench": 10.0, "graph": 10.0, "graph_cold": 5.0})
    flop = 4 * (4**2 + 2**2) * 16 * 128
    assert row["percent_of_matmul"]["graph"] == pytest.approx(100 * flop / 10e-6 / 800e12)
    row = kernels.speeds(made["rms_norm"], 1, {"triton": clocks(1.0), "pytorch": clocks(1.0)}, CEILINGS)
    assert "percent_of_matmul" not in row
    assert "liger_us" not in row
    assert "percent_of_copy" not in kernels.speeds(made["rms_norm"], 1, {"triton": clocks(1.0), "pytorch": clocks(1.0)})


@pytest.mark.parametrize(
    ("sets", "call_us", "wanted"),
    [(4, None, (50, 50)), (4, 5.0, (50, 50)), (117, 5.0, (2, 50)), (4, 1000.0, (3, 12)), (8, 30_000.0, (1, 10))],
)
def test_graphs_of_slow_calls_are_short(sets: int, call_us: float | None, wanted: tuple[int, int]) -> None:
    assert kernel_clocks.graph_size(sets, call_us) == wanted


# --- the run


def test_rows_of_five_seconds_come_first() -> None:
    assert kernels.in_order([64, 290, 4096, 64]) == [290, 4096, 64]
    assert kernels.in_order([512]) == [512]
    assert kernels.in_order([64, 128, 320, 2000, 8000]) == [320, 8000, 64, 128, 2000], "the nearest by ratio"
    assert 290 in kernels.ROWS
    assert (min(kernels.ROWS), max(kernels.ROWS)) == (64, 8192)


def result(case: Case) -> dict[str, Any]:
    times = {"triton": clocks(1.0), "pytorch": clocks(2.0), "torch_compile": clocks(1.5)}
    shape = {"rows": case.shape["rows"], "columns": 1}
    facts = {"kernel": case.kernel, "shape": shape, "dtype": "float16", "bytes": 10, "not_timed": {"liger": "none"}}
    return {**facts, "error_to_float64": {"triton": 0.0}, **kernels.speeds(case, 10, times, CEILINGS)}


def plan(kernel: str, n: int, dtype: torch.dtype, **more: Any) -> Plan:
    """Of a case that nothing can run."""
    return Plan(kernel, lambda: Case(kernel, {"rows": n}, dtype, tuple, len, len, len, 0), **more)


def test_a_budget_names_what_it_left_out(tmp_path: Path) -> None:
    now = [0.0]

    def measured(case: Case) -> dict[str, Any]:
        now[0] += 1.0
        return result(case)

    def two(n: int, dtype: torch.dtype) -> list[Plan]:
        return [plan(k, n, dtype) for k in ("a", "b")]

    seen: list[tuple[int, int]] = []

    def keep(results: list[Any], missing: list[Any]) -> None:
        seen.append((len(results), len(missing)))

    results, missing = kernels.sweep([290, 64], ["fp16", "bf16"], measured, 3.0, keep, two, lambda: now[0])
    assert len(results) == 6
    assert [(entry["dtype"], entry["rows"], entry["kernel"]) for entry in missing] == [
        ("fp16", 64, "b"),
        ("bf16", 64, "b"),
    ]
    assert seen == [(2, 3), (3, 3), (5, 2), (6, 2)], "what is waiting is listed, too"
    results, missing = kernels.sweep([290], ["fp16"], measured, None, keep, two, lambda: now[0])
    assert (len(results), missing) == (2, [])

    path = tmp_path / "kernels.json"
    write_json(path, "kernels", None, {"ceilings": CEILINGS, "not_measured": missing, "results": results})
    document = json.loads(path.read_text())
    assert not faults(document)
    del document["results"][0]["torch_compile_us"]["graph"]["median"]
    assert faults(document)


@compiles
def test_a_case_is_measured_whole(made: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of `measure` but the clocks."""
    asked: list[int] = []

    def three(fn: Callable[..., Any], sets: Any, cold: bool) -> Any:
        assert cold
        asked.append(len(sets))
        if len(asked) == 4:
            raise RuntimeError("operation not permitted when stream is capturing")
        return clocks(float(len(asked)))

    monkeypatch.setattr(kernels, "three_clocks", three)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(kernels, "l2_cache_bytes", lambda: 100_000)
    case = made["rms_norm"]
    row = kernels.measure(case, CEILINGS, kernels.Others(backend="eager", library=liger()))
    assert len(asked) == 4
    assert asked[0] * row["bytes"] > 2 * row["l2_bytes"]
    assert set(row) >= {"triton_us", "pytorch_us", "torch_compile_us", "percent_of_copy", "error_to_float64"}
    assert "liger_us" not in row
    assert row["not_timed"] == {"liger": "RuntimeError: operation not permitted when stream is capturing"}
    assert "torch_compile 3.00x" in kernels._theirs(row)


def test_what_fails_ends_nothing_else() -> None:
    """A kernel that can't be built, can't run or is wrong leaves its reason; the codec's shape comes once."""

    def four(n: int, dtype: torch.dtype) -> list[Plan]:
        def unbuilt() -> Case:
            raise Unmeasured("it needs another GPU")

        named = [plan(k, n, dtype) for k in ("broken", "wrong")]
        return [Plan("unbuilt", unbuilt), *named, plan("right", n, dtype), plan("codec", n, dtype, once=True)]

    def measured(case: Case) -> dict[str, Any]:
        if case.kernel == "broken":
            raise RuntimeError("an illegal\ninstruction")
        if case.kernel == "wrong":
            raise WrongResult("3 elements are wrong")
        return result(case)

    def run(lost: Callable[[], str | None]) -> tuple[list[Any], list[Any]]:
        return kernels.sweep([290, 64], ["fp16"], measured, None, lambda *_: None, four, lost=lost)

    results, missing = run(lambda: None)
    assert [(row["kernel"], row["rows"]) for row in results] == [("right", 290), ("codec", 290), ("right", 64)]
    assert [(entry["kernel"], entry["reason"]) for entry in missing[:3]] == [
        ("unbuilt", "it needs another GPU"),
        ("broken", "RuntimeError: an illegal instruction"),
        ("wrong", "3 elements are wrong"),
    ]
    assert [entry.get("wrong", False) for entry in missing] == 2 * [False, False, True]

    results, missing = run(lambda: "the GPU had failed before it")
    assert results == []
    assert [entry["kernel"] for entry in missing[:5]] == ["unbuilt", "broken", "wrong", "right", "codec"]
    assert missing[2]["reason"] == missing[-1]["reason"] == "the GPU had failed before it"


def test_torch_compile_is_left_out_for_time() -> None:
    now, seen = [0.0], []

    def measured(case: Case) -> dict[str, Any]:
        now[0] += 20.0
        seen.append((case.kernel, case.shape["rows"], case.no_compile))
        return result(case)

    def two(n: int, dtype: torch.dtype) -> list[Plan]:
        return [plan("often", n, dtype), plan("once", n, dtype, compile_once=True)]

    kernels.sweep([290, 64, 128], ["fp16"], measured, 110.0, lambda *_: None, two, lambda: now[0])
    assert seen == [
        ("often", 290, ""),
        ("once", 290, ""),
        ("often", 64, ""),
        ("once", 64, "timed at 290 rows alone"),
        ("often", 128, ""),
        ("once", 128, "timed at 290 rows alone"),
    ]
    now[0] = 0.0
    seen.clear()
    kernels.sweep([290], ["fp16"], measured, 34.0, lambda *_: None, two, lambda: now[0])
    assert [reason for _, _, reason in seen] == ["", "no time was left for it"]
    case = Case("once", {"rows": 1}, torch.float16, tuple, len, len, len, 0, no_compile="no time")
    assert kernels.Others(liger=False).functions(case) == (
        {},
        {"torch_compile": "no time", "liger": "left out by --no-liger"},
    )


def test_a_wrong_kernel_makes_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    found = [{**result(made["rms_norm"]), "rows": 290}]
    wrong = [{"kernel": "rope", "rows": 290, "dtype": "fp16", "reason": "3 elements are wrong", "wrong": True}]
    for results, missing, code in ((found, wrong, 1), ([], wrong, 1), (found, [{**wrong[0], "wrong": False}], 0)):
        monkeypatch.setattr(kernels, "run", lambda *_, r=results, m=missing: (r, m, CEILINGS))
        assert kernels.main([]) == code
        assert "not measured: fp16 rope 290 rows: 3 elements are wrong" in capsys.readouterr().out


def test_what_never_leaves_the_cache_has_no_cold_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []

    def three(fn: Callable[..., Any], sets: Any, cold: bool) -> Any:
        asked.append((len(sets), cold))
        return {clock: figures for clock, figures in clocks(3.0).items() if cold or clock != "graph_cold"}

    monkeypatch.setattr(kernels, "three_clocks", three)
    monkeypatch.setattr(kernels, "l2_cache_bytes", lambda: 50_000_000)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    case = next(p for p in plans(6, torch.float16, device) if p.kernel == "select_cells").build()
    row = kernels.measure(case, CEILINGS, kernels.Others(compile=False, liger=False))
    assert asked == [(4, False)] * 2
    assert row["cold_sets"] == 0
    assert set(row["speedup"]) == {"do_bench", "graph"}
    assert row["bytes"] == 4 * (16 + 2 * 1)
    assert "6x2x8" in kernels._line(row)
    assert "copy" in kernels._theirs(row)


def test_bad_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--budget-s", "-1"]) == 2
    assert "above 0 seconds" in capsys.readouterr().err
