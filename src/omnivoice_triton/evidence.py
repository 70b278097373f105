"""What benchmarks and checks share: the model they run on, medians, and a stamped JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.speech import InputError, ModeUnavailable

_CLOCKS = ("sm_mhz", "memory_mhz", "temperature_c")
_at_start: list[dict[str, Any]] = []
"""Clocks when this process first asked for its GPU or model: what `write_json` sets beside those of the end."""


def need_gpu() -> None:
    """Raise ModeUnavailable without a CUDA device: a benchmark of something else would mislead."""
    import torch

    if not torch.cuda.is_available():
        raise ModeUnavailable("this needs an NVIDIA GPU, and torch finds none")
    mark_start()


def mark_start() -> None:
    """Read the GPUs' clocks now, once a process, as those that its measurements began with."""
    if not _at_start:
        from omnivoice_triton.environment import gpus

        _at_start.extend(clocks(gpus()))


def clocks(gpus: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """SM and memory clock in MHz and temperature in °C of each GPU, without what is unknown."""
    return [{key: gpu[key] for key in _CLOCKS if gpu.get(key) is not None} for gpu in gpus]


def summary(values_ms: Sequence[float]) -> dict[str, float]:
    """Median, p5, p95 and count of millisecond timings."""
    if len(values_ms) == 0:
        raise InputError("nothing was measured")
    p5, p50, p95 = np.percentile(values_ms, [5, 50, 95])
    return {"median_ms": float(p50), "p5_ms": float(p5), "p95_ms": float(p95), "runs": len(values_ms)}


def default_model(model: str | None, device: str) -> Path:
    """The given checkpoint, or $OMNIVOICE_TRITON_MODEL; else the full-size random one on a GPU, made once.

    On a CPU that is the demo voice.
    """
    from omnivoice_triton.checkpoint import cached_checkpoint, resolve_model
    from omnivoice_triton.checkpoint.resolve import MODEL_VARIABLE

    if device != "cpu":
        mark_start()
    named = model is not None or bool(os.environ.get(MODEL_VARIABLE))
    return resolve_model(model) if named or device == "cpu" else cached_checkpoint("full")


def read_json(path: Path, error: type[InputError] = InputError) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it can't be read, or is no JSON; `error` names a narrower one.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as caught:
        raise error(f"can't read {path}: {caught.strerror or caught}") from caught
    except (ValueError, RecursionError) as caught:  # ValueError: no JSON, or no UTF-8
        raise error(f"{path} is no JSON: {caught}") from caught


def check_outputs(*paths: Path | None) -> None:
    """Make the folders of files to be written, and see that each can be: before hours of work, not after them.

    Raises:
        InputError: one can't be.
    """
    from omnivoice_triton.audio_files import check_writable

    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"can't make the folder {str(path.parent)!r}: {error.strerror or error}") from error
        check_writable(path)


def write_json(path: Path | None, kind: str, model: Path | None, figures: dict[str, Any]) -> dict[str, Any]:
    """Stamp the figures with what made them and write them; returns the document.

    `clocks` has the GPUs' clocks at `start` (see `mark_start`) and `end`, as far as they are known.

    No results are refused, so that an empty run can't pass for a good one.
    """
    from omnivoice_triton.environment import describe

    if not figures.get("results"):
        raise InputError(f"{kind}: nothing was measured")
    document: dict[str, Any] = {"kind": kind, "environment": describe()}
    seen = {"start": list(_at_start), "end": clocks(document["environment"]["gpus"])}
    if known := {when: found for when, found in seen.items() if any(found)}:
        document["clocks"] = known
    if model is not None:
        from omnivoice_triton.checkpoint import checkpoint_kind

        document["checkpoint"] = checkpoint_kind(model)
    document.update(figures)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    return document
