"""Result files and samples: where they lie, and whether the page can show all of what they say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from omnivoice_triton.ui import figures, verdicts
from omnivoice_triton.ui.figures import Damaged, Row

RESULTS_VARIABLE, SAMPLES_VARIABLE = "OMNIVOICE_TRITON_RESULTS", "OMNIVOICE_TRITON_SAMPLES"
OWN = "own"
"""In a folder of results, where `make bench` and `make verify` write one's own."""
_CHECKOUT = Path(__file__).resolve().parents[3]

Document = dict[str, Any]


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
            if document["kind"] in (*figures.DRAWN, *verdicts.VERDICTS) and document["kind"] != "tests":
                raise Damaged("results")
            if document["kind"] == "tests":
                verdicts.verdict_of(document)
            return
        for dtype in figures.dtypes_of(document):
            for metric in figures.METRICS:
                figures.latency_rows(document, dtype, metric)
            for part in figures.TURBO_PARTS:
                figures.turbo_rows(document, dtype, part)
            figures.throughput_curves(document, dtype)
        if document["kind"] == "kernels":
            for dtype, measure in product(figures.dtypes_of(document), figures.kernel_measures(document)):
                figures.kernel_rows(document, dtype, measure)
        if document["kind"] in verdicts.VERDICTS:
            verdicts.verdict_of(document)
        if document["kind"] == "verify":
            for tier in document["results"]:
                verdicts.check_tier(tier)
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


def gaps_of(document: Mapping[str, Any], key: str) -> dict[str, list[str]]:
    """What a list such as `not_available` or `not_measured` says is left out, by its reason."""
    found: dict[str, dict[str, None]] = {}
    listed = document.get(key)
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict):
            names = [str(entry[name]) for name in ("path", "kernel", "mode", "case") if entry.get(name)]
            found.setdefault(str(entry.get("reason", "?")), {})[" ".join(names) or "?"] = None
    return {reason: list(names) for reason, names in found.items()}


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
