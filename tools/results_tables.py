"""Write the tables and charts of the README and docs/results, in English and Korean, from the JSON under bench/results.

    python tools/results_tables.py           rewrite
    python tools/results_tables.py --check   exit code 1 if a file differs from what its JSON says

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. A page whose name ends in `_ko` or `.ko` gets Korean
words; a text that has no translation is an error, never left in English.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # as it is when this runs as a script
import kernel_tables
import modes_chart
import speed_tables
import turbo_tables
import verify_tables
from table_cells import KOREAN as SHARED
from table_cells import NOT_YET, Say, Table, device, in_english, source

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES = ("README.md", "README_ko.md", "docs/results.md", "docs/results.ko.md")
CHARTS = {"docs/charts/modes.svg": "en", "docs/charts/modes.ko.svg": "ko"}
BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.S)

KOREAN = {
    **SHARED,
    "weights": "가중치",
    "Figures": "수치",
    **speed_tables.KOREAN,
    **kernel_tables.KOREAN,
    **modes_chart.KOREAN,
    **turbo_tables.KOREAN,
    **verify_tables.KOREAN,
}


def in_korean(text: str) -> str:
    if text not in KOREAN:
        raise SystemExit(f"no Korean for {text!r}: add it to KOREAN of the table's file in tools")
    return KOREAN[text]


SAY: dict[str, Say] = {"en": in_english, "ko": in_korean}


def language_of(page: str) -> str:
    """`ko` for README_ko.md and docs/results.ko.md."""
    return "ko" if Path(page).stem.endswith(("_ko", ".ko")) else "en"


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if not document.get("results"):
        raise SystemExit(f"bench/results/{name}.json holds no results")
    return document


def there_is(name: str) -> bool:
    """Whether that result is committed; tables of others say that nothing was measured yet."""
    return (RESULTS / f"{name}.json").is_file()


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def stamps(documents: dict[str, dict[str, Any]], say: Say) -> str:
    """Where figures are from: a line for each device, day and versions, with its files."""
    files: dict[str, list[str]] = {}
    for name, document in documents.items():
        weights = f"; {document['checkpoint']} {say('weights')}" if "checkpoint" in document else ""
        files.setdefault(f"{device(document, say)}, {source(document)}{weights}", []).append(name)
    return "".join(
        f"\n{where}. {say('Figures')}: {', '.join(f'`bench/results/{name}.json`' for name in names)}.\n"
        for where, names in files.items()
    )


def table(
    *names: str, build: Callable[[dict[str, Any], Say], Table], part: str = "", needed: bool = False
) -> Callable[[Say], str]:
    """The table that `build` makes of result files, or that nothing was measured yet.

    Args:
        names: runs of one benchmark, for one table together, or in which `part` is looked for in this order; unless
            they are `needed`, some or all may be missing.
        build: document and language to head, rows and note.
        part: the part of a file that has to be there.
        needed: a missing file is an error.
    """

    def written(say: Say = in_english) -> str:
        documents = {name: load(name) for name in names if needed or there_is(name)}
        if part:
            has = [name for name in documents if any(row["part"] == part for row in documents[name]["results"])]
            documents = {name: documents[name] for name in has[:1]}
        if not documents:
            return f"{say(NOT_YET)}\n"
        first = next(iter(documents.values()))
        document = first if len(documents) == 1 else speed_tables.joined(list(documents.values()))
        head, rows, note = build(document, say)
        taken = {id(row) for row in document["results"]}
        used = {name: each for name, each in documents.items() if any(id(row) in taken for row in each["results"])}
        return markdown(head, rows) + (f"\n{note}\n" if note else "") + stamps(used, say)

    return written


TURBO = ("turbo-cases", "turbo", "turbo-rest")
MODES = ("speed-batch-1", "speed-batch-1-bf16")
BATCHES = ("speed-batch-1", "speed-batch-8", "speed-batch-32", "speed-batch-32-30s")


def five_seconds() -> dict[str, Any]:
    """The 5 s utterance in every mode: times from the runs of all cases, memory from the one of each mode alone."""
    return speed_tables.with_memory(speed_tables.joined([load(name) for name in MODES]), load("speed"))


def modes(say: Say = in_english) -> str:
    """README's table."""
    head, rows, note = speed_tables.modes(five_seconds(), say)
    return markdown(head, rows) + f"\n{note}\n" + stamps({name: load(name) for name in (*MODES, "speed")}, say)


def grid(dtype: str, suffix: str = "") -> Callable[[Say], str]:
    """Times real time in batches."""
    return table(*(f"{name}{suffix}" for name in BATCHES), build=partial(speed_tables.grid, dtype=dtype))


TABLES: dict[str, Callable[[Say], str]] = {
    "modes": modes,
    "cases": table("speed-batch-1", build=speed_tables.cases),
    "batch": table(*BATCHES[:3], build=speed_tables.batch),
    "grid": grid("fp16"),
    "grid-bf16": grid("bf16", "-bf16"),
    "peers": table("peers", build=speed_tables.peers),
    "kernels": table("kernels", build=kernel_tables.kernels, needed=True),
    "verify": table("verify", build=verify_tables.tiers),
    "verify-kernels": table("verify", build=verify_tables.kernels),
    "parity": table("verify", build=verify_tables.parity),
    "speech": table("verify", build=verify_tables.speech),
    "turbo-cases": table(*TURBO, build=turbo_tables.cases, part="cases"),
    "turbo-floors": table(*TURBO, build=turbo_tables.floors, part="cases"),
    "turbo-throughput": table(*TURBO, build=turbo_tables.throughput, part="throughput"),
    "turbo-lengths": table(*TURBO, build=turbo_tables.lengths, part="lengths"),
    "turbo-startup": table(*TURBO, build=turbo_tables.startup, part="startup"),
    "turbo-memory": table(*TURBO, build=turbo_tables.memory, part="memory"),
    "turbo-options": table(*TURBO, build=turbo_tables.options, part="options"),
}


def chart(say: Say = in_english) -> str:
    """The chart of modes."""
    return modes_chart.chart(load("speed-batch-1"), say)


def render(page: str) -> str:
    """What a page or chart should hold."""
    if page in CHARTS:
        return chart(SAY[CHARTS[page]])
    text = (ROOT / page).read_text(encoding="utf-8")
    say = SAY[language_of(page)]
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m['name']](say)}{m[3]}", text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    stale = []
    for page in (*PAGES, *CHARTS):
        wanted, path = render(page), ROOT / page
        if not path.exists() or wanted != path.read_text(encoding="utf-8"):
            stale.append(page)
            if not options.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(wanted, encoding="utf-8")
    if stale:
        print(("differs from its JSON: " if options.check else "rewrote ") + ", ".join(stale))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
