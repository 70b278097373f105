"""Hundreds of different lengths after the warm-up: is anything captured, is one slow, does memory grow?"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.bench.harness import SENTENCES
from omnivoice_triton.bench.turbo_cases import STEPS, as_list
from omnivoice_triton.bench.turbo_split import turbo_of
from omnivoice_triton.config import FRAME_RATE_HZ
from omnivoice_triton.evidence import summary
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError

SLOWEST_RATIO = 1.25
"""The 99th percentile of a bucket's times over its median may be so much."""
GROWTH_MB = 64.0

Row = dict[str, Any]


def durations(count: int) -> list[float]:
    """`count` different lengths from 0.52 to 29 s in random order, always the same."""
    frames = range(13, 29 * FRAME_RATE_HZ + 1)
    if not 1 <= count <= len(frames):
        raise InputError(f"wanted 1 to {len(frames)} different lengths, not {count}")
    return [n / FRAME_RATE_HZ for n in random.Random(0).sample(frames, count)]


def speak_all(
    lengths: Sequence[float],
    speak: Callable[[float, int], tuple[float, int]],
    captures: Callable[[], int],
    memory: Callable[[], tuple[float, float]],
) -> Row:
    """Speak every length once and watch.

    Args:
        lengths: seconds.
        speak: length and seed to milliseconds and the bucket that served it.
        captures: graphs captured so far.
        memory: MB used on the device, and MB held by torch's allocator.
    """
    if not lengths:
        raise InputError("nothing was measured")
    captured, start = captures(), memory()
    times: dict[int, list[float]] = {}
    growth = [0.0, 0.0]
    for seed, seconds in enumerate(lengths):
        spent, bucket = speak(seconds, seed)
        times.setdefault(bucket, []).append(spent)
        growth = [max(most, now - then) for most, now, then in zip(growth, memory(), start, strict=True)]
    ratios = {bucket: float(np.percentile(spent, 99) / np.median(spent)) for bucket, spent in times.items()}
    worst = max(ratios, key=lambda bucket: ratios[bucket])
    return {
        "lengths": len(lengths),
        "distinct_lengths": len(set(lengths)),
        "captures": captures() - captured,
        "p99_to_median": ratios[worst],
        "slowest_bucket": worst,
        "device_growth_mb": growth[0],
        "allocator_growth_mb": growth[1],
        "buckets": [
            {"bucket_rows": bucket, "p99_to_median": ratios[bucket], **summary(times[bucket])}
            for bucket in sorted(times)
        ],
        **summary([spent for each in times.values() for spent in each]),
    }


def problems(row: Row) -> list[str]:
    """What is wrong, in words; none if all is well."""
    wrong = []
    if row["captures"]:
        wrong.append(f"{row['captures']} graphs captured after the warm-up")
    if not row["p99_to_median"] <= SLOWEST_RATIO:
        wrong.append(
            f"p99 is {row['p99_to_median']:.2f}x the median of the bucket of {row['slowest_bucket']} rows "
            f"(at most {SLOWEST_RATIO:g}x)"
        )
    for name in ("device", "allocator"):
        grown = row[f"{name}_growth_mb"]
        if not grown < GROWTH_MB:
            wrong.append(f"{name} memory grew by {grown:.0f} MB (less than {GROWTH_MB:g})")
    return wrong


def measure(path: Path, dtype: str, count: int) -> list[Row]:
    """One row: `count` lengths in one dtype."""
    import torch

    language, text = SENTENCES["en"]
    lengths = durations(count)
    with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode="turbo") as runner:
        turbo = turbo_of(runner)
        runner.warmup()

        def speak(seconds: float, seed: int) -> tuple[float, int]:
            made = runner.generate(text, language, duration=seconds, num_step=STEPS, seed=seed)
            layout = turbo.engine.runner.layout
            if layout is None:
                raise InputError("turbo ran no step")
            return as_list(made)[0].time_ms, layout.bucket.rows

        def captures() -> int:
            return turbo.engine.runner.graphs.captures + int(getattr(turbo.codec, "captures", 0))

        def memory() -> tuple[float, float]:
            free, total = torch.cuda.mem_get_info()
            return (total - free) / 2**20, torch.cuda.memory_reserved() / 2**20

        row = speak_all(lengths, speak, captures, memory)
        row["codec_eager_calls"] = int(getattr(turbo.codec, "eager_calls", 0))
        return [{"part": "lengths", "mode": "turbo", "dtype": dtype, **row, "problems": problems(row)}]


def table(rows: Sequence[Row]) -> list[str]:
    """A verdict for each row."""
    return [
        f"{'FAIL' if row['problems'] else 'PASS'} {row['dtype']}: {row['lengths']} lengths, "
        f"{row['captures']} captures, p99 {row['p99_to_median']:.2f}x its bucket's median, "
        f"memory grew by {row['device_growth_mb']:.0f} MB" + "".join(f"\n     {each}" for each in row["problems"])
        for row in rows
    ]
