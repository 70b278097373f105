"""Audio seconds per second of turbo, over batch sizes and lengths."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.bench.harness import SENTENCES
from omnivoice_triton.bench.turbo_cases import STEPS, as_list
from omnivoice_triton.evidence import summary
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import NotEnoughMemory, Speech

BATCHES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS_S = (2.0, 5.0, 15.0, 30.0)
PATIENCE_S = 10.0
"""A cell's runs stop after so long: the largest takes seconds a run and varies little."""

Row = dict[str, Any]


def cell(
    generate: Callable[[int], list[Speech]], runs: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Figures of one batch size and length after one unmeasured call; `generate` takes a seed."""
    generate(0)
    times, audio_s, began = [], 0.0, clock()
    for seed in range(1, runs + 1):
        made = generate(seed)
        times.append(made[0].time_ms)
        audio_s = sum(speech.audio_s for speech in made)
        if clock() - began > PATIENCE_S:
            break
    figures = summary(times)
    return {**figures, "audio_s": audio_s, "audio_s_per_s": audio_s / figures["median_ms"] * 1000.0}


def measure(path: Path, dtype: str, runs: int, quick: bool) -> list[Row]:
    """One row a cell; a cell that the GPU can't hold has `error` in place of figures."""
    language, text = SENTENCES["en"]
    rows: list[Row] = []
    with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode="turbo") as runner:
        runner.warmup()
        for batch in (1, 8) if quick else BATCHES:
            for seconds in (5.0, 15.0) if quick else LENGTHS_S:

                def generate(seed: int, batch: int = batch, seconds: float = seconds) -> list[Speech]:
                    made = runner.generate([text] * batch, language, duration=seconds, num_step=STEPS, seed=seed)
                    return as_list(made)

                row: Row = {"part": "throughput", "mode": "turbo", "dtype": dtype, "batch": batch, "length_s": seconds}
                try:
                    row |= cell(generate, runs)
                except NotEnoughMemory as error:
                    row["error"] = str(error)
                rows.append(row)
                print(f"{dtype} {batch:3} x {seconds:g} s: {row.get('audio_s_per_s', 0):.0f}", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Batch sizes down, lengths across."""
    lengths = sorted({row["length_s"] for row in rows})
    lines = ["audio seconds per second: " + "".join(f"{f'{seconds:g} s':>9}" for seconds in lengths)]
    for dtype, batch in dict.fromkeys((row["dtype"], row["batch"]) for row in rows):
        found = {row["length_s"]: row for row in rows if (row["dtype"], row["batch"]) == (dtype, batch)}
        cells = [
            f"{found[seconds]['audio_s_per_s']:9.1f}" if "audio_s_per_s" in found.get(seconds, {}) else f"{'-':>9}"
            for seconds in lengths
        ]
        lines.append(f"{f'{dtype} batch {batch}':26}" + "".join(cells))
    return lines
