"""`bench compare`: slower and faster beyond noise, noise itself, broken checks; and files that can't be compared."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton.bench import compare
from omnivoice_triton.cli import main
from omnivoice_triton.speech import InputError

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


def speed(median: float = 100.0, spread: float = 0.05, **row: Any) -> dict[str, Any]:
    figures = {"median_ms": median, "p5_ms": median * (1 - spread), "p95_ms": median * (1 + spread), "runs": 9}
    return {"mode": "turbo", "case": "en 5 s", "dtype": "fp16", **figures, **row}


def file(tmp_path: Path, name: str, *rows: dict[str, Any], kind: str = "speed", **more: Any) -> str:
    path = tmp_path / name
    path.write_text(json.dumps({"kind": kind, "environment": {"versions": {}}, "results": list(rows), **more}))
    return str(path)


@pytest.mark.parametrize(
    ("after", "spread", "code", "verdict"),
    [
        (100.0, 0.05, 0, "within noise"),
        (104.0, 0.05, 0, "within noise"),
        (150.0, 0.05, 1, "slower"),
        (150.0, 0.30, 0, "within noise"),  # a median half as slow again, but so are some of A's runs
        (112.0, 0.04, 1, "slower"),
        (60.0, 0.05, 0, "faster"),
    ],
)
def test_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], after: float, spread: float, code: int, verdict: str
) -> None:
    a, b = file(tmp_path, "a.json", speed(spread=spread)), file(tmp_path, "b.json", speed(after, spread))
    if code:
        assert main(["bench", "compare", a, b]) == 1
    else:
        assert main(["bench", "compare", a, b, "--all"]) == 0
    out = capsys.readouterr().out
    assert f"{after / 100:.3f}x" in out or verdict == "within noise"
    assert f"1 {verdict}" in out


def test_rows_are_matched_by_what_they_are_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [speed(100), speed(900, mode="base"), speed(300, case="en 15 s"), speed(70, dtype="bf16")]
    a, b = file(tmp_path, "a.json", *rows), file(tmp_path, "b.json", *reversed(rows[:3]), speed(8, mode="triton"))
    out = tmp_path / "out.json"
    assert main(["bench", "compare", a, b, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [change["ratio"] for change in found["changes"]] == [1.0, 1.0, 1.0]
    assert found["only_before"] == ["en 5 s, turbo, bf16"]
    assert found["only_after"] == ["en 5 s, triton, fp16"]
    out = capsys.readouterr().out
    assert "1 rows of the first are missing in the second, and not compared: en 5 s, turbo, bf16" in out
    assert "1 rows are in the second only" in out


def test_nested_timings_and_lists(tmp_path: Path) -> None:
    def row(us: float, bucket_ms: float) -> dict[str, Any]:
        timed = {"median": us, "p5": us * 0.9, "p95": us * 1.1, "timings": 5}
        bucket = {"median_ms": bucket_ms, "p5_ms": bucket_ms * 0.9, "p95_ms": bucket_ms * 1.1}
        shape = {"rows": 290, "columns": 1024}
        return {
            "kernel": "k",
            "shape": shape,
            "triton_us": {"graph": timed},
            "buckets": [{"bucket_rows": 64, **bucket}],
        }

    before, after = (
        {"kind": "kernels", "environment": {}, "results": [row(*values)]} for values in ((1.0, 5.0), (2.0, 1.0))
    )
    found = compare.compare(before, after)
    assert [(c.metric, c.verdict) for c in found.changes] == [
        ("triton_us.graph", "slower"),
        ("buckets[bucket_rows=64] ms", "faster"),
    ]
    assert len(found.regressions) == 1
    assert "kernel" not in found.regressions[0]
    assert found.regressions[0].startswith("k, rows=290 columns=1024 triton_us.graph: 2.00x")


def test_a_slower_yardstick_is_no_regression() -> None:
    def file_of(us: float) -> dict[str, Any]:
        timed = {"median": us, "p5": us * 0.9, "p95": us * 1.1, "timings": 5}
        return {"kind": "kernels", "environment": {}, "results": [{"kernel": "k", "pytorch_us": {"graph": timed}}]}

    found = compare.compare(file_of(1.0), file_of(2.0))
    assert [change.verdict for change in found.changes] == ["slower"]
    assert found.regressions == []


def test_a_check_that_breaks_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = ({"mode": "turbo", "dtype": "fp16", "passed": passed} for passed in (True, False))
    a, b = (file(tmp_path, name, row, kind="parity") for name, row in (("a.json", good), ("b.json", bad)))
    assert main(["bench", "compare", a, b]) == 1
    assert "turbo, fp16: passed before, fails now" in capsys.readouterr().out
    assert main(["bench", "compare", b, a]) == 0


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"on_target": True}, {"on_target": False}),
        ({"problems": []}, {"problems": ["12 graphs were captured"]}),
        ({"failures": []}, {"failures": ["out of memory"]}),
        ({"error": None}, {"error": "no room"}),
        ({"passed": True}, {}),
    ],
)
def test_every_benchmarks_own_verdict_counts(tmp_path: Path, good: dict[str, Any], bad: dict[str, Any]) -> None:
    a, b = (file(tmp_path, f"{n}.json", speed(**row), kind="turbo") for n, row in (("a", good), ("b", bad)))
    assert main(["bench", "compare", a, a]) == 0
    assert main(["bench", "compare", a, b]) == 1
    assert main(["bench", "compare", b, a]) == 0


def test_a_kernel_that_got_wrong_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [speed(kernel=name, mode=None) for name in ("rope", "swiglu")]
    gone = {"kernel": "rope", "dtype": "fp16", "reason": "no time was left"}
    a = file(tmp_path, "a.json", *rows, kind="kernels")
    b = file(tmp_path, "b.json", rows[1], kind="kernels", not_measured=[{**gone, "wrong": True}])
    c = file(tmp_path, "c.json", rows[1], kind="kernels", not_measured=[gone])
    assert main(["bench", "compare", a, b]) == 1
    assert "rope, fp16: fails now: no time was left" in capsys.readouterr().out
    assert main(["bench", "compare", a, c]) == 0, "no time was left"
    d = file(tmp_path, "d.json", rows[1], kind="kernels", not_measured=[{**gone, "failed": True}])
    assert main(["bench", "compare", a, d]) == 1
    assert main(["bench", "compare", d, d]) == 0
    assert main(["bench", "compare", b, b]) == 0, "wrong before"


def test_a_check_that_is_gone_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"mode": mode, "dtype": "fp16", "passed": mode != "base"} for mode in ("turbo", "hybrid", "base")]
    a, b = file(tmp_path, "a.json", *rows, kind="parity"), file(tmp_path, "b.json", rows[0], kind="parity")
    assert main(["bench", "compare", a, b]) == 1
    assert "hybrid, fp16: passed before, missing now" in capsys.readouterr().out
    c = file(tmp_path, "c.json", *rows[:2], kind="parity")
    assert main(["bench", "compare", a, c]) == 0, "it failed before"


def test_few_runs_give_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = file(tmp_path, "a.json", speed()), file(tmp_path, "b.json", speed(300, runs=4))
    for pair in ((a, b), (b, a)):
        assert main(["bench", "compare", *pair]) == 0
        assert "1 of too few runs" in capsys.readouterr().out
    enough = file(tmp_path, "c.json", speed(300, runs=5))
    assert main(["bench", "compare", a, enough]) == 1


def test_rows_that_say_the_same_of_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their order, where there are as many; else nobody knows which is which."""
    a, b = file(tmp_path, "a.json", speed(10), speed(90)), file(tmp_path, "b.json", speed(90), speed(7, mode="base"))
    c = file(tmp_path, "c.json", speed(10), speed(200))
    assert main(["bench", "compare", a, a]) == 0
    assert main(["bench", "compare", a, c]) == 1
    assert "#2 ms: 2.22x" in compare.compare(*(compare.load(Path(x)) for x in (a, c))).regressions[0]
    base = file(tmp_path, "d.json", speed(10), speed(90), speed(7, mode="base"))
    assert main(["bench", "compare", base, b]) == 0
    out = capsys.readouterr().out
    assert "differs: rows called 'en 5 s, turbo, fp16': 2 and 1, none of them compared" in out
    assert out.rstrip().endswith("1 timings: 0 slower, 0 faster, 1 within noise")


