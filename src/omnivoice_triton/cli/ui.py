"""`omnivoice-triton ui`: the dashboard in a browser."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from omnivoice_triton.speech import InputError

_NEEDED = ("streamlit", "plotly")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ui`."""
    parser.add_argument("--host", default="localhost", help="where to listen (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=8501, help="default: %(default)s")
    parser.add_argument("--model", help="hub id or directory; default: $OMNIVOICE_TRITON_MODEL or the demo voice")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of result files (default: the checkout's)")
    parser.add_argument("--samples", type=Path, metavar="DIR", help="folder of samples (default: the checkout's)")
    parser.add_argument("--open", action="store_true", help="open a browser")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; the server's exit code.

    Raises:
        InputError: the extra is missing, or a flag can't be followed.
    """
    command, environment = prepare(args)
    sys.stdout.flush()
    if os.name == "posix":
        # In place of this process: whoever ends that ends the server, by whatever signal.
        os.execve(command[0], command, environment)
    return subprocess.run(command, env=environment, check=False).returncode


def prepare(args: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the server."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the dashboard needs {missing[0]}: pip install 'omnivoice-triton[ui]'")
    if not 0 < args.port < 65536:
        raise InputError(f"--port must be 1 to 65535, not {args.port}")
    environment = dict(os.environ)
    if args.model is not None:
        environment["OMNIVOICE_TRITON_MODEL"] = args.model
    for flag, folder in (("results", args.results), ("samples", args.samples)):
        if folder is None:
            continue
        if not folder.is_dir():
            raise InputError(f"--{flag} {folder}: no such folder")
        environment[f"OMNIVOICE_TRITON_{flag.upper()}"] = str(folder.resolve())
    script = Path(__file__).resolve().parents[1] / "ui" / "app.py"
    settings = {
        "server.address": args.host,
        "server.port": str(args.port),
        "server.headless": "false" if args.open else "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "streamlit", "run", str(script), *flags], environment
