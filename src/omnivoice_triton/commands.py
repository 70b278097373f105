"""What every command of ours has in common: errors of one line, and exit codes that mean the same everywhere.

0 is success or a verdict that passes, 1 a failure or a verdict that doesn't, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from omnivoice_triton.speech import InputError, OmniVoiceTritonError

Main = Callable[..., int]

MODEL_HELP = (
    "hub id or directory; default: $OMNIVOICE_TRITON_MODEL, else random weights of full size (on a CPU the demo voice)"
)
"""Of `--model` where `evidence.default_model` finds what is not given."""

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors: one line, exit code decided in one place."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError with the message, and the command that explains the flags."""
        raise InputError(f"{message} (see {self.prog} --help)")


def in_words(error: BaseException, most: int = 300) -> str:
    """An error in one line, by its class."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of a flag that wants a whole number of at least `least`, and at most `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number {wanted}, not {text!r}")
        return value

    return read


def command(name: str) -> Callable[[Main], Main]:
    """Make a `main(argv)` whose early ends are a line on standard error that begins with `name`, and an exit code.

    What can't be done is 2, as bad input is: 1 is left to verdicts.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def guarded(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except KeyboardInterrupt:
                print(f"{name}: interrupted", file=sys.stderr)
                return INTERRUPTED
            except OmniVoiceTritonError as error:
                print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
                return BAD_INPUT

        return guarded

    return decorate
