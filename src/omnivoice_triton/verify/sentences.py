"""What tier 3 lets every mode say: a fixed set of sentences, or the demo voice's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnivoice_triton.checkpoint import is_demo
from omnivoice_triton.checkpoint.demo import SENTENCES as DEMO_SENTENCES
from omnivoice_triton.evidence import read_json
from omnivoice_triton.speech import CheckpointError


@dataclass(frozen=True)
class Sentence:
    """One line of the set."""

    code: str
    """ISO 639-1, as recognisers name languages."""
    language: str
    """As upstream names it."""
    text: str

    @property
    def name(self) -> str:
        """Short label."""
        return f"{self.code}: {self.text[:24]}"


SENTENCES = (
    Sentence("en", "English", "The train to the coast leaves at seven, so please don't be late."),
    Sentence("ko", "Korean", "오늘 아침에는 바람이 조금 불지만 하늘은 아주 맑습니다."),
    Sentence("zh", "Chinese", "请把窗户关上，外面开始下雨了。"),
    Sentence("ja", "Japanese", "明日の会議は午後三時から始まります。"),
    Sentence("de", "German", "Der Schlüssel liegt unter der Matte neben der Tür."),
    Sentence("fr", "French", "Nous avons trouvé un petit café au bord de la rivière."),
    Sentence("es", "Spanish", "Mañana vamos a comprar pan, queso y un poco de fruta."),
    Sentence("en", "English", "Could you read the second paragraph once more, a little slower?"),
    Sentence("ko", "Korean", "도서관은 저녁 아홉 시까지 열려 있어요."),
    Sentence("zh", "Chinese", "他从小就喜欢在海边看日出。"),
    Sentence("it", "Italian", "Il concerto comincia tra venti minuti, dobbiamo correre."),
    Sentence("pt", "Portuguese", "O mercado abre cedo e fica cheio aos sábados."),
    Sentence("ru", "Russian", "Завтра утром мы поедем за город."),
    Sentence("en", "English", "She wrote the answer on the board and waited for questions."),
    Sentence("ko", "Korean", "커피 두 잔하고 따뜻한 물 한 잔 주세요."),
    Sentence("zh", "Chinese", "这本书的最后一章最有意思。"),
)
"""Ordered so that a prefix of any length is as multilingual as it can be; no digits, whose spelling is a guess."""

REFERENCE = Sentence("en", "English", "This voice will be copied, so it speaks for a few seconds without a pause.")
"""What base says to make the voice that all modes clone, where none is given."""

LANGUAGES = {"en": "English", "ko": "Korean", "zh": "Chinese"}
"""Those of the demo voice."""
DEMO_VOICE = "female, middle-aged, moderate pitch"
"""Whom of its speakers all modes clone: not the one that it takes when nothing is asked for."""


@dataclass(frozen=True)
class Material:
    """What a model is given to say."""

    sentences: tuple[Sentence, ...]
    references: tuple[Sentence, ...]
    """For the voice that all modes clone: one for every sentence, or one for the sentences of each language."""
    reference_instruct: str | None = None
    """The voice in which base says it."""
    reference_s: float | None = 3.0
    """Its seconds; None is the model's estimate."""

    def reference(self, code: str) -> Sentence:
        """What the voice to clone says where the sentence to be said is in that language."""
        return next((one for one in self.references if one.code == code), self.references[0])


def material(path: Path) -> Material:
    """The fixed set; for a demo voice, which knows its word lists only, its held-out sentences.

    Raises:
        CheckpointError: a demo voice without its sentences.
    """
    if not is_demo(path):
        return Material(SENTENCES, (REFERENCE,))
    sentences = held_out(path)
    # It was never trained to clone across languages. The last ones: it takes nearly all for them to be said as well.
    last = {sentence.code: sentence for sentence in sentences}
    return Material(sentences, tuple(last.values()), DEMO_VOICE, None)


def held_out(path: Path) -> tuple[Sentence, ...]:
    """The sentences of a demo checkpoint that it was not trained on, languages in turn.

    Each round begins with another language, so that every third one isn't always the same.
    """
    queues: dict[str, list[Sentence]] = {}
    for row in _read_list(path / DEMO_SENTENCES):
        code = row.get("language") if isinstance(row, dict) else None
        if code not in LANGUAGES or not row.get("text"):
            raise CheckpointError(f"{path / DEMO_SENTENCES}: {row!r} is no sentence of {', '.join(LANGUAGES)}")
        queues.setdefault(code, []).append(Sentence(code, LANGUAGES[code], row["text"]))
    codes = list(queues)
    ordered: list[Sentence] = []
    for number in range(max(map(len, queues.values()), default=0)):
        turned = codes[number % len(codes) :] + codes[: number % len(codes)]
        ordered += [queues[code][number] for code in turned if number < len(queues[code])]
    if not any(sentence.code == "en" for sentence in ordered):
        raise CheckpointError(f"{path / DEMO_SENTENCES} holds no English sentence")
    return tuple(ordered)


def _read_list(path: Path) -> list[Any]:
    rows = read_json(path, CheckpointError)
    if not isinstance(rows, list):
        raise CheckpointError(f"{path} must hold a list of sentences, not {type(rows).__name__}")
    return rows
