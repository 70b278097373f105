"""Recognisers and scorers that aren't ours: an installed package's by its entry point, any other as `module:function`.

Either is a function of the device that returns the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from omnivoice_triton.speech import InputError, OmniVoiceTritonError


def installed(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer under that entry point group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def load(kind: str, spec: str, device: str, points: Mapping[str, EntryPoint]) -> Any:
    """What the entry point `spec`, or `module:function`, makes for the device.

    Raises:
        InputError: it can't be imported or fails; the message names `kind` and `spec`.
    """
    module, _, function = spec.partition(":")
    try:
        factory: Callable[[str], Any] = (
            points[spec].load() if spec in points else getattr(import_module(module), function)
        )
    except Exception as error:
        raise InputError(f"{kind} {spec!r} can't be imported: {error}") from error
    try:
        return factory(device)
    except OmniVoiceTritonError:
        raise
    except Exception as error:
        raise InputError(f"{kind} {spec!r} can't be loaded: {error}") from error
