"""Third-party paths beside turbo, where the user has them: `python -m omnivoice_triton.bench.peers --json OUT`.

upstream-eager            `OmniVoice.generate`, untouched: the yardstick of all ratios
torch-compile             the same with `torch.compile` of the backbone's forward, default mode, static shapes
torch-compile-max         the same in mode `max-autotune`: two minutes of compiling a shape
upstream-flashinfer       upstream's own FlashInfer path, in versions of omnivoice that have one
upstream-flashinfer-graph the same with its CUDA graphs
omnivoice-triton-old      another omnivoice-triton, such as 0.1.0, from the folder that `--old-package` names
turbo                     ours

Same texts, same clock, taking turns in one process (an old package in a second one, which only works when it is asked).
A path that isn't there is listed under `not_available` with the reason, never with a number. Compiling takes a minute
or more a shape, so only the 5 s case runs unless `--cases` names more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from omnivoice_triton.bench import definitions
from omnivoice_triton.bench.harness import arguments, reference_voice
from omnivoice_triton.bench.peer_paths import NotHere, OldPackage, Upstream, compile_llm, flashinfer_change
from omnivoice_triton.bench.result_rows import few_runs
from omnivoice_triton.bench.speed import measure_cells
from omnivoice_triton.bench.speed_cases import FIVE_SECONDS, Budget, cells
from omnivoice_triton.bench.speed_journal import LeftOut
from omnivoice_triton.bench.turns import Row
from omnivoice_triton.commands import command, in_words, whole
from omnivoice_triton.evidence import check_outputs, default_model, need_gpu, write_json
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError

EAGER, COMPILE, COMPILE_MAX, FLASHINFER, GRAPH, OLD, TURBO = (
    "upstream-eager",
    "torch-compile",
    "torch-compile-max",
    "upstream-flashinfer",
    "upstream-flashinfer-graph",
    "omnivoice-triton-old",
    "turbo",
)
PATHS = (EAGER, COMPILE, COMPILE_MAX, FLASHINFER, GRAPH, OLD, TURBO)
Makers = Mapping[str, Callable[[], Any]]


def makers(path: Path, dtype: str, old_package: Path | None, old_mode: str) -> Makers:
    """Name to what loads that path; each may raise NotHere."""

    def old() -> Any:
        if old_package is None:
            raise NotHere("--old-package names no folder")
        return OldPackage(old_package, path, dtype, old_mode)

    def turbo() -> Any:
        runner = BaseRunner(device="cuda", model_id=path, dtype=dtype, mode="turbo")
        runner.load_model()
        return runner

    return {
        EAGER: lambda: Upstream(EAGER, path, dtype),
        COMPILE: lambda: Upstream(COMPILE, path, dtype, compile_llm),
        COMPILE_MAX: lambda: Upstream(COMPILE_MAX, path, dtype, partial(compile_llm, mode="max-autotune")),
        FLASHINFER: lambda: Upstream(FLASHINFER, path, dtype, flashinfer_change(dtype, graph=False)),
        GRAPH: lambda: Upstream(GRAPH, path, dtype, flashinfer_change(dtype, graph=True)),
        OLD: old,
        TURBO: turbo,
    }


def opened(found: Makers, wanted: tuple[str, ...], stack: ExitStack, dtype: str) -> tuple[dict[str, Any], list[Row]]:
    """The paths that are there, loaded, and the others with the reason."""
    runners: dict[str, Any] = {}
    missing: list[Row] = []
    for name in PATHS:
        if name not in wanted:
            missing.append({"path": name, "dtype": dtype, "reason": "not asked for"})
            continue
        try:
            runners[name] = found[name]()
        except NotHere as error:
            missing.append({"path": name, "dtype": dtype, "reason": str(error)})
            continue
        except Exception as error:
            if name in (EAGER, TURBO):
                raise
            reason = in_words(error)
            missing.append({"path": name, "dtype": dtype, "reason": reason})
            continue
        close = getattr(runners[name], "close", None) or runners[name].unload_model
        stack.callback(close)
    return runners, missing


class Record:
    """What was measured, what was not, and which paths were not there, written whenever something is added."""

    def __init__(self, json: Path | None, model: Path) -> None:
        self.json, self.model = json, model
        self.rows: list[Row] = []
        self.left_out: list[LeftOut] = []
        self.not_available: list[Row] = []
        self.versions: dict[str, str] = {}

    def keep(self, rows: list[Row], left_out: list[LeftOut]) -> None:
        """Add the rows of one cell. A path that failed there is not available for it."""
        self.rows += rows
        for entry in left_out:
            if "mode" in entry:
                self.not_available.append({**entry, "path": entry["mode"]})
            else:
                self.left_out.append(entry)
        if self.rows:
            write_json(self.json, "peers", self.model, self.document())

    def document(self) -> Row:
        """Everything but the stamp."""
        found: Row = {
            "definitions": definitions.PEERS,
            "not_available": self.not_available,
            "not_measured": self.left_out,
        }
        if self.versions:
            found["peer_versions"] = self.versions
        return {**found, "results": self.rows}


def measure(
    path: Path,
    dtype: str,
    options: argparse.Namespace,
    record: Record,
    found: Makers,
    voice_of: Callable[[Any], Any] = reference_voice,
) -> None:
    """Every path on every cell in one dtype."""
    wanted = cells(True, options.batch, options.cases)
    names = tuple(dict.fromkeys((EAGER, *options.paths)))
    budget = Budget(options.budget_s)
    with ExitStack() as stack:
        runners, missing = opened(found, names, stack, dtype)
        record.not_available += missing
        record.versions |= {name: runner.version for name, runner in runners.items() if hasattr(runner, "version")}
        voice = None
        if any("voice" in cell.keywords for cell in wanted):
            if TURBO not in runners:
                raise InputError("cloned cases need turbo among --paths: it encodes the reference")
            voice = voice_of(runners[TURBO])
        measure_cells(
            runners, wanted, dtype, options.runs, options.warm, budget, record.keep, voice=voice, reference=EAGER
        )


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: what can't be used.
    """
    parser = arguments("peers", "third-party paths beside turbo, where they are installed", runs=5)
    parser.set_defaults(dtypes=["fp16"])
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=PATHS, help=f"beside {EAGER} (default: all)")
    parser.add_argument("--batch", nargs="+", type=whole(1), default=[1], metavar="N", help="texts a call (default: 1)")
    parser.add_argument("--cases", nargs="+", default=[FIVE_SECONDS], metavar="CASE", help="such as 'en 15 s'")
    parser.add_argument("--warm", type=whole(0), default=1, help="unmeasured rounds a case")
    parser.add_argument("--budget-s", type=float, default=None, metavar="N", help="seconds a dtype, loading included")
    parser.add_argument(
        "--old-package", type=Path, default=None, metavar="DIR", help="folder with another omnivoice_triton in it"
    )
    parser.add_argument("--old-mode", default="hybrid", metavar="MODE", help="its mode (default: %(default)s)")
    options = parser.parse_args(argv)
    return options


