"""espeak-ng through its C library: one process says thousands of sentences without starting another.

The library is the installed one (Debian: libespeak-ng1, espeak-ng-data) or lies in a folder in which those packages and
the ones they need were unpacked with `dpkg -x`, for machines where nothing can be installed.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np

LIBRARY = "libespeak-ng.so.1"
RATE_RANGE = (80, 440)
"""Words per minute that espeak-ng speaks without time stretching."""

_SYNCHRONOUS, _DONT_EXIT, _UTF8, _CHARACTER = 2, 0x8000, 1, 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class EspeakError(RuntimeError):
    """espeak-ng can't be loaded or refuses a voice or a sentence."""


class Espeak:
    """The library, opened once per process: its state is global.

    Args:
        root: folder with the unpacked packages; None for the installed library.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._pieces: list[bytes] = []
        self._voice = ""
        folder = None if root is None else Path(root)
        self._library = _load(LIBRARY, folder)
        data = None
        if folder is not None:
            found = next(folder.rglob("espeak-ng-data/phontab"), None)  # The package's documentation has that name too
            if found is None:
                raise EspeakError(f"{folder} has no espeak-ng-data: unpack the package of that name there too")
            data = str(found.parent.parent).encode()
        self.sample_rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if self.sample_rate_hz <= 0:
            raise EspeakError(f"espeak-ng doesn't start (code {self.sample_rate_hz}): is espeak-ng-data there?")
        self._keep = _CALLBACK(self._receive)  # ctypes keeps no reference of its own
        self._library.espeak_SetSynthCallback(self._keep)

    def say(self, text: str, voice: str, rate: int = 160, pitch: int = 50, pitch_range: int = 50) -> np.ndarray:
        """The sentence as int16 samples at `sample_rate_hz`; rate in words per minute, pitches 0 to 99."""
        if voice != self._voice:
            if self._library.espeak_SetVoiceByName(voice.encode()):
                raise EspeakError(f"espeak-ng has no voice {voice!r}")
            self._voice = voice
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_PITCH_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, int(value), 0)
        self._pieces.clear()
        data = text.encode()
        if self._library.espeak_Synth(data, len(data) + 1, 0, _CHARACTER, 0, _UTF8, None, None):
            raise EspeakError(f"espeak-ng can't say {text!r}")
        self._library.espeak_Synchronize()
        return np.frombuffer(b"".join(self._pieces), np.int16)

    def _receive(self, samples: int | None, count: int, _events: int) -> int:
        if samples and count:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        return 0


def _load(name: str, folder: Path | None) -> ctypes.CDLL:
    """Load a library, and before it those from the folder that the system lacks."""
    path = name
    if folder is not None and (found := next(folder.rglob(name), None)) is not None:
        path = str(found)
    for _ in range(64):
        try:
            return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            missing = re.match(r"(\S+): cannot open shared object", str(error))
            if folder is None or missing is None or missing[1] == path or not list(folder.rglob(missing[1])):
                raise EspeakError(
                    f"{error}: install espeak-ng, or name a folder with its Debian packages unpacked"
                ) from error
            _load(missing[1], folder)
    raise EspeakError(f"{name} needs too many libraries that {folder} has to give")
