"""The dashboard's parts: texts, charts, files, commands, loaded runners, and its command."""

from __future__ import annotations

import ast
import io
import json
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

import soundfile

import omnivoice_triton
from omnivoice_triton import InputError
from omnivoice_triton.cli import main, ui
from omnivoice_triton.ui import charts, commands, figures, files, samples, spoken, tables, verdicts, words
from omnivoice_triton.ui.runners import Runners, captures, read_upload

UI = Path(omnivoice_triton.__file__).parent / "ui"


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_has_three_languages_and_the_same_fields() -> None:
    for key, texts in words._TABLE.items():
        assert len(texts) == len(words.LANGUAGES)
        assert all(texts), key
        assert len({frozenset(fields(text)) for text in texts}) == 1, key
    assert set(words.SENTENCES) == set(words.LANGUAGES)


def test_every_text_is_used_and_every_used_text_exists() -> None:
    used: set[str] = set()
    prefixes: set[str] = set()
    for path in UI.glob("*.py"):
        if path.name == "words.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "func", None)
            called = name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")
            if not isinstance(node, ast.Call) or called != "words" or not node.args:
                continue
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.JoinedStr):
                    prefixes.add(str(part.values[0].value))  # type: ignore[attr-defined]
                elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                    used.add(part.value)
    used -= prefixes
    known = set(words.keys())
    assert {key for key in used if "_" in key or key in known} <= known | {"_"}, used - known
    unused = {key for key in known - used if not any(key.startswith(prefix) for prefix in prefixes)}
    assert not unused


def test_waveform_keeps_the_extremes() -> None:
    audio = np.zeros(240_000, np.float32)
    audio[123_456], audio[200_000] = 0.9, -0.8
    figure = charts.waveform(audio, 24_000)
    values = np.asarray(figure.data[0].y)
    assert len(values) <= charts.POINTS + 2
    assert (values.max(), values.min()) == (pytest.approx(0.9), pytest.approx(-0.8))
    assert figure.data[0].x[int(values.argmax())] == pytest.approx(123_456 / 24_000, abs=0.02)
    assert len(charts.waveform(np.zeros(0, np.float32), 24_000).data) == 1


def test_spectrogram_finds_a_tone() -> None:
    tone = np.sin(2 * np.pi * 3000 * np.arange(24_000) / 24_000).astype(np.float32)
    heat = charts.spectrogram(tone, 24_000).data[0]
    row = int(np.asarray(heat.z).mean(1).argmax())
    assert heat.y[row] == pytest.approx(3.0, abs=0.05)
    assert np.asarray(heat.z)[row].max() == pytest.approx(0, abs=1)
    assert len(charts.spectrogram(np.zeros(10, np.float32), 24_000).data) == 1


def test_bars_show_the_range() -> None:
    rows = [{"case": "a", "median": 10.0, "p5": 8.0, "p95": 15.0}]
    bar = charts.bars([charts.Bars("turbo", rows, "turbo")], "case", "ms").data[0]
    assert (bar.error_y.array[0], bar.error_y.arrayminus[0]) == (5.0, 2.0)


def test_turbo_files_can_be_drawn() -> None:
    cell = {"part": "throughput", "dtype": "fp16", "length_s": 5.0, "mode": "turbo"}
    case = {"part": "cases", "dtype": "fp16", "mode": "turbo", "case": "en", "median_ms": 2.0, "p5_ms": 1, "p95_ms": 3}
    document = {"results": [case, *({**cell, "batch": b, "audio_s_per_s": 100.0 * b} for b in (1, 8))]}
    assert figures.throughput_curves(document, "fp16") == {"5 s": ([1, 8], [100.0, 800.0])}
    assert [row["median"] for row in figures.latency_rows(document, "fp16")] == [2.0]
    assert figures.latency_rows(document, "bf16") == []


