"""The five cases that turbo is judged on, beside base in one process: `python -m omnivoice_triton.bench.turbo cases`.

Modes take turns as in `bench.speed`. Where turbo's time goes is `turbo_split`'s, the step and its floors
`engine.measure`'s. Memory is measured with one mode loaded at a time. The first case's cold call of turbo captures all
its graphs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from omnivoice_triton.bench.ceilings import matmul_tflops
from omnivoice_triton.bench.harness import SENTENCES, reference_voice
from omnivoice_triton.bench.turbo_floor import flop_floor_ms, packed_rows, percent_of_floor
from omnivoice_triton.bench.turbo_split import replaced, split, turbo_of
from omnivoice_triton.evidence import summary
from omnivoice_triton.models.availability import resolve_dtype
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.models.turbo import TurboHandle
from omnivoice_triton.speech import InputError, Speech

STEPS = 32

Case = dict[str, Any]
Row = dict[str, Any]


def table_cases(quick: bool = False) -> dict[str, Case]:
    """Name to keywords of generate(); `voice` stands for a prompt that is encoded once. Cheap memory first."""
    language, text = SENTENCES["en"]
    short = {"text": text, "language": language, "num_step": STEPS}
    cases: dict[str, Case] = {
        "en short": short,
        "en 5 s": {**short, "duration": 5.0},
        "en 15 s": {**short, "duration": 15.0},
        "clone 5 s": {**short, "duration": 5.0, "voice": "5 s"},
        "clone 8 x 5.88 s": {**short, "text": [text] * 8, "duration": 5.88, "voice": "5 s"},
    }
    return {name: cases[name] for name in ("en 5 s", "clone 5 s")} if quick else cases


def as_list(made: Any) -> list[Speech]:
    """The results of generate(), of one text or of many."""
    speeches = made if isinstance(made, list) else [made]
    if not speeches:
        raise InputError("generate() gave nothing")
    return speeches


def take_turns(
    runners: Mapping[str, Any], keywords: Case, runs: int, warm: int = 1, reference: str = "base"
) -> dict[str, Row]:
    """Figures of one case for every mode: first calls, then rounds in rotating order.

    Ratios, `ratio_to_base` by name, are to `reference`, which must be among them.
    """
    if reference not in runners:
        raise InputError(f"ratios are to {reference}, which is not among {', '.join(runners)}")
    cold = {mode: as_list(runner.generate(seed=0, **keywords))[0].time_ms for mode, runner in runners.items()}
    rounds: list[dict[str, list[Speech]]] = []
    order = list(runners)
    for turn in range(warm + runs):
        order = order[1:] + order[:1]
        made = {mode: as_list(runners[mode].generate(seed=turn, **keywords)) for mode in order}
        if turn >= warm:
            rounds.append(made)
    times = {mode: [made[mode][0].time_ms for made in rounds] for mode in runners}
    base_p5 = summary(times[reference])["p5_ms"]
    rows = {}
    for mode, spent in times.items():
        figures = summary(spent)
        ratios = [own / base for own, base in zip(spent, times[reference], strict=True)]
        audio_s = sum(speech.audio_s for speech in rounds[-1][mode])
        rows[mode] = {
            **figures,
            "cold_ms": cold[mode],
            "ratio_to_base": median(ratios),
            "ratio_p5": float(np.percentile(ratios, 5)),
            "ratio_p95": float(np.percentile(ratios, 95)),
            "ratio_to_base_p5": figures["median_ms"] / base_p5,
            "audio_s": audio_s,
            "speed_x": audio_s / figures["median_ms"] * 1000,
            "steps": STEPS,
        }
    return rows


def requests_of(runner: BaseRunner, turbo: TurboHandle, keywords: Case) -> list[tuple[int, int]]:
    """(prompt rows, frames) of each request that the case makes of the engine."""
    found: list[tuple[int, int]] = []

    def recording(function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            prompt = function(*args, **kwargs)
            found.append((prompt.rows, prompt.frames))
            return prompt

        return run

    with replaced(turbo.engine.prompts, "from_task", recording):
        runner.generate(seed=0, **{**keywords, "num_step": 1})
    if not found:
        raise InputError("turbo asked nothing of its engine")
    return found


def step_figures(turbo: TurboHandle, requests: Sequence[tuple[int, int]], lm_ms: float, peak_tflops: float) -> Row:
    """A step of the case, and how near it is to its floors: only of requests that are equal and run together."""
    from omnivoice_triton.engine.measure import measure_step

    engine = turbo.engine
    figures: Row = {"packed_rows": packed_rows(requests), "requests": len(requests), "lm_ms_per_step": lm_ms / STEPS}
    if len(set(requests)) > 1 or engine.runner.grid.holding(figures["packed_rows"], len(requests)) is None:
        return figures
    step = measure_step(engine, (*requests[0], len(requests)))
    floor_ms = flop_floor_ms(engine.shape, requests, peak_tflops)
    return {
        **figures,
        "bucket_rows": step["bucket"],
        "step_ms": step["step_ms"],
        "backbone_ms": step["backbone_ms"],
        "enqueue_ms": step["host_ms"],
        "gemm_floor_ms": step["gemm_ms"],
        "flop_floor_ms": floor_ms,
        "peak_tflops": peak_tflops,
        "gemm_floor_percent": percent_of_floor(step["gemm_ms"], step["step_ms"]),
        "flop_floor_percent": percent_of_floor(floor_ms, step["step_ms"]),
    }


def turbo_figures(runner: BaseRunner, keywords: Case, warm_ms: float, runs: int, peak_tflops: float) -> Row:
    """What only turbo's rows have: split, step, floors, tokens."""
    import torch

    turbo = turbo_of(runner)

    def generate(seed: int) -> float:
        return as_list(runner.generate(seed=seed, **keywords))[0].time_ms

    parts = split(generate, turbo, runs, torch.cuda.synchronize)
    requests = requests_of(runner, turbo, keywords)
    tokens = turbo.engine.shape.codebooks * sum(frames for _, frames in requests)
    return {
        **parts,
        **step_figures(turbo, requests, parts["lm_ms"], peak_tflops),
        "audio_tokens": tokens,
        "tokens_per_s": tokens / warm_ms * 1000.0,
    }


