"""Energy of a GPU, as NVML counts it: the library that comes with NVIDIA's driver, so that no package is needed.

The counter is of the whole board, idle power included, in steps of some tens of milliseconds: a difference over a
second or more means something, one over a single short call does not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

LIBRARY = "libnvidia-ml.so.1"

LEAST_S = 1.5
"""Seconds of calls that energy is measured over."""

Joules = Callable[[], float]


def energy_counter(uuid: str, library: Any = None) -> Joules | None:
    """A function that gives the joules which the GPU of that UUID has taken since its driver was loaded.

    None where NVML is missing or counts no energy for this device (before Volta, or in some virtual machines).

    Args:
        uuid: as torch gives it, with or without `GPU-`.
        library: stand-in for NVML, for tests.
    """
    if not uuid:
        return None
    try:
        nvml = ctypes.CDLL(LIBRARY) if library is None else library
    except OSError:
        return None
    name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlInit_v2() != 0 or nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) != 0:
        return None
    if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
        return None

    def joules() -> float:
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
            raise OSError("NVML stopped counting energy")
        return millijoules.value / 1000.0

    return joules


def device_energy() -> Joules | None:
    """The counter of torch's current CUDA device, if there is one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return energy_counter(str(getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", "")))


def joules_per_utterance(
    call: Callable[[], object],
    utterances: int,
    counter: Joules,
    clock: Callable[[], float],
    least_s: float = LEAST_S,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Energy of calls one after the other, until `least_s` seconds have passed, divided by the utterances they made.

    Returns:
        `joules_per_utterance`, `energy_calls` that it was measured over, `mean_w`; nothing if the counter did not move.
    """
    synchronize()
    before, began, calls = counter(), clock(), 0
    while calls == 0 or clock() - began < least_s:
        call()
        calls += 1
    synchronize()
    return _figures(counter() - before, clock() - began, calls, utterances)


def joules_meanwhile(
    work: Callable[[], object], calls: int, utterances: int, counter: Joules, clock: Callable[[], float]
) -> dict[str, float]:
    """The same of `calls` calls that `work` makes and waits for; nothing if they took less than `LEAST_S`."""
    before, began = counter(), clock()
    work()
    seconds = clock() - began
    return _figures(counter() - before, seconds, calls, utterances) if seconds >= LEAST_S else {}


def _figures(spent: float, seconds: float, calls: int, utterances: int) -> dict[str, float]:
    if spent <= 0 or seconds <= 0:
        return {}
    return {"joules_per_utterance": spent / (calls * utterances), "energy_calls": calls, "mean_w": spent / seconds}