def test_the_fullest_file_comes_first() -> None:
    def speed(dtypes: str, cases: str) -> dict[str, Any]:
        return {"kind": "speed", "results": [{"dtype": d, "case": c} for d in dtypes.split() for c in cases.split()]}

    documents = {
        "kernels": {"kind": "kernels", "results": [{"dtype": "fp16"}]},
        "batch": speed("fp16", "a b c d"),
        "batch-bf16": speed("bf16", "a b c d"),
        "cases": speed("fp16 bf16", "a b c"),
        "one": speed("fp16 bf16", "a"),
        "tests": {"kind": "tests", "results": []},
    }
    assert figures.by_content(documents)[:4] == ["cases", "batch", "batch-bf16", "one"]
    assert "tests" not in figures.by_content(documents)


def test_a_folders_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    good = (Path(__file__).parents[2] / "bench" / "results" / "speed.json").read_bytes()
    for name in ("speed-bf16", "speed", "own/mine"):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(good)
    assert list(files.load_folder(str(tmp_path))[0]) == ["speed", "speed-bf16", "own/mine"]


def test_turbos_variants_are_charts_of_their_own() -> None:
    base = {"dtype": "fp16", "mode": "turbo"}
    case = {**base, "part": "cases", "case": "en", "median_ms": 2.0, "p5_ms": 1, "p95_ms": 3}
    option = {**case, "part": "options", "variant": "FP8", "ratio_to_exact": 0.8, "ratio_p5": 0.7, "ratio_p95": 0.9}
    start = {**base, "part": "startup", "variant": "as installed", "load_s": 2.0, "imports_s": 3.0, "total_s": 5.0}
    memory = {**base, "part": "memory", "variant": "default", "peak_vram_mb": 1800.0}
    document = {"results": [case, option, {**option, "dtype": "bf16"}, start, memory]}
    assert len(figures.latency_rows(document, "fp16")) == 1, "an option's bar would lie over the case's"
    assert figures.metrics_of(document) == ["median_ms"]
    assert figures.turbo_rows(document, "fp16", "options") == [
        {"name": "FP8", "case": "en", "median": 0.8, "p5": 0.7, "p95": 0.9}
    ]
    assert [(row["name"], row["case"], row["median"]) for row in figures.turbo_rows(document, "fp16", "startup")] == [
        ("imports", "as installed", 3.0),
        ("load", "as installed", 2.0),
    ]
    assert [row["median"] for row in figures.turbo_rows(document, "fp16", "memory")] == [1800.0]
    assert figures.turbo_rows(document, "bf16", "memory") == []
    with pytest.raises(figures.Damaged, match="ratio_p5"):
        figures.turbo_rows({"results": [{**option, "ratio_p5": "low"}]}, "fp16", "options")


def test_kernels_lie_at_the_rows_of_the_call() -> None:
    def rows(**said: Any) -> list[int]:
        row = {"kernel": "k", "dtype": "float16", "speedup": {"graph": 2.0}, **said}
        return [found["rows"] for found in figures.kernel_rows({"results": [row]}, "float16", ("speedup", "graph"))]

    assert rows(rows=290, shape={"batch": 1, "channels": 32, "samples": 120_000}) == [290]  # Snake has none of its own
    assert rows(rows=290, shape={"batch": 2, "rows": 165}) == [290]  # padded: 330
    assert rows(shape={"batch": 2, "rows": 165}) == [330]  # an older file
    with pytest.raises(figures.Damaged, match="rows"):
        rows(rows="many", shape={})


def test_what_is_left_out_by_its_reason() -> None:
    entries = [
        {"path": "a", "reason": "old"},
        {"path": "b", "reason": "old"},
        {"path": "a", "reason": "old"},
        {"kernel": "k", "rows": 3},
        "odd",
    ]
    assert files.gaps_of({"x": entries}, "x") == {"old": ["a", "b"], "?": ["k"]}
    assert files.gaps_of({"x": "none"}, "x") == files.gaps_of({}, "x") == {}


def test_tables_keep_counts_of_kernels_in_one_cell_and_long_texts_last() -> None:
    row = {"tail": ["one", "two"], "kernels": {"a": 3, "b": 4}, "passed": True, "size": {"rows": 2}}
    flat = files.flat_rows({"results": [row]})[0]
    assert list(flat.items()) == [("passed", True), ("size.rows", 2), ("tail", "one; two"), ("kernels", "a 3; b 4")]


