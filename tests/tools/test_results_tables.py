"""Figures in the docs are those of the committed JSON."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

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
    assert tables.main(["--check"]) == 0


def test_charts_say_what_the_json_says(tables: ModuleType) -> None:
    rows = json.loads((tables.RESULTS / "speed.json").read_text(encoding="utf-8"))["results"]
    wanted = [r for r in rows if r["case"] == tables.FIVE_SECONDS and r["dtype"] == "fp16"]
    for page in tables.CHARTS:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert tables.render(page) == text, f"{page} is stale: python tools/results_tables.py"
        picture = ElementTree.fromstring(text)
        space = "{http://www.w3.org/2000/svg}"
        bars = [r for r in picture.iter(f"{space}rect") if r.get("class") in ("bar", "base")]
        labels = [t.text for t in picture.iter(f"{space}text") if t.get("text-anchor") == "end"]
        assert labels == [r["mode"] for r in wanted]
        longest = max(wanted, key=lambda r: r["median_ms"])
        scale = float(bars[wanted.index(longest)].get("width", 0)) / longest["median_ms"]
        for bar, row in zip(bars, wanted, strict=True):
            assert float(bar.get("width", 0)) == pytest.approx(row["median_ms"] * scale, abs=0.15)
        assert {f"{r['median_ms']:.0f} ms" for r in wanted} <= {t.text for t in picture.iter(f"{space}text")}


def test_every_page_and_chart_is_known(tables: ModuleType) -> None:
    """A page with a table that the script doesn't write would go stale unseen."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    with_tables = {str(p.relative_to(ROOT)) for p in pages if "<!-- table: " in p.read_text(encoding="utf-8")}
    assert with_tables == set(tables.PAGES)
    assert {f"docs/charts/{p.name}" for p in (ROOT / "docs" / "charts").iterdir()} == set(tables.CHARTS)
    everything = "".join(p.read_text(encoding="utf-8") for p in pages)
    assert all(Path(chart).name in everything for chart in tables.CHARTS)


def test_both_languages_show_the_same_figures(tables: ModuleType) -> None:
    for english, korean in (("README.md", "README_ko.md"), ("docs/results.md", "docs/results.ko.md")):
        assert tables.language_of(english) == "en"
        assert tables.language_of(korean) == "ko"
        found = []
        for page in (english, korean):
            blocks = [m[0] for m in tables.BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))]
            rows = [line for block in blocks for line in block.splitlines() if line.startswith("|")]
            found.append([re.findall(r"\d+\.\d+", line) for line in rows])
        assert found[0] == found[1]
        assert sum(map(len, found[0])) > 20


def test_a_text_without_translation_is_refused(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(tables.KOREAN, "peak memory")
    with pytest.raises(SystemExit, match="no Korean for 'peak memory'"):
        tables.render("README_ko.md")


def test_a_changed_figure_would_be_seen(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (ROOT / "bench" / "results").glob("*.json"):
        document = json.loads(source.read_text(encoding="utf-8"))
        if source.stem == "speed":
            for row in document["results"]:
                row["median_ms"] *= 1.1
        (tmp_path / source.name).write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for page in ("README.md", "README_ko.md", *tables.CHARTS):
        assert tables.render(page) != (ROOT / page).read_text(encoding="utf-8")
    assert tables.main(["--check"]) == 1


def test_empty_results_are_refused(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speed.json").write_text('{"results": []}', encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="holds no results"):
        tables.modes_table()
    (tmp_path / "speed.json").write_text('{"results": [{"case": "other", "dtype": "fp16"}]}', encoding="utf-8")
    with pytest.raises(SystemExit, match="holds no fp16 rows"):
        tables.modes_chart()
