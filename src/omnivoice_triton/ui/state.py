"""What all tabs share: the language, and what the sidebar says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omnivoice_triton.ui.words import Words

DEMO_WEIGHTS = "trained-demo"
"""What the doctor calls those of the demo voice."""


@dataclass(frozen=True)
class Page:
    """One run of the page."""

    words: Words
    model: str
    """As typed: a directory, a hub id, or nothing."""
    results: str
    samples: str
    doctor: dict[str, Any]
    """What `omnivoice-triton doctor --json` says."""

    @property
    def weights(self) -> str:
        """Kind of the default model's weights; empty if another one is named."""
        return "" if self.model else str(self.doctor["model"]["weights"])

    def key(self, name: str) -> str:
        """Key of a widget whose labels are translated: Streamlit drops a choice whose label is gone."""
        return f"{name}-{self.words.code}"

    @property
    def usable(self) -> list[str]:
        """Modes that can run here."""
        return [name for name, mode in self.doctor["modes"].items() if mode["runs"]]