def test_two_dozen_curves_look_different() -> None:
    figure = charts.curves({str(n): ([1, 2], [1, 2]) for n in range(60)}, "x", "y")
    assert len({(line.line.color, line.line.dash, line.marker.symbol) for line in figure.data}) == 60


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "no JSON"), ("[]", "no object"), ('{"kind": "a", "results": [], "environment": {}}', "no results")],
)
def test_files_that_are_none_of_ours(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        files.parse(text)


def test_folders_by_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(files.RESULTS_VARIABLE, str(tmp_path))
    assert files.default_folder(files.RESULTS_VARIABLE, "bench", "results") == str(tmp_path)
    monkeypatch.delenv(files.RESULTS_VARIABLE)
    monkeypatch.chdir(UI.parents[2])  # of a checkout
    assert files.default_folder(files.RESULTS_VARIABLE, "bench", "results") == str(Path("bench/results"))
    monkeypatch.chdir(tmp_path)
    assert Path(files.default_folder(files.RESULTS_VARIABLE, "bench", "results")).is_absolute()
    assert files.default_folder(files.RESULTS_VARIABLE, "no", "such") == ""
    assert samples.samples_in(str(tmp_path)) == samples.samples_in("") == []
    (tmp_path / "metadata.json").write_text('{"samples": [{"mode": "x"}]}')
    assert samples.samples_in(str(tmp_path)) == []


def test_samples_outside_their_folder_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret.flac").write_bytes(b"x")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "own.flac").write_bytes(b"x")
    entries = [{"file": name} for name in ("own.flac", "../secret.flac", str(tmp_path / "secret.flac"))]
    (inner / "metadata.json").write_text(json.dumps({"samples": entries}))
    assert [entry["file"] for entry in samples.samples_in(str(inner))] == ["own.flac"]


def test_players_keep_the_level() -> None:
    quiet = np.full(2400, 0.02, np.float32)
    samples, rate = soundfile.read(io.BytesIO(spoken.wav(quiet, 24_000)))
    assert rate == 24_000
    assert samples.max() == pytest.approx(0.02, abs=1e-4)


def test_what_is_compared_stays_loaded_where_there_is_room() -> None:
    free = [True]
    runners = Runners(
        2, lambda **_: SimpleNamespace(load_model=lambda: None, unload_model=lambda: None), lambda: free[0]
    )
    for mode in ("base", "triton", "hybrid"):
        with runners.borrow(mode, ""):
            pass
    assert len(runners.loaded) == 3
    free[0] = False
    with runners.borrow("faster", ""):
        pass
    assert [mode for mode, _, _ in runners.loaded] == ["hybrid", "faster"]


def test_who_waits_for_a_runner_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivoice_triton.ui.runners.WAIT_S", 0.01)
    runners = Runners(2, lambda **_: SimpleNamespace(load_model=lambda: None), lambda: False)
    told = threading.Event()
    with runners.borrow("base", ""):

        def second() -> None:
            with runners.borrow("base", "", "", told.set):
                pass

        other = threading.Thread(target=second)
        other.start()
        assert told.wait(10)
    other.join(10)
    assert not other.is_alive()


def test_captures_are_counted() -> None:
    turbo = SimpleNamespace(
        engine=SimpleNamespace(runner=SimpleNamespace(graphs=SimpleNamespace(captures=3))),
        codec=SimpleNamespace(captures=2),
    )
    assert captures(SimpleNamespace(acceleration=SimpleNamespace(turbo=turbo, graphs=None))) == 5
    graphs = SimpleNamespace(captures=4)
    assert captures(SimpleNamespace(acceleration=SimpleNamespace(turbo=None, graphs=graphs))) == 4
    assert captures(SimpleNamespace(acceleration=SimpleNamespace(turbo=None, graphs=None))) == 0


@pytest.mark.parametrize("name", ["한" * 90 + ".wav", "..", "a\0b.wav", "x." + "y" * 300, "C:\\voices\\me.wav"])
def test_an_upload_may_have_any_name(name: str) -> None:
    tone = io.BytesIO()
    soundfile.write(tone, 0.3 * np.sin(np.arange(24_000) / 20), 24_000, format="WAV")
    if name.endswith(".wav"):
        samples, rate = read_upload(name, tone.getvalue())
        assert (samples.shape[-1], rate) == (24_000, 24_000)
    with pytest.raises(InputError):
        read_upload(name, b"no sound")


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        ({"kind": "parity", "results": [{"passed": True}]}, (True, 1, 0)),
        ({"kind": "verify", "passed": False, "results": [{"passed": True, "checks": 3, "failed": 0}]}, (False, 3, 0)),
        ({"kind": "verify", "results": [{"passed": True, "checks": 3, "failed": 2}]}, (False, 3, 2)),
        ({"kind": "parity", "results": [{"passed": "false"}]}, (False, 1, 1)),
        ({"kind": "parity", "results": [{"passed": True, "problems": ["x"]}]}, (False, 1, 1)),
        ({"kind": "soak", "results": [{"failures": [], "growth_mb_max": 5, "budget_mb": 9}]}, (True, 1, 0)),
        ({"kind": "soak", "results": [{"failures": [], "growth_mb_max": 10, "budget_mb": 9}]}, (False, 1, 1)),
        ({"kind": "soak", "results": [{"failures": ["x"], "growth_mb_max": 5, "budget_mb": 9}]}, (False, 1, 1)),
        ({"kind": "tests", "results": {}, "passed": 5, "failed": 0, "error": 0}, (True, 5, 0)),
        ({"kind": "tests", "results": {}, "passed": 5, "failed": 1, "error": 1}, (False, 7, 2)),
        ({"kind": "tests", "results": {}, "passed": 0, "failed": 0, "error": 0}, (False, 0, 0)),
    ],
)
def test_verdicts_are_of_all_that_a_file_says(document: dict[str, Any], verdict: tuple[bool, int, int]) -> None:
    assert verdicts.verdict_of(document) == verdict


