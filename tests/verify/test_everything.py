"""`omnivoice-triton verify`: one report of all tiers; its exit code is the verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.cli import main
from omnivoice_triton.config import MODES
from omnivoice_triton.kernels import engine_reference, swiglu
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import (
    everything,
    kernel_case,
    kernel_cases,
    model_figures,
    page,
    parity,
    report,
    terminal,
)
from omnivoice_triton.verify.outcome import Tier


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


@pytest.fixture
def short_grid(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """One dtype, one kernel: the whole grid has its own test."""
    grid = [c for c in kernel_cases.cases(kernel_case.CPU, device) if c.kernel == "triton_swiglu_forward"]
    monkeypatch.setattr(kernel_cases, "cases", lambda *_: grid)
    monkeypatch.setattr(kernel_case, "launchers", lambda: {"triton_swiglu_forward"})


QUICK = ["--modes", "base,turbo", "--steps", "4", "--sentences", "1", "--scorer", "none", "--progress", "none"]


def verify(tiny: Path, *extra: str, device: str = "cpu") -> int:
    return main(["verify", "--model", str(tiny), "--device", device, *QUICK, *extra])


class Page(HTMLParser):
    """Links, scripts and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href")]
        self.outside += [tag] if tag in ("script", "link", "img") else []
        self.rows += tag == "tr"


