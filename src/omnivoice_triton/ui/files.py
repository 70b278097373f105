"""Result files and samples: where they lie, and what of them can be drawn."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

RESULTS_VARIABLE, SAMPLES_VARIABLE = "OMNIVOICE_TRITON_RESULTS", "OMNIVOICE_TRITON_SAMPLES"
OWN = "own"
"""In a folder of results, where `make bench` and `make verify` write one's own."""
_CHECKOUT = Path(__file__).resolve().parents[3]

Document = dict[str, Any]
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
VERDICTS = ("verify", "parity", "smoke", "sanitizer", "soak", "tests")
"""Kinds whose rows pass or fail."""


class Damaged(ValueError):
    """A document lacks something, or has another kind of thing in its place; the message names it."""


def default_folder(variable: str, *below: str) -> str:
    """The folder that an environment variable names, or one of this checkout; empty where there is neither."""
    named = os.environ.get(variable)
    folder = Path(named) if named else _CHECKOUT.joinpath(*below)
    if not named and not folder.is_dir():
        return ""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def parse(text: str | bytes) -> Document:
    """A result file's content.

    Raises:
        ValueError: it is none of ours; the message says why.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise ValueError("no object with a kind")
    if not document.get("results") or not isinstance(document.get("environment"), dict):
        raise ValueError("no results, or no environment that they come from")
    _try_out(document)
    return document


def _try_out(document: Document) -> None:
    """Take out of a document all that the page may, once: what is damaged is found here and not in the middle of it."""
    try:
        device_of(document), date_of(document), str(document.get("checkpoint"))
        flat_rows(document)
        if isinstance(document["results"], dict):
            if document["kind"] in (*DRAWN, *VERDICTS) and document["kind"] != "tests":
                raise Damaged("results")
            if document["kind"] == "tests":
                verdict_of(document)
            return
        for dtype in dtypes_of(document):
            for metric in METRICS:
                latency_rows(document, dtype, metric)
            for part in TURBO_PARTS:
                turbo_rows(document, dtype, part)
            throughput_curves(document, dtype)
        if document["kind"] == "kernels":
            for dtype, measure in product(dtypes_of(document), kernel_measures(document)):
                kernel_rows(document, dtype, measure)
        if document["kind"] in VERDICTS:
            verdict_of(document)
        if document["kind"] == "verify":
            for tier in document["results"]:
                check_tier(tier)
            if len({tier["tier"] for tier in document["results"]}) < len(document["results"]):
                raise Damaged("tier")
    except Damaged as error:
        raise ValueError(f"damaged: {error} is missing or not of the kind it should be") from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = error.args[0] if isinstance(error, KeyError) else "results"
        raise ValueError(f"damaged: {what} is missing or not of the kind it should be") from error


def _by_stem(folder: Path) -> list[Path]:
    """Its JSON files, `speed.json` before `speed-bf16.json`."""
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def load_folder(folder: str) -> tuple[dict[str, Document], list[tuple[str, str]]]:
    """Result files by name, and (name, reason) of those that can't be used; those in the folder's `own` come last."""
    found: dict[str, Document] = {}
    unusable: list[tuple[str, str]] = []
    if folder and Path(folder).is_dir():
        for path in (*_by_stem(Path(folder)), *_by_stem(Path(folder, OWN))):
            name = path.relative_to(folder)
            try:
                found[name.with_suffix("").as_posix()] = parse(path.read_bytes())
            except (OSError, ValueError) as error:
                unusable.append((name.as_posix(), str(error)))
    return found, unusable


def device_of(document: Mapping[str, Any]) -> str:
    """What it was measured on."""
    gpus = document["environment"].get("gpus") or []
    if not isinstance(gpus, list):
        raise Damaged("environment.gpus")
    if gpus and document.get("device") != "cpu":
        return str(gpus[0]["name"])
    return str((document["environment"].get("cpu") or {}).get("model") or "CPU")


def date_of(document: Mapping[str, Any]) -> str:
    """The day it was measured on."""
    return str(document["environment"].get("date_utc") or "")[:10]


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


def gaps_of(document: Mapping[str, Any], key: str) -> dict[str, list[str]]:
    """What a list such as `not_available` or `not_measured` says is left out, by its reason."""
    found: dict[str, dict[str, None]] = {}
    listed = document.get(key)
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict):
            names = [str(entry[name]) for name in ("path", "kernel", "mode", "case") if entry.get(name)]
            found.setdefault(str(entry.get("reason", "?")), {})[" ".join(names) or "?"] = None
    return {reason: list(names) for reason, names in found.items()}


def verdict_of(document: Mapping[str, Any]) -> tuple[bool, int, int]:
    """Whether all passed, checks, and how many failed; a row of a whole verification is a tier of many checks."""
    if document["kind"] == "tests":
        good, *bad = (int(number(document, key)) for key in ("passed", "failed", "error"))
        return good > 0 and not any(bad), good + sum(bad), sum(bad)
    rows = document["results"]
    failed = sum(int(number(row, "failed")) if "failed" in row else not _is_good(row) for row in rows)
    checks = sum(int(number(row, "checks")) if "checks" in row else 1 for row in rows)
    return document.get("passed", True) is True and all(map(_is_good, rows)), checks, failed


def _is_good(row: Mapping[str, Any]) -> bool:
    """Whether a row passed, by all that it says."""
    if "growth_mb_max" in row and "passed" not in row:  # of a soak, as older files have it
        return not row.get("failures") and number(row, "growth_mb_max") <= number(row, "budget_mb")
    faults = any(row.get(key) for key in ("problems", "failures")) or bool(row.get("failed"))
    return row.get("passed") is True and not faults


def failures_of(document: Mapping[str, Any]) -> list[str]:
    """What failed, in words, of a file that lists it."""
    listed = document.get("failures")
    return [str(entry) for entry in listed] if isinstance(listed, list) else []


def modes_of(tier: Mapping[str, Any]) -> list[str]:
    """Modes that a tier's rows are of."""
    return list(dict.fromkeys(str(row["mode"]) for row in tier["rows"] if "mode" in row))


