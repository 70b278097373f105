"""Take the screenshots of docs/images/dashboard-*.png: the demo voice on the CPU, in Chromium.

python -m tools.dashboard_screenshots [--samples DIR] [--out DIR]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.browser import Visit, browser, dashboard, wait_until

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1280
OVERVIEW, INFERENCE, BENCHMARKS, VERIFICATION, SAMPLES = range(5)
MOST_BYTES = 300_000
ESCAPE = "\ue00c"
"""Keys by their WebDriver code points."""
GLYPHS = """
const drawn = [...arguments[0]].map((letter) => {
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    pen.font = "40px sans-serif";
    pen.fillText(letter, 0, 40);
    return canvas.toDataURL();
});
return new Set(drawn).size == drawn.length;
"""
"""Whether each letter looks different: those that no font has are the same empty box."""
VERIFIED_S = 300.0
"""Most that all three tiers may take on a CPU: 45 s on two cores."""


def take(visit: Visit, path: Path, height: int) -> None:
    """One picture, of a window so high, of a page at rest."""
    visit.window.resize(WIDTH, height)
    visit.settle()
    time.sleep(1.5)  # charts draw themselves anew
    if visit.exceptions():
        raise RuntimeError(f"{path.name}: {visit.exceptions()[0]}")
    picture = visit.window.screenshot()
    if len(picture) > MOST_BYTES:
        raise RuntimeError(f"{path.name}: {len(picture)} bytes, more than {MOST_BYTES}")
    path.write_bytes(picture)
    print(f"{path.name}: {len(picture)} bytes")


def main(argv: Sequence[str] | None = None) -> int:
    """All of them."""
    parser = argparse.ArgumentParser(description="Screenshots of the dashboard for the docs.")
    parser.add_argument("--samples", type=Path, help="folder of samples (default: the checkout's)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="default: %(default)s")
    options = parser.parse_args(argv)
    flags = [] if options.samples is None else ["--samples", str(options.samples)]

    def path(name: str) -> Path:
        return options.out / f"dashboard-{name}.png"

    with dashboard(*flags) as address, browser(WIDTH, 1000) as window:
        visit = Visit(window, address)
        if not window.run(GLYPHS, "한국어语言"):
            raise RuntimeError("the browser has no font for Korean or Chinese (Debian: fonts-noto-cjk)")
        take(visit, path("overview"), 895)
        visit.tab(INFERENCE)
        for _ in range(2):  # the second time is without the loading of the models
            window.click(".st-key-say button")
            time.sleep(2)
            visit.settle()
            wait_until("players", lambda: len(window.find('[role="tabpanel"] audio')) == 2, 30)
        take(visit, path("inference"), 1500)
        visit.tab(BENCHMARKS)
        take(visit, path("benchmarks"), 1145)
        chosen = ".st-key-result-files"
        window.click(f'{chosen} [aria-label="Clear all"]')
        visit.settle()
        window.type(f"{chosen} input", "kernels")
        listed = '[role="option"]'
        names = wait_until("the files of kernels", lambda: window.texts(listed), 10)
        window.press(window.find(listed)[[name.split(" · ")[0] for name in names].index("kernels")])
        window.type(f"{chosen} input", ESCAPE)
        window.one(".st-key-curves-kernels", 30)
        take(visit, path("kernels"), 1860)
        visit.tab(VERIFICATION)
        window.click(".st-key-verify button")
        window.one(".st-key-save-report", VERIFIED_S)
        take(visit, path("verification"), 1400)
        visit.tab(SAMPLES)
        take(visit, path("samples"), 1340)
        visit.tab(INFERENCE)
        visit.voice(1)
        with tempfile.TemporaryDirectory() as folder:
            notes = Path(folder) / "notes.txt"
            notes.write_text("these are not samples", encoding="utf-8")
            window.type(".st-key-upload input[type=file]", str(notes))
            wait_until("an answer", lambda: window.texts(".stAlert"), 30)
            take(visit, path("upload-error"), 1000)
            bottom = "return document.querySelector('.stAlert').getBoundingClientRect().bottom - innerHeight"
            if window.run(bottom) > 0:
                raise RuntimeError("the answer to a bad upload lies below the picture")
        visit = Visit(window, address)
        visit.speak("한국어")
        take(visit, path("overview-ko"), 895)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