def test_bars_of_few_runs_have_no_spread() -> None:
    def row(mode: str, runs: int) -> dict[str, Any]:
        times = {"median_ms": 2.0, "p5_ms": 1.0, "p95_ms": 3.0, "runs": runs}
        return {"mode": mode, "case": f"of {runs}", "dtype": "fp16", **times}

    rows = figures.latency_rows({"results": [row("base", 9), row("base", 2)]}, "fp16")
    (bar,) = charts.bars([charts.Bars("", rows, "base")], "case", "").data
    assert list(bar.error_y.array) == [1.0, None]
    assert figures.few_runs({"results": [row("base", 9), row("base", 2)]}, "fp16", ["of 9"]) == (0, 1)


def test_a_number_without_end_is_damage() -> None:
    with pytest.raises(figures.Damaged, match="x"):
        figures.number({"x": 10**400}, "x")


def test_the_least_recently_used_runner_goes() -> None:
    events: list[str] = []

    def make(model_id: Any, mode: str) -> Any:
        return SimpleNamespace(
            load_model=lambda: events.append(f"load {mode}"), unload_model=lambda: events.append(f"unload {mode}")
        )

    runners = Runners(2, make)
    for mode in ("base", "turbo", "base", "triton"):
        with runners.borrow(mode, ""):
            pass
    assert events == ["load base", "load turbo", "unload turbo", "load triton"]
    assert [mode for mode, _, _ in runners.loaded] == ["base", "triton"]


def test_an_upload_is_named_as_the_user_names_it() -> None:
    with pytest.raises(InputError, match=r"^can't read 'song\.doc' as audio"):
        read_upload("song.doc", b"not audio at all")
    with pytest.raises(InputError, match=r"'empty\.wav' is an empty file"):
        read_upload("../empty.wav", b"")


