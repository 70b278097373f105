"""Many utterances of different lengths in one graph mode: does memory stay under the budget?

`python -m omnivoice_triton.bench.soak --json OUT`
"""

from __future__ import annotations

import random
import sys

from omnivoice_triton.bench.harness import SENTENCES, arguments
from omnivoice_triton.config import DEFAULT_GRAPH_BUDGET_MB, MODES
from omnivoice_triton.evidence import default_model, need_gpu, summary, write_json
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import OmniVoiceTritonError


def main(argv: list[str] | None = None) -> int:
    """Run, print one line, write JSON; exit code 1 if memory grew past the budget or an utterance failed."""
    import torch

    parser = arguments("200 utterances of different lengths", runs=200)
    parser.add_argument("--mode", default="hybrid", choices=[name for name, mode in MODES.items() if mode.graph])
    parser.add_argument("--steps", type=int, default=8, help="decoding steps each (memory does not depend on them)")
    parser.add_argument("--budget-mb", type=int, default=DEFAULT_GRAPH_BUDGET_MB)
    options = parser.parse_args(argv)
    try:
        need_gpu()
        path = default_model(options.model, "cuda")
        draw = random.Random(0)
        durations = [round(draw.uniform(0.5, 29.0), 2) for _ in range(options.runs)]
        rows = []
        for dtype in options.dtypes:
            with BaseRunner(
                device="cuda", model_id=path, dtype=dtype, mode=options.mode, graph_budget_mb=options.budget_mb
            ) as runner:
                # One of the longest without a graph's help: what eager work needs is there before counting starts.
                runner.generate(SENTENCES["en"][1], duration=29.0, num_step=2, seed=0)
                torch.cuda.synchronize()
                start_free = torch.cuda.mem_get_info()[0]
                used, times, failures = [], [], []
                for seed, duration in enumerate(durations):
                    try:
                        result = runner.generate(
                            SENTENCES["en"][1], duration=duration, num_step=options.steps, seed=seed
                        )
                        times.append(result.time_ms)
                    except OmniVoiceTritonError as error:
                        failures.append(f"{duration} s: {error}")
                    used.append((start_free - torch.cuda.mem_get_info()[0]) / 2**20)
                acceleration = runner.acceleration
                graphs = acceleration.graphs if acceleration is not None else None
                assert graphs is not None
                rows.append(
                    {
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
                        **summary(times),
                    }
                )
        write_json(options.json, "soak", path, {"results": rows})
    except OmniVoiceTritonError as error:
        print(f"bench.soak: {error}", file=sys.stderr)
        return 2
    good = True
    for row in rows:
        fits = not row["failures"] and row["growth_mb_max"] <= row["budget_mb"]
        good &= fits
        print(
            f"{'PASS' if fits else 'FAIL'} {row['mode']} {row['dtype']}: {row['utterances']} utterances, "
            f"{len(row['failures'])} failed, memory grew by {row['growth_mb_max']:.0f} MB at most "
            f"(budget {row['budget_mb']}), {row['captures']} captures, {row['buckets_held']} buckets held"
        )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
