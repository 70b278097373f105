"""Damaged result files: a word that names the file and what is wrong with it, whatever is wrong; never a traceback."""

from __future__ import annotations

import copy
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from omnivoice_triton.ui import charts, figures, files, verdicts
from tests.ui.test_app import speed_results

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
ODD = (None, "text", [], {}, ["x"], {"x": 1}, True, -1, float("nan"), 1e400)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every part of a document lies; of long lists the first two entries."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, part in value.items():
            found += places(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value[:2]):
            found += places(part, (*path, index))
    return found


def spoilt(document: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy in which one part is missing or another kind of thing."""
    copied: dict[str, Any] = copy.deepcopy(document)
    *way, last = chance.choice(places(document))
    part: Any = copied
    for key in way:
        part = part[key]
    if chance.random() < 0.3:
        del part[last]
    else:
        part[last] = chance.choice(ODD)
    return copied


def draw(document: dict[str, Any]) -> None:
    """Everything that the page takes out of a file that it accepts."""
    files.device_of(document), files.date_of(document), files.flat_rows(document)
    dtypes = figures.dtypes_of(document)
    if document["kind"] in verdicts.VERDICTS:
        verdicts.verdict_of(document)
    if document["kind"] not in figures.DRAWN:
        return
    for dtype, metric in product(dtypes, figures.metrics_of(document)):
        rows = figures.latency_rows(document, dtype, metric)
        charts.bars([charts.Bars("x", rows, row["mode"]) for row in rows[:1]], "case", "ms")
    for dtype, measure in product(dtypes, figures.kernel_measures(document)):
        sum(row["median"] + row["rows"] for row in figures.kernel_rows(document, dtype, measure))
    for dtype in dtypes:
        charts.curves(figures.throughput_curves(document, dtype), "batch", "s")
        for part in figures.TURBO_PARTS:
            charts.bars([charts.Bars("x", figures.turbo_rows(document, dtype, part), "turbo")], "name", "")
    files.gaps_of(document, "not_available"), files.gaps_of(document, "not_measured")


def complaint(text: str) -> str:
    """Why a file is refused; of one that isn't, everything is drawn."""
    try:
        document = files.parse(text)
    except ValueError as error:
        return str(error)
    draw(document)
    return ""


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_whatever_is_damaged_is_named_or_does_no_harm(path: Path) -> None:
    whole = files.parse(path.read_bytes())
    draw(whole)
    results = whole["results"]
    # Few rows, so that what is spoilt is as often one of the figures that are looked at.
    few = dict([*results.items()][:3]) if isinstance(results, dict) else results[:3]
    small = {**whole, "results": few}
    chance = random.Random(path.stem)
    refused = 0
    for _ in range(150):
        said = complaint(json.dumps(spoilt(small, chance)))
        refused += bool(said)
        assert not said or said.startswith(("damaged: ", "no "))
        assert "\n" not in said
    assert refused > 0, "nothing was ever refused: the damage does not reach what is checked"


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda document: document["results"][0].pop("mode"), "mode"),
        (lambda document: document["results"][1].update(median_ms="fast"), "median_ms"),
        (lambda document: document["results"][1].update(p95_ms=None), "p95_ms"),
        (lambda document: document.update(results="all good"), "results"),
        (lambda document: document.update(results={"speed": 3}), "results"),
        (lambda document: document["results"].append(7), "results"),
        (lambda document: document["environment"].update(gpus=[{}]), "name"),
        (lambda document: document["environment"].update(gpus="H200"), "environment.gpus"),
    ],
)
def test_what_is_wrong_is_named(spoil: Any, what: str) -> None:
    document = speed_results("A GPU", 1.0)
    assert files.parse(json.dumps(document)) == document
    spoil(document)
    with pytest.raises(ValueError, match=f"^damaged: {what} is missing or not of the kind it should be$"):
        files.parse(json.dumps(document))


def test_a_file_that_is_cut_off() -> None:
    text = json.dumps(speed_results("A GPU", 1.0)).encode()
    with pytest.raises(ValueError, match="no JSON"):
        files.parse(text[: len(text) // 2])
    with pytest.raises(ValueError, match="no JSON"):
        files.parse(b"\xff\xfe\x00broken")
    with pytest.raises(ValueError, match="no JSON"):
        files.parse("[" * 100_000)
