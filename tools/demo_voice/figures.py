"""The model card's figures: `python -m tools.demo_voice.figures [EVALUATION.json ...] [--verify REPORT.json ...]`.

Evaluations (of a GPU and of a CPU, say) become bench/results/demo_voice.json, reports of verify's tiers 2 and 3 (one a
dtype, say) become bench/results/demo_voice_modes.json, those of a CPU demo_voice_modes_cpu.json, and what
docs/demo_voice.md says between `<!-- figures: NAME -->` and `<!-- end -->` is written from them. Without arguments only
the page is written; --check writes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.speech import InputError, OmniVoiceTritonError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "demo_voice.md"
RESULT = ROOT / "bench" / "results" / "demo_voice.json"
MODES = ROOT / "bench" / "results" / "demo_voice_modes.json"
MODES_CPU = ROOT / "bench" / "results" / "demo_voice_modes_cpu.json"
PICTURE = ROOT / "docs" / "images" / "demo-voice.png"
CURVES = ROOT / "docs" / "images" / "demo-voice-curves.png"
BLOCK = re.compile(r"(<!-- figures: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.S)
SHORT = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
LANGUAGES = {"en": "English", "ko": "Korean", "zh": "Chinese"}

Document = dict[str, Any]


def collect(
    evaluations: Sequence[Path], reports: Sequence[Path], picture: Path | None = None, curves: Path | None = None
) -> None:
    """Write the committed JSON from what was measured, then the page."""
    if evaluations:
        RESULT.write_text(_dump(merged([_read(path) for path in evaluations])), encoding="utf-8")
    if reports:
        report = joined(reports)
        place = MODES_CPU if report["device"] == "cpu" else MODES
        place.write_text(_dump(report), encoding="utf-8")
    for drawn, place in ((picture, PICTURE), (curves, CURVES)):
        if drawn is None:
            continue
        if not drawn.is_file():
            raise InputError(f"no picture {drawn}")
        shutil.copyfile(drawn, place)
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def merged(documents: Sequence[Document]) -> Document:
    """Several evaluations as one document; each keeps its own environment.

    Raises:
        InputError: one is no evaluation of a voice.
    """
    runs = []
    for document in documents:
        if document.get("kind") != "demo_voice" or not all(run.get("voice") for run in document["results"]):
            raise InputError("an evaluation of a voice is wanted: --codec-only has none")
        runs += [{**run, "environment": run.get("environment", document["environment"])} for run in document["results"]]
    return {**documents[0], "results": runs}


def joined(reports: Sequence[Path]) -> Document:
    """Several reports of the same tiers as one: rows one after the other, seconds summed.

    Raises:
        InputError: one has no tier 3, or they are of different tiers or of different code.
    """
    documents = [_read(path) for path in reports]
    for path, document in zip(reports, documents, strict=True):
        if document.get("kind") != "verify" or not _tier(document, 3):
            raise InputError(f"{path} is no report of verify's tier 3")
    first, *others = documents
    for path, other in zip(reports[1:], others, strict=True):
        if [t["tier"] for t in other["results"]] != [t["tier"] for t in first["results"]]:
            raise InputError(f"{path} is of other tiers than {reports[0]}")
        if other["environment"].get("commit") != first["environment"].get("commit"):
            raise InputError(f"{path} is of another commit than {reports[0]}")
        if other["device"] != first["device"]:
            raise InputError(f"{path} is of another device than {reports[0]}")
        first["passed"] = first["passed"] and other["passed"]
        for mine, theirs in zip(first["results"], other["results"], strict=True):
            mine["passed"] = mine["passed"] and theirs["passed"]
            for count in ("checks", "failed", "seconds"):
                mine[count] += theirs[count]
            mine["rows"] += theirs["rows"]
            mine["problems"] += theirs["problems"]
            mine["notes"] += [note for note in theirs["notes"] if note not in mine["notes"]]
    return first


def render(page: str) -> str:
    """The page with every block as its JSON says."""
    result = RESULT
    runs = _read(result)["results"] if result.is_file() else None
    if runs is not None and not runs:
        raise InputError(f"{result} holds no results")
    reports = [_read(modes) for modes in (MODES, MODES_CPU) if modes.is_file()]
    blocks: dict[str, Callable[[], str]] = {
        "quality": lambda: quality(runs) if runs else "Not measured yet.\n",
        "modes": lambda: modes_table(reports) if reports else "Not measured yet.\n",
    }
    seen = {match["name"] for match in BLOCK.finditer(page)}
    if seen != set(blocks):
        raise InputError(f"{PAGE.name} has the blocks {sorted(seen)}: {sorted(blocks)} are wanted")
    return BLOCK.sub(lambda match: match[1] + blocks[match["name"]]() + match[3], page)


def quality(runs: Sequence[Document]) -> str:
    """Error rates, speed, design and cloning."""
    first = runs[0]
    counts = {first["teachers"][code]["sentences"] for code in LANGUAGES}
    lines = [f"Character error rate on {'/'.join(map(str, sorted(counts)))} held-out sentences a language:", ""]
    lines += _table(["", *LANGUAGES.values()])
    for name, label in (("espeak", "espeak-ng itself"), ("codec", "espeak-ng through the codec")):
        lines.append(_row(label, [_percent(first["teachers"][code][name]) for code in LANGUAGES]))
    for run in runs:
        some = {run["teachers"][code]["sentences"] for code in LANGUAGES}
        fewer = "" if some == counts else f", {'/'.join(map(str, sorted(some)))} sentences"
        for mode, languages in run["voice"].items():
            for steps in map(str, run["steps"]):
                label = f"demo voice, {steps} steps, {mode}, {run['dtype']}, {_machine(run)}{fewer}"
                lines.append(_row(label, [_percent(languages[code][steps]["cer"]) for code in LANGUAGES]))
    # Speeds are of runs made for them, with --trials 0, where there is one: the others may share their machine.
    slow = [run for run in runs if run["device"] == "cpu"]
    slow = [run for run in slow if "design" not in run] or slow
    slow = [run for run in slow if run["batch"] == 1] or slow
    if slow:
        lines += ["", "Times real time on a CPU (seconds of speech to a second of work):", ""]
        lines += _table(["", *LANGUAGES.values()])
        for run in slow:
            for mode, languages in run["voice"].items():
                for steps in map(str, run["steps"]):
                    count = "/".join(map(str, sorted({row["sentences"] for row in run["teachers"].values()})))
                    at_once = f"{run['batch']} at once" if run["batch"] > 1 else "one at a time"
                    label = f"{steps} steps, {mode}, {run['threads']} threads, {count} sentences {at_once}"
                    lines.append(_row(label, [f"{languages[code][steps]['speed_x']:.2f}x" for code in LANGUAGES]))
    # A run whose other voices the judge has read says more than one that knows their pitch and speaker alone.
    judged = sorted((run for run in runs if "design" in run), key=lambda run: "cer" not in run["design"])[:1]
    for run in judged:
        design, cloning = run["design"], run["cloning"]
        if "cer" in design:
            how = f"{run['trials']['steps']} steps, {run['trials']['mode']}, {run['dtype']}, {_machine(run)}"
            lines += ["", f"Character error rate in other voices than the default one ({how}):", ""]
            lines += _table(["", *LANGUAGES.values()])
            rows = {f'"{name}"': rates for name, rates in design["cer"].items()}
            rows |= {f"cloned, reference in {LANGUAGES[of]}": rates for of, rates in cloning["cer"].items()}
            lines += [_row(name, [_percent(rates[code]) for code in LANGUAGES]) for name, rates in rows.items()]
        if "joined" in run:
            count, rates = run["joined"]["trials"], run["joined"]["cer"]
            said = ", ".join(f"{LANGUAGES[code]} {_percent(rate)}" for code, rate in rates.items())
            lines += ["", f"- **Two sentences in one text** ({count} pairs): {said} of the characters wrong."]
        lines += [
            *([] if "joined" in run else [""]),
            f'- **Design**: "female, high pitch" is higher than "male, low pitch" in {_percent(design["right"])} of',
            f"  {design['trials']} trials (medians {_hz(design['high_hz'])} and {_hz(design['low_hz'])}).",
            f"- **Cloning**: of eight speakers the nearest is the reference's in {_percent(cloning['right'])} of",
            f"  {cloning['trials']} trials (espeak-ng's own recordings: {_percent(cloning['espeak_right'])}; "
            f"chance: {_percent(cloning['chance'])}).",
        ]
    if PICTURE.is_file():
        lines += ["", f"![Spectrograms of espeak-ng, its codec and the demo voice](images/{PICTURE.name})"]
    return "\n".join(lines) + "\n"


ONE_REFERENCE = """\
These were measured when every clone had one English reference, whatever its language, and nearly half of the utterances
are clones: cloning across languages was never trained, and makes the error rates of all modes, base's too, as high as
they are. What stands is the difference.
"""


def modes_table(reports: Sequence[Document]) -> str:
    """Each mode beside base: error rate and tokens."""
    lines = ["Each mode beside base, same texts and seeds, 95 % intervals of the difference:", ""]
    if not all(_tier(report, 3).get("details", {}).get("cloned") for report in reports):
        lines = [ONE_REFERENCE, *lines]
    heads = ["mode", "device", "dtype", "utterances", "CER", "CER less base's, points", "tokens of fp32 base"]
    lines += _table([*heads, "choices, forced", "verdict"])
    for report in reports:
        forced = {(row["mode"], row["dtype"]): row["choices_agree"] for row in _tier(report, 2).get("rows", [])}
        for row in _tier(report, 3)["rows"]:
            found = row["comparisons"]
            cer, tokens = found.get("cer"), found.get("tokens_equal")
            if tokens is None or cer is None:  # base itself
                continue
            change = f"{100 * cer['difference']:+.2f} [{100 * cer['low']:+.2f}, {100 * cer['high']:+.2f}]"
            cells = [_machine(report), row["dtype"], str(cer["utterances"]), _percent(cer["mode"]), change]
            agree = forced.get((row["mode"], SHORT.get(row["dtype"], row["dtype"])))
            cells += [_percent(tokens["mode"]), "–" if agree is None else _percent(agree)]
            lines.append(_row(row["mode"], [*cells, "pass" if row["passed"] else "FAIL"]))
    return "\n".join(lines) + "\n"


def _tier(report: Document, number: int) -> Document:
    return next((tier for tier in report.get("results", []) if tier.get("tier") == number), {})


def _machine(run: Document) -> str:
    return "CPU" if run["device"] == "cpu" else "GPU"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _hz(value: float | None) -> str:
    return "unvoiced" if value is None else f"{value:.0f} Hz"


def _row(label: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([label, *cells]) + " |"


def _table(heads: Sequence[str]) -> list[str]:
    return [_row(heads[0], heads[1:]), "|" + "---|" * len(heads)]


def _read(path: Path) -> Document:
    try:
        document: Document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"can't read {path}: {error}") from error
    return document


def _dump(document: Document) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voice.figures", description=__doc__)
    parser.add_argument("evaluations", type=Path, nargs="*", metavar="JSON", help="what evaluate wrote")
    parser.add_argument(
        "--verify", type=Path, nargs="+", default=[], metavar="JSON", help="what `verify --tier 2,3 --json` wrote"
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="the spectrograms that evaluate drew")
    parser.add_argument("--curves", type=Path, metavar="PNG", help="the curves that train drew")
    parser.add_argument("--check", action="store_true", help="exit code 1 if the page differs from its JSON")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            page = PAGE.read_text(encoding="utf-8")
            return 0 if render(page) == page else 1
        collect(options.evaluations, options.verify, options.picture, options.curves)
    except OmniVoiceTritonError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