def test_checks_that_say_the_same_of_themselves_are_not_judged(tmp_path: Path) -> None:
    """Three of a name before and two now: which of them is gone nobody knows."""
    checks = [{"mode": "turbo", "passed": passed} for passed in (True, True, True, False)]
    other = {"mode": "base", "passed": True}
    a = file(tmp_path, "a.json", *checks[:3], other, kind="parity")
    b = file(tmp_path, "b.json", *checks[2:], other, kind="parity")
    found = compare.compare(*(compare.load(Path(x)) for x in (a, b)))
    assert found.regressions == []
    assert found.differences == ["rows called 'turbo': 3 and 2, none of them compared"]


def tier(number: int, *checks: dict[str, Any]) -> dict[str, Any]:
    passed = all(check["passed"] for check in checks)
    return {"tier": number, "name": "kernels", "checks": len(checks), "passed": passed, "rows": list(checks)}


def test_checks_within_a_tier(tmp_path: Path) -> None:
    """A tier that checks less passes still; what it checked before is missed."""
    one, two, slow = ({"name": name, "passed": True, "problems": [], "median_ms": 1.0} for name in ("x", "y", "z"))
    before = compare.load(Path(file(tmp_path, "a.json", tier(1, one, two), tier(2, slow), kind="verify")))

    def found(*tiers: dict[str, Any]) -> list[str]:
        after = compare.load(Path(file(tmp_path, "b.json", *tiers, kind="verify")))
        return compare.compare(before, after).regressions

    assert found(tier(1, one, two), tier(2, slow)) == []
    assert found(tier(1, one), tier(2, slow)) == ["tier=1, y: passed before, missing now"]
    failed = {**two, "passed": False}
    assert found(tier(1, one, failed), tier(2, slow)) == [
        "tier=1, kernels: passed before, fails now",
        "tier=1, y: passed before, fails now",
    ]
    assert found(tier(1, one, two)) == ["tier=2, kernels: passed before, missing now"], "once, not once a check"


