"""Short tables whose cells wrap: Streamlit's own draw on a canvas and cut what is too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>()#+!|~$:"} | {"\n": " "})


def escaped(text: object) -> str:
    """`text` as Markdown that shows it as it is."""
    return str(text).translate(_SPECIAL)


def wrapping(rows: Sequence[Mapping[str, object]]) -> None:
    """Draw rows, which have the same keys; they head the columns."""
    if not rows:
        return
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([escaped(value) for value in row.values()] for row in rows)]
    st.markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))
