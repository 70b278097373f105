"""`omnivoice-triton doctor`: what can run here."""

from __future__ import annotations

import argparse
import json

from omnivoice_triton.cli.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `doctor`."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--json", action="store_true", help="print one line of JSON")
    either.add_argument(
        "--bytecode", action="store_true", help="write Python's bytecode of all that a start imports, for images and uv"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 if at least mode base can run. Or write bytecode."""
    from omnivoice_triton.doctor import examine, keep_bytecode, render
    from omnivoice_triton.environment import describe

    if args.bytecode:
        with Console().calm():
            written = keep_bytecode()
        print(f"wrote the bytecode of {written} modules" if written else "every module has its bytecode already")
        return 0
    with Console().logs():
        report = examine(describe())
    print(json.dumps(report) if args.json else render(report))
    return 0 if report["ok"] else 1
