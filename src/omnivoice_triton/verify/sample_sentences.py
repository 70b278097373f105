"""What samples say: one short sentence a language and kind of voice, and one for the voice that is cloned.

All are sentences that the demo voice's templates (`tools/demo_voice/text`) can make, and a test holds them to it: its
vocabulary is small, and digits, names and rare words are not in it. Other models say them as well.
"""

from __future__ import annotations

from omnivoice_triton.verify.sentences import Sentence

VOICES = ("auto", "clone", "design")

SPOKEN: tuple[tuple[str, Sentence], ...] = (
    ("auto", Sentence("ko", "Korean", "오늘 선생님은 재미있는 책을 읽었습니다.")),
    ("clone", Sentence("ko", "Korean", "동생은 친구와 함께 공원에 갔습니다.")),
    ("design", Sentence("ko", "Korean", "기차는 일곱 시 십오 분에 출발합니다.")),
    ("auto", Sentence("en", "English", "My sister walked over the bridge this morning.")),
    ("clone", Sentence("en", "English", "The red bicycle is behind the house, and the small boat is near the river.")),
    ("design", Sentence("en", "English", "The train leaves at nine fifteen on Monday.")),
    ("auto", Sentence("zh", "Chinese", "老师在图书馆借了新的书。")),
    ("clone", Sentence("zh", "Chinese", "因为下雨了，所以孩子没有去公园。")),
    ("design", Sentence("zh", "Chinese", "火车早上九点十五分出发。")),
)
"""Kind of voice and sentence, in the order of the files."""

REFERENCES: tuple[Sentence, ...] = (
    Sentence("ko", "Korean", "어머니는 빨간 사과를 그리고 따뜻한 빵을 샀습니다."),
    Sentence("en", "English", "I want to open the green window and close the heavy door."),
    Sentence("zh", "Chinese", "姐姐和妈妈一起去市场买便宜的苹果。"),
)
"""What base says in the voice that is then cloned, where no recording is given."""

REFERENCE_INSTRUCT = "female, young adult, high pitch"
"""That voice; unlike the one of a model's own choice, so that a clone that isn't one is heard."""
DESIGN = "male, elderly, very low pitch"
"""The designed voice; unlike both. Each is a voice that the demo voice was taught."""
