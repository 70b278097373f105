"""Rows of result files: what each is of, its timings, and whether what it checked is right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import read_json
from omnivoice_triton.speech import InputError

IDENTITY = (
    "part",
    "provider",
    "kernel",
    "case",
    "language",
    "voice",
    "mode",
    "variant",
    "dtype",
    "precision",
    "shape",
    "batch",
    "length_s",
    "bucket_rows",
    "steps",
    "tool",
    "planted",
    "tier",
    "name",
)
"""What a row is of, as far as it says so."""
_OF_A_CHECK = ("name", "passed", "problems")
"""What is taken of a tier's check: its name holds all that it is of."""
LEFT_OUT = ("not_measured", "not_available")
"""What a file has no time of, with the reason."""
FEWEST_RUNS = 5
"""Of fewer runs p5 and p95 are the fastest and the slowest by chance: they bound no noise."""


@dataclass(frozen=True)
class Timing:
    """One timing of one row, in the unit of its file; lower is better."""

    median: float
    p5: float
    p95: float
    runs: int | None = None
    """How many runs these are of, where the file says so."""

    @property
    def usable(self) -> bool:
        """Whether ratios can be taken of it."""
        return all(math.isfinite(x) and x > 0 for x in (self.median, self.p5, self.p95))

    @property
    def has_spread(self) -> bool:
        """Whether p5 and p95 say anything of noise."""
        return self.runs is None or self.runs >= FEWEST_RUNS


def load(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        InputError: it can't be read, or is none of ours.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not document.get("results") or "kind" not in document:
        raise InputError(f"{path} is no result file: wanted an object with kind and results")
    rows, environment = document["results"], document.get("environment", {})
    gpus = environment.get("gpus", []) if isinstance(environment, dict) else None
    if not (isinstance(rows, dict) or _objects(rows)) or not _objects(gpus):
        raise InputError(f"{path} is no result file: its results or its environment are of another shape")
    for key in LEFT_OUT:
        entries = document.get(key, [])
        if not _objects(entries) or not all("reason" in entry for entry in entries):
            raise InputError(f"{path} is no result file: {key} is no list of what was left out, with reasons")
    return document


def _objects(value: Any) -> bool:
    """Whether it is a list of JSON objects."""
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def label(row: Mapping[str, Any]) -> str:
    """What a row is of, as one line."""
    parts = []
    for key in IDENTITY:
        value = row.get(key)
        if value is None or isinstance(value, list) or (key == "batch" and value == 1):
            continue  # one text a call is what a row that names no batch is of
        if isinstance(value, Mapping):
            parts.append(" ".join(f"{k}={_plain(v)}" for k, v in value.items()))
        else:
            parts.append(str(value) if isinstance(value, str) else f"{key}={value}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def timings(row: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Timing]]:
    """Every (name, timing) in a row, however deep; lists of rows are named by what they are of."""
    for median, p5, p95, unit in (("median_ms", "p5_ms", "p95_ms", "ms"), ("median", "p5", "p95", path)):
        if all(isinstance(row.get(key), int | float) for key in (median, p5, p95)):
            name = f"{path} {unit}".strip() if unit != path else path
            runs = row.get("runs", row.get("timings"))
            counted = runs if isinstance(runs, int) else None
            yield name, Timing(float(row[median]), float(row[p5]), float(row[p95]), counted)
    for key, value in row.items():
        if isinstance(value, Mapping) and key not in IDENTITY:
            yield from timings(value, f"{path}.{key}".strip("."))
        elif isinstance(value, list):
            for entry in value:
                if isinstance(entry, Mapping) and label(entry):
                    yield from timings(entry, f"{path}.{key}[{label(entry)}]".strip("."))


def rows_of(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Rows by label; rows that say the same of themselves are numbered, see `repeated`."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in _results(document):
        name, number = label(row) or "row", 1
        while name in found:
            number += 1
            name = f"{label(row) or 'row'} #{number}"
        found[name] = row
    return found


def repeated(document: Mapping[str, Any]) -> Counter[str]:
    """How many rows have each label that more than one has: only their order tells them apart."""
    counts = Counter(label(row) or "row" for row in _results(document))
    return Counter({name: count for name, count in counts.items() if count > 1})


def _results(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    results = document["results"]
    if isinstance(results, Mapping):
        return [{"name": name, "count": value} for name, value in results.items()]
    found: list[Mapping[str, Any]] = []
    for row in results:
        checks = row.get("rows")
        if not isinstance(checks, list):
            found.append(row)
            continue
        found.append({key: value for key, value in row.items() if key != "rows"})  # a tier of `verify`, and its checks
        found += [{"tier": row.get("tier"), **{k: c[k] for k in _OF_A_CHECK if k in c}} for c in checks]
    return found


def verdict(row: Mapping[str, Any]) -> bool | None:
    """Whether what a row checked is right, by the name that its benchmark has for it; None if it checked nothing."""
    for key in ("passed", "on_target"):
        if isinstance(row.get(key), bool):
            return bool(row[key])
    faults = [row[key] for key in ("problems", "failures", "error") if key in row]
    return not any(faults) if faults else None


def failures(document: Mapping[str, Any]) -> dict[str, str]:
    """Reasons by row of what got no time because it failed or computed something wrong, not for want of time.

    Of other people's paths (`bench peers`) nothing is said: their failures are none of ours.
    """
    left = [entry for key in LEFT_OUT for entry in document.get(key, [])]
    found = {
        _of_entry(entry): str(entry["reason"])
        for entry in left
        if (entry.get("wrong") or entry.get("failed")) and is_ours(entry, document["kind"])
    }
    for name, row in rows_of(document).items():
        if reason := row.get("error") or row.get("unavailable"):
            found[name] = str(reason)
    return found


def is_ours(row: Mapping[str, Any], kind: str) -> bool:
    """Whether a row is of our own work: in files of `bench peers` only those of our modes are."""
    return kind != "peers" or row.get("mode") in MODES


def _of_entry(entry: Mapping[str, Any]) -> str:
    """What an entry of `not_measured` is of; a kernel that could not be built has rows for a shape."""
    rows = f", rows={entry['rows']}" if "rows" in entry and "shape" not in entry else ""
    return f"{label(entry)}{rows}"


def few_runs(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for below a table: how many of its timings are of too few runs to tell noise; nothing if none."""
    runs = [row["runs"] for row in rows if "runs" in row]
    few = [count for count in runs if count < FEWEST_RUNS]
    said = f"{len(few)} of {len(runs)} rows are of fewer than {FEWEST_RUNS} runs"
    return f"{said}, down to {min(few)}: p5 and p95 bound no noise" if few else ""
