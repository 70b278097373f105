"""Result files and samples: where they lie, and what of them can be drawn."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS_VARIABLE, SAMPLES_VARIABLE = "OMNIVOICE_TRITON_RESULTS", "OMNIVOICE_TRITON_SAMPLES"
_CHECKOUT = Path(__file__).resolve().parents[3]

Document = dict[str, Any]
Row = dict[str, Any]


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
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise ValueError("no object with a kind")
    if not document.get("results") or not isinstance(document.get("environment"), dict):
        raise ValueError("no results, or no environment that they come from")
    return document


def load_folder(folder: str) -> tuple[dict[str, Document], list[tuple[str, str]]]:
    """Result files by name, and (name, reason) of those that can't be used."""
    found: dict[str, Document] = {}
    unusable: list[tuple[str, str]] = []
    if folder and Path(folder).is_dir():
        for path in sorted(Path(folder).glob("*.json")):
            try:
                found[path.stem] = parse(path.read_bytes())
            except (OSError, ValueError) as error:
                unusable.append((path.name, str(error)))
    return found, unusable


def device_of(document: Mapping[str, Any]) -> str:
    """What it was measured on."""
    gpus = document["environment"].get("gpus") or []
    return str(gpus[0]["name"]) if gpus else str(document["environment"].get("cpu", {}).get("model") or "CPU")


def latency_rows(document: Mapping[str, Any], dtype: str) -> list[Row]:
    """Rows of `speed` and of `turbo`'s cases as mode, case, median, p5, p95 (ms)."""
    return [
        {
            "mode": row["mode"],
            "case": row["case"],
            "median": row["median_ms"],
            "p5": row["p5_ms"],
            "p95": row["p95_ms"],
        }
        for row in document["results"]
        if row.get("dtype") == dtype and "case" in row and "median_ms" in row
    ]


def kernel_rows(document: Mapping[str, Any], dtype: str, clock: str) -> list[Row]:
    """Rows of `kernels`: times PyTorch eager, by kernel and shape."""
    rows = []
    for row in document["results"]:
        speedup = row.get("speedup", {}).get(clock)
        if row.get("dtype") == dtype and speedup is not None:
            shape = row["shape"]
            size = "x".join(str(shape[key]) for key in ("batch", "rows", "columns") if key in shape)
            rows.append({"kernel": f"{row['kernel']} {size}", "median": speedup})
    return rows


def clocks_of(document: Mapping[str, Any]) -> list[str]:
    """Clocks that the kernels were timed with."""
    return list(dict.fromkeys(clock for row in document["results"] for clock in row.get("speedup", {})))


def throughput_curves(document: Mapping[str, Any], dtype: str) -> dict[str, tuple[list[float], list[float]]]:
    """Audio seconds per second over batch, one curve a length."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in document["results"]:
        if row.get("part") == "throughput" and row.get("dtype") == dtype and "audio_s_per_s" in row:
            xs, ys = curves.setdefault(f"{row['length_s']:g} s", ([], []))
            xs.append(row["batch"])
            ys.append(row["audio_s_per_s"])
    return curves


def dtypes_of(document: Mapping[str, Any]) -> list[str]:
    """Precisions in the file, in its order."""
    results = document["results"]
    rows = results if isinstance(results, list) else []
    return list(dict.fromkeys(row["dtype"] for row in rows if "dtype" in row))


def flat_rows(document: Mapping[str, Any]) -> list[Row]:
    """Rows with plain values only, for a table."""
    results = document["results"]
    if isinstance(results, Mapping):
        return [{"name": name, "count": count} for name, count in results.items()]
    return [_flat(row) for row in results]


def _flat(row: Mapping[str, Any], prefix: str = "") -> Row:
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
        elif all(isinstance(entry, str) for entry in value):
            flat[prefix + key] = "; ".join(value)
    return flat


def samples_in(folder: str) -> list[Row]:
    """Entries of a folder's metadata.json whose file is there, with `path`; nothing outside the folder is taken."""
    path = Path(folder) / "metadata.json"
    if not folder or not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["samples"]
        found = [{**entry, "path": str(Path(folder) / entry["file"])} for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    inside = Path(folder).resolve()
    return [
        entry
        for entry in found
        if Path(entry["path"]).is_file() and Path(entry["path"]).resolve().is_relative_to(inside)
    ]
