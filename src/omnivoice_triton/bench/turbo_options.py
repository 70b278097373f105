"""What turbo's inexact options bring, beside exact turbo: `python -m omnivoice_triton.bench.turbo options`.

They take turns as in `turbo_cases`. How far they are from exact is tier 1's business (`verify.lossy_grid`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omnivoice_triton.bench.turbo_cases import Row, table_cases, take_turns, with_voice
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import OmniVoiceTritonError

EXACT = "exact"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    EXACT: {},
    "INT8 attention": {"attention": "int8"},
    "FP8": {"precision": "fp8"},
    "FP8, INT8 attention": {"precision": "fp8", "attention": "int8"},
    "bf16 codec": {"codec_precision": "bf16"},
}
"""Name to turbo's options."""
CASES = ("en 5 s", "clone 8 x 5.88 s")


def measure(path: Path, dtype: str, runs: int, device: str = "cuda") -> list[Row]:
    """A row for each case and variant; one that can't run here has an `unavailable` in place of figures."""
    rows: list[Row] = []
    with ExitStack() as stack:
        runners: dict[str, BaseRunner] = {}
        for variant, options in VARIANTS.items():
            runner = BaseRunner(device=device, model_id=path, dtype=dtype, mode="turbo", **options)
            try:
                runners[variant] = stack.enter_context(runner)
            except OmniVoiceTritonError as error:
                if variant == EXACT:
                    raise
                rows.append(
                    {"part": "options", "mode": "turbo", "variant": variant, "dtype": dtype, "unavailable": str(error)}
                )
        cases = {name: keywords for name, keywords in table_cases().items() if name in CASES}
        for case, keywords in with_voice(cases, runners[EXACT]):
            for variant, figures in take_turns(runners, keywords, runs, reference=EXACT).items():
                row = {"part": "options", "mode": "turbo", "variant": variant, "case": case, "dtype": dtype, **figures}
                row["ratio_to_exact"] = row.pop("ratio_to_base")
                rows.append({name: value for name, value in row.items() if not name.startswith("ratio_to_base")})
                print(f"{dtype} {variant} {case}: {figures['median_ms']:.1f} ms", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Times, and of exact turbo's."""
    lines = [f"{'dtype':6}{'case':18}{'variant':22}{'median ms':>10}{'of exact':>10}"]
    for row in rows:
        if "unavailable" in row:
            lines.append(f"{row['dtype']:6}{row['variant']}: {row['unavailable']}")
            continue
        figures: tuple[Any, Any] = (row["median_ms"], row["ratio_to_exact"])
        lines.append(f"{row['dtype']:6}{row['case']:18}{row['variant']:22}{figures[0]:10.1f}{figures[1]:10.3f}")
    return lines
