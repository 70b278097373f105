"""A finished demo voice gets into the package whole, and the model card says what its JSON says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tools.demo_voice import figures, package
from tools.demo_voice import judge as training

from omnivoice_triton.checkpoint import LAYOUT, demo, make_checkpoint, resolve_model
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify.judge import Judge


def cer(value: float) -> dict[str, float]:
    return {"cer": value, "speed_x": 100 * value, "audio_s": 1.0, "time_s": 1.0}


def evaluation(device: str, sentences: int = 120, **extra: Any) -> dict[str, Any]:
    voice = {code: {"32": cer(0.01 * n), "16": cer(0.02 * n)} for n, code in enumerate(figures.LANGUAGES, 1)}
    run = {
        "device": device, "dtype": "fp32", "threads": 2, "batch": 1, "steps": [32, 16], "voice": {"base": voice},
        "teachers": {code: {"sentences": sentences, "espeak": 0.011, "codec": 0.022} for code in figures.LANGUAGES},
        **extra,
    }  # fmt: skip
    return {"kind": "demo_voice", "environment": {"os": device}, "checkpoint": "trained-demo", "results": [run]}


JUDGED = {
    "design": {"trials": 40, "right": 0.975, "high_hz": 201.4, "low_hz": None},
    "cloning": {"trials": 42, "right": 0.85, "espeak_right": 0.99, "chance": 0.125},
}
READ = {
    "trials": {"mode": "turbo", "steps": 16},
    "joined": {"trials": 40, "cer": {"en": 0.43, "ko": 0.6, "zh": 0.57}},
    "design": {
        "trials": 40, "right": 0.95, "high_hz": 250.0, "low_hz": 82.2,
        "cer": {"female, high pitch": {"en": 0.02, "ko": 0.13, "zh": 0.0}},
    },
    "cloning": {**JUDGED["cloning"], "cer": {"ko": {"en": 0.3, "ko": 0.2, "zh": 0.4}}},
}  # fmt: skip
"""The same where the judge has read what was said."""


def comparison(mode: float) -> dict[str, Any]:
    return {"mode": mode, "difference": 0.001, "low": -0.002, "high": 0.004, "utterances": 56}


REPORT = {
    "kind": "verify",
    "device": "cuda",
    "results": [
        {
            "tier": 3,
            "rows": [
                {"mode": "base", "dtype": "float16", "comparisons": {}, "passed": True},
                {
                    "mode": "turbo",
                    "dtype": "float16",
                    "comparisons": {"cer": comparison(0.043), "tokens_equal": comparison(0.981)},
                    "passed": False,
                },
            ],
        }
    ],
}


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and results of one's own."""
    page = tmp_path / "card.md"
    blocks = "\n".join(f"<!-- figures: {name} -->\nold\n<!-- end -->" for name in ("quality", "modes"))
    page.write_text(f"before\n{blocks}\nafter\n")
    monkeypatch.setattr(figures, "PAGE", page)
    monkeypatch.setattr(figures, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(figures, "MODES", tmp_path / "modes.json")
    monkeypatch.setattr(figures, "MODES_CPU", tmp_path / "modes_cpu.json")
    monkeypatch.setattr(figures, "PICTURE", tmp_path / "picture.png")
    monkeypatch.setattr(figures, "CURVES", tmp_path / "lines.png")
    return page


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_the_committed_card_says_what_its_json_says() -> None:
    page = figures.PAGE.read_text(encoding="utf-8")
    assert figures.render(page) == page, "stale: python -m tools.demo_voice.figures"
    assert figures.main(["--check"]) == 0


def test_a_card_without_figures_says_so(card: Path) -> None:
    assert figures.main([]) == 0
    assert card.read_text().count("Not measured yet.") == 2


def test_a_card_is_written_from_runs_of_several_machines(card: Path, tmp_path: Path) -> None:
    gpu = write(tmp_path / "gpu.json", evaluation("cuda", **JUDGED))
    cpu = write(tmp_path / "cpu.json", evaluation("cpu", sentences=10))
    report = write(tmp_path / "report.json", REPORT)
    (tmp_path / "drawn.png").write_bytes(b"png")
    assert figures.main([str(gpu), str(cpu), "--verify", str(report), "--picture", str(tmp_path / "drawn.png")]) == 0
    text = card.read_text()
    for line in (
        "Character error rate on 120 held-out sentences a language:",
        "| espeak-ng itself | 1.1 % | 1.1 % | 1.1 % |",
        "| demo voice, 32 steps, base, fp32, GPU | 1.0 % | 2.0 % | 3.0 % |",
        "| demo voice, 16 steps, base, fp32, CPU, 10 sentences | 2.0 % | 4.0 % | 6.0 % |",
        "| 16 steps, base, 2 threads, 10 sentences one at a time | 2.00x | 4.00x | 6.00x |",
        '- **Design**: "female, high pitch" is higher than "male, low pitch" in 97.5 % of',
        "  40 trials (medians 201 Hz and unvoiced).",
        "| turbo | GPU | float16 | 56 | 4.3 % | +0.10 [-0.20, +0.40] | 98.1 % | – | FAIL |",
        "![Spectrograms of espeak-ng, its codec and the demo voice](images/picture.png)",
    ):
        assert line in text.splitlines(), line
    assert "other voices" not in text
    assert [run["environment"]["os"] for run in json.loads(figures.RESULT.read_text())["results"]] == ["cuda", "cpu"]
    assert figures.main(["--check"]) == 0

    changed = json.loads(figures.RESULT.read_text())
    changed["results"][0]["voice"]["base"]["ko"]["32"]["cer"] *= 2
    write(figures.RESULT, changed)
    assert figures.main(["--check"]) == 1


def test_other_voices_are_shown_as_the_judge_read_them(card: Path, tmp_path: Path) -> None:
    gpu = write(tmp_path / "gpu.json", evaluation("cuda", **JUDGED))
    cpu = write(tmp_path / "cpu.json", evaluation("cpu", sentences=10, **READ))
    (tmp_path / "drawn.png").write_bytes(b"curves")
    assert figures.main([str(gpu), str(cpu), "--curves", str(tmp_path / "drawn.png")]) == 0
    assert figures.CURVES.read_bytes() == b"curves"
    lines = card.read_text().splitlines()
    for line in (
        "Character error rate in other voices than the default one (16 steps, turbo, fp32, CPU):",
        '| "female, high pitch" | 2.0 % | 13.0 % | 0.0 % |',
        "| cloned, reference in Korean | 30.0 % | 20.0 % | 40.0 % |",
        "- **Two sentences in one text** (40 pairs): "
        "English 43.0 %, Korean 60.0 %, Chinese 57.0 % of the characters wrong.",
        "  40 trials (medians 250 Hz and 82 Hz).",
        "| 16 steps, base, 2 threads, 10 sentences one at a time | 2.00x | 4.00x | 6.00x |",
    ):
        assert line in lines, line
    speed = write(tmp_path / "speed.json", evaluation("cpu", sentences=20))
    assert figures.main([str(gpu), str(cpu), str(speed)]) == 0
    assert "10 sentences one at a time" not in card.read_text()
    assert "20 sentences one at a time" in card.read_text()
    assert figures.main(["--curves", str(tmp_path / "none.png")]) == 2


@pytest.mark.parametrize("cloned", [[], [{"sentences_in": "ko", "text": "a", "cer": 0.0}]])
def test_the_card_says_where_clones_had_a_foreign_reference(
    card: Path, tmp_path: Path, cloned: list[dict[str, Any]]
) -> None:
    tier = {**REPORT["results"][0], "details": {"cloned": cloned}}  # type: ignore[dict-item]
    report = write(tmp_path / "report.json", {**REPORT, "results": [tier]})
    assert figures.main(["--verify", str(report)]) == 0
    assert ("one English reference" in card.read_text()) is not bool(cloned)


def report(dtype: str, short: str, *, passed: bool = True, commit: str = "abc", device: str = "cuda") -> dict[str, Any]:
    """Tiers 2 and 3 in one dtype."""
    shared = {"passed": passed, "checks": 1, "failed": int(not passed), "seconds": 2.0, "problems": [], "notes": ["n"]}
    spoken = {"cer": comparison(0.05), "tokens_equal": comparison(0.9)}
    return {
        "kind": "verify",
        "passed": passed,
        "device": device,
        "environment": {"commit": commit},
        "results": [
            {**shared, "tier": 2, "rows": [{"mode": "turbo", "dtype": short, "choices_agree": 0.9995}]},
            {**shared, "tier": 3, "rows": [{"mode": "turbo", "dtype": dtype, "comparisons": spoken, "passed": passed}]},
        ],
    }


def test_reports_of_two_dtypes_are_joined(card: Path, tmp_path: Path) -> None:
    half = write(tmp_path / "half.json", report("float16", "fp16"))
    brain = write(tmp_path / "brain.json", report("bfloat16", "bf16", passed=False))
    assert figures.main(["--verify", str(half), str(brain)]) == 0
    lines = card.read_text().splitlines()
    assert "| turbo | GPU | float16 | 56 | 5.0 % | +0.10 [-0.20, +0.40] | 90.0 % | 100.0 % | pass |" in lines
    assert "| turbo | GPU | bfloat16 | 56 | 5.0 % | +0.10 [-0.20, +0.40] | 90.0 % | 100.0 % | FAIL |" in lines
    on_cpu = write(tmp_path / "cpu.json", report("float32", "fp32", device="cpu", commit="def"))
    assert figures.main(["--verify", str(on_cpu)]) == 0
    lines = card.read_text().splitlines()
    assert "| turbo | CPU | float32 | 56 | 5.0 % | +0.10 [-0.20, +0.40] | 90.0 % | 100.0 % | pass |" in lines
    assert sum(line.startswith("| turbo |") for line in lines) == 3
    kept = json.loads(figures.MODES.read_text())
    assert kept["passed"] is False
    assert [(t["checks"], t["failed"], t["seconds"], t["notes"]) for t in kept["results"]] == [(2, 1, 4.0, ["n"])] * 2


@pytest.mark.parametrize(
    "other",
    [
        report("bfloat16", "bf16", commit="def"),
        report("float32", "fp32", device="cpu"),
        {**REPORT, "environment": {}},
    ],
)
def test_reports_that_do_not_belong_together_are_refused(card: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    half = write(tmp_path / "half.json", report("float16", "fp16"))
    assert figures.main(["--verify", str(half), str(write(tmp_path / "other.json", other))]) == 2
    assert not figures.MODES.exists()


@pytest.mark.parametrize(
    "document", [{"kind": "speed", "results": []}, evaluation("cpu", voice={}), {"kind": "verify", "results": []}]
)
def test_what_is_no_evaluation_is_refused(card: Path, tmp_path: Path, document: Any) -> None:
    path = str(write(tmp_path / "x.json", document))
    before = card.read_text()
    assert figures.main([path]) == 2
    assert figures.main(["--verify", path]) == 2
    assert card.read_text() == before


def test_empty_results_and_lost_blocks_are_refused(card: Path) -> None:
    write(figures.RESULT, {"kind": "demo_voice", "results": []})
    with pytest.raises(InputError, match="holds no results"):
        figures.render(card.read_text())
    figures.RESULT.unlink()
    with pytest.raises(InputError, match="are wanted"):
        figures.render(card.read_text().replace("figures: modes", "figures: others"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training directory with the tiny model in the voice's place."""
    directory = tmp_path / "run"
    checkpoint = make_checkpoint(directory / "checkpoint", "tiny", seed=0)
    config = json.loads((checkpoint / "config.json").read_text())
    write(checkpoint / "config.json", config | {"omnivoice_triton": {"size": "demo", "weights": "trained"}})
    write(checkpoint / "sentences.json", [{"language": c, "text": "a"} for c in ("en", "ko", "zh") for _ in range(120)])
    with torch.random.fork_rng(devices=[]):
        training.save_judge(Judge(training.symbols_of(["abc"]), width=16), directory / "judge")
    (checkpoint / "optimizer.state").write_bytes(b"not for users")
    return directory


def test_a_run_is_packaged_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "demo").mkdir(parents=True)
    (data / "demo" / "stale.json").write_text("{}")
    monkeypatch.setattr(demo, "DATA", data)
    monkeypatch.setattr(package, "DATA", data)
    assert package.main([str(run), "--figures", str(write(tmp_path / "e.json", evaluation("cpu")))]) == 0
    files = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert files == {f"demo/{name}" for name in (*LAYOUT, "sentences.json")} | {
        "judge/judge.json", "judge/judge.safetensors",
    }  # fmt: skip
    assert resolve_model("demo") == data / "demo"
    assert demo.packaged_judge() == data / "judge"
    assert "32 steps, base, fp32, CPU" in card.read_text()
    assert "MB" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["large", "few", "other", "judge", "weights"])
def test_what_is_not_fit_is_not_packaged(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    monkeypatch.setattr(package, "DATA", tmp_path / "data")
    checkpoint = run / "checkpoint"
    if fault == "large":
        monkeypatch.setattr(package, "CODEC_BYTES", 1000)
    elif fault == "few":
        write(checkpoint / "sentences.json", [{"language": "en", "text": "a"}] * 360)
    elif fault == "other":
        config = json.loads((checkpoint / "config.json").read_text())
        write(checkpoint / "config.json", {k: v for k, v in config.items() if k != "omnivoice_triton"})
    elif fault == "judge":
        (run / "judge" / "judge.json").unlink()
    else:
        (checkpoint / "model.safetensors").unlink()
    assert package.main([str(run)]) == 2
    message = capsys.readouterr().err
    assert {"large": "the codec takes", "few": "at least 100 a language", "other": "no demo voice",
            "judge": "lacks judge.json", "weights": "lacks model.safetensors"}[fault] in message  # fmt: skip
    assert not (tmp_path / "data").exists()
