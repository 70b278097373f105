"""End-to-end time of every mode beside base, in one process: `python -m omnivoice_triton.bench.speed --json OUT`.

Host wall clock around generate(), the device synchronised on both sides; 32 steps, guidance 2. The eager modes are
bound by the host, whose speed drifts by tens of percent, so all modes are loaded at once and take turns: each round
runs every mode once, in rotating order, and the ratio to base is the median of the rounds' own ratios. A mode's first
call on a case (kernels compiled, a graph captured) is reported as cold. Memory is measured apart, a mode at a time.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from omnivoice_triton.bench.harness import SENTENCES, arguments
from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import default_model, need_gpu, summary, write_json
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import OmniVoiceTritonError, Speech

FIVE_SECONDS = "en 5 s"
STEPS = 32

Case = dict[str, Any]
Row = dict[str, Any]


def cases(all_cases: bool) -> dict[str, Case]:
    """Name to keywords of generate()."""
    english = SENTENCES["en"]
    five = {"text": english[1], "language": english[0], "duration": 5.0, "num_step": STEPS}
    made: dict[str, Case] = {FIVE_SECONDS: five}
    if all_cases:
        for code, (language, text) in SENTENCES.items():
            made[f"{code} short"] = {"text": text, "language": language, "num_step": STEPS}
        made["en 15 s"] = {**five, "duration": 15.0}
        made["clone 5 s"] = {**five, "voice": "the reference"}
        made["design 5 s"] = {**five, "instruct": "female, young adult, high pitch"}
    return made


def reference_voice(runner: BaseRunner) -> Any:
    """A prompt of 5 s of noise: what it sounds like does not change what it costs."""
    noise = (np.random.default_rng(0).standard_normal(5 * 24_000) * 0.1).astype(np.float32)
    return runner.create_voice((noise, 24_000), "This is what I said, and it took about five seconds.")


def take_turns(runners: dict[str, BaseRunner], keywords: Case, runs: int, warm: int) -> dict[str, Row]:
    """Figures of one case for every mode: first calls, then rounds."""
    cold = {mode: runner.generate(seed=0, **keywords).time_ms for mode, runner in runners.items()}
    rounds: list[dict[str, Speech]] = []
    order = list(runners)
    for turn in range(warm + runs):
        order = order[1:] + order[:1]
        made = {mode: runners[mode].generate(seed=turn, **keywords) for mode in order}
        if turn >= warm:
            rounds.append(made)
    rows = {}
    for mode in runners:
        ratios = [made[mode].time_ms / made["base"].time_ms for made in rounds]
        figures = summary([made[mode].time_ms for made in rounds])
        p5, p95 = np.percentile(ratios, [5, 95])
        rows[mode] = {
            **figures,
            "cold_ms": cold[mode],
            "ratio_to_base": median(ratios),
            "ratio_p5": float(p5),
            "ratio_p95": float(p95),
            "audio_s": rounds[-1][mode].audio_s,
            "speed_x": rounds[-1][mode].audio_s / figures["median_ms"] * 1000,
            "steps": STEPS,
        }
    return rows


def speed(path: Path, dtype: str, modes: list[str], runs: int, warm: int, all_cases: bool) -> list[Row]:
    """Every mode on every case in one dtype."""
    rows = []
    with ExitStack() as stack:
        runners = {
            mode: stack.enter_context(BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode))
            for mode in modes
        }
        wanted = cases(all_cases)
        for keywords in wanted.values():
            if "voice" in keywords:
                keywords["voice"] = reference_voice(runners["base"])
        for case, keywords in wanted.items():
            extra = runs if case == FIVE_SECONDS else 0  # the case that everything is compared on
            for mode, figures in take_turns(runners, keywords, runs + extra, warm).items():
                rows.append({"mode": mode, "case": case, "dtype": dtype, **figures})
                print(f"{dtype} {mode:>12} {case:>10}: {figures['median_ms']:8.1f} ms", file=sys.stderr)
    return rows


def memory(path: Path, dtype: str, mode: str) -> Row:
    """What one mode alone takes for the 5 s utterance, one bucket captured."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free_before = torch.cuda.mem_get_info()[0]
    with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode) as runner:
        torch.cuda.reset_peak_memory_stats()
        peak_gb = runner.generate(seed=0, **cases(False)[FIVE_SECONDS]).peak_vram_gb
        return {
            "peak_vram_mb": peak_gb * 1024,
            "peak_reserved_mb": torch.cuda.max_memory_reserved() / 2**20,
            "device_used_mb": (free_before - torch.cuda.mem_get_info()[0]) / 2**20,
            **graph_figures(runner),
        }


def graph_figures(runner: BaseRunner) -> dict[str, float]:
    """Memory and captures of the runner's graphs (no reference to them may outlive the runner)."""
    turbo = runner.acceleration.turbo if runner.acceleration is not None else None
    if turbo is not None:
        codec = turbo.codec  # graphs on the GPU that this needs; the engine's own hold buffers only
        steps = turbo.engine.runner.graphs.captures
        return {
            "graph_pool_mb": getattr(codec, "used_bytes", 0) / 2**20,
            "captures": steps + getattr(codec, "captures", 0),
        }
    graphs = runner.acceleration.graphs if runner.acceleration is not None else None
    return {} if graphs is None else {"graph_pool_mb": graphs.used_bytes / 2**20, "captures": graphs.captures}


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    parser = arguments("end-to-end speed of every mode beside base", runs=7)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--warm", type=int, default=1, help="unmeasured rounds a case")
    parser.add_argument("--only-5s", action="store_true", help="the 5 s utterance alone")
    options = parser.parse_args(argv)
    try:
        need_gpu()
        path = default_model(options.model, "cuda")
        modes = ["base", *(m for m in options.modes if m != "base")]
        rows: list[Row] = []
        for dtype in options.dtypes:
            taken = {mode: memory(path, dtype, mode) for mode in modes}
            for row in speed(path, dtype, modes, options.runs, options.warm, not options.only_5s):
                rows.append({**row, **(taken[row["mode"]] if row["case"] == FIVE_SECONDS else {})})
            write_json(options.json, "speed", path, {"results": rows})  # what is measured is kept, whatever comes
    except OmniVoiceTritonError as error:
        print(f"bench.speed: {error}", file=sys.stderr)
        return 2
    print(f"{'dtype':6}{'case':12}{'mode':14}{'median ms':>10}{'p95':>8}{'cold':>9}{'x base':>8}{'VRAM MB':>9}")
    for row in rows:
        print(
            f"{row['dtype']:6}{row['case']:12}{row['mode']:14}{row['median_ms']:10.1f}{row['p95_ms']:8.1f}"
            f"{row['cold_ms']:9.0f}{row['ratio_to_base']:8.3f}{row.get('peak_vram_mb', float('nan')):9.0f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
