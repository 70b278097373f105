"""A tiny checkpoint, a copy to break, and what upstream loads from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from omnivoice_triton import checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", seed=7)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own to break."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture(scope="session")
def upstream(tiny: Path) -> Any:
    from omnivoice import OmniVoice

    return OmniVoice.from_pretrained(str(tiny)).eval()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own, nothing set, and a hub that must not be asked."""
    monkeypatch.delenv("OMNIVOICE_TRITON_MODEL", raising=False)
    monkeypatch.setenv("OMNIVOICE_TRITON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: pytest.fail(f"asked for {args}"))
    return tmp_path / "cache"
