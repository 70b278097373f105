"""`omnivoice-triton bench`, `verify` and `tune`: the modules that measure and check, by name."""

from __future__ import annotations

import argparse
from importlib import import_module

from omnivoice_triton.speech import InputError

BENCHES = ("kernels", "speed", "soak", "turbo", "peers", "compare")
CHECKS = ("parity", "smoke", "sanitize")


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Which benchmark, and its own flags."""
    _add(parser, BENCHES)


def run_bench(args: argparse.Namespace) -> int:
    """Run a benchmark."""
    return _run(f"omnivoice_triton.bench.{args.what}", args.rest)


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """The three tiers' flags, or one check by name, and its own flags."""
    from omnivoice_triton.verify import everything

    everything.add_arguments(parser)
    parser.add_argument("what", nargs="?", choices=CHECKS, help="one check alone, in place of the tiers")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="its own flags; --help after its name lists them")


def run_verify(args: argparse.Namespace) -> int:
    """Run the tiers, or a check; the exit code is the verdict."""
    if args.what is not None:
        _refuse_flags_before(args)
        return _run(f"omnivoice_triton.verify.{args.what}", args.rest)
    from omnivoice_triton.verify import everything

    return everything.run(args)


def _refuse_flags_before(args: argparse.Namespace) -> None:
    """Flags of the tiers, given before a check's name, would not reach the check."""
    from omnivoice_triton.verify import everything

    tiers = argparse.ArgumentParser(add_help=False)
    everything.add_arguments(tiers)
    for action in tiers._actions:
        if getattr(args, action.dest) != action.default:
            name = action.option_strings[-1]
            raise InputError(f"{name} stands before {args.what!r} and would be lost: give it after that name")


def add_tune_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, output and the tuner's own flags."""
    parser.add_argument("model", help="directory or hub id")
    parser.add_argument("out", help="JSON file to write the tile table to")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="more flags of the tuner, such as --rows 320,448")


def run_tune(args: argparse.Namespace) -> int:
    """Tune the turbo engine's tiles on this GPU."""
    from omnivoice_triton.evidence import need_gpu

    need_gpu()
    return _run("omnivoice_triton.engine.measure", ["tune", args.model, args.out, *args.rest])


def _add(parser: argparse.ArgumentParser, choices: tuple[str, ...]) -> None:
    parser.add_argument("what", choices=choices)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="its own flags; --help after its name lists them")


def _run(module: str, rest: list[str]) -> int:
    code: int = import_module(module).main(rest)
    return code
