"""The dashboard in Chromium, with the demo voice on the CPU: what Streamlit's own harness can't see.

Deselected where Chromium, its driver or the extra `ui` isn't installed (`tests/conftest.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.browser import Browser, BrowserError, Visit, browser, dashboard, wait_until

from omnivoice_triton.ui.words import DEMO_SENTENCES, LANGUAGES, Words

TABS = ("overview", "inference", "benchmarks", "verification", "samples")
MARKS = {
    "overview": "machine",
    "inference": "say_it",
    "benchmarks": "result_files",
    "verification": "run_verification",
}
"""Tab to a text of its own that it shows, in the page's language."""
MAKES_SAMPLES = "omnivoice-triton samples --out DIR"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

FAULT = """
import sys
if "streamlit" in " ".join(sys.orig_argv):
    from omnivoice_triton.ui import benchmarks
    def draw(page):
        raise RuntimeError("planted")
    benchmarks.draw = draw
"""
"""As sitecustomize, which Python imports at its start: one tab that raises."""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard with an empty folder of samples and the committed results."""
    with dashboard("--samples", str(tmp_path_factory.mktemp("samples"))) as served:
        yield served


@pytest.fixture
def visit(window: Browser, address: str) -> Visit:
    return Visit(window, address)


def check_tabs(visit: Visit, code: str) -> None:
    """Every tab opens, in its language, says something of its own, and shows no exception."""
    words = Words(code)
    assert visit.window.texts('[role="tab"]') == [words(f"tab_{name}") for name in TABS]
    seen = set()
    for number, name in enumerate(TABS):
        shown = visit.tab(number)
        assert visit.exceptions() == [], f"{code}: {name}"
        mark = words(MARKS[name]) if name in MARKS else MAKES_SAMPLES
        assert mark in shown, f"{code}: {name}"
        seen.add(shown)
    assert len(seen) == len(TABS)


@pytest.mark.parametrize("code", list(LANGUAGES))
def test_every_tab_opens(visit: Visit, code: str) -> None:
    visit.speak(LANGUAGES[code])
    check_tabs(visit, code)


def test_a_tab_that_raises_is_seen(window: Browser, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULT, encoding="utf-8")
    with dashboard(environment={"PYTHONPATH": str(tmp_path)}) as served:
        broken = Visit(window, served)
        with pytest.raises(AssertionError, match="planted"):
            check_tabs(broken, "en")


def test_a_choice_outlives_a_change_of_language(visit: Visit) -> None:
    visit.speak(LANGUAGES["en"])
    visit.tab(list(TABS).index("inference"))
    visit.window.run("document.querySelectorAll('.st-key-voice-en input')[2].click()")
    chosen = "return [...document.querySelectorAll('.st-key-voice-CODE input')].findIndex(i => i.checked)"
    wait_until("the third voice", lambda: visit.window.run(chosen.replace("CODE", "en")) == 2, 15)
    visit.settle()
    for code in ("ko", "zh", "en"):
        visit.speak(LANGUAGES[code])
        visit.tab(list(TABS).index("inference"))
        assert visit.window.run(chosen.replace("CODE", code)) == 2, code


def playing(window: Browser) -> list[float]:
    """Where each player is, in seconds."""
    return list(window.run("return [...document.querySelectorAll('audio')].map(a => a.currentTime)"))


def test_a_sentence_is_said_and_heard(visit: Visit) -> None:
    window = visit.window
    visit.tab(list(TABS).index("inference"))
    assert window.run("return document.querySelector('textarea').value") == DEMO_SENTENCES["en"]
    window.click(".st-key-say button")
    wait_until("two players", lambda: len(window.find("audio")) == 2, 180)
    visit.settle()
    assert visit.exceptions() == []
    lengths = "return [...document.querySelectorAll('audio')].map(a => a.duration)"
    known = wait_until(
        "lengths of sound", lambda: all(length for length in window.run(lengths)) and window.run(lengths), 15
    )
    assert len(known) == 2
    assert all(0.5 < length < 10 for length in known), known
    assert playing(window) == [0, 0]
    for number in range(2):
        window.run("document.querySelectorAll('audio')[arguments[0]].play()", number)
        wait_until(f"player {number} to play", lambda n=number: playing(window)[n] > 0.3, 15)
    first = playing(window)[1]
    time.sleep(0.3)
    assert playing(window)[1] > first
    # What was played is sound: the samples that the browser itself decoded are not silent.
    loudest = """
        const players = [...document.querySelectorAll('audio')];
        return Promise.all(players.map(async player => {
            const bytes = await (await fetch(player.src)).arrayBuffer();
            const sound = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(bytes);
            return Math.max(...sound.getChannelData(0).filter((_, i) => i % 7 == 0).map(Math.abs));
        }));
    """
    assert all(peak > 0.05 for peak in window.run(loudest))


def test_progress_is_shown_while_it_works(visit: Visit) -> None:
    window, words = visit.window, Words("en")
    visit.tab(list(TABS).index("inference"))
    window.click(".st-key-say button")
    seen: list[str] = []

    def done() -> bool:
        seen.extend(window.texts('[data-testid="stProgress"]'))
        seen.extend(text for text in window.texts(".stCaption, [data-testid='stCaptionContainer']"))
        return len(window.find("audio")) == 2

    wait_until("two players", done, 180)
    visit.settle()
    assert words("waiting") in {text.strip() for text in seen}
    steps = {
        int(found[1]) for text in seen if (found := re.match(r"step (\d+) of 32 · [\d.]+ s · [\d.]+ steps/s", text))
    }
    assert len(steps) >= 3, seen
    labels = window.texts('[data-testid="stMetricLabel"]')
    assert sum("tokens equal to base" in label for label in labels) == 2, labels
    assert visit.exceptions() == []


def test_a_voice_from_the_microphone(visit: Visit) -> None:
    """Chromium's own device, which beeps."""
    window = visit.window
    visit.tab(list(TABS).index("inference"))
    visit.voice(1)
    window.click('.st-key-microphone button[aria-label="Record"]')
    window.one('.st-key-microphone button[aria-label="Stop recording"]')
    time.sleep(2)
    window.click('.st-key-microphone button[aria-label="Stop recording"]')
    heard = r"\.wav: [\d.]+ s at 24000 Hz"
    wait_until(
        "the recording",
        lambda: any(re.search(heard, t) for t in window.texts("[data-testid='stCaptionContainer']")),
        30,
    )
    visit.settle()
    window.click(".st-key-say button")
    wait_until("what is missing", lambda: Words("en")("give_transcript") in " ".join(window.texts(".stAlert")), 30)
    window.type(".st-key-transcript input", "Beep, beep.\n")
    visit.settle()
    window.click(".st-key-say button")
    wait_until("two players", lambda: len(window.find('[role="tabpanel"] audio')) == 2, 240)
    visit.settle()
    assert visit.exceptions() == []


