"""The dashboard in a real browser: its server, and Chromium steered through ChromeDriver (Debian: chromium-driver).

ChromeDriver speaks W3C WebDriver (https://www.w3.org/TR/webdriver2/), JSON over HTTP: the few calls that a page needs
are short enough to do without a client library.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver names an element (section 12 of the standard)."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
SETTLED_S = 120.0
"""Most that a page may need until its script rests: the first run asks the doctor, which imports torch."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class BrowserError(RuntimeError):
    """The browser could not do it; the message is the driver's, or says what was waited for."""


def chromium() -> str | None:
    """The browser's program, if it and its driver are installed."""
    found = [path for name in CHROMIUM if (path := shutil.which(name))]
    return found[0] if found and shutil.which(DRIVER) else None


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, holds: Callable[[], Any], seconds: float) -> Any:
    """What `holds` returns, once it is true.

    Raises:
        BrowserError: it isn't within `seconds`.
    """
    ends = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > ends:
            raise BrowserError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
    return found


@contextmanager
def _running(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the time of a block."""
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=None if environment is None else {**environment},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise BrowserError(f"{process.args!r} ended with code {process.returncode}")  # type: ignore[str-bytes-safe]
    try:
        with _direct.open(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def dashboard(*flags: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """`omnivoice-triton ui` on the CPU, on a free port; its address."""
    port = free_port()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OMNIVOICE_TRITON_")}
    settings = {**inherited, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", **(environment or {})}
    command = [sys.executable, "-m", "omnivoice_triton", "ui", "--port", str(port), *flags]
    with _running(command, settings) as process:
        address = f"http://localhost:{port}"
        wait_until("the dashboard", lambda: _answers(f"{address}/_stcore/health", process), 60)
        yield address


class Browser:
    """One window of a headless Chromium."""

    def __init__(self, address: str, session: str) -> None:
        self._session = f"{address}/session/{session}"

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return _call(method, f"{self._session}/{path}", body)

    def open(self, url: str) -> None:
        """Load a page."""
        self._ask("POST", "url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function body returns."""
        return self._ask("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> list[str]:
        """Elements that match, in the page's order."""
        found = self._ask("POST", "elements", {"using": "css selector", "value": css})
        return [entry[ELEMENT] for entry in found]

    def one(self, css: str, seconds: float = 15.0) -> str:
        """The first that matches, once there is one."""
        return str(wait_until(css, lambda: self.find(css), seconds)[0])

    def click(self, css: str) -> None:
        """Click on the first that matches, once there is one."""
        self.press(self.one(css))

    def press(self, element: str) -> None:
        """Click on an element as a hand would: nothing may lie over it."""
        self._ask("POST", f"element/{element}/click", {})

    def type(self, css: str, text: str) -> None:
        """Keys into the first that matches; into a file's input, a path."""
        self._ask("POST", f"element/{self.one(css)}/value", {"text": text})

    def texts(self, css: str) -> list[str]:
        """Visible texts of all that match."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        return [str(text) for text in self.run(script, css)]

    def resize(self, width: int, height: int) -> None:
        """Set the size of what can be seen of a page, in pixels: the window is larger by its frame."""
        frame_x, frame_y = self.run("return [outerWidth - innerWidth, outerHeight - innerHeight]")
        self._ask("POST", "window/rect", {"width": width + frame_x, "height": height + frame_y})

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._ask("GET", "screenshot"))


def _call(method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _direct.open(request, timeout=SETTLED_S) as reply:
            return json.load(reply)["value"]
    except urllib.error.HTTPError as error:
        with error:
            said = json.loads(error.read() or b"{}").get("value") or {}
        raise BrowserError(str(said.get("message", error)).splitlines()[0]) from None


@contextmanager
def browser(width: int = 1400, height: int = 1000) -> Iterator[Browser]:
    """A window for the time of a block.

    Raises:
        BrowserError: Chromium or its driver isn't installed, or doesn't start.
    """
    program = chromium()
    if program is None:
        raise BrowserError("install chromium and chromium-driver")
    port = free_port()
    flags = [
        "--headless=new",
        "--no-sandbox",  # which a container seldom allows; the only page is our own
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-proxy-server",
        "--mute-audio",
        "--autoplay-policy=no-user-gesture-required",
        "--hide-scrollbars",
        "--use-fake-device-for-media-stream",  # a microphone that beeps
        "--use-fake-ui-for-media-stream",  # and may be used without asking
        "--force-color-profile=srgb",
        f"--window-size={width},{height}",
    ]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = {"binary": program, "args": [*flags, f"--user-data-dir={profile}"]}
        with _running([DRIVER, f"--port={port}"]) as process:
            wait_until("ChromeDriver", lambda: _answers(f"{address}/status", process), 30)
            wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
            session = _call("POST", f"{address}/session", wanted)["sessionId"]
            try:
                yield Browser(address, session)
            finally:
                _call("DELETE", f"{address}/session/{session}")


class Visit:
    """What a user of the dashboard does, in a window."""

    def __init__(self, window: Browser, address: str) -> None:
        self.window = window
        window.open(address)
        window.one('[role="tab"]', SETTLED_S)
        self.settle()

    def settle(self, seconds: float = SETTLED_S) -> None:
        """Wait until the script rests: twice in a row, since a click takes a moment to reach the server."""
        resting = "return document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'"

        def rests() -> bool:
            if not self.window.run(resting):
                return False
            time.sleep(0.4)
            return bool(self.window.run(resting))

        time.sleep(0.3)
        wait_until("the page's script", rests, seconds)

    def speak(self, name: str) -> None:
        """Choose the interface's language by its own name, such as 한국어."""
        options = '[role="option"]'
        self.window.click(".st-key-language input")
        names = wait_until("the list of languages", lambda: self.window.texts(options), 10)
        self.window.press(self.window.find(options)[[text.strip() for text in names].index(name)])
        self.settle()

    def tab(self, number: int) -> str:
        """Open the tab at a place, from 0; the text that can then be read in it."""
        self.window.press(self.window.find('[role="tab"]')[number])
        self.settle()
        return "\n".join(self.window.texts('[role="tabpanel"]')).strip()

    def voice(self, number: int) -> None:
        """Choose the kind of voice at a place, from 0, in the tab that is open."""
        self.window.press(self.window.find('[class*="st-key-voice-"] label:has(input)')[number])
        self.settle()

    def exceptions(self) -> list[str]:
        """Every exception's box and the word of every tab that failed, in sight or not."""
        return self.window.texts('[data-testid="stException"], [class*="st-key-broken-"]')