def test_all_tiers_pass(
    short_grid: None, tiny: Path, tmp_path: Path, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    as_json, as_html = tmp_path / "report.json", tmp_path / "report.html"
    assert verify(tiny, "--json", str(as_json), "--html", str(as_html), device=device) == 0
    document = json.loads(as_json.read_text())
    assert [tier["tier"] for tier in document["results"]] == [1, 2, 3]
    assert document["passed"] is True
    assert document["kind"] == "verify"
    assert document["checkpoint"] == "random-tiny"
    assert all(tier["checks"] > 0 and tier["thresholds"] for tier in document["results"])
    out = capsys.readouterr().out
    assert out.rstrip().endswith("PASS")
    assert "FAIL" not in out
    assert "not measured" in out
    html = as_html.read_text()
    seen = Page()
    seen.feed(html)
    assert seen.outside == []
    assert seen.rows > 8
    assert not re.search(r"https?://|@import|url\(", html)


def off_by_one_column(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda gate, up, **k: real(gate, up.roll(1, -1).contiguous(), **k)


@pytest.mark.parametrize("tier", ["1", "2", "3"])
def test_each_tier_fails_by_its_exit_code(
    short_grid: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, tier: str
) -> None:
    module, name = (swiglu, "triton_swiglu_forward") if tier == "1" else (engine_reference, "swiglu")
    monkeypatch.setattr(module, name, off_by_one_column(getattr(module, name)))
    out = tmp_path / "report.json"
    # The twins are the engine on a CPU only.
    assert verify(tiny, "--tier", tier, "--json", str(out), device=device if tier == "1" else "cpu") == 1
    document = json.loads(out.read_text())
    assert document["passed"] is False
    assert document["results"][0]["problems"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tier", "4"], "give 1, 2 or 3"),
        (["--tier", ""], "give 1, 2 or 3"),
        (["--modes", "fast"], "unknown mode 'fast'"),
        (["--modes", ","], "an empty list"),
        (["--modes", "hybrid"], "mode hybrid can't run here"),
        (["--dtypes", "fp8"], "unknown dtype 'fp8'"),
        (["--sentences", "17"], "--sentences must be 1 to 16"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--seconds", "0.1"], "--seconds must be 0.5 to 60"),
        (["--ref-text", "x"], "belong together"),
        (["--ref-text", "x", "--ref-audio", "nowhere.wav"], "no such file"),
        (["--recogniser", "dog"], "unknown recogniser"),
        (["--scorer", "dog"], "unknown scorer 'dog': give none, auto, utmos"),
        (["--model", "./nowhere"], "does not exist"),
        (["--seconds", "nan"], "--seconds must be 0.5 to 60"),
        (["smoke"], "--model stands before 'smoke' and would be lost: give it after that name"),
    ],
)
def test_bad_input_is_two(tiny: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert verify(tiny, *flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["verify"], "omnivoice-triton: error"),
        (["verify", "parity"], "verify.parity"),
        (["verify", "smoke"], "verify.smoke"),
        (["verify", "sanitize"], "verify.sanitize"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], name: str
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (str(tmp_path), "", str(file / "report.json")):
        assert main([*argv, "--json", path]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"{name}: can't ")
        assert err.count("\n") == 1
    assert sorted(tmp_path.parent.glob("*.part")) == []


def test_a_folder_for_the_report_is_made(short_grid: None, tiny: Path, tmp_path: Path, device: str) -> None:
    out = tmp_path / "new" / "page.html"
    assert verify(tiny, "--tier", "1", "--html", str(out), device=device) == 0
    assert out.is_file()
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("check", ["parity", "smoke", "sanitize"])
def test_a_bad_flag_of_a_check_is_one_line(capsys: pytest.CaptureFixture[str], check: str) -> None:
    assert main(["verify", check, "--fast"]) == 2
    err = capsys.readouterr().err
    assert "unrecognized arguments: --fast" in err
    assert f"see omnivoice-triton verify {check} --help" in err
    assert err.count("\n") == 1


def test_progress_as_json(short_grid: None, tiny: Path, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tiny, "--tier", "1", "--progress", "json", device=device) == 0
    marked = [x for x in capsys.readouterr().err.splitlines() if x.startswith(everything.PROGRESS_MARK)]
    lines = [json.loads(line.removeprefix(everything.PROGRESS_MARK)) for line in marked]
    assert len(lines) == lines[0]["total"] > 3
    assert [line["done"] for line in lines] == list(range(len(lines)))


def test_json_alone_on_standard_output(
    short_grid: None, tiny: Path, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(tiny, "--tier", "1", "--json", device=device) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_a_tier_of_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = report.make_report([Tier(1, "kernels", "nothing", {})], None, "cpu")
    assert document["passed"] is False
    terminal.show(document)
    out = capsys.readouterr().out
    assert "nothing was checked" in out
    assert out.rstrip().endswith("FAIL")
    page.write(document, tmp_path / "page.html")
    assert "nothing was checked" in (tmp_path / "page.html").read_text()
    with pytest.raises(InputError, match="nothing was measured"):
        report.make_report([], None, "cpu")


def test_a_mode_that_raises_fails_and_the_rest_is_reported(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any, **keywords: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(engine_reference, "swiglu", fails)
    as_json, as_html = tmp_path / "report.json", tmp_path / "report.html"
    assert verify(tiny, "--tier", "2,3", "--json", str(as_json), "--html", str(as_html)) == 1
    for tier in json.loads(as_json.read_text())["results"]:
        assert {row["mode"]: row["passed"] for row in tier["rows"]} == {"base": True, "turbo": False}
        assert tier["problems"] == ["turbo fp32: raised RuntimeError: out of memory"] or tier["problems"] == [
            "turbo float32: raised RuntimeError: out of memory"
        ]
    assert "out of memory" in as_html.read_text()
    assert "FAIL" in capsys.readouterr().out


def finished(tier: int) -> Tier:
    return Tier(tier, "kernels", "all", {}, rows=[{"name": "one", "passed": True, "problems": []}])


def test_a_tier_that_raises_does_not_take_the_others_with_it() -> None:
    def work(tier: int) -> Tier:
        if tier == 2:
            raise ValueError("no such layer")
        return finished(tier)

    done, interrupted = everything.run_each([1, 2, 3], work)
    assert [(tier.number, tier.passed) for tier in done] == [(1, True), (2, False), (3, True)]
    assert done[1].failures[0] == "raised ValueError: no such layer"
    assert not interrupted


def test_what_was_finished_before_ctrl_c_is_reported(
    short_grid: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    def stop(*args: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "run", stop)
    out = tmp_path / "report.json"
    assert verify(tiny, "--json", str(out), device=device) == 130
    document = json.loads(out.read_text())
    assert [tier["passed"] for tier in document["results"]] == [True, False, False]
    assert document["passed"] is False
    assert document["results"][1]["problems"][0] == "interrupted before it was done"
    out.unlink()
    assert verify(tiny, "--tier", "2", "--json", str(out), device=device) == 130
    assert not out.exists()  # there was nothing to keep


def test_what_was_finished_before_a_kill_is_in_the_file(
    short_grid: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """A signal that Python can't catch: what the file holds while tier 2 runs is what is left."""
    out = tmp_path / "report.json"
    seen: list[dict[str, Any]] = []

    def look(*args: Any, **keywords: Any) -> Tier:
        seen.append(json.loads(out.read_text()))
        return Tier(2, "model", "all", {})

    monkeypatch.setattr(parity, "run", look)
    verify(tiny, "--tier", "1,2", "--json", str(out), device=device)
    (killed,) = seen
    assert killed["passed"] is False
    assert [tier["passed"] for tier in killed["results"]] == [True, False]
    assert killed["results"][1]["problems"][0] == "the run ended before it was done"
    assert "the run ended before it was done" not in out.read_text()


def test_what_is_not_judged_or_left_open_is_said() -> None:
    figure = {"difference": 0.01, "low": -0.02, "high": 0.04}
    for given, shown in (("within", "]"), ("open", "] open"), ("worse", "] WORSE"), ("not judged", "] not judged")):
        assert report._comparison({**figure, "verdict": given}).endswith(shown)
    row = {
        **model_figures.nothing_of(MODES["hybrid_sage"], "x"),
        "dtype": "fp16",
        "logit_error_ratio": 3.0,
        "choices_agree": 0.9,
        "clear_choices": 10,
        "not_judged": list(model_figures.NOT_OF_INT8),
    }
    (table,) = report.tables({"results": [{**Tier(2, "m", "w", {}, rows=[row]).document(), "rows": [row]}]})[1:]
    assert "3.00x (not judged)" in table.rows[0]
    assert "90.000 % of 10 (not judged)" in table.rows[0]


def test_thresholds_are_in_every_report(capsys: pytest.CaptureFixture[str]) -> None:
    tier = Tier(1, "kernels", "all", {"error": {"float16": 0.002}, "rule": "equal"}, rows=[])
    document = report.make_report([tier], None, "cpu")
    terminal.show(document)
    assert "threshold: error: float16 0.002" in capsys.readouterr().out
    assert "error: float16 0.002" in page.render(document)


def test_html_escapes_what_it_is_given() -> None:
    tier = Tier(1, "kernels", "<script>alert(1)</script>", {}, problems=["<b>bad</b>"])
    html = page.render(report.make_report([tier], None, "cpu"))
    assert "<script>" not in html
    assert "&lt;b&gt;bad" in html
