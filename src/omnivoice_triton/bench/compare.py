"""Two runs of one benchmark beside each other: `omnivoice-triton bench compare A.json B.json`

Rows are matched by what they measured (kernel, shape, case, mode, dtype, …), and every timing with a median, p5 and p95
in both files is compared. B is slower where its p5 lies above A's p95 by more than the tolerance, faster where its p95
lies below A's p5; what lies between is noise. A check that passed in A and fails in B is a regression too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnivoice_triton.commands import Parser, command
from omnivoice_triton.evidence import check_outputs, read_json
from omnivoice_triton.speech import InputError

IDENTITY = (
    "part",
    "provider",
    "kernel",
    "case",
    "language",
    "voice",
    "mode",
    "variant",
    "dtype",
    "precision",
    "shape",
    "batch",
    "length_s",
    "bucket_rows",
    "steps",
    "tool",
    "planted",
    "tier",
    "name",
)
"""What a row is of, as far as it says so."""
YARDSTICKS = ("pytorch_us", "torch_compile_us", "liger_us")
"""Timings of other people's kernels: shown, but a slower one is no regression of ours."""
TOLERANCE = 0.02
SLOWER, FASTER, NOISE = "slower", "faster", "within noise"


@dataclass(frozen=True)
class Timing:
    """One timing of one row, in the unit of its file; lower is better."""

    median: float
    p5: float
    p95: float

    @property
    def usable(self) -> bool:
        """Whether ratios can be taken of it."""
        return all(math.isfinite(x) and x > 0 for x in (self.median, self.p5, self.p95))


@dataclass(frozen=True)
class Change:
    """A timing in both files."""

    what: str
    metric: str
    before: Timing
    after: Timing
    verdict: str

    @property
    def ratio(self) -> float:
        """Median after over median before: above 1 is slower."""
        return self.after.median / self.before.median

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest ratio that p5 and p95 leave room for."""
        return self.after.p5 / self.before.p95, self.after.p95 / self.before.p5


@dataclass(frozen=True)
class Comparison:
    """Everything that two files have to say of each other."""

    changes: list[Change]
    broken: list[str]
    """Checks that passed before and fail now, and kernels whose result is wrong now."""
    only_before: list[str]
    only_after: list[str]
    differences: list[str]
    """What else differs, and makes ratios doubtful: device, versions, weights."""

    @property
    def regressions(self) -> list[str]:
        """What got worse, in words."""
        slower = [
            f"{c.what} {c.metric}: {c.ratio:.2f}x [{c.bounds[0]:.2f}, {c.bounds[1]:.2f}]"
            for c in self.changes
            if c.verdict == SLOWER and not c.metric.startswith(YARDSTICKS)
        ]
        return slower + [f"{what}: passed before, fails now" for what in self.broken]


def load(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        InputError: it can't be read, or is none of ours.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not document.get("results") or "kind" not in document:
        raise InputError(f"{path} is no result file: wanted an object with kind and results")
    rows, environment = document["results"], document.get("environment", {})
    whole = isinstance(rows, dict) or (isinstance(rows, list) and all(isinstance(row, dict) for row in rows))
    gpus = environment.get("gpus", []) if isinstance(environment, dict) else None
    if not whole or not isinstance(gpus, list) or not all(isinstance(gpu, dict) for gpu in gpus):
        raise InputError(f"{path} is no result file: its results or its environment are of another shape")
    return document


def label(row: Mapping[str, Any]) -> str:
    """What a row is of, as one line."""
    parts = []
    for key in IDENTITY:
        value = row.get(key)
        if value is None or isinstance(value, list) or (key == "batch" and value == 1):
            continue  # one text a call is what a row that names no batch is of
        if isinstance(value, Mapping):
            parts.append(" ".join(f"{k}={_plain(v)}" for k, v in value.items()))
        else:
            parts.append(str(value) if isinstance(value, str) else f"{key}={value}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def timings(row: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Timing]]:
    """Every (name, timing) in a row, however deep; lists of rows are named by what they are of."""
    for median, p5, p95, unit in (("median_ms", "p5_ms", "p95_ms", "ms"), ("median", "p5", "p95", path)):
        if all(isinstance(row.get(key), int | float) for key in (median, p5, p95)):
            name = f"{path} {unit}".strip() if unit != path else path
            yield name, Timing(float(row[median]), float(row[p5]), float(row[p95]))
    for key, value in row.items():
        if isinstance(value, Mapping) and key not in IDENTITY:
            yield from timings(value, f"{path}.{key}".strip("."))
        elif isinstance(value, list):
            for entry in value:
                if isinstance(entry, Mapping) and label(entry):
                    yield from timings(entry, f"{path}.{key}[{label(entry)}]".strip("."))


def rows_of(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Rows by label; rows that say the same of themselves are numbered."""
    results = document["results"]
    if isinstance(results, Mapping):
        results = [{"name": name, "count": value} for name, value in results.items()]
    found: dict[str, Mapping[str, Any]] = {}
    for row in results:
        name, number = label(row) or "row", 1
        while name in found:
            number += 1
            name = f"{label(row) or 'row'} #{number}"
        found[name] = row
    return found


