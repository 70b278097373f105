"""Loaded runners, few at a time, and reference recordings that users give."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnivoice_triton import MODES, BaseRunner, InputError
from omnivoice_triton.audio_files import read_reference

MOST_LOADED = 2
"""A loaded mode holds about 2 GB of GPU memory with the real weights."""
ROOM_BYTES = 8 * 2**30
"""Free memory of a GPU that is room for another mode, its graphs and a long text."""
WAIT_S = 0.5
UPSTREAMS_NOISE = "torch"
"""What mode turbo has to draw for its tokens to be comparable with those of other modes."""

Key = tuple[str, str, str]
"""Mode, model, and the noise that is asked of an engine of our own; empty for its default."""


class Runners:
    """Runners by key; the least recently used is unloaded when there are too many, unless there is room for more.

    One call at a time.
    """

    def __init__(
        self,
        most: int = MOST_LOADED,
        make: Callable[..., Any] | None = None,
        room: Callable[[], bool] | None = None,
    ) -> None:
        self._most = most
        self._room = room or gpu_has_room
        self._make: Callable[..., Any] = make or BaseRunner
        self._loaded: OrderedDict[Key, Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def loaded(self) -> tuple[Key, ...]:
        """What is loaded, least recently used first."""
        return tuple(self._loaded)

    @contextmanager
    def borrow(
        self, mode: str, model: str, noise: str = "", waiting: Callable[[], object] = lambda: None
    ) -> Iterator[Any]:
        """The runner of a mode, loaded; nobody else has one meanwhile.

        Args:
            mode: its name.
            model: directory or hub id; empty is the default.
            noise: for modes that have a choice.
            waiting: called now and then while somebody else has a runner.
        """
        while not self._lock.acquire(timeout=WAIT_S):
            waiting()
        try:
            key = (mode, model, noise if MODES[mode].engine else "")
            if key not in self._loaded:
                while len(self._loaded) >= self._most and not (self._loaded and self._room()):
                    self._loaded.popitem(last=False)[1].unload_model()
                extra = {"noise": key[2]} if key[2] else {}
                runner = self._make(model_id=model or None, mode=mode, **extra)
                runner.load_model()
                self._loaded[key] = runner
            self._loaded.move_to_end(key)
            yield self._loaded[key]
        finally:
            self._lock.release()


def gpu_has_room() -> bool:
    """Whether a GPU has memory for one more mode, so that all that are compared stay loaded and warm."""
    import torch

    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > ROOM_BYTES


def captures(runner: Any) -> int:
    """CUDA graphs that the runner has captured so far: a call that captures is no warm one."""
    acceleration = runner.acceleration
    held = [getattr(acceleration, "graphs", None)]
    if (turbo := getattr(acceleration, "turbo", None)) is not None:
        held = [turbo.engine.runner.graphs, turbo.codec]
    return sum(int(getattr(each, "captures", 0)) for each in held)


def peak_gib(runner: Any) -> float:
    """Highest GPU memory allocated since the runner's call began, in GiB; 0 on a CPU."""
    if not str(runner.device).startswith("cuda"):
        return 0.0
    import torch

    return float(torch.cuda.max_memory_allocated(runner.device)) / 2**30


def read_upload(name: str, content: bytes) -> tuple[Any, int]:
    """Samples (channels, T) and rate of an uploaded recording.

    Raises:
        InputError: it is no audio that a voice can be taken from; the message names the file as the user does.
    """
    name = name.replace("\\", "/").rpartition("/")[2] or "recording"
    with tempfile.TemporaryDirectory() as folder:
        # Not under the user's name, which may be one that this system takes for no file's.
        suffix = Path(name).suffix.lower()
        path = Path(folder) / f"recording{suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ''}"
        path.write_bytes(content)
        try:
            return read_reference(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
