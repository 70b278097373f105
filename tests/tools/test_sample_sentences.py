"""Every sentence of the samples is one that the demo voice's templates can make: else it would have to guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
from tools.demo_voice.speakers import SPEAKERS
from tools.demo_voice.text import chinese, english, korean

from omnivoice_triton.verify.sample_sentences import DESIGN, REFERENCE_INSTRUCT, REFERENCES, SPOKEN, VOICES

LANGUAGES: dict[str, ModuleType] = {"en": english, "ko": korean, "zh": chinese}
SENTENCES = [*(sentence for _, sentence in SPOKEN), *REFERENCES]


class Odometer:
    """A source of chance that goes through every choice whose words occur in `text`, one combination a run."""

    def __init__(self, text: str, spellings: Sequence[Callable[[int], str]]) -> None:
        self.text, self.spellings = text.casefold(), spellings
        self.wheels: list[int] = []
        self.sizes: list[int] = []

    def start(self) -> None:
        self.sizes = []

    def next(self) -> bool:
        """Turn on by one; False when all is through."""
        self.wheels = self.wheels[: len(self.sizes)]
        while self.wheels and self.wheels[-1] + 1 >= self.sizes[len(self.wheels) - 1]:
            self.wheels.pop()
        if not self.wheels:
            return False
        self.wheels[-1] += 1
        return True

    def _pick(self, options: Sequence[Any]) -> Any:
        options = options or ["\0"]  # a dead end: no sentence holds it
        place = len(self.sizes)
        self.sizes.append(len(options))
        if place == len(self.wheels):
            self.wheels.append(0)
        return options[self.wheels[place]]

    def choice(self, options: Sequence[Any]) -> Any:
        return self._pick([one for one in options if not isinstance(one, str) or one.casefold() in self.text])

    def randint(self, low: int, high: int) -> Any:
        fits = [n for n in range(low, high + 1) if any(spell(n) in self.text for spell in self.spellings)]
        return self._pick(fits or [low])

    def random(self) -> float:
        return float(self._pick([0.0, 0.99]))


def can_make(code: str, text: str) -> bool:
    """Whether a template of that language makes `text`."""
    language = LANGUAGES[code]

    def native(number: int) -> str:
        return str(language.spell_native(number)) if number < 100 else "\0"

    spellings = [language.spell, native] if language is korean else [language.spell]
    for template in language._TEMPLATES:
        chance = Odometer(text, spellings)
        for _ in range(20_000):
            chance.start()
            made = template(chance)
            if made[0].upper() + made[1:] == text:
                return True
            if not chance.next():
                break
    return False


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda s: s.name)
def test_the_templates_make_it(sentence: Any) -> None:
    assert can_make(sentence.code, sentence.text)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "My sister walked over the bridge this Christmas."),
        ("en", "The train leaves at 9:15 on Monday."),
        ("en", "Bridge the over walked sister my this morning."),
        ("ko", "오늘 선생님은 재미있는 책를 읽었습니다."),  # the wrong particle
        ("ko", "오늘 선생님은 재미있는 잡지를 읽었습니다."),
        ("zh", "因为下雨了，所以孩子没有去动物园。"),
    ],
)
def test_another_sentence_is_refused(code: str, text: str) -> None:
    assert not can_make(code, text)


def test_nothing_is_said_twice_and_nothing_lacks() -> None:
    assert {(voice, sentence.code) for voice, sentence in SPOKEN} == {(v, c) for v in VOICES for c in LANGUAGES}
    assert len(SPOKEN) == len(VOICES) * len(LANGUAGES)
    assert [sentence.code for sentence in REFERENCES] == list(dict.fromkeys(s.code for _, s in SPOKEN))
    assert len({sentence.text for sentence in SENTENCES}) == len(SENTENCES)


def test_the_voices_are_three_that_the_demo_voice_was_taught() -> None:
    taught = [", ".join(speaker.attributes) for speaker in SPEAKERS]
    assert DESIGN in taught
    assert REFERENCE_INSTRUCT in taught
    assert len({DESIGN, REFERENCE_INSTRUCT, taught[0]}) == 3
