"""What of a result file can be drawn: figures of cases, kernels and turbo's parts, as rows for the charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Measure = tuple[str, str]
"""Of kernels: a figure and the clock that it was taken by."""

METRICS = ("median_ms", "speed_x", "rtf", "ratio_to_base", "peak_vram_mb", "joules_per_utterance")
"""What can be drawn of a case said in a mode."""
KERNEL_FIGURES = ("speedup", "triton_gb_per_s", "percent_of_copy", "percent_of_matmul")
STARTUP = ("python_s", "imports_s", "load_s", "step_graphs_s", "codec_graphs_s", "first_audio_s")
"""What turbo's start is made of, in its order."""
TURBO_PARTS = ("options", "memory", "startup")
"""Of turbo, beside its cases and throughput."""
FEWEST_RUNS = 5
"""Of fewer runs p5 and p95 bound no noise: as `bench compare` has it, which front ends don't import."""
DRAWN = ("speed", "peers", "turbo", "kernels")
"""Kinds that there are charts of."""


class Damaged(ValueError):
    """A document lacks something, or has another kind of thing in its place; the message names it."""


def number(row: Mapping[str, Any], key: str) -> float:
    """A figure.

    Raises:
        Damaged: there is none.
    """
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Damaged(key)
    try:
        found = float(value)
    except OverflowError as error:  # JSON's whole numbers have no end
        raise Damaged(key) from error
    if not math.isfinite(found):
        raise Damaged(key)
    return found


def dtypes_of(document: Mapping[str, Any]) -> list[str]:
    """Precisions in the file, in its order."""
    results = document["results"]
    rows = results if isinstance(results, list) else []
    return list(dict.fromkeys(str(row["dtype"]) for row in rows if "dtype" in row))


def latency_rows(document: Mapping[str, Any], dtype: str, metric: str = "median_ms") -> list[Row]:
    """Rows of cases said in modes as mode, case, median, p5, p95; only the times of enough runs have a spread.

    Raises:
        Damaged: a figure is none.
    """
    rows = []
    for row in _cases(document):
        if row.get("dtype") != dtype or row.get(metric) is None:
            continue
        median = number(row, metric)
        made = {"mode": str(row["mode"]), "case": str(row["case"]), "median": median}
        if metric == "median_ms":
            low, high = number(row, "p5_ms"), number(row, "p95_ms")
            made |= {} if _is_few(row) else {"p5": low, "p95": high}
        rows.append(made)
    return rows


def few_runs(document: Mapping[str, Any], dtype: str, cases: Sequence[str] | None = None) -> tuple[int, int]:
    """How many of the cases' times are of so few runs that they have no spread, and of how many."""
    rows = [row for row in _cases(document) if row.get("dtype") == dtype and (cases is None or row["case"] in cases)]
    return sum(map(_is_few, rows)), len(rows)


def _is_few(row: Mapping[str, Any]) -> bool:
    runs = row.get("runs")
    return not isinstance(runs, int) or runs < FEWEST_RUNS


def _cases(document: Mapping[str, Any]) -> list[Row]:
    """Rows of cases said in modes: turbo's variants say the same cases once more, under one mode."""
    return [row for row in document["results"] if "case" in row and row.get("part", "cases") == "cases"]


def metrics_of(document: Mapping[str, Any]) -> list[str]:
    """What of `METRICS` the cases say."""
    rows = _cases(document)
    return [metric for metric in METRICS if any(row.get(metric) is not None for row in rows)]


def kernel_measures(document: Mapping[str, Any]) -> list[Measure]:
    """What the kernels' rows say: (figure, clock), the figure with the other's name where there are several."""
    found: dict[Measure, None] = {}
    for row in document["results"]:
        for figure in KERNEL_FIGURES:
            found |= dict.fromkeys((figure, clock) for clock in row.get(figure) or {})
        for other, clocks in (row.get("speedup_over") or {}).items():
            found |= dict.fromkeys((f"speedup_over.{other}", clock) for clock in clocks)
    return list(found)


def kernel_rows(document: Mapping[str, Any], dtype: str, measure: Measure) -> list[Row]:
    """One figure of the kernels: kernel (with its width), rows and `median`.

    Rows are those of the call that a case stands for, as newer files say: shapes differ (Snake's has no rows at all,
    padded ones more of them). Of older files it is the shape's, with the batch.

    Raises:
        Damaged: a figure is none.
    """
    figure, clock = measure
    name, _, other = figure.partition(".")
    found = []
    for row in document["results"]:
        figures = row.get(name) or {}
        figures = (figures.get(other) or {}) if other else figures
        if row.get("dtype") != dtype or figures.get(clock) is None:
            continue
        shape = row["shape"]
        sizes = {key: int(number(shape, key)) for key in ("batch", "rows", "columns") if key in shape}
        width = f" {sizes['columns']}" if "columns" in sizes else ""
        found.append(
            {
                "kernel": f"{row['kernel']}{width}",
                "rows": int(number(row, "rows")) if "rows" in row else sizes.get("rows", 1) * sizes.get("batch", 1),
                "median": number(figures, clock),
            }
        )
    return found


def throughput_curves(document: Mapping[str, Any], dtype: str) -> dict[str, tuple[list[float], list[float]]]:
    """Audio seconds per second over batch, one curve a length.

    Raises:
        Damaged: a figure is none.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in document["results"]:
        if row.get("part") == "throughput" and row.get("dtype") == dtype and "audio_s_per_s" in row:
            xs, ys = curves.setdefault(f"{number(row, 'length_s'):g} s", ([], []))
            xs.append(number(row, "batch"))
            ys.append(number(row, "audio_s_per_s"))
    return curves


def turbo_rows(document: Mapping[str, Any], dtype: str, part: str) -> list[Row]:
    """One of `TURBO_PARTS` as name, case, median, p5, p95: time over the exact engine's, MB, or seconds.

    Raises:
        Damaged: a figure is none.
    """
    found: list[Row] = []
    for row in document["results"]:
        if row.get("part") != part or row.get("dtype") != dtype:
            continue
        if part == "startup":
            said = [(key.removesuffix("_s"), str(row.get("variant", "")), (key,) * 3) for key in STARTUP if key in row]
        elif part == "options":
            said = [(str(row["variant"]), str(row["case"]), ("ratio_to_exact", "ratio_p5", "ratio_p95"))]
        else:
            said = [(str(row["variant"]), "", ("peak_vram_mb",) * 3)]
        for name, case, keys in said:
            median, low, high = (number(row, key) for key in keys)
            found.append({"name": name, "case": case, "median": median, "p5": low, "p95": high})
    return found


def by_content(documents: Mapping[str, Any]) -> list[str]:
    """Names of the files that charts are drawn of: by kind, of each the one with most cases of a precision first."""

    def rank(name: str) -> tuple[int, int]:
        document = documents[name]
        results = document["results"]
        rows = results if isinstance(results, list) else []
        return DRAWN.index(document["kind"]), -len({(str(row.get("dtype")), str(row.get("case"))) for row in rows})

    return sorted((name for name, document in documents.items() if document["kind"] in DRAWN), key=rank)
