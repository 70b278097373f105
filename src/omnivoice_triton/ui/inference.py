"""Tab 2: one text in several modes, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from omnivoice_triton import InputError, OmniVoiceTritonError, Speech
from omnivoice_triton.ui import charts
from omnivoice_triton.ui.runners import Runners, read_upload
from omnivoice_triton.ui.state import DEMO_WEIGHTS, Page
from omnivoice_triton.ui.words import DEMO_SENTENCES, SENTENCES

SPOKEN = {"en": "English", "ko": "Korean", "zh": "Chinese", "ja": "Japanese", "de": "German", "fr": "French"}
VOICES = ("auto", "clone", "design")
PREFERRED = ("base", "turbo")


@st.cache_resource
def runners() -> Runners:
    """The loaded modes, shared by all sessions."""
    return Runners()


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    preferred = [mode for mode in PREFERRED if mode in page.usable] or page.usable[:1]
    modes = st.multiselect(words("modes"), page.usable, default=preferred, key="modes")
    start = DEMO_SENTENCES if page.weights == DEMO_WEIGHTS else SENTENCES
    text = st.text_area(words("text"), start[words.code], key=page.key("text"))
    left, right = st.columns(2)
    # The model's own guess comes first only where nobody has said what language this is.
    names = [SPOKEN[words.code], *(name for name in SPOKEN.values() if name != SPOKEN[words.code]), None]
    language = left.selectbox(
        words("spoken_language"), names, format_func=lambda name: name or words("model_decides"), key=page.key("spoken")
    )
    voice = right.radio(
        words("voice"), VOICES, format_func=lambda kind: words(f"voice_{kind}"), horizontal=True, key=page.key("voice")
    )
    keywords: dict[str, Any] = {"language": language}
    complaint, reference = _voice(page, voice, keywords)
    keywords |= _options(page)
    if st.button(words("say_it"), type="primary", key="say"):
        if not modes:
            complaint = words("choose_modes")
        elif not text.strip():
            complaint = words("give_text")
        if complaint:
            st.warning(complaint)
        else:
            # Taken out first: a run that is interrupted leaves nothing that looks like its result.
            st.session_state.pop("said", None)
            st.session_state["said"] = _say(page, modes, text, keywords, reference)
    if st.session_state.get("said"):
        st.caption(words("first_call"))
        _show(page, st.session_state["said"])


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
    recorded = right.audio_input(words("microphone"), key="microphone")
    transcript = st.text_input(words("transcript"), key="transcript")
    given = uploaded or recorded
    if given is None:
        return words("give_reference"), None
    try:
        samples, rate = read_upload(given.name, given.getvalue())
    except InputError as error:
        st.error(str(error))
        return str(error), None
    st.caption(words("reference_good", seconds=samples.shape[-1] / rate, rate=rate))
    return ("" if transcript.strip() else words("give_transcript")), ((samples, rate), transcript)


def _options(page: Page) -> dict[str, Any]:
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
        seconds = float(columns[2].number_input(words("seconds"), 0.0, 120.0, 0.0, 0.5, key="seconds"))
    if seconds:
        chosen["duration"] = seconds
        del chosen["speed"]  # a fixed length leaves no room for a pace
    return chosen


def _say(page: Page, modes: list[str], text: str, keywords: dict[str, Any], reference: Any) -> list[tuple[str, Any]]:
    """(mode, Speech or the reason why there is none), a bar for each while it works."""
    words = page.words
    made: list[tuple[str, Any]] = []
    for mode in modes:
        bar = st.progress(0.0, text=words("loading", mode=mode))
        try:
            with runners().borrow(mode, page.model) as runner:
                extra = {} if reference is None else {"voice": runner.create_voice(*reference)}
                speech = runner.generate(text, progress=_telling(page, mode, bar), **keywords, **extra)
            made.append((mode, speech))
        except OmniVoiceTritonError as error:
            made.append((mode, str(error)))
        bar.empty()
    return made


def _telling(page: Page, mode: str, bar: Any) -> Callable[[int, int], None]:
    started = time.perf_counter()
    shown = [0.0]

    def tell(done: int, total: int) -> None:
        now = time.perf_counter()
        # A step of a graph takes a millisecond: drawing each of them would be what is timed.
        if done < total and now - shown[0] < 0.1:
            return
        shown[0] = now
        text = page.words("step_of", mode=mode, done=done, total=total, seconds=now - started)
        bar.progress(min(done / max(total, 1), 1.0), text=text)

    return tell


def _show(page: Page, said: list[tuple[str, Any]]) -> None:
    words = page.words
    for column, (mode, result) in zip(st.columns(len(said)), said, strict=True):
        with column:
            st.subheader(mode)
            if not isinstance(result, Speech):
                st.error(result)
                continue
            st.audio(result.audio, sample_rate=result.sample_rate)
            figures = st.columns(2)
            figures[0].metric(words("time"), f"{result.time_ms:.0f} ms")
            figures[1].metric(words("speed_x"), f"{result.speed_x:.1f}x")
            figures[0].metric(words("audio_seconds"), f"{result.audio_s:.2f} s")
            figures[1].metric(words("vram"), f"{result.peak_vram_gb:.2f} GiB" if result.peak_vram_gb else "-")
            st.caption(words("waveform"))
            sound = (result.audio, result.sample_rate)
            st.plotly_chart(charts.waveform(*sound), key=f"wave-{mode}", config=charts.NO_BUTTONS)
            st.caption(words("spectrogram"))
            st.plotly_chart(charts.spectrogram(*sound), key=f"spec-{mode}", config=charts.NO_BUTTONS)
