"""The sanitizer's verdicts with a stand-in for the tool, and its workload in Triton's interpreter."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnivoice_triton.verify import hopper_grid, kernel_case, packed_grid, planted, sanitize, workload

HAS_GPU = torch.cuda.is_available()
STANDIN = """#!{python}
import json, os, sys
tool = sys.argv[sys.argv.index("--tool") + 1]
arguments = sys.argv[sys.argv.index("-m") + 2 :]
assert os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
plan = json.load(open({plan!r}))
key = tool + " " + ("planted" if arguments[0] == "--plant" else arguments[0])
assert arguments[0] != "--plant" or arguments[1] == tool
print(plan.get(key) or plan["planted" if key.endswith("planted") else "clean"])
"""
CLEAN = "kernels a=3 b=4\nlaunched 7\n========= ERROR SUMMARY: 0 errors"
FOUND = "========= Invalid __global__ read of size 16 bytes\n========= ERROR SUMMARY: 2 errors"

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs main() with a stand-in that prints what is told: exit code, JSON rows, what was printed."""

    def run(*arguments: str, **outputs: str) -> tuple[int, list[dict[str, Any]], str]:
        plan, tool, out = tmp_path / "plan.json", tmp_path / "compute-sanitizer", tmp_path / "out.json"
        plan.write_text(
            json.dumps({"clean": CLEAN, "planted": FOUND, **{k.replace("_", " "): v for k, v in outputs.items()}})
        )
        tool.write_text(STANDIN.format(python=sys.executable, plan=str(plan)))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(sanitize, "need_gpu", lambda: None)
        code = sanitize.main([*arguments, "--json", str(out)])
        return code, json.loads(out.read_text())["results"], capsys.readouterr().out

    return run


@pytest.mark.parametrize("jobs", ["1", "8"])
def test_clean_runs_of_both_tools_pass(sanitizer: Run, jobs: str) -> None:
    code, rows, printed = sanitizer("--jobs", jobs)
    assert code == 0
    assert [(row["tool"], row["part"]) for row in rows] == [
        (tool, part) for tool in ("memcheck", "racecheck") for part in ("planted", *sanitize.PARTS)
    ]
    assert rows[1]["kernels"] == {"a": 3, "b": 4}
    assert printed.count("PASS") == 2 * (1 + len(sanitize.PARTS))
    assert "PASS memcheck kernels: 2 kernels, 7 launches, 0 errors" in printed


@pytest.mark.parametrize(
    ("where", "output", "told"),
    [
        ("racecheck_planted", CLEAN, "a planted fault is not found"),
        ("memcheck_planted", "Segmentation fault", "a planted fault is not found"),
        ("memcheck_kernels", FOUND, "2 errors"),
        (
            "racecheck_engine-bf16",
            "launched 7\n========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)",
            "1 errors",
        ),
        ("racecheck_modes", "launched 7\n(and no summary)", "no count of errors"),
        ("memcheck_modes", "launched 0\n========= ERROR SUMMARY: 0 errors", "0 launches"),
        ("memcheck_kernels", "kernels a=1\nnot launched: b\n========= ERROR SUMMARY: 0 errors", "not launched: b"),
        (
            "memcheck_engine-fp16",
            "broke at engine x: ValueError: no\n========= ERROR SUMMARY: 0 errors",
            "broke at engine",
        ),
    ],
)
def test_anything_else_fails(sanitizer: Run, where: str, output: str, told: str) -> None:
    code, rows, printed = sanitizer(**{where: output})
    assert code == 1
    assert [f"{row['tool']}_{row['part']}" for row in rows if not row["passed"]] == [where]
    assert told in printed
    assert printed.count("FAIL") == 1


def test_parts_and_tools_can_be_chosen(sanitizer: Run) -> None:
    code, rows, _ = sanitizer("--tools", "racecheck", "--parts", "engine-fp32")
    assert code == 0
    assert [(row["tool"], row["part"]) for row in rows] == [("racecheck", "planted"), ("racecheck", "engine-fp32")]


def test_a_run_that_takes_too_long_fails(sanitizer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*a: Any, **o: Any) -> Any:
        raise subprocess.TimeoutExpired("compute-sanitizer", 1, output=b"at a 1x1\nat b 2x2\n")

    monkeypatch.setattr(sanitize.subprocess, "run", late)
    monkeypatch.setattr(sanitize, "write_json", lambda *a: None)
    monkeypatch.setattr(sanitize.shutil, "which", lambda name: name)
    row = sanitize.check("memcheck", "modes")
    assert not row["passed"]
    assert row["tail"] == ["not done after 540 s, at b 2x2 (launch 2)"]


