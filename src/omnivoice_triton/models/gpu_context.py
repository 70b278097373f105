"""The GPU's context, made while Python imports."""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def begin_context(device: str) -> threading.Thread | None:
    """Have a thread make the primary context of a CUDA device.

    The driver takes a third of a second for it and needs no lock of Python's. It is the context that torch uses (driver
    API, `cuDevicePrimaryCtxRetain`) and that lives as long as the process anyway. What fails here is left for torch to
    run into and to report. None: not a CUDA device.

    Args:
        device: as a runner has it, `cuda` or `cuda:1`.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    thread = threading.Thread(target=retain_context, args=(int(index) if index else _current(),), daemon=True)
    thread.start()
    return thread


def retain_context(index: int, library: str = _LIBRARY) -> bool:
    """Make the primary context of the driver's device `index`; whether there is one now."""
    try:
        driver: Any = ctypes.CDLL(library)
    except OSError:
        return False
    device, context = ctypes.c_int(), ctypes.c_void_p()
    return bool(
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), index) == 0
        and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
    )


def _current() -> int:
    """The device that torch takes `cuda` for."""
    torch = sys.modules.get("torch")
    return torch.cuda.current_device() if torch is not None and torch.cuda.is_initialized() else 0
