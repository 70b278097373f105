"""The eight speakers: an espeak-ng variant each, labelled with words of upstream's voice-design vocabulary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language as upstream, espeak-ng and the judge know it."""

    code: str
    espeak: str
    words_per_minute: int
    """Where the search for the right rate starts: about upstream's estimate of a text's length."""


@dataclass(frozen=True)
class Speaker:
    """One voice in all languages."""

    name: str
    variant: str
    """Suffix of an espeak-ng voice name, such as +f2."""
    pitch: int
    """espeak-ng's pitch, 0 to 99."""
    pitch_range: int
    gender: str
    age: str
    pitch_word: str

    @property
    def attributes(self) -> tuple[str, str, str]:
        """Gender, age and pitch, in the words of upstream's voice design."""
        return self.gender, self.age, self.pitch_word


LANGUAGES = (Language("en", "en-us", 155), Language("ko", "ko", 175), Language("zh", "cmn", 290))

SPEAKERS = (
    Speaker("default", "", 45, 45, "male", "young adult", "moderate pitch"),
    Speaker("deep", "+m5", 0, 35, "male", "elderly", "very low pitch"),
    Speaker("low", "+m3", 20, 45, "male", "middle-aged", "low pitch"),
    Speaker("boy", "+m7", 82, 45, "male", "teenager", "high pitch"),
    Speaker("grandmother", "+f4", 20, 40, "female", "elderly", "low pitch"),
    Speaker("woman", "+f2", 45, 45, "female", "middle-aged", "moderate pitch"),
    Speaker("girl", "+f3", 70, 45, "female", "young adult", "high pitch"),
    Speaker("child", "+f5", 92, 45, "female", "child", "very high pitch"),
)
"""The first is the voice that the model takes when nothing is asked for."""

DEFAULT_SHARE = 0.3
"""Share of the default speaker in the recordings; the others share the rest evenly."""


def language(code: str) -> Language:
    """The language with that code."""
    return next(item for item in LANGUAGES if item.code == code)
