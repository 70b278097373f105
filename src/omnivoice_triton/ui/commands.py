"""Our own command line in a process of its own: doctor, verify with progress, compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.checkpoint.resolve import MODEL_VARIABLE

PROGRAM = (sys.executable, "-m", "omnivoice_triton")
PROGRESS_MARK = "progress "


class CommandFailed(RuntimeError):
    """A command ended without the result that was asked for; the message is its own."""


def doctor(model: str = "") -> dict[str, Any]:
    """What `omnivoice-triton doctor --json` says of this machine and of a model: a directory, a hub id, or the default.

    Raises:
        CommandFailed: it says nothing that can be read.
    """
    environment = {**os.environ, MODEL_VARIABLE: model} if model else None
    command = [*PROGRAM, "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise CommandFailed(_last_line(done.stderr)) from error
    return report


def verify(flags: Sequence[str], tell: Callable[[int, str, int, int], None]) -> dict[str, Any]:
    """Run `omnivoice-triton verify`, telling (tier, what, done, all) as it goes; the report, passed or not.

    The process ends with the caller, whatever ends it.

    Raises:
        CommandFailed: there is no report.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [*PROGRAM, "verify", *flags, "--progress", "json", "--json", str(out)]
        said: list[str] = []
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        ) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    if line.startswith(PROGRESS_MARK):
                        step = json.loads(line.removeprefix(PROGRESS_MARK))
                        tell(step["tier"], step["what"], step["done"], step["total"])
                    else:
                        said.append(line)
                process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
        if not out.is_file():
            raise CommandFailed(_last_line("".join(said)))
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return report


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What `omnivoice-triton bench compare` finds between two documents.

    Raises:
        CommandFailed: they can't be compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("before.json", "after.json", "found.json")]
        for path, document in zip(paths, (before, after), strict=False):
            path.write_text(json.dumps(document), encoding="utf-8")
        command = [*PROGRAM, "bench", "compare", str(paths[0]), str(paths[1]), "--json", str(paths[2])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not paths[2].is_file():
            raise CommandFailed(_last_line(done.stderr))
        found: dict[str, Any] = json.loads(paths[2].read_text(encoding="utf-8"))
        return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
