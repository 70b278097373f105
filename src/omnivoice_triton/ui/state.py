"""What all tabs share: the language, and what the sidebar says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from omnivoice_triton.ui.remarks import translated
from omnivoice_triton.ui.words import Words

DEMO_WEIGHTS = "trained-demo"
"""What the doctor calls those of the demo voice."""


def kept(name: str, default: Any) -> Any:
    """What was last chosen of a widget whose key has the language in it: a change of language makes it anew."""
    return st.session_state.get(f"kept-{name}", default)


def keep(name: str, value: Any) -> None:
    """Remember a choice for `kept`; None forgets it."""
    if value is None:
        st.session_state.pop(f"kept-{name}", None)
    else:
        st.session_state[f"kept-{name}"] = value


@dataclass(frozen=True)
class Page:
    """One run of the page."""

    words: Words
    model: str
    """As typed: a directory, a hub id, or nothing."""
    results: str
    samples: str
    doctor: dict[str, Any]
    """What `omnivoice-triton doctor --json` says, of that model."""

    @property
    def weights(self) -> str:
        """Kind of the model's weights; empty if they aren't here yet."""
        return str(self.doctor["model"]["weights"] or "")

    def remark(self, text: str) -> str:
        """What another part of the package says, in the page's language."""
        return translated(self.words.code, text)

    def key(self, name: str) -> str:
        """Key of a widget whose labels are translated: Streamlit drops a choice whose label is gone."""
        return f"{name}-{self.words.code}"

    @property
    def usable(self) -> list[str]:
        """Modes that can run here."""
        return [name for name, mode in self.doctor["modes"].items() if mode["runs"]]

    @property
    def unusable(self) -> dict[str, list[str]]:
        """The others, by the reason in the page's language."""
        return self.by_reason({name: mode["why"] for name, mode in self.doctor["modes"].items() if not mode["runs"]})

    def by_reason(self, reasons: Mapping[str, Any]) -> dict[str, list[str]]:
        """Modes by why they are left out."""
        found: dict[str, list[str]] = {}
        for name, why in reasons.items():
            found.setdefault(self.remark(str(why or "-")), []).append(name)
        return found