@pytest.mark.parametrize("key", ["error", "unavailable"])
def test_a_row_with_a_reason_in_place_of_figures(key: str) -> None:
    """As `bench turbo throughput` and `options` write them."""

    def of(*rows: dict[str, Any]) -> dict[str, Any]:
        return {"kind": "turbo", "environment": {}, "results": [speed(mode="base"), *rows]}

    bare = {name: value for name, value in speed().items() if not name.endswith("_ms")}
    gone = {**bare, key: "no room for it"}
    assert compare.compare(of(speed()), of(gone)).regressions == ["en 5 s, turbo, fp16: fails now: no room for it"]
    assert compare.compare(of({**speed(), "error": None}), of(gone)).regressions == [
        "en 5 s, turbo, fp16: fails now: no room for it"
    ], "once"
    assert compare.compare(of(gone), of(gone)).regressions == []
    assert compare.compare(of(gone), of(speed())).regressions == []


def test_kernels_that_could_not_be_built_are_told_apart_by_rows() -> None:
    def of(*rows: int) -> dict[str, Any]:
        left = [{"kernel": "k", "rows": n, "dtype": "fp16", "reason": "raised", "failed": True} for n in rows]
        return {"kind": "kernels", "environment": {}, "results": [speed()], "not_measured": left}

    assert compare.compare(of(64), of(64, 290)).regressions == ["k, fp16, rows=290: fails now: raised"]


def test_other_peoples_paths_are_no_regression_of_ours() -> None:
    def of(times: float, *failed: str) -> dict[str, Any]:
        left = [{"path": p, "mode": p, "case": "en 5 s", "reason": "no room", "failed": True} for p in failed]
        rows = [speed(times, mode=p) for p in ("turbo", "torch-compile") if p not in failed]
        rows.append(speed(mode="upstream-eager"))
        return {"kind": "peers", "environment": {}, "not_available": left, "results": rows}

    assert compare.compare(of(100), of(100, "torch-compile")).regressions == []
    assert compare.compare(of(100), of(100, "turbo")).regressions == ["en 5 s, turbo: fails now: no room"]
    slower = compare.compare(of(100), of(200))
    assert [change.verdict for change in slower.changes] == ["slower", "slower", "within noise"]
    assert slower.regressions == ["en 5 s, turbo, fp16 ms: 2.00x [1.81, 2.21]"]


