"""Every figure of a result file is said in words; the words are of figures that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton.bench import definitions
from omnivoice_triton.bench.result_rows import IDENTITY

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
WORDS = {
    "speed": definitions.SPEED,
    "peers": definitions.PEERS,
    "kernels": definitions.KERNELS,
    "turbo": definitions.TURBO,
    "soak": definitions.SOAK,
}
FILES = [p for p in sorted(RESULTS.glob("*.json")) if json.loads(p.read_text())["kind"] in WORDS]
NEWER = {"unavailable", "error", "peak_tflops", "passed"}
"""What no committed file has: of options and cells that can't run, and of files from before it."""


def figures(document: Mapping[str, Any]) -> set[str]:
    return {key for row in document["results"] for key in row} - set(IDENTITY)


def said(words: Mapping[str, str]) -> set[str]:
    return set(re.findall(r"\w+", " ".join([*words, *words.values()])))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_is_defined(path: Path) -> None:
    document = json.loads(path.read_text())
    assert figures(document) <= said(WORDS[document["kind"]]), path.stem


def test_what_is_defined_is_there() -> None:
    seen = {kind: set(IDENTITY) | NEWER for kind in WORDS}
    for path in FILES:
        text = path.read_text()
        seen[json.loads(text)["kind"]] |= set(re.findall(r'"(\w+)":', text))
    for kind, words in WORDS.items():
        assert set(words) <= seen[kind], kind
