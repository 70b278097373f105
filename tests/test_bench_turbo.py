"""The benchmark of turbo without a GPU: its arithmetic, its verdicts on planted faults, its tables and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton import evidence
from omnivoice_triton.bench import (
    turbo,
    turbo_cases,
    turbo_floor,
    turbo_lengths,
    turbo_memory,
    turbo_options,
    turbo_split,
    turbo_startup,
    turbo_throughput,
)
from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.kernels.tables import NO_SOURCE, ROW_SOURCE
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError, NotEnoughMemory, Speech

FULL = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, 1e-6)
"""The published model."""


def speech(time_ms: float, audio_s: float = 2.0) -> Speech:
    return Speech(np.zeros(int(audio_s * 24_000), np.float32), 24_000, time_ms / 1000, 0, "stub")


# --- floors


def test_work_per_row_is_the_models() -> None:
    assert turbo_floor.linear_flop_per_row(FULL) == pytest.approx(880.8e6, rel=1e-4)


def test_floor_of_five_seconds() -> None:
    """A 5 s utterance of 40 prompt rows, by hand: 290 rows, 250 head rows, segments of 165 and 125."""
    by_hand = 290 * 880_803_840 + 250 * 2 * 1024 * 8200 + 4 * (165**2 + 125**2) * 2048 * 28
    assert turbo_floor.packed_rows([(40, 125)]) == 290
    assert turbo_floor.step_flop(FULL, [(40, 125)]) == by_hand
    assert turbo_floor.flop_floor_ms(FULL, [(40, 125)], 798.0) == pytest.approx(by_hand / 798e12 * 1000)


def test_items_do_not_attend_to_each_other() -> None:
    assert turbo_floor.step_flop(FULL, [(40, 125)] * 8) == pytest.approx(8 * turbo_floor.step_flop(FULL, [(40, 125)]))


def test_percent_of_floor() -> None:
    assert turbo_floor.percent_of_floor(0.5, 2.0) == 25.0
    for floor_ms, measured_ms in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)):
        with pytest.raises(InputError, match="above 0 ms"):
            turbo_floor.percent_of_floor(floor_ms, measured_ms)


# --- cases


def test_the_table_has_the_five_cases() -> None:
    cases = turbo_cases.table_cases()
    assert len(cases) == 5
    assert len(cases["clone 8 x 5.88 s"]["text"]) == 8
    assert {case["num_step"] for case in cases.values()} == {32}
    assert set(turbo_cases.table_cases(quick=True)) < set(cases)


class Scripted:
    """A runner that takes the times it is told, and tells when it was called."""

    def __init__(self, mode: str, times: list[float], calls: list[str], texts: int = 1) -> None:
        self.mode, self.times, self.calls, self.texts = mode, iter(times), calls, texts

    def generate(self, **_: Any) -> Any:
        self.calls.append(self.mode)
        made = speech(next(self.times))
        return made if self.texts == 1 else [made] * self.texts


def test_modes_take_turns_and_ratios_are_paired() -> None:
    calls: list[str] = []
    # Base drifts threefold; turbo is a tenth of it in each round but the last.
    runners = {
        "base": Scripted("base", [500, 100, 100, 200, 300], calls, texts=8),
        "turbo": Scripted("turbo", [900, 10, 10, 20, 60], calls, texts=8),
    }
    rows = turbo_cases.take_turns(runners, {}, runs=3)
    assert calls[2:] == ["turbo", "base", "base", "turbo"] * 2
    assert rows["turbo"]["ratio_to_base"] == pytest.approx(0.1)
    assert rows["turbo"]["ratio_to_base_p5"] == pytest.approx(20 / 110)
    assert (rows["turbo"]["cold_ms"], rows["turbo"]["median_ms"], rows["turbo"]["runs"]) == (900, 20, 3)
    assert rows["turbo"]["audio_s"] == 16.0
    assert rows["turbo"]["speed_x"] == pytest.approx(800)


def test_turns_need_base_and_runs() -> None:
    with pytest.raises(InputError, match="base"):
        turbo_cases.take_turns({"turbo": Scripted("turbo", [1, 1], [])}, {}, runs=1)
    with pytest.raises(InputError, match="nothing was measured"):
        turbo_cases.take_turns({"base": Scripted("base", [1, 1], [])}, {}, runs=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


def test_split_of_the_real_engine(tiny: Path) -> None:
    """Parts add up to the call, every patch is taken back, and a part that doesn't run is an error."""
    keywords: dict[str, Any] = {"text": ["Hello there."] * 2, "language": "English", "duration": 0.4, "num_step": 2}
    with BaseRunner(device="cpu", model_id=tiny, mode="turbo") as runner:
        handle = turbo_split.turbo_of(runner)

        def generate(seed: int) -> float:
            return turbo_cases.as_list(runner.generate(seed=seed, **keywords))[0].time_ms

        waits: list[int] = []
        figures = turbo_split.split(generate, handle, 1, lambda: waits.append(1))
        assert len(waits) == 6
        named = sum(figures[f"{part}_ms"] for part in (*turbo_split.SPLIT_PARTS, "host"))
        assert named == pytest.approx(figures["split_total_ms"])
        assert all(figures[f"{part}_ms"] > 0 for part in (*turbo_split.SPLIT_PARTS, "host"))

        requests = turbo_cases.requests_of(runner, handle, keywords)
        assert [frames for _, frames in requests] == [10, 10]
        layout = handle.engine.runner.layout
        assert layout is not None
        assert turbo_floor.packed_rows(requests) == np.count_nonzero(layout.table("rows")[:, ROW_SOURCE] != NO_SOURCE)

        for owner in (handle.engine, handle.codec, handle._finisher, handle.engine.prompts):
            assert not {"generate_tokens", "decode", "finish", "from_task"} & set(vars(owner))
        with pytest.raises(InputError, match="did not run its lm"):
            turbo_split.split(lambda seed: 1.0, handle, 1, lambda: None)

        figures = turbo_cases.step_figures(handle, [(5, 10), (6, 10)], 64.0, 800.0)
        assert figures == {"packed_rows": 51, "requests": 2, "lm_ms_per_step": 2.0}, "unequal: no step to measure"


