"""End-to-end time of every mode beside base, in one process: `python -m omnivoice_triton.bench.speed --json OUT`.

Host wall clock around generate(), the device synchronised on both sides; 32 steps, guidance 2. Each mode is measured
warm (after `--warm` unmeasured runs) and cold (its first call, which compiles kernels or captures graphs). Base is
measured first and again last: their distance is the noise of the ratios.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omnivoice_triton.bench.harness import SENTENCES, arguments
from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import default_model, need_gpu, summary, write_json
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import OmniVoiceTritonError

FIVE_SECONDS = "en 5 s"


def cases(reference: tuple[Any, int], all_cases: bool) -> dict[str, dict[str, Any]]:
    """Name to keywords of generate()."""
    english = SENTENCES["en"]
    made: dict[str, dict[str, Any]] = {
        FIVE_SECONDS: {"text": english[1], "language": english[0], "duration": 5.0},
    }
    if all_cases:
        for code, (language, text) in SENTENCES.items():
            made[f"{code} short"] = {"text": text, "language": language}
        made["en 15 s"] = {"text": english[1], "language": english[0], "duration": 15.0}
        made["clone 5 s"] = {**made[FIVE_SECONDS], "ref_audio": reference, "ref_text": "This is what I said."}
        made["design 5 s"] = {**made[FIVE_SECONDS], "instruct": "female, young adult, high pitch"}
    return made


def measure(runner: BaseRunner, keywords: dict[str, Any], runs: int, warm: int) -> dict[str, Any]:
    """Cold and warm figures of one case."""
    import torch

    if "ref_audio" in keywords:  # a voice is encoded once and reused
        keywords = dict(keywords)
        keywords["voice"] = runner.create_voice(keywords.pop("ref_audio"), keywords.pop("ref_text"))
    cold = runner.generate(seed=0, **keywords)
    for i in range(warm):
        runner.generate(seed=i, **keywords)
    results = [runner.generate(seed=i, **keywords) for i in range(runs)]
    free, total = torch.cuda.mem_get_info()
    median = summary([r.time_ms for r in results])
    return {
        **median,
        "cold_ms": cold.time_ms,
        "audio_s": results[-1].audio_s,
        "speed_x": results[-1].audio_s / median["median_ms"] * 1000,
        "peak_vram_mb": max(r.peak_vram_gb for r in results) * 1024,
        "device_used_mb": (total - free) / 2**20,
        "steps": 32,
    }


def graph_figures(runner: BaseRunner) -> dict[str, float]:
    """Memory and captures of the runner's graphs (no reference to them may outlive the runner)."""
    graphs = runner.acceleration.graphs if runner.acceleration is not None else None
    return {} if graphs is None else {"graph_pool_mb": graphs.used_bytes / 2**20, "captures": graphs.captures}


def run_dtype(path: Path, dtype: str, modes: list[str], runs: int, warm: int, all_cases: bool) -> list[dict[str, Any]]:
    """Every mode on every case in one dtype; base first and last."""
    import torch

    g = torch.Generator().manual_seed(0)
    reference = ((torch.randn(24_000 * 5, generator=g) * 0.1).numpy(), 24_000)
    rows = []
    for position, mode in enumerate([*modes, "base"]):
        again = position == len(modes)
        torch.cuda.empty_cache()
        with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode) as runner:
            for case, keywords in cases(reference, all_cases and not again).items():
                figures = measure(runner, keywords, runs, warm)
                rows.append({"mode": "base again" if again else mode, "case": case, "dtype": dtype, **figures})
                print(f"{dtype} {rows[-1]['mode']:>12} {case:>10}: {figures['median_ms']:8.1f} ms", file=sys.stderr)
            rows[-1].update(graph_figures(runner))
    base = {row["case"]: row["median_ms"] for row in rows if row["mode"] == "base"}
    for row in rows:
        row["ratio_to_base"] = row["median_ms"] / base[row["case"]]
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    parser = arguments("end-to-end speed of every mode beside base")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--only-5s", action="store_true", help="the 5 s utterance alone")
    options = parser.parse_args(argv)
    try:
        need_gpu()
        path = default_model(options.model, "cuda")
        modes = ["base", *(m for m in options.modes if m != "base")]
        rows = [
            row
            for dtype in options.dtypes
            for row in run_dtype(path, dtype, modes, options.runs, options.warm, not options.only_5s)
        ]
        write_json(options.json, "speed", path, {"results": rows})
    except OmniVoiceTritonError as error:
        print(f"bench.speed: {error}", file=sys.stderr)
        return 2
    print(f"{'dtype':6}{'case':12}{'mode':14}{'median ms':>10}{'p95':>8}{'cold':>9}{'x base':>8}{'VRAM MB':>9}")
    for row in rows:
        print(
            f"{row['dtype']:6}{row['case']:12}{row['mode']:14}{row['median_ms']:10.1f}{row['p95_ms']:8.1f}"
            f"{row['cold_ms']:9.0f}{row['ratio_to_base']:8.3f}{row['peak_vram_mb']:9.0f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