@command("bench.peers")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    options = parse_options(argv)
    cells(True, options.batch, options.cases)
    Budget(options.budget_s)
    check_outputs(options.json)
    need_gpu()
    path = default_model(options.model, "cuda")
    record = Record(options.json, path)
    for dtype in options.dtypes:
        found = makers(path, dtype, options.old_package, options.old_mode)
        measure(path, dtype, options, record, found)
    if not record.rows:
        raise InputError(f"nothing was measured: {(record.left_out or record.not_available)[0]['reason']}")
    print("\n".join(table(record)))
    return 0


def table(record: Record) -> list[str]:
    """Lines to print: one a row, then what was not there and what was not measured."""
    lines = [
        f"{'dtype':6}{'case':16}{'path':27}{'runs':>5}{'median ms':>10}{'p95':>9}{'cold':>9}{'x eager':>9}"
        f"{'speed x':>9}"
    ]
    for row in record.rows:
        lines.append(
            f"{row['dtype']:6}{row['case']:16}{row['mode']:27}{row['runs']:5}{row['median_ms']:10.1f}{row['p95_ms']:9.1f}"
            f"{row['cold_ms']:9.0f}{row['ratio_to_base']:9.3f}{row['speed_x']:9.1f}"
        )
    lines += filter(None, [few_runs(record.rows)])
    for entry in record.not_available:
        case = f" ({entry['case']})" if "case" in entry else ""
        lines.append(f"not available: {entry['dtype']} {entry['path']}{case}: {entry['reason']}")
    return [*lines, *(f"not measured: {e['dtype']} {e['case']}: {e['reason']}" for e in record.left_out)]


if __name__ == "__main__":
    raise SystemExit(main())
