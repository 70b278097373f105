"""Figures in the docs are those of the committed JSON."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_tables", ROOT / "tools" / "results_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs_say_what_the_json_says(tables: ModuleType) -> None:
    for page in tables.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert "<!-- table: " in text
        assert tables.render(page) == text, f"{page} is stale: python tools/results_tables.py"


def test_a_changed_figure_would_be_seen(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (ROOT / "bench" / "results").glob("*.json"):
        document = json.loads(source.read_text(encoding="utf-8"))
        if source.stem == "speed":
            document["results"][0]["median_ms"] += 100
        (tmp_path / source.name).write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.render("README.md") != (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.main(["--check"]) == 1


def test_empty_results_are_refused(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speed.json").write_text('{"results": []}', encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="holds no results"):
        tables.modes_table()