def test_step_figures(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivoice_triton.engine import measure

    step = {"bucket": 320, "step_ms": 1.0, "backbone_ms": 0.9, "host_ms": 0.2, "gemm_ms": 0.8}
    asked: list[Any] = []
    monkeypatch.setattr(measure, "measure_step", lambda engine, case: asked.append(case) or step)
    grid = SimpleNamespace(holding=lambda rows, items: object() if rows <= 4096 else None)
    handle: Any = SimpleNamespace(engine=SimpleNamespace(shape=FULL, runner=SimpleNamespace(grid=grid)))
    figures = turbo_cases.step_figures(handle, [(40, 125)], 40.0, 750.0)
    assert asked == [(40, 125, 1)]
    assert figures["gemm_floor_percent"] == pytest.approx(80)
    assert figures["flop_floor_percent"] == pytest.approx(100 * turbo_floor.flop_floor_ms(FULL, [(40, 125)], 750.0))
    assert figures["peak_tflops"] == 750.0
    assert "step_ms" not in turbo_cases.step_figures(handle, [(40, 125)] * 64, 40.0, 750.0), "more than run together"


def test_floors_are_of_the_peak_that_the_run_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the memory of modes loaded alone and the turns, in the run's own dtype, and nothing of it is kept."""
    seen: list[Any] = []

    class Loaded:
        def __init__(self, mode: str, **_: Any) -> None:
            self.mode = SimpleNamespace(engine=mode == "turbo")
            seen.append(mode)

        def __enter__(self) -> Loaded:
            return self

        def __exit__(self, *_: object) -> None: ...

    def memory(path: Path, dtype: str, mode: str, cases: Any) -> dict[str, Any]:
        seen.append(f"memory of {mode}")
        return {case: {"peak_vram_mb": 1.0} for case in cases}

    monkeypatch.setattr(turbo_cases, "memory", memory)
    monkeypatch.setattr(turbo_cases, "matmul_tflops", lambda dtype: seen.append(dtype) or 123.0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append("emptied"))
    monkeypatch.setattr(turbo_cases, "BaseRunner", Loaded)
    monkeypatch.setattr(turbo_cases, "reference_voice", lambda runner: "voice")
    monkeypatch.setattr(
        turbo_cases, "take_turns", lambda runners, keywords, runs: {mode: {"median_ms": 1.0} for mode in runners}
    )
    monkeypatch.setattr(turbo_cases, "turbo_figures", lambda *given: {"peak_tflops": given[-1]})
    rows = turbo_cases.measure(Path(), "bf16", ["turbo"], 3, quick=True)
    assert seen == ["memory of base", "memory of turbo", torch.bfloat16, "emptied", "base", "turbo"]
    assert [row.get("peak_tflops") for row in rows] == [None, 123.0] * 2


# --- lengths

Speak = Callable[[float, int], tuple[float, int]]


def watched(speak: Speak, captures: Callable[[], int] = lambda: 5, memory: Any = lambda: (900.0, 800.0)) -> list[str]:
    row = turbo_lengths.speak_all(turbo_lengths.durations(300), speak, captures, memory)
    assert (row["lengths"], row["distinct_lengths"]) == (300, 300)
    return turbo_lengths.problems(row)


def even(seconds: float, seed: int) -> tuple[float, int]:
    """Ten to fifteen lengths a bucket, within a tenth of each other."""
    return 20.0 + seconds + 0.1 * (seed % 10), int(seconds)


def test_even_lengths_pass() -> None:
    assert watched(even) == []


def test_lengths_are_in_random_order_and_repeat() -> None:
    lengths = turbo_lengths.durations(300)
    assert lengths == turbo_lengths.durations(300) != sorted(lengths)
    assert 0.5 < min(lengths) < 1 < 28 < max(lengths) <= 29
    with pytest.raises(InputError, match="different lengths"):
        turbo_lengths.durations(0)


def test_one_slow_length_is_seen() -> None:
    def speak(seconds: float, seed: int) -> tuple[float, int]:
        spent, bucket = even(seconds, seed)
        return spent * (2.0 if seed == 150 else 1.0), bucket

    (problem,) = watched(speak)
    assert "p99 is" in problem


def test_a_capture_is_seen() -> None:
    made = [5]

    def speak(seconds: float, seed: int) -> tuple[float, int]:
        made[0] += seed == 299
        return even(seconds, seed)

    assert watched(speak, captures=lambda: made[0]) == ["1 graphs captured after the warm-up"]


@pytest.mark.parametrize("which", [0, 1])
def test_growth_is_seen_even_if_given_back(which: int) -> None:
    calls = [0]

    def memory() -> tuple[float, float]:
        calls[0] += 1
        used = [900.0, 800.0]
        used[which] += 64.0 if calls[0] == 100 else 63.9
        return used[0], used[1]

    start = iter([(900.0, 800.0)])
    (problem,) = watched(even, memory=lambda: next(start, None) or memory())
    assert ("device", "allocator")[which] in problem


def test_a_figure_that_is_no_number_fails() -> None:
    row = {"captures": 0, "p99_to_median": float("nan"), "slowest_bucket": 64}
    row |= {"device_growth_mb": float("nan"), "allocator_growth_mb": 0.0}
    assert len(turbo_lengths.problems(row)) == 2


# --- throughput


def test_throughput_cell() -> None:
    seeds: list[int] = []

    def generate(seed: int) -> list[Speech]:
        seeds.append(seed)
        return [speech(100.0, 2.0)] * 4

    figures = turbo_throughput.cell(generate, 3)
    assert (seeds, figures["audio_s_per_s"], figures["runs"]) == ([0, 1, 2, 3], pytest.approx(80), 3)
    clock = iter([0.0, 11.0])
    assert turbo_throughput.cell(generate, 3, lambda: next(clock))["runs"] == 1, "patience"


def test_throughput_table_marks_what_did_not_fit() -> None:
    common = {"part": "throughput", "dtype": "fp16", "batch": 64}
    rows = [{**common, "length_s": 2.0, "audio_s_per_s": 512.5}, {**common, "length_s": 30.0, "error": "no memory"}]
    assert turbo_throughput.table(rows)[1].split() == ["fp16", "batch", "64", "512.5", "-"]
    assert turbo.failures(rows) == ["throughput fp16: no memory"]


# --- startup


def told(stages: tuple[str, ...], step: float = 1.0, audio_s: float = 5.0) -> str:
    lines = [{"stage": stage, "at": 100.0 + step * (n + 1)} for n, stage in enumerate(stages)]
    if lines:
        lines[-1]["audio_s"] = audio_s
    return "noise of a library\n" + "\n".join(json.dumps(line) for line in lines)


def test_startup_stages() -> None:
    spent = turbo_startup.parse(told(turbo_startup.STAGES), 100.0)
    assert spent == {**{f"{stage}_s": 1.0 for stage in turbo_startup.STAGES}, "total_s": 6.0, "without_bytecode": 0}
    row = turbo_startup.combine({"total_s": 60.0}, [spent])
    assert (row["graphs_s"], row["first_start_s"], row["median_ms"], row["on_target"]) == (2.0, 60.0, 6000.0, True)
    slow = turbo_startup.parse(told(turbo_startup.STAGES, 1.6), 100.0)
    assert turbo_startup.combine(slow, [slow])["on_target"] is False, "3.2 s of graphs"


@pytest.mark.parametrize(
    ("output", "started", "match"),
    [
        (told(()), 100.0, "told nothing"),
        (told(turbo_startup.STAGES[:-1]), 100.0, "the child told"),
        (told(turbo_startup.STAGES[::-1]), 100.0, "the child told"),
        (told(turbo_startup.STAGES), 200.0, "before it began"),
        (told(turbo_startup.STAGES, audio_s=0.0), 100.0, "no audio"),
    ],
)
def test_startup_protocol_faults(output: str, started: float, match: str) -> None:
    with pytest.raises(InputError, match=match):
        turbo_startup.parse(output, started)


def test_startup_child_on_the_cpu(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turbo_startup.main([str(tiny), "fp32", "--device", "cpu", "--steps", "2"]) == 0
    assert turbo_startup.parse(capsys.readouterr().out, 0.0)["total_s"] > 0


def test_startup_with_bytecode_where_the_installation_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put in the folder by the first start is there for the next, and no other start gets one."""
    asked = []

    def run(command: list[str], **settings: Any) -> SimpleNamespace:
        folder = settings["env"].get("PYTHONPYCACHEPREFIX")
        asked.append((folder, "PYTHONDONTWRITEBYTECODE" in settings["env"]))
        lines = told(turbo_startup.STAGES).splitlines()
        lines[2] = json.dumps({**json.loads(lines[2]), "without_bytecode": 0 if folder else missing})
        return SimpleNamespace(returncode=0, stdout="\n".join(lines), stderr="")

    monkeypatch.setattr(turbo_startup.subprocess, "run", run)
    monkeypatch.setattr(turbo_startup.time, "monotonic", lambda: 100.0)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    missing = 1800
    rows = turbo_startup.measure(Path("model"), "fp16", 2)
    assert [(row["variant"], row["without_bytecode"]) for row in rows] == [("as installed", 1800), ("with bytecode", 0)]
    folders = [folder for folder, _ in asked]
    assert folders[:3] == [None] * 3
    assert len({*folders[3:]}) == 1
    assert not Path(folders[-1]).exists()
    assert [kept for _, kept in asked] == [True] * 3 + [False] * 3
    missing = 0
    assert [row["variant"] for row in turbo_startup.measure(Path("model"), "fp16", 2)] == ["as installed"]
    assert len(turbo_startup.table(rows)) == 4


def test_startup_child_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = SimpleNamespace(returncode=3, stdout="", stderr="Traceback\nRuntimeError: no luck\n")
    monkeypatch.setattr(turbo_startup.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(InputError, match="ended with 3: RuntimeError: no luck"):
        turbo_startup.run_child(Path("model"), "fp16")


# --- command line

TIMES = {"median_ms": 30.0, "p5_ms": 29.0, "p95_ms": 31.0, "runs": 3}
CASE = {"part": "cases", "case": "en 5 s", "mode": "base", "dtype": "fp16", **TIMES, "cold_ms": 99.0}
CASE |= {"ratio_to_base": 1.0, "audio_s": 5.0, "speed_x": 166.7, "peak_vram_mb": 2000.0}
SPLIT = {**CASE, "mode": "turbo", "lm_ms": 21.5, "codec_ms": 3.0, "post_ms": 2.0, "host_ms": 3.5, "step_ms": 0.654}
SPLIT |= {"packed_rows": 290, "gemm_floor_percent": 77.7, "flop_floor_percent": 50.5, "tokens_per_s": 33333.0}
LENGTHS = {"part": "lengths", "dtype": "fp16", "lengths": 300, "captures": 0, "p99_to_median": 1.1}
LENGTHS |= {"device_growth_mb": 3.0, "problems": []}
CELL = {"part": "throughput", "dtype": "fp16", "batch": 8, "length_s": 5.0, "audio_s_per_s": 222.2}
START = {"part": "startup", "dtype": "fp16", "variant": "as installed", "total_s": 7.0, "on_target": True}
START |= {f"{stage}_s": 1.0 for stage in turbo_startup.STAGES}
HELD = {"part": "memory", "dtype": "fp16", "variant": "default", "peak_vram_mb": 2111.0, "device_used_mb": 2345.0}
HELD |= {"cuda_context_mb": 500.0, "target_mb": 2400.0, "on_target": True}
LOSSY = {"part": "options", "variant": "FP8", "case": "en 5 s", "dtype": "fp16", **TIMES, "ratio_to_exact": 0.876}
ROWS: dict[str, list[dict[str, Any]]] = {
    "cases": [CASE, SPLIT], "lengths": [LENGTHS], "throughput": [CELL], "startup": [START], "memory": [HELD],
    "options": [LOSSY],
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> dict[str, list[dict[str, Any]]]:
    """Stubs in place of all measuring; returns the rows that they give, to be changed."""
    rows = {part: [dict(row) for row in made] for part, made in ROWS.items()}
    monkeypatch.setattr(turbo, "need_gpu", lambda: None)
    monkeypatch.setattr(turbo, "default_model", lambda model, device: tiny)
    monkeypatch.setattr(turbo, "measure", lambda part, path, dtype, options: rows[part])
    return rows


def test_all_parts(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "turbo.json"
    assert turbo.main(["--dtypes", "fp16", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    parts = ["cases", "cases", "lengths", "throughput", "startup", "memory", "options"]
    assert [row["part"] for row in document["results"]] == parts
    printed = capsys.readouterr().out
    for figure in (
        "2345",
        "0.876",
        "21.5",
        "0.654",
        "77.7",
        "50.5",
        "33333",
        "222.2",
        "PASS fp16: 300 lengths, 0 captures",
        "1 of 1 rows are of fewer than 5 runs, down to 3: p5 and p95 bound no noise",
        "met",
    ):
        assert figure in printed


def test_some_parts_in_their_order(gpu: Any, tmp_path: Path) -> None:
    out = tmp_path / "turbo-rest.json"
    assert turbo.main(["memory", "startup", "--dtypes", "fp16", "--json", str(out)]) == 0
    assert [row["part"] for row in json.loads(out.read_text())["results"]] == ["startup", "memory"]


def test_a_miss_is_exit_code_one(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gpu["lengths"][0]["problems"] = ["2 graphs captured after the warm-up"]
    assert turbo.main(["lengths", "--dtypes", "fp16"]) == 1
    captured = capsys.readouterr()
    assert "FAIL fp16" in captured.out
    assert "2 graphs captured" in captured.err


def test_nothing_measured_fails_and_keeps_the_rest(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu["throughput"] = []
    out = tmp_path / "turbo.json"
    assert turbo.main(["--dtypes", "fp16", "--json", str(out)]) == 2
    assert "throughput fp16: nothing was measured" in capsys.readouterr().err
    document = json.loads(out.read_text())
    assert [row["part"] for row in document["results"]] == ["cases", "cases", "lengths"]
    assert [entry["part"] for entry in document["not_measured"]] == ["throughput", "startup", "memory", "options"]
    assert {entry["reason"] for entry in document["not_measured"]} == {"the run ended before it"}
    assert "median_ms" in document["definitions"]


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["speed"], "invalid choice"),
        (["cases", "speed"], "invalid choice"),
        (["--runs", "0"], "--runs: must be a whole number of at least 1"),
        (["--dtypes", "fp8"], "--dtypes: invalid choice: 'fp8'"),
        (["--modes", "warp"], "invalid choice"),
    ],
)
def test_bad_arguments(argv: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert turbo.main(argv) == 2
    err = capsys.readouterr().err
    assert match in err
    assert err.count("\n") == 1


def test_refuses_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evidence.need_gpu is turbo.need_gpu
    assert turbo.main([]) == 2
    assert capsys.readouterr().err == "bench.turbo: this needs an NVIDIA GPU, and torch finds none\n"


STANDIN = """
import json, sys
options = json.loads(sys.argv[-1])
held = 2750.0 - 700 * (options.get("reference_encoder") is False) - 300 * options.get("host_embedding", True)
print("ready", flush=True)
assert sys.stdin.readline() == "go\\n"
print(json.dumps({"peak_vram_mb": held - 50, "device_used_mb": held, "free_mb": 100.0}))
"""
"""In place of a child that measures."""


def in_place_of_children(monkeypatch: pytest.MonkeyPatch, source: str) -> list[list[str]]:
    asked: list[list[str]] = []
    start = subprocess.Popen

    def popen(command: list[str], **settings: Any) -> Any:
        asked.append(command)
        return start([sys.executable, "-c", source, *command[3:]], **settings)

    monkeypatch.setattr(turbo_memory.subprocess, "Popen", popen)
    return asked


def test_memory_is_taken_with_the_options_of_each_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = in_place_of_children(monkeypatch, STANDIN)
    monkeypatch.setattr(turbo_memory, "_free_mb", lambda: 627.0)
    rows = turbo_memory.measure(Path("model"), "fp16")
    assert {row["cuda_context_mb"] for row in rows} == {527.0}
    assert [row.get("on_target") for row in rows] == [False, True, None, None]
    assert [json.loads(command[-1]) for command in asked] == [
        dict(options) for options, _ in turbo_memory.VARIANTS.values()
    ]
    assert [line.split()[-1] for line in turbo_memory.table(rows)[1:]] == ["missed", "met", "-", "-"]
    for options, _ in turbo_memory.VARIANTS.values():
        BaseRunner("cpu", mode="turbo", **options)  # options that there are


@pytest.mark.parametrize("source", ["raise SystemExit('no such model')", STANDIN.replace("held = ", "held = 1 / 0 + ")])
def test_a_memory_child_that_dies(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    in_place_of_children(monkeypatch, source)
    with pytest.raises(InputError, match=r"a child ended with 1: (no such model|ZeroDivisionError)"):
        turbo_memory.measure(Path("model"), "fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_the_memory_child_needs_a_gpu(tiny: Path) -> None:
    with pytest.raises(InputError, match="a child ended with"):
        turbo_memory.measure(tiny, "fp16")


def test_inexact_options_are_timed_beside_exact(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {name: {"text": "Hi.", "duration": 0.4, "num_step": 2} for name in turbo_options.CASES}
    monkeypatch.setattr(turbo_options, "table_cases", lambda: cases)
    rows = turbo_options.measure(tiny, "fp32", 2, device="cpu")
    timed = [row for row in rows if "unavailable" not in row]
    assert {row["case"] for row in timed} == set(turbo_options.CASES)
    exact = [row for row in timed if row["variant"] == "exact"]
    assert [row["ratio_to_exact"] for row in exact] == [1.0, 1.0]
    assert not any("ratio_to_base" in row for row in timed)
    assert {row["variant"] for row in rows} == set(turbo_options.VARIANTS)
    assert all(row["variant"] in line for row, line in zip(rows, turbo_options.table(rows)[1:], strict=True))


def test_a_cell_without_memory_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, **_: Any) -> None: ...
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...
        def warmup(self) -> None: ...
        def generate(self, texts: list[str], *_: Any, **__: Any) -> list[Speech]:
            if len(texts) == 8:
                raise NotEnoughMemory("too much")
            return [speech(10.0)] * len(texts)

    monkeypatch.setattr(turbo_throughput, "BaseRunner", Full)
    rows = turbo_throughput.measure(Path("model"), "fp16", 1, quick=True)
    assert [row.get("error") for row in rows] == [None, None, "too much", "too much"]
