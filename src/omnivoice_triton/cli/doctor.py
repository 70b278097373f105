"""`omnivoice-triton doctor`: what can run here."""

from __future__ import annotations

import argparse
import json

from omnivoice_triton.cli.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 if at least mode base can run."""
    from omnivoice_triton.doctor import examine, render
    from omnivoice_triton.environment import describe

    with Console().logs():
        report = examine(describe())
    print(json.dumps(report) if args.json else render(report))
    return 0 if report["ok"] else 1
