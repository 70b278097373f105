"""One text said in several modes: each mode's column, live while it works, and what came of it."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import soundfile
import streamlit as st

from omnivoice_triton import OmniVoiceTritonError, Speech
from omnivoice_triton.commands import in_words
from omnivoice_triton.ui import charts, tokens
from omnivoice_triton.ui.runners import UPSTREAMS_NOISE, Runners, captures, peak_gib
from omnivoice_triton.ui.state import Page

COLUMNS = 3
"""Beside each other: more would cut figures and players in a window of 1280 pixels."""
TOLD_EVERY_S = 0.1
"""A step of a graph takes a millisecond: drawing each of them would be what is timed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be said, the same in every mode."""

    text: str
    keywords: dict[str, Any]
    """Of `generate`."""
    reference: Any = None
    """To clone: ((samples, rate), transcript)."""
    same_noise: bool = True
    """Whether mode turbo draws upstream's noise, so that tokens can be compared."""
    model: str = ""
    modes: tuple[str, ...] = ()
    """In their order."""

    def __eq__(self, other: object) -> bool:
        """Whether the same would be said: recordings are compared by what they hold."""
        return isinstance(other, Asked) and self._plain == other._plain

    __hash__ = None  # type: ignore[assignment]

    @property
    def _plain(self) -> tuple[Any, ...]:
        of = None
        if self.reference is not None:
            (samples, rate), transcript = self.reference
            of = (samples.tobytes(), samples.shape, rate, transcript)
        return self.text, self.keywords, of, self.same_noise, self.model, self.modes


@dataclass(frozen=True)
class Made:
    """What one mode made of it."""

    mode: str
    speech: Speech | None = None
    problem: str = ""
    """Why there is no speech."""
    tokens: list[tokens.Tokens] = field(default_factory=list, repr=False)
    first: bool = False
    """The call loaded the model, and captured graphs where the mode has any."""
    equal: float | None = None
    """Share of tokens equal to those of `beside`; None where nothing can be compared."""
    beside: str = ""
    """Mode that the tokens are compared with: itself for the first one."""


@st.cache_resource
def runners() -> Runners:
    """The loaded modes, shared by all sessions."""
    return Runners()


def in_order(modes: Sequence[str]) -> list[str]:
    """As chosen, but base first: the others are compared with it."""
    return sorted(modes, key=lambda mode: mode != "base")


def wav(audio: Any, rate: int) -> bytes:
    """Samples (T,) as a WAV file: Streamlit would scale an array to full scale, and levels could not be compared."""
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def say(page: Page, asked: Asked) -> list[Made]:
    """Say it in one mode after the other, each in its column: a bar while it works, then the result."""
    made: list[Made] = []
    for mode, place in zip(asked.modes, _places(asked.modes, page), strict=True):
        one = _compared(_say(page, mode, asked, place), made, asked.same_noise)
        made.append(one)
        with place.container():
            _result(page, one)
    return made


def show(page: Page, made: Sequence[Made]) -> None:
    """Results of an earlier run of the page."""
    for one, place in zip(made, _places([one.mode for one in made]), strict=True):
        with place.container():
            _result(page, one)


def _places(modes: Sequence[str], page: Page | None = None) -> list[Any]:
    """A place below the name of each mode; with a page, a word that the mode waits for its turn."""
    places = []
    for first in range(0, len(modes), COLUMNS):
        row = modes[first : first + COLUMNS]
        for mode, column in zip(row, st.columns(min(len(modes), COLUMNS)), strict=False):
            with column:
                st.subheader(mode)
                place = st.empty()
                if page is not None:
                    place.caption(page.words("waiting"))
            places.append(place)
    return places


def _say(page: Page, mode: str, asked: Asked, place: Any) -> Made:
    place.progress(0.0, text=page.words("loading", mode=mode))
    before = runners().loaded
    try:
        noise = UPSTREAMS_NOISE if asked.same_noise else ""
        busy = page.words("busy")
        with runners().borrow(mode, page.model, noise, lambda: place.progress(0.0, text=busy)) as runner:
            first = runners().loaded[-1] not in before
            captured = captures(runner)
            extra = {} if asked.reference is None else {"voice": runner.create_voice(*asked.reference)}
            with tokens.kept(runner) as kept:
                speech = runner.generate(
                    asked.text, progress=_telling(page, mode, runner, place), **asked.keywords, **extra
                )
            first |= captures(runner) > captured
        return Made(mode, speech, tokens=kept, first=first)
    except OmniVoiceTritonError as error:
        return Made(mode, problem=page.remark(str(error)))
    except Exception as error:  # what one mode breaks on must not take the others' results; the log has all of it
        logger.exception("mode %s", mode)
        return Made(mode, problem=page.words("mode_broke", mode=mode, why=in_words(error)))


def _telling(page: Page, mode: str, runner: Any, place: Any) -> Callable[[int, int], None]:
    started = time.perf_counter()
    shown = [0.0]

    def tell(done: int, total: int) -> None:
        now = time.perf_counter()
        if done < total and now - shown[0] < TOLD_EVERY_S:
            return
        shown[0] = now
        seconds = now - started
        text = page.words("step_of", done=done, total=total, seconds=seconds, rate=done / max(seconds, 1e-9))
        if memory := peak_gib(runner):
            text += f" · {memory:.2f} GiB"
        place.progress(min(done / max(total, 1), 1.0), text=text)

    return tell


def _compared(one: Made, earlier: Sequence[Made], same_noise: bool) -> Made:
    """With its token agreement: with the first that spoke, which is base where base was chosen and spoke."""
    if one.speech is None:
        return one
    first = next((each for each in earlier if each.speech is not None), one)
    return replace(one, equal=tokens.agreement(one.tokens, first.tokens) if same_noise else None, beside=first.mode)


def _result(page: Page, one: Made) -> None:
    words, speech = page.words, one.speech
    if speech is None:
        st.error(one.problem)
        return
    st.audio(wav(speech.audio, speech.sample_rate), format="audio/wav")
    figures = st.columns(2)
    figures[0].metric(words("time"), f"{speech.time_ms:.0f} ms")
    figures[1].metric(words("speed_x"), f"{speech.speed_x:.1f}x")
    figures[0].metric(words("audio_seconds"), f"{speech.audio_s:.2f} s")
    figures[1].metric(words("vram"), f"{speech.peak_vram_gb:.2f} GiB" if speech.peak_vram_gb else "-")
    share = "-" if one.equal is None else f"{one.equal:.1%}"
    st.metric(words("tokens_as", mode=one.beside), share, help=words("tokens_help"))
    if one.first:
        st.caption(words("first_call"))
    st.caption(words("waveform"))
    sound = (speech.audio, speech.sample_rate)
    st.plotly_chart(charts.waveform(*sound), key=f"wave-{one.mode}", config=charts.NO_BUTTONS)
    st.caption(words("spectrogram"))
    st.plotly_chart(charts.spectrogram(*sound), key=f"spec-{one.mode}", config=charts.NO_BUTTONS)
