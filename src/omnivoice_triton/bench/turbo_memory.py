"""What turbo holds on the GPU for one 5 s utterance, and what its options save or cost.

`python -m omnivoice_triton.bench.turbo memory`. The process's CUDA context is not counted: it was there before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.bench.turbo_cases import Row, memory, table_cases

CASE = "en 5 s"
VARIANTS: Mapping[str, tuple[Mapping[str, bool], float]] = {
    "default": ({}, 2400.0),
    "no reference encoder": ({"reference_encoder": False}, 1900.0),
    "text embedding on the GPU": ({"host_embedding": False}, 2400.0),
    "the same, no reference encoder": ({"reference_encoder": False, "host_embedding": False}, 1900.0),
}
"""Name to turbo's options, and the MB that it may hold in 16 bits."""


def measure(path: Path, dtype: str) -> list[Row]:
    """One row a variant, each loaded by itself."""
    rows: list[Row] = []
    for variant, (options, target_mb) in VARIANTS.items():
        figures = memory(path, dtype, "turbo", {CASE: table_cases()[CASE]}, **options)[CASE]
        row = {"part": "memory", "mode": "turbo", "dtype": dtype, "variant": variant, **figures}
        row |= {"target_mb": target_mb, "on_target": figures["device_used_mb"] <= target_mb}
        rows.append(row)
        print(f"{dtype} {variant}: {figures['device_used_mb']:.0f} MB", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Allocated at the peak, held on the device, and the target."""
    lines = [f"{'dtype':6}{'variant':28}{'peak MB':>9}{'device MB':>11}{'target':>8}"]
    for row in rows:
        verdict: Any = "met" if row["on_target"] else "missed"
        lines.append(
            f"{row['dtype']:6}{row['variant']:28}{row['peak_vram_mb']:9.0f}{row['device_used_mb']:11.0f}{verdict:>8}"
        )
    return lines
