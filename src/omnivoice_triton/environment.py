"""What a measurement was taken on: machine, driver, versions, commit, date.

Everything is read and nothing is set; what can't be found out is None, never a guess. No host names, user names or
absolute paths, so that the result can be published as it is.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

GIB = 2**30
SCHEMA = 1
"""Raise when a key changes its meaning."""

_VERSIONS = ("torch", "torchaudio", "triton", "transformers", "omnivoice", "numpy", "soundfile", "huggingface-hub")

_SMI_FIELDS = {
    "driver": "driver_version",
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "max_sm_mhz": "clocks.max.sm",
    "max_memory_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}


def describe() -> dict[str, Any]:
    """The machine and the software on it; works without a GPU, and without torch.

    Returns:
        `date_utc` (ISO 8601), `commit` and `dirty` (of this project's checkout; None when installed from a package),
        `versions`, `os`, `cpu` (`model`, `cores` there are, `usable` by this process), `memory_gib`, and `gpus`, one
        entry per device: `name`, `capability` (major, minor), `memory_gib`, `free_gib`, `multiprocessors`, `driver`,
        and clocks, power limit and temperature as found.
    """
    commit, dirty = git_state()
    return {
        "schema": SCHEMA,
        "date_utc": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {"model": cpu_model(), "cores": os.cpu_count(), "usable": _usable_cores()},
        "memory_gib": _memory_gib(),
        "gpus": gpus(),
    }


def versions() -> dict[str, str | None]:
    """Version of Python, this package and what it stands on; None for what is not installed."""
    import omnivoice_triton

    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "omnivoice-triton": omnivoice_triton.__version__,
    }
    for name in _VERSIONS:
        # From the metadata: importing Triton or omnivoice only to ask would take seconds.
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["cuda"] = found["cudnn"] = None
    try:
        import torch
    except (ImportError, OSError):  # OSError: a shared library that doesn't load
        return found
    found["cuda"] = torch.version.cuda
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None  # type: ignore[no-untyped-call]
    found["cudnn"] = None if cudnn is None else str(cudnn)
    return found


def gpus() -> list[dict[str, Any]]:
    """Every CUDA device that this process sees, in torch's order; empty without one."""
    try:
        import torch
    except (ImportError, OSError):
        return []
    if not torch.cuda.is_available():
        return []
    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "name": properties.name,
                "capability": [properties.major, properties.minor],
                "multiprocessors": properties.multi_processor_count,
                "memory_gib": round(total / GIB, 2),
                "free_gib": round(free / GIB, 2),
                # By UUID: CUDA_VISIBLE_DEVICES numbers devices otherwise than the driver does.
                **driver_state(str(getattr(properties, "uuid", ""))),
            }
        )
    return found


def driver_state(uuid: str) -> dict[str, Any]:
    """Driver version, clocks in MHz, power limit in W and temperature in °C of one GPU, as nvidia-smi reads them."""
    unknown: dict[str, Any] = dict.fromkeys(_SMI_FIELDS)
    if not uuid:
        return unknown
    uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    query = ",".join(_SMI_FIELDS.values())
    output = _output_of(["nvidia-smi", "-i", uuid, f"--query-gpu={query}", "--format=csv,noheader,nounits"])
    values = [value.strip() for value in output.splitlines()[0].split(",")] if output else []
    if len(values) != len(_SMI_FIELDS):
        return unknown
    return {key: value if key == "driver" else _number(value) for key, value in zip(_SMI_FIELDS, values, strict=True)}


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package runs from, and whether its sources differ from that commit.

    (None, None) when it was installed from a package, even if that lies inside somebody else's repository.
    """
    # A copy of the tree without its history can still say where it came from.
    if stated := os.environ.get("OMNIVOICE_TRITON_COMMIT"):
        return stated.strip(), None
    root = Path(__file__).resolve().parents[2]  # this file is src/omnivoice_triton/environment.py
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        return None, None
    commit = _output_of(["git", "-C", str(root), "rev-parse", "HEAD"])
    if commit is None:
        return None, None
    # The sources alone: a benchmark that has just written its results is no reason to call the commit dirty.
    changes = _output_of(["git", "-C", str(root), "status", "--porcelain", "--", "src", "pyproject.toml"])
    return commit.strip(), None if changes is None else bool(changes.strip())


def cpu_model() -> str | None:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or None


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _output_of(command: Sequence[str]) -> str | None:
    """Standard output of a command that only reads; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None