def with_voice(cases: Mapping[str, Case], runner: BaseRunner) -> Iterator[tuple[str, Case]]:
    """The cases, the reference encoded when the first needs it."""
    voice: Any = None
    for name, keywords in cases.items():
        if "voice" in keywords:
            voice = reference_voice(runner) if voice is None else voice
            yield name, {**keywords, "voice": voice}
        else:
            yield name, keywords


def memory(path: Path, dtype: str, mode: str, cases: Mapping[str, Case], **options: Any) -> dict[str, Row]:
    """Peak of each case, and what the device holds after it, with this mode alone loaded, given its `options`."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free_before = torch.cuda.mem_get_info()[0]
    rows = {}
    with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode, **options) as runner:
        for name, keywords in with_voice(cases, runner):
            torch.cuda.empty_cache()
            runner.generate(seed=0, **{**keywords, "num_step": 4})  # buffers don't depend on the number of steps
            peak_gb = as_list(runner.generate(seed=0, **{**keywords, "num_step": 4}))[0].peak_vram_gb
            rows[name] = {
                "peak_vram_mb": 1024.0 * peak_gb,
                "device_used_mb": (free_before - torch.cuda.mem_get_info()[0]) / 2**20,
            }
    return rows


def measure(path: Path, dtype: str, modes: Sequence[str], runs: int, quick: bool) -> list[Row]:
    """Every case in one dtype, for base and `modes`."""
    import torch

    cases = table_cases(quick)
    names = list(dict.fromkeys(("base", *modes)))
    # What the device holds is `turbo_memory`'s: here torch may keep blocks of the mode before.
    taken = {
        mode: {case: {"peak_vram_mb": held["peak_vram_mb"]} for case, held in memory(path, dtype, mode, cases).items()}
        for mode in names
    }
    peak_tflops = matmul_tflops(resolve_dtype(dtype, "cuda"))
    torch.cuda.empty_cache()
    rows: list[Row] = []
    with ExitStack() as stack:
        runners = {
            mode: stack.enter_context(BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode))
            for mode in names
        }
        for case, keywords in with_voice(cases, runners["base"]):
            for mode, figures in take_turns(runners, keywords, runs).items():
                row = {"part": "cases", "case": case, "mode": mode, "dtype": dtype, **figures, **taken[mode][case]}
                if runners[mode].mode.engine:
                    row |= turbo_figures(runners[mode], keywords, figures["median_ms"], max(3, runs // 2), peak_tflops)
                rows.append(row)
                print(f"{dtype} {mode:>12} {case:>16}: {figures['median_ms']:8.1f} ms", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Lines to print: the times of all modes, then where turbo's go."""
    lines = [
        f"{'dtype':6}{'case':18}{'mode':13}{'median ms':>10}{'p5':>8}{'p95':>8}{'cold':>9}{'x base':>8}"
        f"{'audio s':>9}{'speed x':>9}{'peak MB':>9}"
    ]
    for row in rows:
        lines.append(
            f"{row['dtype']:6}{row['case']:18}{row['mode']:13}{row['median_ms']:10.1f}{row['p5_ms']:8.1f}"
            f"{row['p95_ms']:8.1f}{row['cold_ms']:9.0f}{row['ratio_to_base']:8.3f}{row['audio_s']:9.2f}"
            f"{row['speed_x']:9.1f}{row['peak_vram_mb']:9.0f}"
        )
    with_split = [row for row in rows if "lm_ms" in row]
    if with_split:
        lines += ["", f"{'dtype':6}{'case':18}{'LM ms':>8}{'codec':>8}{'post':>8}{'host':>8}{'step ms':>9}"]
        lines[-1] += f"{'rows':>7}{'% GEMM':>8}{'% FLOP':>8}{'tokens/s':>10}"
    nothing = float("nan")
    for row in with_split:
        lines.append(
            f"{row['dtype']:6}{row['case']:18}{row['lm_ms']:8.1f}{row['codec_ms']:8.1f}{row['post_ms']:8.1f}"
            f"{row['host_ms']:8.1f}{row.get('step_ms', nothing):9.3f}{row['packed_rows']:7}"
            f"{row.get('gemm_floor_percent', nothing):8.1f}{row.get('flop_floor_percent', nothing):8.1f}"
            f"{row['tokens_per_s']:10.0f}"
        )
    return lines
