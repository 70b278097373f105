"""Tab 2: one text in several modes, side by side."""

from __future__ import annotations

from typing import Any

import streamlit as st

from omnivoice_triton import InputError
from omnivoice_triton.config import SAMPLE_RATE_HZ
from omnivoice_triton.ui import spoken, tables
from omnivoice_triton.ui.runners import read_upload
from omnivoice_triton.ui.state import DEMO_WEIGHTS, Page, keep, kept
from omnivoice_triton.ui.words import DEMO_SENTENCES, SENTENCES

SPOKEN = {"en": "English", "ko": "Korean", "zh": "Chinese", "ja": "Japanese", "de": "German", "fr": "French"}
VOICES = ("auto", "clone", "design")
PREFERRED = ("base", "turbo")
LONGEST_S = 60.0
"""Of one utterance: turbo's engine holds some 80 s by default, a long prompt included."""


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    preferred = [mode for mode in PREFERRED if mode in page.usable] or page.usable[:1]
    modes = st.multiselect(words("modes"), page.usable, default=preferred, key="modes")
    for why, names in page.unusable.items():
        st.caption(words("cannot_run", modes=", ".join(names), why=why))
    start = DEMO_SENTENCES if page.weights == DEMO_WEIGHTS else SENTENCES
    text = st.text_area(words("text"), kept("text", start[words.code]), key=page.key("text"))
    keep("text", None if text == start[words.code] else text)
    left, right = st.columns(2)
    # The model's own guess comes first only where nobody has said what language this is.
    languages: list[str | None] = [
        SPOKEN[words.code],
        *(name for name in SPOKEN.values() if name != SPOKEN[words.code]),
        None,
    ]
    language = left.selectbox(
        words("spoken_language"),
        languages,
        format_func=lambda name: name or words("model_decides"),
        key=page.key("spoken"),
    )
    voice = right.radio(
        words("voice"),
        VOICES,
        index=VOICES.index(kept("voice", VOICES[0])),
        format_func=lambda kind: words(f"voice_{kind}"),
        horizontal=True,
        key=page.key("voice"),
    )
    keep("voice", voice)
    keywords: dict[str, Any] = {"language": language}
    complaint, reference = _voice(page, voice, keywords)
    options, same_noise = _options(page)
    keywords |= options
    asked = spoken.Asked(text, keywords, reference, same_noise, page.model, tuple(spoken.in_order(modes)))
    if st.button(words("say_it"), type="primary", key="say"):
        if not modes:
            complaint = words("choose_modes")
        elif not text.strip():
            complaint = words("give_text")
        # Taken out first: neither a complaint nor a run that is interrupted leaves what looks like its result.
        st.session_state.pop("said", None)
        if complaint:
            st.warning(complaint)
        else:
            st.session_state["saying"] = True
            st.session_state["said"] = spoken.say(page, asked)
            st.session_state["asked"] = asked
            del st.session_state["saying"]
    elif st.session_state.pop("saying", False):
        st.warning(words("interrupted"))
    elif st.session_state.get("said"):
        earlier = st.session_state["asked"]
        if earlier != asked:
            st.warning(words("settings_changed", text=tables.escaped(earlier.text[:200])))
        spoken.show(page, st.session_state["said"])


def _voice(page: Page, voice: str, keywords: dict[str, Any]) -> tuple[str, Any]:
    """Widgets of the kind of voice; (what is missing, the reference: recording and transcript)."""
    words = page.words
    if voice == "design":
        instruct = st.text_input(words("instruct"), "female, young adult, high pitch", key="instruct")
        keywords["instruct"] = instruct
        return ("" if instruct.strip() else words("give_instruct")), None
    if voice == "auto":
        return "", None
    left, right = st.columns(2)
    # Any type: a file that is no audio gets an answer that says so, which a greyed-out file would not.
    uploaded = left.file_uploader(words("upload"), key="upload")
    recorded = right.audio_input(words("microphone"), sample_rate=SAMPLE_RATE_HZ, key="microphone")
    transcript = st.text_input(words("transcript"), key="transcript")
    given = uploaded or recorded
    if given is None:
        return words("give_reference"), None
    try:
        samples, rate = read_upload(given.name, given.getvalue())
    except InputError as error:
        st.error(page.remark(str(error)))
        return words("no_voice_in_it", name=given.name), None
    st.caption(words("reference_good", name=tables.escaped(given.name), seconds=samples.shape[-1] / rate, rate=rate))
    if uploaded is not None:
        st.audio(spoken.wav(samples.mean(0), rate), format="audio/wav")
        if recorded is not None:
            st.info(words("upload_wins"))
    return ("" if transcript.strip() else words("give_transcript")), ((samples, rate), transcript)


def _options(page: Page) -> tuple[dict[str, Any], bool]:
    """Keywords of `generate`, and whether turbo is to draw upstream's noise."""
    words = page.words
    with st.expander(words("options")):
        columns = st.columns(3)
        chosen: dict[str, Any] = {
            "num_step": int(columns[0].number_input(words("steps"), 1, 200, 32, key="steps")),
            "guidance_scale": float(columns[1].number_input(words("guidance"), 0.0, 10.0, 2.0, 0.5, key="guidance")),
            "seed": int(columns[2].number_input(words("seed"), 0, 2**31 - 1, 7, key="seed")),
            "speed": float(columns[0].slider(words("speed"), 0.5, 2.0, 1.0, 0.1, key="speed")),
            "position_temperature": float(
                columns[1].number_input(words("temperature"), 0.0, 20.0, 5.0, 0.5, key="temperature")
            ),
        }
        seconds = float(columns[2].number_input(words("seconds"), 0.0, LONGEST_S, 0.0, 0.5, key="seconds"))
        same_noise = st.checkbox(words("same_noise"), value=True, help=words("same_noise_help"), key="same-noise")
    if seconds:
        chosen["duration"] = seconds
        del chosen["speed"]  # a fixed length leaves no room for a pace
    return chosen, same_noise