def test_without_the_tool_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sanitize, "need_gpu", lambda: None)
    monkeypatch.setattr(sanitize.shutil, "which", lambda name: None)
    assert sanitize.main([]) == 2
    assert "not on the PATH" in capsys.readouterr().err


# --- the workload ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_GPU, reason="for Triton's interpreter: make sanitize runs it compiled")
def test_no_kernel_of_the_package_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert workload.main(["kernels", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for name in kernel_case.launchers() - set(hopper_grid.KERNELS):  # these need a GPU
        assert f"{name}=" in printed
    assert "hopper" not in printed
    assert "\nlaunched " in printed


@pytest.mark.skipif(HAS_GPU, reason="for Triton's interpreter: make sanitize runs it compiled")
def test_a_kernel_that_is_left_out_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = kernel_case.launchers()
    monkeypatch.setattr(kernel_case, "launchers", lambda: {*own, "triton_new"})
    assert workload.main(["kernels", "--device", "cpu"]) == 1
    assert "not launched: triton_new" in capsys.readouterr().out
    ran: list[tuple[int, ...]] = []
    case = ("triton_new", lambda draw: ((lambda m=m: ran.append(draw.normal(1, m, 8).shape)) for m in (1, 65)))
    monkeypatch.setattr(workload, "EXTRA", (case,))
    assert workload.main(["kernels", "--device", "cpu"]) == 0
    assert ran == [(1, 8), (65, 8)] * 3
    assert "triton_new=6" in capsys.readouterr().out


def test_an_error_ends_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def bad() -> None:
        raise ValueError("wrong shape")

    parts = {
        "modes": lambda device: iter([("k", "1x1", lambda: None), ("k", "2x2", bad)]),
        "engine-fp32": lambda device: iter([]),
    }
    monkeypatch.setattr(workload, "PARTS", parts)
    assert workload.main(["modes", "--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines() == ["at k 1x1", "at k 2x2", "broke at k 2x2: ValueError: wrong shape"]
    assert "launched" not in printed
    assert workload.main(["engine-fp32", "--device", "cpu"]) == 1  # nothing was launched


def test_views_are_copied_apart() -> None:
    flat = torch.arange(12)
    part = workload._apart(flat[4:8])
    assert part.untyped_storage().nbytes() == part.nbytes
    assert part.tolist() == [4, 5, 6, 7]
    assert workload._apart(flat) is flat
    assert workload._apart(3) == 3
    columns = flat.view(3, 4)[:, :2]
    assert workload._apart(columns) is columns


def test_the_edges_are_what_they_say() -> None:
    rows = [packed_grid.Packed(size, "cpu", 16).rows for size in workload.grids("cuda")[1:3]]
    assert rows == [64, 65]


@pytest.mark.skipif(HAS_GPU, reason="for Triton's interpreter: make sanitize runs it compiled")
def test_the_engine_decodes_under_the_interpreter() -> None:
    """One frame, one text token, through all kernels of a step."""
    done = []
    for name, _, launch in workload.engine_launches("cpu", torch.float32):
        launch()
        done.append(name)
    assert done == ["engine"]


def test_the_planted_race_has_no_barrier(tmp_path: Path) -> None:
    """Assembled for two GPUs: a store and a load of shared memory, and nothing between."""
    from triton.backends import nvidia

    tools = Path(nvidia.__file__).parent / "bin"
    source, binary = tmp_path / "race.ptx", tmp_path / "race.cubin"
    source.write_text(planted.RACE_PTX)
    for architecture in ("sm_75", "sm_90"):
        subprocess.run([tools / "ptxas", f"-arch={architecture}", source, "-o", binary], check=True)
        listing = subprocess.run(
            [tools / "cuobjdump", "-sass", binary], capture_output=True, text=True, check=True
        ).stdout
        found = [name for line in listing.splitlines() for name in ("STS", "LDS", "BAR") if f" {name}" in line]
        assert found == ["STS", "LDS"]


@pytest.mark.gpu
def test_the_planted_race_runs() -> None:
    planted.race()
