"""Two runs of one benchmark beside each other: `omnivoice-triton bench compare A.json B.json`

Rows are matched by what they measured (kernel, shape, case, mode, dtype, …), and every timing with a median, p5 and p95
in both files is compared. B is slower where its p5 lies above A's p95 by more than the tolerance, faster where its p95
lies below A's p5; what lies between is noise. Of fewer than five runs nothing is said. A check that passed in A and
fails in B or is missing there is a regression too, and so is what B could not measure because it failed. What is
missing for another reason is counted and named, and is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnivoice_triton.bench.result_rows import Timing, failures, is_ours, load, repeated, rows_of, timings, verdict
from omnivoice_triton.commands import Parser, command
from omnivoice_triton.evidence import check_outputs
from omnivoice_triton.speech import InputError

YARDSTICKS = ("pytorch_us", "torch_compile_us", "liger_us")
"""Timings of other people's kernels: shown, but a slower one is no regression of ours."""
TOLERANCE = 0.02
SLOWER, FASTER, NOISE, TOO_FEW = "slower", "faster", "within noise", "of too few runs"


@dataclass(frozen=True)
class Change:
    """A timing in both files."""

    what: str
    metric: str
    before: Timing
    after: Timing
    verdict: str
    ours: bool = True
    """Whether it is of our own work: other people's is shown, but a slower one is no regression of ours."""

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
    """What fails now and did not before, in words: checks, rows that can't be measured any more, wrong kernels."""
    only_before: list[str]
    only_after: list[str]
    differences: list[str]
    """What else differs, and makes ratios doubtful: device, versions, weights."""
    timings_gone: list[str]
    """Timings of rows that are in both, which the second no longer has."""
    made_by: list[str]
    """What each file was made by: date, commit, and whether the sources had changes that it doesn't hold."""

    @property
    def regressions(self) -> list[str]:
        """What got worse, in words."""
        slower = [
            f"{c.what} {c.metric}: {c.ratio:.2f}x [{c.bounds[0]:.2f}, {c.bounds[1]:.2f}]"
            for c in self.changes
            if c.verdict == SLOWER and c.ours
        ]
        return slower + self.broken


def judge(before: Timing, after: Timing, tolerance: float = TOLERANCE) -> str:
    """Whether the two ranges lie apart, and which way; ranges of too few runs say neither."""
    if not (before.has_spread and after.has_spread):
        return TOO_FEW
    if after.p5 > before.p95 * (1 + tolerance):
        return SLOWER
    return FASTER if after.p95 < before.p5 / (1 + tolerance) else NOISE


def compare(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = TOLERANCE) -> Comparison:
    """Match rows and timings.

    Raises:
        InputError: files of different kinds, or with nothing in common.
    """
    if before["kind"] != after["kind"]:
        raise InputError(f"kinds differ: {before['kind']} and {after['kind']}; give two files of one benchmark")
    old, new = rows_of(before), rows_of(after)
    unclear = _unclear(before, after)
    failed_before = failures(before)
    failed_now = {name: why for name, why in failures(after).items() if name not in failed_before}
    tiers = {row.get("tier") for row in new.values()}
    changes, broken, gone, judged = [], [], [], 0
    for name, row in old.items():
        if name.partition(" #")[0] in unclear:
            continue
        was = verdict(row)
        if name not in new:
            of_a_tier = "tier" in row and "checks" not in row
            if was and not (of_a_tier and row["tier"] not in tiers):  # of a tier that is gone its own line is enough
                broken.append(f"{name}: passed before, missing now")
            continue
        ours, theirs = is_ours(row, before["kind"]), {m: t for m, t in timings(new[name]) if t.usable}
        for metric, timing in timings(row):
            if not timing.usable:
                continue
            if metric not in theirs:
                gone.append(f"{name} {metric}")
                continue
            said, own = judge(timing, theirs[metric], tolerance), ours and not metric.startswith(YARDSTICKS)
            changes.append(Change(name, metric, timing, theirs[metric], said, own))
        if was is not None:
            judged += 1
            if was and not verdict(new[name]) and name not in failed_now:
                broken.append(f"{name}: passed before, fails now")
    broken += [f"{name}: fails now: {why}" for name, why in sorted(failed_now.items())]
    if not changes and not judged and not broken:
        raise InputError(
            f"nothing to compare: no row of the {before['kind']} files is in both with a timing or verdict"
        )
    only_before, only_after = [n for n in old if n not in new], [n for n in new if n not in old]
    differences = _differences(before, after)
    differences += [f"rows called {name!r}: {a} and {b}, none of them compared" for name, (a, b) in unclear.items()]
    made_by = [f"{which}: {_origin(document)}" for which, document in (("first", before), ("second", after))]
    return Comparison(changes, broken, only_before, only_after, differences, gone, made_by)


def _unclear(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """How many rows of one name each file has, where they differ: nobody can say which of them belong together."""
    old, new = rows_of(before), rows_of(after)
    counts = [repeated(document) for document in (before, after)]
    return {
        name: (counts[0].get(name, 1), counts[1].get(name, 1))
        for name in sorted(set(counts[0]) | set(counts[1]))
        if counts[0][name] != counts[1][name] and name in old and name in new
    }


def _origin(document: Mapping[str, Any]) -> str:
    """Date and commit of a file's program, and what is known of changes to its sources since that commit."""
    environment = document.get("environment", {})
    when, commit = environment.get("date_utc", "date unknown"), environment.get("commit")
    if not commit:
        return f"{when}, commit unknown"
    dirty = environment.get("dirty")
    changes = "unknown" if dirty is None else "yes" if dirty else "no"
    return f"{when}, commit {str(commit)[:12]}, uncommitted changes: {changes}"


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
    yield from found.made_by
    for difference in found.differences:
        yield f"differs: {difference}"
    shown = [change for change in found.changes if every or change.verdict in (SLOWER, FASTER)]
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
    yield from found.broken
    for title, names in (
        ("rows of the first are missing in the second, and not compared", found.only_before),
        ("timings of rows that are in both are missing in the second", found.timings_gone),
        ("rows are in the second only", found.only_after),
    ):
        if names:
            yield f"{len(names)} {title}: {'; '.join(names[:5])}{' …' if len(names) > 5 else ''}"
    kinds = (SLOWER, FASTER, NOISE, TOO_FEW)
    counts = {kind: sum(c.verdict == kind for c in found.changes) for kind in kinds}
    if not counts[TOO_FEW]:
        del counts[TOO_FEW]
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
    if options.json is not None and options.json.resolve() in (options.before.resolve(), options.after.resolve()):
        raise InputError(f"--json {options.json} would overwrite what is compared: name another file")
    check_outputs(options.json)
    found = compare(load(options.before), load(options.after), options.tolerance)
    for line in lines(found, options.all):
        print(line)
    if options.json is not None:
        options.json.write_text(json.dumps(document(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if found.regressions else 0


if __name__ == "__main__":
    raise SystemExit(main())
