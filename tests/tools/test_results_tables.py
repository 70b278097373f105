"""Figures in the docs are those of the committed JSON."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from omnivoice_triton.bench.speed_cases import cells
from omnivoice_triton.config import MODES

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


def test_the_committed_grid_has_no_hole(tables: ModuleType) -> None:
    """Every mode on every case in every batch, in both precisions, once, with what the docs say is measured."""
    figures = [
        "median_ms",
        "cold_ms",
        "steps_per_s",
        "rtf",
        "speed_x",
        "lm_ms",
        "codec_ms",
        "post_ms",
        "call_peak_mb",
        "joules_per_utterance",
    ]
    found: list[tuple[str, ...]] = []
    for name in (f"{name}{suffix}" for name in tables.BATCHES for suffix in ("", "-bf16")):
        rows = json.loads((tables.RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]
        assert not [row for row in rows if not all(row.get(figure, 0) > 0 for figure in figures)], name
        found += [(row["mode"], row["case"], row["dtype"]) for row in rows]
    wanted = {
        (mode, cell.name, dtype) for cell in cells(True, (1, 8, 32)) for mode in MODES for dtype in ("fp16", "bf16")
    }
    assert len(found) == len(wanted) == 336
    assert set(found) == wanted


def test_charts_say_what_the_json_says(tables: ModuleType) -> None:
    rows = json.loads((tables.RESULTS / "speed-batch-1.json").read_text(encoding="utf-8"))["results"]
    wanted = [r for r in rows if r["case"] == tables.speed_tables.FIVE_SECONDS and r["dtype"] == "fp16"]
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
        if source.stem == "speed-batch-1":
            for row in document["results"]:
                row["median_ms"] *= 1.1
        (tmp_path / source.name).write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for page in ("README.md", "README_ko.md", *tables.CHARTS):
        assert tables.render(page) != (ROOT / page).read_text(encoding="utf-8")
    assert tables.main(["--check"]) == 1


def test_empty_results_are_refused(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speed-batch-1.json").write_text('{"results": []}', encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="holds no results"):
        tables.TABLES["modes"]()
    (tmp_path / "speed-batch-1.json").write_text('{"results": [{"case": "other", "dtype": "fp16"}]}', encoding="utf-8")
    with pytest.raises(SystemExit, match="holds no fp16 rows"):
        tables.chart()


def speed_row(mode: str, case: str = "en 5 s", batch: int = 1, **more: float) -> dict[str, object]:
    name = case if batch == 1 else f"{case} x {batch}"
    times = {"median_ms": 40.0, "p5_ms": 39.0, "p95_ms": 41.0, "cold_ms": 900.0}
    figures = {"ratio_to_base": 0.125, "speed_x": 250.0, "rtf": 0.004, "audio_s": 5.0}
    return {"mode": mode, "case": name, "dtype": "fp16", "batch": batch, **times, **figures, **more}


def newer(tables: ModuleType, folder: Path) -> None:
    """Result files with all that newer benchmarks measure, beside copies of the committed ones."""
    for source in (ROOT / "bench" / "results").glob("*.json"):
        if not source.stem.startswith("speed-batch-"):  # one of its own instead
            (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    stamped = json.loads((tables.RESULTS / "speed.json").read_text(encoding="utf-8"))
    rows = [
        speed_row("base", lm_ms=777.5, codec_ms=9.5, post_ms=8.5, host_ms=7.5, steps_per_s=41.0),
        speed_row("turbo", batch=8, joules_per_utterance=12.5, call_peak_mb=512.0),
        speed_row("turbo", "en 30 s", 8),
    ]
    left = [{"case": "en 30 s x 32", "batch": 32, "dtype": "fp16", "reason": "no time was left", "mode": "hybrid"}]
    (folder / "speed-batch-1.json").write_text(json.dumps({**stamped, "results": rows, "not_measured": left}))
    missing = [{"path": "upstream-flashinfer", "dtype": "fp16", "reason": "omnivoice 0.2.1 has none"}]
    peers = {**stamped, "kind": "peers", "not_available": missing, "results": [speed_row("torch-compile", batch=8)]}
    (folder / "peers.json").write_text(json.dumps(peers))
    kernels = json.loads((tables.RESULTS / "kernels.json").read_text(encoding="utf-8"))
    for each in kernels["results"]:  # as an older file has them
        for later in ("speedup_over", "percent_of_matmul", "percent_of_copy"):
            each.pop(later, None)
    row = next(r for r in kernels["results"] if r["kernel"] == "attention")
    bare = next(r for r in kernels["results"] if r["kernel"] == "rms_norm")
    clocks = dict.fromkeys(("do_bench", "graph", "graph_cold"), 1.75)
    row |= {"speedup_over": {"torch_compile": clocks}, "percent_of_matmul": clocks, "percent_of_copy": clocks}
    bare |= {"speedup_over": {"liger": clocks}}
    kernels["ceilings"] = {"copy_gb_per_s": 4111.0, "matmul_tflops": {"float16": 777.0}}
    (folder / "kernels.json").write_text(json.dumps(kernels))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_newer_figures_are_shown(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    newer(tables, tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    say = tables.SAY[language]
    batch = tables.TABLES["batch"](say)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in batch.splitlines() if line.startswith("|")]
    dash = "–"
    assert lines[2][1:] == ["`base`", "40", "0.12", "250x", "0.0040", "777.5", "9.5", "8.5", "7.5", "41", dash, dash]
    assert lines[3][-2:] == ["0.50 GiB", "12.5 J"]
    assert lines[3][6] == dash, "not measured is no zero"
    assert len(lines) == 4, "the 5 s utterance alone"
    assert "Left out" not in batch, "the 5 s utterance is whole"
    grid = tables.TABLES["grid"](say)
    assert [line.split("|")[2].strip() for line in grid.splitlines() if line.startswith("|")][2:] == ["1", "8", "8"]
    assert "250.0x" in grid
    assert "fp16 en 30 s x 32 hybrid" in grid
    peers = tables.TABLES["peers"](say)
    assert "`upstream-flashinfer` (fp16)" in peers
    assert "| `torch-compile` |" in peers
    assert "upstream-flashinfer` |" not in peers, "no row for what is not there"
    kernels = tables.TABLES["kernels"](say)
    assert "torch.compile" in kernels.splitlines()[0]
    assert "Liger" in kernels.splitlines()[0]
    assert "4111 GB/s" in kernels
    rows = [line for line in kernels.splitlines() if line.startswith("| attention")]
    assert rows[0].endswith("| 1.75x | – | 1.8 % | 1.8 % |")
    assert rows[1].endswith("| – | – | – | – |")


def test_many_kernel_rows_are_cut_to_one_dtype(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((tables.RESULTS / "kernels.json").read_text(encoding="utf-8"))
    document["results"] *= 2
    (tmp_path / "kernels.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "float16" in tables.TABLES["kernels"]()
    assert "bfloat16" not in tables.TABLES["kernels"]()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_three_numbers_of_rows_a_kernel(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    document = json.loads((tables.RESULTS / "kernels.json").read_text(encoding="utf-8"))
    model = next(r for r in document["results"] if r["kernel"] == "rms_norm")
    warm = {"do_bench": 2.5, "graph": 1.5}
    shapes: list[tuple[str, dict[str, int], dict[str, Any]]] = [
        *(("hopper_o", {"rows": n, "columns": 1024, "depth": 2048}, {}) for n in (64, 128, 320, 512, 2000, 9000)),
        *(("packed_attention", {"rows": n, "q_heads": 16, "kv_heads": 8, "head_dim": 128}, {}) for n in (290, 4096)),
        ("select_cells", {"rows": 290, "frames": 125, "codebooks": 8}, {"speedup": warm}),
        ("snake", {"batch": 1, "channels": 32, "samples": 120000}, {"rows": 290}),
    ]
    document["results"] = [
        {**model, "kernel": kernel, "shape": shape, **{"rows": shape.get("rows")}, **more}
        for kernel, shape, more in shapes
    ]
    document["ceilings"] = {"copy_gb_per_s": 4111.0, "matmul_tflops": {"float16": 777.0}}
    reasons = [("hopper_o", 8192), ("hopper_heads", 290), ("hopper_heads", 64)]
    document["not_measured"] = [
        *({"kernel": kernel, "rows": n, "dtype": "fp16", "reason": "cuBLAS"} for kernel, n in reasons),
        {"rows": 64, "dtype": "bf16", "reason": "the run ended before it"},
    ]
    (tmp_path / "kernels.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    table = tables.TABLES["kernels"](tables.SAY[language])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert cells[0][3] == {"en": "eager / ours, µs", "ko": "eager / 자체 커널, µs"}[language]
    shown = [row[2] for row in cells[2:]]
    assert shown[:3] == ["64 x 1024 x 2048", "320 x 1024 x 2048", "2000 x 1024 x 2048"]
    assert [size.partition(",")[0] for size in shown[3:]] == ["290", "4096", "125 x 8", "1 x 32 x 120000"]
    assert cells[-2][4:7] == ["2.50x", "1.50x", "–"], "no cold time is a dash"
    assert ("Three numbers of rows" if language == "en" else "행 수는 셋까지") in table
    assert ("the JSON: `hopper_heads`." if language == "en" else "(이유는 JSON에 있다): `hopper_heads`.") in table


def test_what_was_not_measured_is_said(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for table in (tables.TABLES[name] for name in ("batch", "grid", "peers")):
        assert table() == "Not measured yet.\n"
        assert table(tables.in_korean) != table()


def test_batches_are_not_taken_for_single_texts(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((tables.RESULTS / "speed.json").read_text(encoding="utf-8"))
    singles = [row for row in document["results"] if row.get("batch", 1) == 1]
    eights = [{**row, "batch": 8, "median_ms": 9e9} for row in singles]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for name in ("modes", "cases"):
        shown = []
        for rows in (singles, [*singles, *eights]):
            for file in ("speed", "speed-batch-1", "speed-batch-1-bf16"):
                (tmp_path / f"{file}.json").write_text(json.dumps({**document, "results": rows}), encoding="utf-8")
            shown.append(tables.TABLES[name]())
        assert shown[0] == shown[1] != "Not measured yet.\n"


def test_what_one_run_left_out_may_come_from_another(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer(tables, tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    path = tmp_path / "speed-batch-1.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    cells = [{"case": f"en {s} s x 32", "batch": 32, "dtype": "fp16", "reason": "no time was left"} for s in (15, 30)]
    path.write_text(json.dumps({**document, "not_measured": cells}), encoding="utf-8")
    assert "Left out, with the reason in the JSON: fp16 en 15 s x 32; fp16 en 30 s x 32." in tables.TABLES["grid"]()
    rows = [speed_row("turbo", "en 15 s", 32, speed_x=777.0), speed_row("turbo", "en 30 s", 8, speed_x=888.0)]
    (tmp_path / "speed-batch-32.json").write_text(json.dumps({**document, "results": rows}), encoding="utf-8")
    table = tables.TABLES["grid"]()
    assert "777.0x" in table
    assert "888.0x" not in table, "what the first has measured stays"
    assert "Left out, with the reason in the JSON: fp16 en 30 s x 32." in table
    assert "`bench/results/speed-batch-1.json`" in table
    assert "`bench/results/speed-batch-32.json`" in table


def test_a_cell_is_of_the_run_that_has_measured_it_most(tables: ModuleType) -> None:
    def of(speed: float, *, runs: int, left: tuple[str, ...] = ()) -> dict[str, object]:
        missing = [{"case": case, "dtype": "fp16", "reason": "no time"} for case in left]
        rows = [speed_row("turbo", speed_x=speed, runs=runs)]
        return {"environment": {}, "results": rows, "not_measured": missing}

    first, more, as_many = of(1.0, runs=3, left=("en 30 s",)), of(2.0, runs=5, left=("en 30 s",)), of(3.0, runs=5)
    joined = tables.speed_tables.joined([first, more, as_many])
    assert [row["speed_x"] for row in joined["results"]] == [2.0]
    assert [entry["case"] for entry in joined["not_measured"]] == ["en 30 s"], "once, since none has measured it"
    split = {"case": "en 5 s", "dtype": "fp16", "mode": "turbo", "reason": "no time for split"}
    first["not_measured"] = as_many["not_measured"] = [split]
    assert tables.speed_tables.joined([first, more])["not_measured"] == more["not_measured"], (
        "it is not taken from first"
    )
    assert split in tables.speed_tables.joined([first])["not_measured"]


def test_memory_is_of_the_run_that_loads_each_mode_alone(tables: ModuleType) -> None:
    gpu = {"environment": {"gpus": [{"name": "NVIDIA H200"}]}}
    cases = {**gpu, "results": [speed_row("turbo", peak_vram_mb=1.0), speed_row("turbo", "en 15 s")]}
    alone = {**gpu, "results": [speed_row("turbo", peak_vram_mb=1852.0)]}
    rows = tables.speed_tables.with_memory(cases, alone)["results"]
    assert [row.get("peak_vram_mb") for row in rows] == [1852.0, None]
    assert cases["results"][0]["peak_vram_mb"] == 1.0


def test_one_table_is_of_one_device(tables: ModuleType) -> None:
    def on(name: str) -> dict[str, object]:
        return {"environment": {"gpus": [{"name": name}]}, "results": [speed_row("turbo")]}

    for build in (tables.speed_tables.with_memory, lambda *both: tables.speed_tables.joined(both)):
        build(on("NVIDIA H200"), on("NVIDIA H200"))
        with pytest.raises(SystemExit, match="several devices: NVIDIA H200, NVIDIA A100"):
            build(on("NVIDIA H200"), on("NVIDIA A100"))


def test_parts_may_lie_in_two_files(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads((ROOT / "bench" / "results" / "turbo.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rest = [row for row in document["results"] if row["part"] == "lengths"]
    others = [row for row in document["results"] if row["part"] == "cases"]
    (tmp_path / "turbo.json").write_text(json.dumps({**document, "results": others}), encoding="utf-8")
    assert tables.TABLES["turbo-lengths"]() == "Not measured yet.\n"
    (tmp_path / "turbo-rest.json").write_text(json.dumps({**document, "results": rest}), encoding="utf-8")
    assert "Figures: `bench/results/turbo-rest.json`" in tables.TABLES["turbo-lengths"]()
    assert "Figures: `bench/results/turbo.json`" in tables.TABLES["turbo-cases"]()


def test_a_split_that_was_left_out_leaves_no_hole_in_the_grid(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer(tables, tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    path = tmp_path / "speed-batch-1.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    split = {"case": "en 30 s x 8", "batch": 8, "dtype": "fp16", "reason": "no time for split", "mode": "turbo"}
    other = {**split, "dtype": "bf16", "case": "en 15 s x 8"}
    path.write_text(json.dumps({**document, "not_measured": [split, other]}), encoding="utf-8")
    assert "Left out" not in tables.TABLES["grid"]()
    assert "Left out" not in tables.TABLES["batch"]()


def test_bf16_has_a_grid_of_its_own(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer(tables, tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    document = json.loads((tmp_path / "speed-batch-1.json").read_text(encoding="utf-8"))
    rows = [
        {**speed_row("turbo", "en 15 s", 1, speed_x=speed), "dtype": d} for d, speed in (("fp16", 11.0), ("bf16", 22.0))
    ]
    missing = [{"case": "en 30 s x 8", "batch": 8, "dtype": d, "reason": "no time was left"} for d in ("fp16", "bf16")]
    path = tmp_path / "speed-batch-1-bf16.json"
    path.write_text(json.dumps({**document, "results": rows, "not_measured": missing}), encoding="utf-8")
    table = tables.TABLES["grid-bf16"]()
    assert "22.0x" in table
    assert "11.0x" not in table
    assert "Left out, with the reason in the JSON: bf16 en 30 s x 8." in table


def test_floors_name_the_peak_that_they_are_of(tables: ModuleType) -> None:
    row = {"part": "cases", "mode": "turbo", "case": "en 5 s", "packed_rows": 290, "step_ms": 1.0}
    row |= {"gemm_floor_ms": 0.8, "gemm_floor_percent": 80.0, "flop_floor_percent": 30.0}
    older = {"peak_tflops": 798.0, "results": [{**row, "dtype": "fp16"}]}
    assert "at 798 TFLOP/s" in tables.turbo_tables.floors(older, str)[2]
    assert "at – TFLOP/s" in tables.turbo_tables.floors({"results": []}, str)[2], "nothing was measured of it"
    newer = {"results": [{**row, "dtype": d, "peak_tflops": p} for d, p in (("fp16", 750.4), ("bf16", 791.0))]}
    assert "at 750 (fp16), 791 (bf16) TFLOP/s" in tables.turbo_tables.floors(newer, str)[2]


def test_figures_of_few_runs_say_so(tables: ModuleType) -> None:
    rows = [{"runs": runs} for runs in (9, 5, 4, 1)]
    say = tables.in_english
    assert tables.speed_tables.few_runs(rows, say) == (
        "2 of 4 figures are of fewer than 5 runs, down to 1: no noise bounds."
    )
    assert tables.speed_tables.few_runs(rows[:2], say) == ""
    assert tables.speed_tables.few_runs([*rows, {}], say).startswith("2 of 4"), "what has no runs is no timing"


@pytest.mark.parametrize("name", ["modes", "cases", "batch", "grid", "peers", "turbo-cases", "turbo-options"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_table_of_timings_says_so(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, language: str
) -> None:
    for path in tables.RESULTS.glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        for row in document["results"]:
            if "runs" in row:
                row["runs"] = 4
        (tmp_path / path.name).write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    said = {"en": "of fewer than 5 runs, down to 4", "ko": "5회 미만(최소 4회)"}[language]
    assert said in tables.TABLES[name](tables.SAY[language])
