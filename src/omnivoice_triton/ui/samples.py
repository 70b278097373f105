"""Tab 5: the same sentences in every mode, to be heard side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from omnivoice_triton.config import MODES
from omnivoice_triton.ui import figures, files, tables
from omnivoice_triton.ui.state import Page
from omnivoice_triton.ui.words import LANGUAGES

PLAYERS_IN_A_ROW = 4
"""More are too narrow to be used."""
_KINDS = ("auto", "clone", "design")


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    entries = samples_in(page.samples)
    if not entries:
        _say_what_lacks(page)
        return
    document = read(page.samples)
    _about(page, document, entries)
    left, right = st.columns(2)
    languages = list(dict.fromkeys(str(entry.get("language", "")) for entry in entries))
    voices = list(dict.fromkeys(str(entry.get("voice", "")) for entry in entries))
    language = left.selectbox(
        words("spoken_language"),
        [words("all"), *languages],
        format_func=lambda code: LANGUAGES.get(code, code),
        key=page.key("sample-language"),
    )
    voice = right.selectbox(
        words("voice"),
        [words("all"), *voices],
        format_func=lambda kind: _kind(page, kind),
        key=page.key("sample-voice"),
    )
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        key = (str(entry.get("language", "")), str(entry.get("voice", "")), str(entry.get("text", "")))
        if language in (words("all"), key[0]) and voice in (words("all"), key[1]):
            groups.setdefault(key, []).append(entry)
    modes = list(dict.fromkeys(str(entry.get("mode", "")) for entry in entries))
    for (code, kind, text), members in groups.items():
        st.markdown(tables.escaped(f"{LANGUAGES.get(code, code)} · {_kind(page, kind)}").join(("**", "**")))
        st.markdown(tables.escaped(text))
        _voice(page, document, members[0])
        # Every mode keeps its column, said or not, so that columns compare from one sentence to the next.
        by_mode: dict[str, list[dict[str, Any]]] = {}
        for entry in members:
            by_mode.setdefault(str(entry.get("mode", "")), []).append(entry)
        for first in range(0, len(modes), PLAYERS_IN_A_ROW):
            row = modes[first : first + PLAYERS_IN_A_ROW]
            for column, mode in zip(st.columns(min(len(modes), PLAYERS_IN_A_ROW)), row, strict=False):
                with column:
                    _players(page, mode, by_mode.get(mode, []))


def _kind(page: Page, kind: str) -> str:
    return page.words(f"voice_{kind}") if kind in _KINDS else kind


def read(folder: str) -> dict[str, Any]:
    """What the folder's metadata.json says; nothing if it can't be read."""
    try:
        document = json.loads((Path(folder) / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def samples_in(folder: str) -> list[dict[str, Any]]:
    """Entries of a folder's metadata.json whose file is there, with `path`; nothing outside the folder is taken."""
    path = Path(folder) / "metadata.json"
    if not folder or not path.is_file():
        return []
    listed = read(folder).get("samples")
    inside = Path(folder).resolve()
    found = []
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            continue
        file = Path(folder) / entry["file"]
        try:
            if file.is_file() and file.resolve().is_relative_to(inside):
                found.append({**entry, "path": str(file)})
        except (OSError, ValueError):  # a name that no file has
            continue
    return found


def reference_of(folder: str, document: dict[str, Any], entry: dict[str, Any]) -> tuple[str, str] | None:
    """File and text of the recording that an entry's voice was cloned from, if it lies in the folder."""
    named, listed = entry.get("reference"), document.get("references")
    for reference in listed if isinstance(listed, list) else []:
        if not isinstance(reference, dict) or not named or reference.get("file") != named:
            continue
        path = Path(folder) / str(named)
        if path.is_file() and path.resolve().is_relative_to(Path(folder).resolve()):
            return str(path), str(reference.get("text", ""))
    return None


def _say_what_lacks(page: Page) -> None:
    words, folder = page.words, page.samples
    if not folder:
        st.info(words("no_samples"))
    elif not Path(folder).is_dir():
        st.warning(words("no_samples_folder", folder=folder))
    elif not (Path(folder) / "metadata.json").is_file():
        st.info(words("no_samples_there", folder=folder))
    else:
        st.warning(words("samples_unusable", folder=folder))


def _about(page: Page, document: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """What made the samples, and which modes were left out and why."""
    words = page.words
    environment = document.get("environment")
    if isinstance(environment, dict):
        try:
            on = "CPU" if str(document.get("device")) == "cpu" else files.device_of(document)
        except (KeyError, TypeError, AttributeError, figures.Damaged):
            on = "?"
        st.caption(
            words(
                "samples_made",
                model=document.get("model", ""),
                device=on,
                dtype=document.get("dtype", ""),
                steps=document.get("steps", ""),
                date=str(environment.get("date_utc", ""))[:10],
                commit=str(environment.get("commit") or "")[:7],
            )
        )
    if str(document.get("checkpoint", "")).startswith("random"):
        st.caption(words("noise"))
    left_out = document.get("left_out")
    if isinstance(left_out, dict) and left_out:
        reasons = page.by_reason(left_out).items()
        st.caption(words("samples_left_out", modes="; ".join(f"{', '.join(names)} ({why})" for why, names in reasons)))
    listed = document.get("samples")
    if isinstance(listed, list) and len(listed) > len(entries):
        st.warning(words("samples_lost", count=len(listed) - len(entries)))


def _voice(page: Page, document: dict[str, Any], entry: dict[str, Any]) -> None:
    if entry.get("instruct"):
        st.caption(tables.escaped(entry["instruct"]))
    reference = reference_of(page.samples, document, entry)
    if reference is not None:
        path, text = reference
        st.caption(page.words("samples_reference", text=tables.escaped(text)))
        st.audio(path)


def _players(page: Page, mode: str, entries: list[dict[str, Any]]) -> None:
    st.caption(f"**{mode if mode in MODES else tables.escaped(mode)}**")
    if not entries:
        st.caption("–")
    for entry in entries:
        _player(page, entry)


def _player(page: Page, entry: dict[str, Any]) -> None:
    st.audio(entry["path"])
    said = []
    if (share := _figure(entry, "tokens_equal_to_base", most=1.0)) is not None:
        said.append(page.words("tokens_equal", share=share))
    if (milliseconds := _figure(entry, "time_ms")) is not None:
        said.append(page.words("took", milliseconds=milliseconds))
    if (seconds := _figure(entry, "audio_s")) is not None:
        said.append(page.words("lasts", seconds=seconds))
    if said:
        st.caption("  \n".join(said))


def _figure(entry: dict[str, Any], key: str, most: float = 1e9) -> float | None:
    """A figure from 0 to `most`; anything else is none."""
    try:
        value = figures.number(entry, key)
    except figures.Damaged:
        return None
    return value if 0 <= value <= most else None
