"""The fixed set of sentences that tier 3 lets every mode say."""

from __future__ import annotations

from dataclasses import dataclass


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
