"""Upstream models on the tiny checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton.checkpoint import make_checkpoint
from tests.models.helpers import Standin, load_upstream


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of random weights."""
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


@pytest.fixture
def model(tiny: Path, device: str) -> Any:
    """A fresh upstream model where kernels run, fp32."""
    return load_upstream(tiny, device)


@pytest.fixture(scope="session")
def shared_model(tiny: Path) -> Any:
    """An upstream model that tests must leave as they found it (CPU, fp32)."""
    return load_upstream(tiny)


@pytest.fixture
def standin() -> Standin:
    """A stand-in for CUDA capture."""
    return Standin()