def test_verify_runs_for_real_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own that nobody has told of Triton's interpreter."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    told: list[tuple[int, str, int, int]] = []
    report = commands.verify(["--tier", "1", "--device", "cpu"], lambda *step: told.append(step))
    assert report["passed"] is True, report["results"][0]["problems"]
    assert [tier["tier"] for tier in report["results"]] == [1]
    assert len(told) == report["results"][0]["checks"] > 50
    with pytest.raises(commands.CommandFailed, match="give 1, 2 or 3"):
        commands.verify(["--tier", "9"], lambda *step: None)


def test_doctor_is_asked() -> None:
    assert commands.doctor()["modes"]["base"]["runs"] is True
    assert commands.doctor("tiny")["model"]["weights"] == "random-tiny"
    other = commands.doctor("nobody/has-this")["model"]
    assert (other["name"], other["weights"]) == ("nobody/has-this", None)
    assert other["problem"].startswith("not on this machine yet")  # which the overview asks for, to draw it as no error
    assert commands.doctor("/nowhere")["model"]["problem"]


def test_cells_show_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(tables.st, "markdown", written.append)
    tables.wrapping([{"a": "x_y | *z*", "b": "1\n2"}])
    assert written == ["| a | b |\n| --- | --- |\n| x\\_y \\| \\*z\\* | 1 2 |"]
    tables.wrapping([])
    assert len(written) == 1


def prepare(*flags: str) -> tuple[list[str], dict[str, str]]:
    import argparse

    parser = argparse.ArgumentParser()
    ui.add_arguments(parser)
    return ui.prepare(parser.parse_args(list(flags)))


def test_the_command(tmp_path: Path) -> None:
    command, environment = prepare("--port", "8600", "--results", str(tmp_path), "--model", "tiny")
    assert Path(command[4]) == UI / "app.py"
    assert "--server.port=8600" in command
    assert "--server.address=localhost" in command
    assert environment[files.RESULTS_VARIABLE] == str(tmp_path)
    assert environment["OMNIVOICE_TRITON_MODEL"] == "tiny"


def test_the_server_answers_and_ends_with_its_process() -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "omnivoice_triton", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=5) as answer:
                        assert answer.read() == b"ok"
                    break
                except OSError:
                    assert server.poll() is None, "the server ended"
                    assert time.monotonic() < deadline, "no answer within a minute"
                    time.sleep(0.2)
        finally:
            server.terminate()
            server.wait(30)
    with socket.socket() as probe:
        assert probe.connect_ex(("localhost", port)) != 0, "somebody still listens"


def test_bad_flags_and_a_missing_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--port", "0"]) == 2
    assert "--port must be 1 to 65535" in capsys.readouterr().err
    assert main(["ui", "--samples", "/nowhere/at/all"]) == 2
    assert "no such folder" in capsys.readouterr().err
    monkeypatch.setattr(ui.importlib.util, "find_spec", lambda name: None)
    assert main(["ui"]) == 2
    assert "pip install 'omnivoice-triton[ui]'" in capsys.readouterr().err


def test_a_comparison_through_the_command_line(tmp_path: Path) -> None:
    row = {"mode": "a", "case": "b", "dtype": "fp16", "median_ms": 2.0, "p5_ms": 1.9, "p95_ms": 2.1, "runs": 9}
    document = {"kind": "speed", "environment": {}, "results": [row]}
    slower = json.loads(json.dumps(document).replace("2.0", "9.0").replace("1.9", "8.9").replace("2.1", "9.1"))
    assert commands.compare(document, slower)["regressions"]
    assert not commands.compare(document, document)["regressions"]
    with pytest.raises(commands.CommandFailed, match="kinds differ"):
        commands.compare(document, {**document, "kind": "other"})


def test_times_of_few_runs_are_counted() -> None:
    from omnivoice_triton.bench.result_rows import FEWEST_RUNS

    assert figures.FEWEST_RUNS == FEWEST_RUNS
    rows = [{"case": "a", "dtype": "fp16", "runs": runs} for runs in (1, 4, 5, 9)]
    rows += [{"case": "a", "dtype": "bf16", "runs": 1}, {"part": "options", "case": "a", "dtype": "fp16", "runs": 1}]
    assert figures.few_runs({"results": rows}, "fp16") == (2, 4)
