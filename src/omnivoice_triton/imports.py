"""Importing large packages quickly."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LATE = {"sklearn.metrics": "roc_curve", "scipy.optimize": "linear_sum_assignment", "httpx._main": "main"}
"""What transformers takes from the first two as it is imported, for assisted decoding and for losses of object
detection, which nothing here uses; and httpx's command line, which brings click, rich and pygments. With them come
eleven hundred modules: a fifth of the time that all imports take."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Within the block garbage isn't collected, and what nothing here uses is put off."""
    with collector_at_rest(), late_imports():
        yield


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """No garbage collection within the block: torch and transformers make a million objects on import, which stay.

    Python looks through all of them again and again meanwhile: a tenth to a fifth of the time that the imports take,
    and up to half of the time that a tokenizer takes to load.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def late_imports() -> Iterator[None]:
    """Within the block the functions of `LATE` are stand-ins, which import the real ones when called.

    Any other name is looked up in the real module at once, so that nobody gets less than what is there. A module that
    is not installed, or imported already, is left as it is.
    """
    stand_ins = {
        name: _LateModule(name)
        for name in LATE
        if name not in sys.modules and importlib.util.find_spec(name.partition(".")[0]) is not None
    }
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _LateModule(types.ModuleType):
    """Stands in `sys.modules` while others import."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # importlib's own questions
            raise AttributeError(name)
        if name != LATE[self.__name__]:
            return self._real(name)

        def late(*args: Any, **kwargs: Any) -> Any:
            return self._real(name)(*args, **kwargs)

        late.__name__ = late.__qualname__ = name
        return late

    def _real(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
