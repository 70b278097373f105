"""The script that makes all evidence: its stages are commands that there are, and a failure is its own."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "evidence.sh"
STANDIN = """#!/bin/sh
echo "$@" >> "{calls}"
case "$*" in *{bad}*) exit 3 ;; esac
"""


def run(tmp_path: Path, *stages: str, bad: str = "nothing") -> tuple[int, list[str], str]:
    """Exit code, the commands that were asked for, and the summary."""
    python, calls, out = tmp_path / "python", tmp_path / "calls", tmp_path / "out"
    python.write_text(STANDIN.format(calls=calls, bad=bad))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["bash", str(SCRIPT), str(out), *stages],
        env={"PATH": "/usr/bin:/bin", "PY": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = out / "summary.txt"
    return (
        done.returncode,
        calls.read_text().splitlines() if calls.exists() else [],
        (summary.read_text() if summary.exists() else done.stderr),
    )


def test_every_stage_runs_by_default(tmp_path: Path) -> None:
    code, calls, summary = run(tmp_path)
    assert code == 0
    names = set(re.findall(r"^(\S+) +exit 0", summary, re.MULTILINE))
    head = SCRIPT.read_text().split("set -u")[0]
    assert names == {
        "tests",
        "sanitizer",
        "verify",
        "smoke",
        "demo-fp16",
        "demo-bf16",
        "turbo-cases",
        "turbo",
        "turbo-rest",
        "speed",
        "batch-1",
        "batch-1-bf16",
        "batch-8",
        "batch-8-bf16",
        "batch-32",
        "batch-32-bf16",
        "batch-32-30s",
        "batch-32-30s-bf16",
        "kernels",
        "kernels-bf16",
        "peers",
        "soak",
        "samples",
    }
    assert all(name.split("-")[0] in head for name in names)
    assert len(calls) == len(names)


def test_it_makes_what_the_tables_read(tmp_path: Path) -> None:
    _, calls, _ = run(tmp_path)
    made = {Path(path).stem for call in calls for path in re.findall(r"--(?:json |results=)(\S+)", call)}
    source = (SCRIPT.parent / "results_tables.py").read_text()
    places = re.findall(
        r"\btable\(([^()]*?)build=|\bload\(([^()]*)\)|^(?:TURBO|MODES|BATCHES) = \((.*)\)", source, re.MULTILINE
    )
    read = {name for place in places for name in re.findall(r'"([\w-]+)"', "".join(place))}
    assert len(read) >= 10
    assert read <= made
    committed = {path.stem for path in (SCRIPT.parents[1] / "bench" / "results").glob("*.json")}
    assert {name for name in committed if not name.startswith("demo_voice")} <= made  # the voice's are its own tools'


@pytest.mark.parametrize("bad", ["bench.soak", "sanitize"])
def test_a_failure_is_told_and_ends_nothing(tmp_path: Path, bad: str) -> None:
    code, calls, summary = run(tmp_path, "checks", "soak", bad=bad)
    assert code == 1
    assert len(calls) == 8
    assert summary.count("exit 3") == 1


def test_each_check_is_a_stage_too(tmp_path: Path) -> None:
    names = ("tests", "sanitizer", "verify", "smoke", "demo-fp16", "demo-bf16", "samples")
    code, calls, summary = run(tmp_path, *names)
    assert code == 0
    assert len(calls) == len(names)
    assert re.findall(r"^(\S+) +exit 0", summary, re.MULTILINE) == list(names)  # one after the other
    assert run(tmp_path, "verify", bad="verify")[0] == 1


def test_what_it_does_not_know_it_refuses(tmp_path: Path) -> None:
    for unknown in ("everything", "verify smoke", ""):
        code, calls, told = run(tmp_path, "soak", unknown)
        assert code == 2
        assert not calls
        assert f"unknown stage {unknown}:" in told


def test_the_modules_are_there() -> None:
    import importlib.util

    modules = set(re.findall(r"-m (omnivoice_triton[\w.]*)", SCRIPT.read_text()))
    assert len(modules) >= 7
    assert all(importlib.util.find_spec(name) for name in modules)
