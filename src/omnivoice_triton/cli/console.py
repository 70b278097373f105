"""What the user sees beside the result: notices, warnings, progress. All of it on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OURS = ("omnivoice_triton", "omnivoice")
_CHATTY = ("transformers", "huggingface_hub", "torch", "torchaudio", "numba")

BAR_DELAY_S = 1.0
"""Work that is done sooner needs no bar."""


class Console:
    """Notices for people, unless they asked for quiet; bars only on a terminal."""

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.bars = not quiet and not json and sys.stderr.isatty()

    def note(self, message: str) -> None:
        """One line on standard error."""
        if not self.quiet:
            print(f"omnivoice-triton: {' '.join(message.split())}", file=sys.stderr)

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Within the block our warnings and upstream's are notices of one line, and third parties' are not shown."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine())
        ours = [logging.getLogger(name) for name in _OURS]
        chatty = [logging.getLogger(name) for name in _CHATTY]
        levels = [(logger, logger.level) for logger in (*ours, *chatty)]
        for logger in ours:
            logger.addHandler(handler)
            logger.setLevel(self._level())
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)
                logger.removeHandler(handler)

    @contextmanager
    def calm(self) -> Iterator[None]:
        """`logs`, and no bars of third parties but the hub's, for downloads.

        Imports transformers, so it belongs behind the checks that need nothing heavy.
        """
        import huggingface_hub.utils as hub
        from transformers.utils import logging as transformers_logging

        loading_bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
        try:
            transformers_logging.disable_progress_bar()  # the hub's too
            if self.bars:
                hub.enable_progress_bars()
            with self.logs():
                yield
        finally:
            if loading_bars:
                transformers_logging.enable_progress_bar()
            (hub.enable_progress_bars if hub_bars else hub.disable_progress_bars)()

    @contextmanager
    def mute_native(self) -> Iterator[None]:
        """Within the block nothing reaches the process's standard error: C libraries write there past Python.

        For decoders of audio files: libmpg123 comments on every frame that it can't read.
        """
        sys.stderr.flush()
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)

    def _level(self) -> int:
        if os.environ.get("OMNIVOICE_TRITON_DEBUG") == "1":
            return logging.INFO
        return logging.ERROR if self.quiet else logging.WARNING

    @contextmanager
    def progress(self, unit: str, **settings: Any) -> Iterator[Any]:
        """A function of (done, all) that draws a bar once the work takes long; None where bars are off."""
        if not self.bars:
            yield None
            return
        from tqdm import tqdm

        with tqdm(unit=unit, leave=False, delay=BAR_DELAY_S, file=sys.stderr, dynamic_ncols=True, **settings) as bar:

            def report(done: int, total: int) -> None:
                bar.total = total  # it grows when upstream splits a long text
                bar.update(done - bar.n)

            yield report


class _OneLine(logging.Formatter):
    """`omnivoice-triton: warning: …`, whatever line breaks the message has."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        return f"omnivoice-triton: {record.levelname.lower()}: {' '.join(record.getMessage().split())}"
