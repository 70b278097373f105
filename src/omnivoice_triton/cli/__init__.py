"""The command line, `omnivoice-triton VERB`.

Results go to standard output, everything else to standard error. Exit codes: 0, 2 for bad input, 1 for a failure, 130
for Ctrl-C. With OMNIVOICE_TRITON_DEBUG=1 errors come with their traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from omnivoice_triton import __version__
from omnivoice_triton.cli import doctor, evidence, make_checkpoint, samples, say, ui
from omnivoice_triton.cli.flags import fold_booleans
from omnivoice_triton.commands import BAD_INPUT, FAILED, INTERRUPTED, OK, Parser
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

PROG = "omnivoice-triton"
DEBUG = "OMNIVOICE_TRITON_DEBUG"


class Verb(NamedTuple):
    """One subcommand. What `run` needs beyond `config` is imported inside it, so that help appears at once."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


VERBS = (
    Verb("say", "say a text and write it to an audio file", say.add_arguments, say.run),
    Verb(
        "make-checkpoint",
        "write a model with random weights, for tests and timing",
        make_checkpoint.add_arguments,
        make_checkpoint.run,
    ),
    Verb(
        "doctor", "tell what can run on this machine, and what to do about the rest", doctor.add_arguments, doctor.run
    ),
    Verb("bench", "measure kernels, modes or the engine on this GPU", evidence.add_bench_arguments, evidence.run_bench),
    Verb("verify", "check that modes compute what base does", evidence.add_verify_arguments, evidence.run_verify),
    Verb(
        "samples",
        "say the same sentences in every mode, to be heard side by side",
        samples.add_arguments,
        samples.run,
    ),
    Verb("ui", "open the dashboard in a browser (extra ui)", ui.add_arguments, ui.run),
    Verb("tune", "find the engine's fastest tiles on this GPU", evidence.add_tune_arguments, evidence.run_tune),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None takes them from `sys.argv`.

    Returns:
        The exit code; no exception leaves, not even for `--help`.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell's `2>&-`: the next file opened would take the stream's number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    # Before torch is imported: its threads spin while they wait, and on a busy 2-core machine a tiny model then takes
    # 60 times as long (20 s against 0.3).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(given)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again while it closes down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except InputError as error:
        return _fail(str(error), BAD_INPUT)
    except OmniVoiceTritonError as error:
        return _fail(str(error), FAILED)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} ({DEBUG}=1 shows where)", FAILED)


def _run(given: list[str]) -> int:
    parser = build_parser()
    if not given:
        parser.print_help(sys.stderr)
        return BAD_INPUT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties': ours go through logging
        try:
            args = parser.parse_args(fold_booleans(given))
            code: int = args.run(args)
        except SystemExit as stop:  # --help, --version
            code = stop.code if isinstance(stop.code, int) else OK
    sys.stdout.flush()
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb; the namespace it makes has a `run`."""
    parser = Parser(prog=PROG, description="Fast OmniVoice text-to-speech.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in VERBS:
        sub = verbs.add_parser(verb.name, help=verb.summary, description=_sentence(verb.summary), allow_abbrev=False)
        verb.add_arguments(sub)
        sub.set_defaults(run=verb.run)
    return parser


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _fail(message: str, code: int) -> int:
    if os.environ.get(DEBUG) == "1":
        traceback.print_exc()
    print(f"{PROG}: error: {' '.join(message.split())}", file=sys.stderr)
    return code
