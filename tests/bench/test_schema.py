"""Every committed result file meets the schema, and the schema refuses what it should."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton.bench.result_rows import rows_of, timings
from omnivoice_triton.verify.outcome import Tier
from omnivoice_triton.verify.report import make_report

jsonschema = pytest.importorskip("jsonschema")
Draft202012Validator = jsonschema.Draft202012Validator
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "bench" / "results").glob("*.json"))
VALIDATOR = Draft202012Validator(json.loads((ROOT / "bench" / "schema" / "results.schema.json").read_text()))


def faults(document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document)]


def load(name: str) -> Any:
    return json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(VALIDATOR.schema)
    assert len(FILES) >= 7


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_results(path: Path) -> None:
    document = json.loads(path.read_text())
    assert not faults(document)
    assert document["environment"]["commit"], "nobody could say what was measured"
    for name, row in rows_of(document).items():
        for metric, timing in timings(row):
            assert timing.p5 <= timing.median <= timing.p95, f"{name} {metric}"


def test_a_report_of_verify_meets_it() -> None:
    row = {"name": "x", "passed": True, "problems": []}
    assert not faults(make_report([Tier(1, "kernels", "all", {"a": 1}, rows=[row])], None, "cpu"))
    assert not faults(make_report([Tier(1, "kernels", "all", {})], None, "cpu"))


def drop(*path: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return edit


def put(value: Any, *path: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("speed", drop("environment")),
        ("speed", drop("checkpoint")),
        ("speed", put([], "results")),
        ("speed", drop("results", 3, "p95_ms")),
        ("speed", put(-1, "results", 0, "median_ms")),
        ("speed", put("yesterday", "environment", "date_utc")),
        ("speed", drop("environment", "gpus", 0, "driver")),
        ("kernels", drop("results", 0, "triton_us", "graph", "median")),
        ("demo_voice_modes", put("yes", "results", 0, "passed")),
        ("demo_voice_modes", drop("results", 1, "rows")),
        ("smoke", drop("results", 0, "voice")),
        ("test-gpu", drop("failed")),
        ("test-gpu", put(0, "passed")),
        ("kernels", drop("results", 0, "triton_us")),
        ("turbo", put(-5, "results", 0, "median_ms")),
        ("turbo", drop("results", 0, "runs")),
        ("turbo", put("case", "results", 0, "part")),
        ("turbo-rest", drop("results", 0, "total_s")),
        ("verify", put(False, "results", 1, "passed")),
        ("verify", put(False, "results", 0, "rows", 5, "passed")),
        ("verify", put(["off by one"], "results", 0, "problems")),
        ("demo_voice", drop("results", 0, "voice")),
    ],
)
def test_faults_are_refused(name: str, edit: Callable[[Any], None]) -> None:
    document = load(name)
    broken = copy.deepcopy(document)
    edit(broken)
    assert not faults(document)
    assert faults(broken)


def test_a_tier_that_passed_without_checks_is_refused() -> None:
    document = make_report([Tier(1, "kernels", "all", {})], None, "cpu")
    document["results"][0]["passed"] = True
    assert faults(document)


@pytest.mark.parametrize(
    ("name", "failed", "figures"),
    [
        ("smoke", {"passed": False, "problems": ["raised RuntimeError: x"]}, ("audio_s", "warm_ms")),
        ("soak", {"failures": ["3 s: out of memory"]}, ("median_ms", "p5_ms", "p95_ms", "runs")),
    ],
)
def test_rows_without_figures_are_failures(name: str, failed: dict[str, Any], figures: tuple[str, ...]) -> None:
    document = load(name)
    row = {key: value for key, value in document["results"][0].items() if key not in figures}
    assert not faults({**document, "results": [{**row, **failed}]})
    assert faults({**document, "results": [row]})
