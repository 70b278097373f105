"""From process start to first audio: a child process (this module) tells, in JSON lines, when each stage is done.

Python keeps the bytecode of what it imports beside it. Where an installation came without and can't be written, every
start compiles thousands of files anew; then starts with `PYTHONPYCACHEPREFIX` set to a folder, which keeps it, are
measured as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omnivoice_triton.bench.harness import SENTENCES
from omnivoice_triton.bytecode import without_bytecode
from omnivoice_triton.evidence import summary
from omnivoice_triton.imports import quick_imports
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

STAGES = ("python", "imports", "load", "step_graphs", "codec_graphs", "first_audio")
TARGET_S = 12.0
TARGET_GRAPHS_S = 3.0
TIMEOUT_S = 300.0
AS_INSTALLED, WITH_BYTECODE = "as installed", "with bytecode"

Row = dict[str, Any]


def tell(stage: str, **more: Any) -> None:
    """Child: this stage is done. The monotonic clock is the same for all processes of a machine."""
    print(json.dumps({"stage": stage, "at": time.monotonic(), **more}), flush=True)


def parse(output: str, started: float) -> dict[str, float]:
    """Seconds of each stage and in total, from a child's output; other lines are passed over.

    Raises:
        InputError: a stage is missing, out of order or before the one ahead of it, or there was no sound.
    """
    seen = [json.loads(line) for line in output.splitlines() if line.startswith('{"stage"')]
    if [each["stage"] for each in seen] != list(STAGES):
        told = ", ".join(each["stage"] for each in seen) or "nothing"
        raise InputError(f"startup: wanted the stages {', '.join(STAGES)}, and the child told {told}")
    if not seen[-1].get("audio_s", 0) > 0:
        raise InputError("startup: the child made no audio")
    spent, before = {}, started
    for each in seen:
        if each["at"] < before:
            raise InputError(f"startup: {each['stage']} ended before it began")
        spent[f"{each['stage']}_s"] = each["at"] - before
        before = each["at"]
    compiled = next((each["without_bytecode"] for each in seen if "without_bytecode" in each), 0)
    return {**spent, "total_s": before - started, "without_bytecode": compiled}


def run_child(path: Path, dtype: str, bytecode: Path | None = None) -> dict[str, float]:
    """One start, timed; `bytecode` is where Python keeps what it compiles, if not where it always does."""
    command = [sys.executable, "-m", "omnivoice_triton.bench.turbo_startup", str(path), dtype]
    environment = dict(os.environ)
    if bytecode is not None:
        environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"startup: no audio after {TIMEOUT_S:g} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"startup: the child ended with {done.returncode}: {last}")
    return parse(done.stdout, started)


def combine(first: dict[str, float], warm: Sequence[dict[str, float]]) -> Row:
    """One row of a start that may have had to compile, and of those after it."""
    totals = summary([1000.0 * each["total_s"] for each in warm])
    typical = sorted(warm, key=lambda each: each["total_s"])[len(warm) // 2]
    graphs_s = typical["step_graphs_s"] + typical["codec_graphs_s"]
    return {
        **totals,
        **typical,
        "graphs_s": graphs_s,
        "first_start_s": first["total_s"],
        "on_target": typical["total_s"] <= TARGET_S and graphs_s <= TARGET_GRAPHS_S,
    }


def measure(path: Path, dtype: str, runs: int) -> list[Row]:
    """A start that fills Triton's cache, then `runs` that find it filled; all again with bytecode if there is none."""
    fixed = {"part": "startup", "mode": "turbo", "dtype": dtype}
    first = run_child(path, dtype)
    rows = [{**fixed, "variant": AS_INSTALLED, **combine(first, [run_child(path, dtype) for _ in range(runs)])}]
    if first["without_bytecode"]:
        with TemporaryDirectory() as folder:
            first = run_child(path, dtype, Path(folder))
            warm = [run_child(path, dtype, Path(folder)) for _ in range(runs)]
        rows.append({**fixed, "variant": WITH_BYTECODE, **combine(first, warm)})
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Totals and breakdown."""
    lines = ["seconds from process start, warm Triton cache"]
    lines.append(f"{'dtype':6}{'':14}{'total':>8}" + "".join(f"{stage:>14}" for stage in STAGES) + f"{'target':>8}")
    for row in rows:
        cells = "".join(f"{row[f'{stage}_s']:14.2f}" for stage in STAGES)
        verdict = "met" if row["on_target"] else "missed"
        lines.append(f"{row['dtype']:6}{row['variant']:14}{row['total_s']:8.2f}{cells}{verdict:>8}")
    return lines


def main(argv: list[str] | None = None) -> int:
    """The child: load, warm up, speak, and tell."""
    tell("python")
    parser = argparse.ArgumentParser(description="start turbo and tell when each stage is done")
    parser.add_argument("model", type=Path)
    parser.add_argument("dtype")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=32)
    options = parser.parse_args(argv)
    try:
        with quick_imports():
            from omnivoice_triton.models.loading import import_upstream
            from omnivoice_triton.models.runner import BaseRunner

        import_upstream(options.device)
        tell("imports", without_bytecode=without_bytecode())
        import torch

        def wait() -> None:
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()

        runner = BaseRunner(options.device, options.model, options.dtype, mode="turbo")
        runner.load_model()
        wait()
        tell("load")
        turbo = runner.acceleration.turbo if runner.acceleration is not None else None
        if turbo is None:
            raise InputError("no turbo engine was installed")
        turbo.engine.warmup()
        wait()
        tell("step_graphs")
        turbo.warmup()  # the codec's are what is left
        wait()
        tell("codec_graphs")
        language, text = SENTENCES["en"]
        speech = runner.generate(text, language, duration=5.0, num_step=options.steps, seed=0)
        tell("first_audio", audio_s=len(speech.audio) / speech.sample_rate)
    except OmniVoiceTritonError as error:
        print(f"bench.turbo_startup: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