def test_timings_that_a_row_no_longer_has_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timed = {"median": 1.0, "p5": 0.9, "p95": 1.1, "timings": 9}
    both = {"kernel": "k", "triton_us": {"graph": timed, "graph_cold": timed}}
    less = {"kernel": "k", "triton_us": {"graph": timed}}
    a, b = (file(tmp_path, f"{n}.json", row, kind="kernels") for n, row in (("a", both), ("b", less)))
    assert main(["bench", "compare", a, b]) == 0
    out = capsys.readouterr().out
    assert "1 timings of rows that are in both are missing in the second: k triton_us.graph_cold" in out


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"dirty": None, "commit": "0123456789abcdef"}, "D, commit 0123456789ab, uncommitted changes: unknown"),
        ({"dirty": True, "commit": "0123456789abcdef"}, "D, commit 0123456789ab, uncommitted changes: yes"),
        ({"dirty": False, "commit": "0123456789abcdef"}, "D, commit 0123456789ab, uncommitted changes: no"),
        ({"dirty": None, "commit": None}, "D, commit unknown"),
    ],
)
def test_what_made_each_file_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, Any], said: str
) -> None:
    a = file(tmp_path, "a.json", speed(), environment={"date_utc": "D", **environment})
    assert main(["bench", "compare", a, file(tmp_path, "b.json", speed())]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"first: {said}", "second: date unknown, commit unknown"]


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_compared_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], which: int) -> None:
    files = [file(tmp_path, name, speed()) for name in ("a.json", "b.json")]
    kept = Path(files[which]).read_text()
    assert main(["bench", "compare", *files, "--json", files[which]]) == 2
    assert "would overwrite what is compared: name another file" in capsys.readouterr().err
    assert Path(files[which]).read_text() == kept


def test_options_of_one_case_are_told_apart(tmp_path: Path) -> None:
    rows = [speed(50, variant="exact"), speed(90, variant="INT8 attention"), speed(40, variant="FP8")]
    a, b = file(tmp_path, "a.json", *rows), file(tmp_path, "b.json", rows[0], rows[2])
    assert main(["bench", "compare", b, a]) == main(["bench", "compare", a, b]) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"results": [1, 2]},
        {"results": "abc"},
        {"environment": []},
        {"environment": {"gpus": ["x"]}},
        {"not_measured": 5},
        {"not_measured": ["x"]},
        {"not_available": [{"path": "x"}]},
    ],
)
def test_a_file_of_another_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]) -> None:
    path = file(tmp_path, "a.json", speed())
    other = tmp_path / "b.json"
    other.write_text(json.dumps({**json.loads(Path(path).read_text()), **wrong}))
    assert main(["bench", "compare", path, str(other)]) == 2
    err = capsys.readouterr().err
    assert "b.json is no result file" in err
    assert len(err.splitlines()) == 1


def test_an_output_that_cannot_be_written_is_no_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = file(tmp_path, "a.json", speed())
    for out in (Path(a) / "out.json", tmp_path):
        assert main(["bench", "compare", a, a, "--json", str(out)]) == 2
        assert capsys.readouterr().err.startswith("bench.compare: can't ")


def test_times_of_nothing_are_left_out(tmp_path: Path) -> None:
    a = file(tmp_path, "a.json", speed(), speed(case="en 15 s"))
    b = file(tmp_path, "b.json", speed(), speed(case="en 15 s", p95_ms=0, p5_ms=0))
    assert main(["bench", "compare", a, b]) == 0


def test_what_makes_ratios_doubtful_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def with_gpu(name: str, gpu: str) -> str:
        return file(tmp_path, name, speed(), environment={"gpus": [{"name": gpu}], "versions": {"torch": gpu}})

    assert main(["bench", "compare", with_gpu("a.json", "H200"), with_gpu("b.json", "H100")]) == 0
    out = capsys.readouterr().out
    assert "differs: device: H200 and H100" in out
    assert "differs: torch: H200 and H100" in out


def test_bad_input_is_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = file(tmp_path, "a.json", speed())
    text = tmp_path / "text.json"
    text.write_text("not json")
    cases = (
        ([good, str(tmp_path / "none.json")], "No such file"),
        ([good, str(text)], "is no JSON"),
        ([good, file(tmp_path, "k.json", speed(), kind="kernels")], "kinds differ"),
        ([good, file(tmp_path, "o.json", speed(mode="base"))], "nothing to compare"),
        ([good, file(tmp_path, "e.json")], "is no result file"),
        ([good, good, "--tolerance", "3"], "--tolerance must be 0 to 1"),
    )
    for arguments, message in cases:
        assert main(["bench", "compare", *arguments]) == 2, message
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_compare_with_themselves(path: Path) -> None:
    document = compare.load(path)
    if document["kind"] in {"tests", "demo_voice"}:  # counts and error rates: no timing, no verdict a row
        with pytest.raises(InputError, match="nothing to compare"):
            compare.compare(document, copy.deepcopy(document))
        return
    found = compare.compare(document, copy.deepcopy(document))
    assert not found.regressions
    assert not found.only_before
    assert all(change.ratio == 1 for change in found.changes)
    assert found.changes or any("passed" in row for row in document["results"])
