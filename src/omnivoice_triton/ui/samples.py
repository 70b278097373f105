"""Tab 5: the same sentences in every mode, to be heard side by side."""

from __future__ import annotations

from typing import Any

import streamlit as st

from omnivoice_triton.ui import files
from omnivoice_triton.ui.state import Page


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    entries = files.samples_in(page.samples)
    if not entries:
        st.info(words("no_samples"))
        return
    left, right = st.columns(2)
    languages = list(dict.fromkeys(str(entry.get("language", "")) for entry in entries))
    voices = list(dict.fromkeys(str(entry.get("voice", "")) for entry in entries))
    language = left.selectbox(words("spoken_language"), [words("all"), *languages], key="sample-language")
    voice = right.selectbox(words("voice"), [words("all"), *voices], key="sample-voice")
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        key = (str(entry.get("language", "")), str(entry.get("voice", "")), str(entry.get("text", "")))
        if language in (words("all"), key[0]) and voice in (words("all"), key[1]):
            groups.setdefault(key, []).append(entry)
    for (code, kind, text), members in groups.items():
        st.markdown(f"**{code} · {kind}** · {text}")
        for column, entry in zip(st.columns(len(members)), members, strict=True):
            with column:
                st.caption(str(entry.get("mode", "")))
                st.audio(entry["path"])
                if entry.get("tokens_equal_to_base") is not None:
                    st.caption(words("tokens_equal", share=entry["tokens_equal_to_base"]))
                if entry.get("time_ms"):
                    st.caption(f"{entry['time_ms']:.0f} ms, {entry.get('audio_s', 0):.2f} s")