def judge(before: Timing, after: Timing, tolerance: float = TOLERANCE) -> str:
    """Whether the two ranges lie apart, and which way."""
    if after.p5 > before.p95 * (1 + tolerance):
        return SLOWER
    return FASTER if after.p95 < before.p5 / (1 + tolerance) else NOISE


def verdict(row: Mapping[str, Any]) -> bool | None:
    """Whether what a row checked is right, by the name that its benchmark has for it; None if it checked nothing."""
    for key in ("passed", "on_target"):
        if isinstance(row.get(key), bool):
            return bool(row[key])
    faults = [row[key] for key in ("problems", "failures", "error") if key in row]
    return not any(faults) if faults else None


def refused(document: Mapping[str, Any]) -> set[str]:
    """Rows that got no time because their result was wrong."""
    return {label(entry) for entry in document.get("not_measured", []) if entry.get("wrong")}


def compare(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = TOLERANCE) -> Comparison:
    """Match rows and timings.

    Raises:
        InputError: files of different kinds, or with nothing in common.
    """
    if before["kind"] != after["kind"]:
        raise InputError(f"kinds differ: {before['kind']} and {after['kind']}; give two files of one benchmark")
    old, new = rows_of(before), rows_of(after)
    common = [name for name in old if name in new]
    changes, broken, judged = [], [], 0
    for name in common:
        theirs = dict(timings(new[name]))
        for metric, timing in timings(old[name]):
            if metric in theirs and timing.usable and theirs[metric].usable:
                changes.append(Change(name, metric, timing, theirs[metric], judge(timing, theirs[metric], tolerance)))
        was = verdict(old[name])
        if was is not None:
            judged += 1
            if was and not verdict(new[name]):
                broken.append(name)
    if not changes and not judged:
        raise InputError(
            f"nothing to compare: no row of the {before['kind']} files is in both with a timing or verdict"
        )
    broken += sorted(refused(after) - refused(before))
    only_before, only_after = [n for n in old if n not in new], [n for n in new if n not in old]
    return Comparison(changes, broken, only_before, only_after, _differences(before, after))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What else differs between the runs."""

    def seen(document: Mapping[str, Any]) -> dict[str, Any]:
        environment = document.get("environment", {})
        gpus = environment.get("gpus") or [{}]
        facts = {"device": gpus[0].get("name", "no GPU"), "driver": gpus[0].get("driver")}
        facts["weights"] = document.get("checkpoint")
        facts |= {k: v for k, v in environment.get("versions", {}).items() if k != "omnivoice-triton"}
        return facts

    a, b = seen(before), seen(after)
    return [f"{key}: {a.get(key)} and {b.get(key)}" for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)]


def lines(found: Comparison, every: bool = False) -> Iterator[str]:
    """The comparison as text."""
    for difference in found.differences:
        yield f"differs: {difference}"
    shown = [change for change in found.changes if every or change.verdict != NOISE]
    if shown:
        width = min(70, max(len(f"{c.what} {c.metric}") for c in shown))
        yield f"{'':{width}}  {'before':>10} {'after':>10} {'ratio':>7}  {'bounds':>14}"
    for c in sorted(shown, key=lambda change: -change.ratio):
        low, high = c.bounds
        what = f"{c.what} {c.metric}"
        yield (
            f"{what:{width}}  {c.before.median:10.4g} {c.after.median:10.4g} {c.ratio:6.3f}x"
            f"  [{low:5.2f}, {high:5.2f}]  {c.verdict}"
        )
    for name in found.broken:
        yield f"{name}: passed before, fails now"
    for title, names in (("only in the first", found.only_before), ("only in the second", found.only_after)):
        if names:
            yield f"{len(names)} rows {title}: {'; '.join(names[:5])}{' …' if len(names) > 5 else ''}"
    counts = {verdict: sum(c.verdict == verdict for c in found.changes) for verdict in (SLOWER, FASTER, NOISE)}
    yield f"{len(found.changes)} timings: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items())


def document(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON values."""
    changes = [{**asdict(c), "ratio": c.ratio, "bounds": list(c.bounds)} for c in found.changes]
    return {**asdict(found), "changes": changes, "regressions": found.regressions}


@command("bench.compare")
def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print; exit code 1 if something got worse beyond noise, 2 if there is nothing to compare."""
    parser = Parser(prog="omnivoice-triton bench compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="how far apart the ranges of p5 to p95 have to lie (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="show what is within noise, too")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the comparison to this file")
    options = parser.parse_args(argv)
    if not 0 <= options.tolerance < 1:
        raise InputError(f"--tolerance must be 0 to 1, not {options.tolerance}")
    check_outputs(options.json)
    found = compare(load(options.before), load(options.after), options.tolerance)
    for line in lines(found, options.all):
        print(line)
    if options.json is not None:
        options.json.write_text(json.dumps(document(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if found.regressions else 0


if __name__ == "__main__":
    raise SystemExit(main())
