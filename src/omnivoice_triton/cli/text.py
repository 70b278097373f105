"""The text to say: from the command line, standard input or a file, always on one line."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from omnivoice_triton.speech import InputError

_CJK = "[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]"
_LINE_BREAK = re.compile(r"[^\S\r\n]*[\r\n]\s*")
_CJK_LINE_BREAK = re.compile(rf"(?<={_CJK})[^\S\r\n]*[\r\n]\s*(?={_CJK})")


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """The three ways to give a text."""
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what to say; - reads standard input")
    parser.add_argument("--text", dest="text_flag", help=argparse.SUPPRESS)  # upstream's
    parser.add_argument("--file", metavar="FILE", help="read the text from this file (UTF-8)")


def read_text(args: argparse.Namespace) -> str:
    """The text from the one place where it was given, on one line.

    Raises:
        InputError: it was given nowhere or twice, can't be read, is no UTF-8, or is blank.
    """
    if sum(value is not None for value in (args.text, args.text_flag, args.file)) != 1:
        raise InputError("give the text exactly once: as TEXT in quotes, as - for standard input, or with --file FILE")
    text = args.text if args.text is not None else args.text_flag
    source = "the text"
    try:
        if args.file is not None:
            source = f"--file {args.file!r}"
            text = Path(args.file).read_bytes().decode("utf-8-sig")
        elif text == "-":
            source = "standard input"
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        else:
            text.encode("utf-8")  # what the shell passed may hold stray bytes
    except UnicodeError as error:
        raise InputError(f"{source} is not UTF-8: save or convert it as UTF-8") from error
    except OSError as error:
        raise InputError(f"can't read {source}: {error.strerror or error}") from error
    if not text.strip():
        raise InputError(f"{source} is empty: give at least one word to say")
    return join_lines(text)


def join_lines(text: str) -> str:
    """`text` on one line. Upstream drops line breaks, which would glue the words around them together."""
    return _LINE_BREAK.sub(" ", _CJK_LINE_BREAK.sub("", text.strip()))
