"""One call's input, checked as a whole before anything runs."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omnivoice_triton.config import GenerationOptions, check_duration, check_speed
from omnivoice_triton.speech import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """Texts and what goes with each; every tuple has one entry per text."""

    texts: tuple[str, ...]
    single: bool
    languages: tuple[str | None, ...]
    instructs: tuple[str | None, ...]
    voices: tuple[Any, ...]
    durations: tuple[float | None, ...]
    speeds: tuple[float | None, ...]
    normalize_text: bool
    options: GenerationOptions

    def upstream_kwargs(self) -> dict[str, Any]:
        """Keywords for upstream's `OmniVoice.generate`."""
        from omnivoice import OmniVoiceGenerationConfig

        given: dict[str, Any] = {
            "text": list(self.texts),
            "language": list(self.languages),
            "instruct": list(self.instructs),
            "normalize_text": self.normalize_text,
            "generation_config": OmniVoiceGenerationConfig(**vars(self.options)),
        }
        if self.voices[0] is not None:
            given["voice_clone_prompt"] = list(self.voices)
        if any(d is not None for d in self.durations):
            given["duration"] = [None if d is None else float(d) for d in self.durations]
        if any(s is not None for s in self.speeds):
            given["speed"] = [1.0 if s is None else float(s) for s in self.speeds]
        return given


def build_request(
    text: str | Sequence[str],
    *,
    language: str | Sequence[str | None] | None = None,
    instruct: str | Sequence[str | None] | None = None,
    voice: Any = None,
    duration: float | Sequence[float | None] | None = None,
    speed: float | Sequence[float | None] | None = None,
    normalize_text: bool = False,
    options: dict[str, Any] | None = None,
) -> Request:
    """Check everything and spread single values over a batch.

    Raises:
        InputError: with one line that names the value and says what is wanted.
    """
    single = isinstance(text, str)
    texts = (text,) if isinstance(text, str) else _texts(text)
    count = len(texts)
    for position, item in enumerate(texts):
        if not isinstance(item, str):
            raise InputError(f"text must be a string or a list of strings, not {type(item).__name__}")
        if not item.strip():
            where = "text" if single else f"text {position + 1} of {count}"
            raise InputError(f"{where} is empty: give at least one word to say")
    request = Request(
        texts=texts,
        single=single,
        languages=tuple(map(known_language, _spread("language", language, count))),
        instructs=_spread("instruct", instruct, count),
        voices=_spread("voice", voice, count),
        durations=_spread("duration", duration, count),
        speeds=_spread("speed", speed, count),
        normalize_text=bool(normalize_text),
        options=GenerationOptions.from_kwargs(options or {}),
    )
    for item_duration, item_speed in zip(request.durations, request.speeds, strict=True):
        check_duration(item_duration)
        check_speed(item_speed)
    for item_text, item_instruct in zip(texts, request.instructs, strict=True):
        check_instruct(item_instruct, item_text)
    if request.normalize_text:
        for item_language in request.languages:
            _check_normalizer(item_language)
    _check_voices(request)
    return request


def known_language(language: str | None) -> str | None:
    """A language as upstream knows it: codes in small letters, without a region (`zh` for `zh-CN`).

    What upstream doesn't know stays as it is: it warns, and says the text in no particular language.

    Raises:
        InputError: it is no string.
    """
    if language is None:
        return None
    if not isinstance(language, str):
        raise InputError(f"language must be a name or code, such as English or en, not {type(language).__name__}")
    from omnivoice.utils.lang_map import LANG_IDS, LANG_NAME_TO_ID

    if language in LANG_IDS or language.lower() in LANG_NAME_TO_ID:
        return language
    code = re.split("[-_]", language.lower())[0]
    return code if code in LANG_IDS else language


def _check_normalizer(language: str | None) -> None:
    """Refuse what upstream would silently leave as it is: it asks for a package in English and Chinese only."""
    from omnivoice.utils.lang_map import LANG_NAME_TO_ID

    code = None if language is None else LANG_NAME_TO_ID.get(language.lower(), language.lower())
    if code not in (None, "none", "en", "zh") and importlib.util.find_spec("num2words") is None:
        raise InputError(f"normalize_text in {language} needs a package that is not installed: pip install num2words")


def check_instruct(instruct: str | None, text: str) -> None:
    """Raise InputError unless upstream's voice-design vocabulary knows `instruct`."""
    if instruct is None:
        return
    if not isinstance(instruct, str):
        raise InputError(f"instruct must be a string such as 'female, high pitch', not {type(instruct).__name__}")
    from omnivoice.models.omnivoice import _resolve_instruct
    from omnivoice.utils.voice_design import _INSTRUCT_ALL_VALID, _INSTRUCT_VALID_EN, _ZH_RE

    try:
        resolved = _resolve_instruct(instruct, use_zh=bool(_ZH_RE.search(text)))
    except ValueError as error:
        for item in (part.strip().lower() for part in instruct.replace("，", ",").split(",")):
            if item and item not in _INSTRUCT_ALL_VALID:
                close = difflib.get_close_matches(item, _INSTRUCT_ALL_VALID, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                choices = ", ".join(sorted(_INSTRUCT_VALID_EN))
                raise InputError(f"unknown instruction {item!r}: {hint}choose from {choices}") from error
        raise InputError(" ".join(str(error).split())) from error
    if resolved is None:
        raise InputError("instruct is empty: give attributes such as 'female, high pitch'")


def _texts(text: Any) -> tuple[str, ...]:
    if not isinstance(text, list | tuple):
        raise InputError(f"text must be a string or a list of strings, not {type(text).__name__}")
    if not text:
        raise InputError("the list of texts is empty: give at least one text")
    return tuple(text)


def _spread(name: str, value: Any, count: int) -> tuple[Any, ...]:
    """One value for each text."""
    if not isinstance(value, list | tuple):
        return (value,) * count
    if len(value) not in (1, count):
        raise InputError(f"{name} has {len(value)} entries for {count} text(s): give one, or one for each")
    return tuple(value) * (count if len(value) == 1 else 1)


def _check_voices(request: Request) -> None:
    given = [voice is not None for voice in request.voices]
    if any(given) and not all(given):
        raise InputError("some texts have a voice and some have none: give every text of a batch a voice, or none")
    if any(given) and any(instruct is not None for instruct in request.instructs):
        raise InputError("a reference voice and an instruction were both given: choose cloning or design")


def load_voice(path: str | Path) -> Any:
    """A voice prompt saved by `VoiceClonePrompt.save` (upstream's format, version 1).

    Raises:
        InputError: the file is missing or holds no voice prompt.
    """
    from omnivoice import VoiceClonePrompt

    path = Path(path)
    if not path.is_file():
        raise InputError(f"voice file {str(path)!r} does not exist: make one with create_voice(...).save(path)")
    try:
        return VoiceClonePrompt.load(str(path))
    except Exception as error:
        raise InputError(f"{str(path)!r} is not a saved voice: make one with create_voice(...).save(path)") from error
