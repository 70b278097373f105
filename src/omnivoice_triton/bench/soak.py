"""Many utterances of different lengths in one graph mode: does memory stay under the budget?

`python -m omnivoice_triton.bench.soak --json OUT`
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.bench import definitions
from omnivoice_triton.bench.harness import SENTENCES, arguments
from omnivoice_triton.commands import command, in_words, whole
from omnivoice_triton.config import DEFAULT_GRAPH_BUDGET_MB, MODES
from omnivoice_triton.evidence import check_outputs, default_model, need_gpu, summary, write_json
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import OmniVoiceTritonError

LONGEST_S = 29.0


def soak(path: Path, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one dtype; an utterance that fails is named in it, and the rest goes on."""
    import torch

    draw = random.Random(0)
    durations = [round(draw.uniform(0.5, LONGEST_S), 2) for _ in range(options.runs)]
    held = {"graph_budget_mb": options.budget_mb}
    with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=options.mode, **held) as runner:
        text = SENTENCES["en"][1]
        failures: list[str] = []
        # One of the longest without a graph's help: what eager work needs is there before counting starts.
        try:
            runner.generate(text, duration=LONGEST_S, num_step=2, seed=0)
        except Exception as error:  # where this fails most others will: it is a verdict, and no end
            failures.append(f"{LONGEST_S} s, before counting: {_words(error)}")
        torch.cuda.synchronize()
        start_free = torch.cuda.mem_get_info()[0]
        used: list[float] = []
        times: list[float] = []
        for seed, duration in enumerate(durations):
            try:
                times.append(runner.generate(text, duration=duration, num_step=options.steps, seed=seed).time_ms)
            except Exception as error:
                failures.append(f"{duration} s: {_words(error)}")
            used.append((start_free - torch.cuda.mem_get_info()[0]) / 2**20)
        graphs = runner.acceleration.graphs if runner.acceleration is not None else None
        assert graphs is not None
        row = {
            "mode": options.mode,
            "dtype": dtype,
            "utterances": len(durations),
            "distinct_durations": len(set(durations)),
            "failures": failures,
            "growth_mb_max": max(used),
            "growth_mb_last": used[-1],
            "budget_mb": options.budget_mb,
            "pool_mb": graphs.used_bytes / 2**20,
            "captures": graphs.captures,
            "buckets_held": len(graphs.buckets),
            **(summary(times) if times else {}),
        }
        return {**row, "passed": fits(row)}


def fits(row: dict[str, Any]) -> bool:
    """Whether every utterance was said, within the budget."""
    return not row["failures"] and row["growth_mb_max"] <= row["budget_mb"]


def _words(error: Exception) -> str:
    """An error in one line, by its class where it is none of ours."""
    return " ".join(str(error).split()) if isinstance(error, OmniVoiceTritonError) else in_words(error)


@command("bench.soak")
def main(argv: Sequence[str] | None = None) -> int:
    """Run, print one line, write JSON; exit code 1 if memory grew past the budget or an utterance failed."""
    parser = arguments("soak", "200 utterances of different lengths", runs=200)
    parser.add_argument("--mode", default="hybrid", choices=[name for name, mode in MODES.items() if mode.graph])
    parser.add_argument(
        "--steps", type=whole(1), default=8, help="decoding steps each (memory does not depend on them)"
    )
    parser.add_argument("--budget-mb", type=whole(1), default=DEFAULT_GRAPH_BUDGET_MB)
    options = parser.parse_args(argv)
    check_outputs(options.json)
    need_gpu()
    path = default_model(options.model, "cuda")
    rows = []
    for dtype in options.dtypes:
        rows.append(soak(path, dtype, options))
        waiting = options.dtypes[len(rows) :]
        left = [{"mode": options.mode, "dtype": d, "reason": "the run ended before it"} for d in waiting]
        figures = {"definitions": definitions.SOAK, "not_measured": left, "results": rows}
        write_json(options.json, "soak", path, figures)
    for row in rows:
        print(
            f"{'PASS' if fits(row) else 'FAIL'} {row['mode']} {row['dtype']}: {row['utterances']} utterances, "
            f"{len(row['failures'])} failed, memory grew by {row['growth_mb_max']:.0f} MB at most "
            f"(budget {row['budget_mb']}), {row['captures']} captures, {row['buckets_held']} buckets held"
        )
        for failure in row["failures"][:5]:
            print(f"  {failure}")
    return 0 if all(map(fits, rows)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