def test_a_damaged_result_file(visit: Visit, tmp_path: Path) -> None:
    damaged = tmp_path / "mine.json"
    damaged.write_text(
        '{"kind": "speed", "environment": {}, "results": [{"case": "x", "dtype": "fp16"', encoding="utf-8"
    )
    visit.tab(list(TABS).index("benchmarks"))
    visit.window.type(".st-key-add-results input[type=file]", str(damaged))
    wait_until("an answer", lambda: any("mine.json" in text for text in visit.window.texts(".stAlert")), 30)
    visit.settle()
    assert any(
        text.startswith("mine.json can't be used as results: no JSON") for text in visit.window.texts(".stAlert")
    )
    assert visit.exceptions() == []


def test_a_verification_with_progress_and_its_card(visit: Visit) -> None:
    window = visit.window
    visit.tab(list(TABS).index("verification"))
    for tier in ("3 Speech", "2 Model"):
        window.click(f'.st-key-tiers-en button[aria-label="Remove {tier}"]')
        visit.settle()
    window.click(".st-key-verify button")
    seen: list[str] = []

    def done() -> list[str]:
        seen.extend(window.texts('[data-testid="stProgress"]'))
        return window.find(".st-key-save-report")

    wait_until("the report", done, 240)
    visit.settle()
    counts = {found[1] for text in seen if (found := re.search(r"1 Kernels: .+ \((\d+)/\d+\)", text))}
    assert len(counts) >= 3, seen
    assert "PASS" in window.texts(".stAlert")
    assert re.search(
        r"1 Kernels\s+✔ PASS\s+checks\s+[1-9]\d+\s+failed\s+0\s", "\n".join(window.texts('[role="tabpanel"]'))
    )
    assert visit.exceptions() == []


def test_nothing_is_cut_in_a_narrow_window(window: Browser, address: str) -> None:
    window.resize(1280, 1000)
    try:
        visit = Visit(window, address)
        cut = """
            return [...document.querySelectorAll('[data-testid="stMetricValue"] *, [role="tabpanel"] td')]
                .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.innerText)
        """
        assert "trained-demo" in " ".join(window.texts('[data-testid="stMetricValue"]'))
        assert window.run(cut) == []
        window.run(
            "document.head.insertAdjacentHTML('beforeend', '<style id=fault>html [data-testid=stMetricValue] * {"
            " white-space: nowrap !important; overflow: hidden !important; width: 40px !important; }</style>')"
        )
        assert "trained-demo" in " ".join(window.run(cut)), "a planted fault is seen"
        assert visit.exceptions() == []
    finally:
        window.resize(1400, 1000)


def test_a_file_that_is_no_audio(visit: Visit, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("these are not samples", encoding="utf-8")
    visit.tab(list(TABS).index("inference"))
    visit.voice(1)
    visit.window.type(".st-key-upload input[type=file]", str(notes))
    box = ".stAlert"
    wait_until("an answer", lambda: visit.window.texts(box), 30)
    visit.settle()
    said = " ".join(visit.window.texts(box))
    assert "can't read 'notes.txt' as audio" in said
    assert "give a WAV, FLAC, OGG or MP3 file" in said
    assert visit.exceptions() == []


def test_no_samples_yet(visit: Visit) -> None:
    shown = visit.tab(list(TABS).index("samples"))
    assert MAKES_SAMPLES in shown
    assert visit.window.find("audio") == []


def test_a_driver_that_is_told_nonsense_says_so(window: Browser) -> None:
    with pytest.raises(BrowserError, match="waited 1 s for #nothing"):
        window.one("#nothing", 1)
    with pytest.raises(BrowserError, match="Unexpected token"):
        window.run("return (")
