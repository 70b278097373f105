"""Fixtures of the kernel tests: outputs start as NaN, sizes fit the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


def _poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
        x = make(*args, **kwargs)
        if x.is_floating_point():
            return x.fill_(float("nan"))
        return x.fill_(torch.iinfo(x.dtype).max)

    return wrapper


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill whatever is allocated uninitialised, so that an element that no kernel wrote shows."""
    monkeypatch.setattr(torch, "empty", _poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", _poisoned(torch.empty_like))


@pytest.fixture
def rows(device: str) -> int:
    """Rows of a comparison with the twin: the interpreter takes a millisecond for each."""
    return 33 if device == "cuda" else 5


@pytest.fixture
def many_rows(device: str) -> int:
    """Rows for statistics of an error."""
    return 512 if device == "cuda" else 40