def check_tier(tier: Mapping[str, Any]) -> None:
    """Raise Damaged unless a tier has what its card shows."""
    for key in ("checks", "failed", "seconds"):
        number(tier, key)
    if isinstance(tier.get("tier"), bool) or type(tier.get("tier")) is not int or tier["tier"] not in (1, 2, 3):
        raise Damaged("tier")
    if not isinstance(tier["passed"], bool):
        raise Damaged("passed")
    for key in ("notes", "problems", "rows"):
        if not isinstance(tier.get(key), list):
            raise Damaged(key)
    if not all(isinstance(row, dict) for row in tier["rows"]):
        raise Damaged("rows")
    str(tier["what"])


def dtypes_of(document: Mapping[str, Any]) -> list[str]:
    """Precisions in the file, in its order."""
    results = document["results"]
    rows = results if isinstance(results, list) else []
    return list(dict.fromkeys(str(row["dtype"]) for row in rows if "dtype" in row))


def flat_rows(document: Mapping[str, Any]) -> list[Row]:
    """Rows with plain values only, for a table."""
    results = document["results"]
    if isinstance(results, Mapping):
        return [{"name": name, "count": count} for name, count in results.items()]
    return [_flat(row) for row in results]


def _flat(row: Mapping[str, Any], prefix: str = "") -> Row:
    flat: Row = {}
    last: Row = {}  # long texts
    for key, value in row.items():
        if isinstance(value, Mapping) and key == "kernels":  # a column for each would be mostly empty
            last[prefix + key] = "; ".join(f"{name} {count}" for name, count in value.items())
        elif isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
        elif all(isinstance(entry, str) for entry in value):
            last[prefix + key] = "; ".join(value)
    return flat | last
