"""Korean sentences from word lists and templates; particles follow the final consonant, numbers are spelled out."""

from __future__ import annotations

import random

from tools.demo_voice.text import lines, words

PEOPLE = words(
    """
    저,우리,친구,동생,누나,형,오빠,언니,어머니,아버지,할머니,할아버지,선생님,학생,의사,간호사,경찰,가수,화가,
    작가,농부,기자,아이,아기,이웃,손님,주인,사장님,삼촌,이모,남자,여자,소년,소녀,왕,공주,요리사,운전사,민수,
    지수,영희,철수
    """
)
NOUNS = words(
    """
    책,편지,의자,책상,창문,문,집,정원,강,산,다리,배,기차,자동차,자전거,말,강아지,고양이,새,물고기,나무,꽃,사과,
    포도,수박,딸기,빵,우유,커피,물,밥,김치,고기,생선,컵,병,접시,칼,숟가락,시계,사진,지도,전화기,컴퓨터,라디오,
    열쇠,상자,가방,바구니,옷,모자,신발,바지,반지,돌,벽,지붕,길,거리,들판,숲,섬,호수,바다,언덕,구름,별,달,불,
    촛불,거울,이불,연필,종이,노래,이야기,시,질문,대답,숫자,단어,문장,목소리,기계,바퀴,탑,성,표,선물,비밀,꿈,
    생각,계획,문제,수업,놀이,공,기타,피아노,북,토끼,쥐,코끼리,사자,호랑이,원숭이,나비,거미,거북이,감자,토마토,
    당근,양파,바나나,꿀,소금,설탕
    """
)
PLACES = words(
    """
    학교,집,공원,시장,도서관,병원,회사,역,공항,식당,부엌,정원,바닷가,산,강가,숲속,마을,도시,서울,부산,제주도,
    극장,박물관,은행,우체국,교실,방,거실,다리 위,나무 아래,창문 옆,길가,호텔,공장,농장,섬
    """
)
TIMES = words(
    """
    오늘,어제,내일,지금,아침에,저녁에,밤에,낮에,새벽에,오전에,오후에,월요일에,화요일에,수요일에,목요일에,
    금요일에,토요일에,일요일에,봄에,여름에,가을에,겨울에,지난주에,다음 주에,작년에,내년에,매일,가끔,자주,항상,
    아까,나중에
    """
)
ACTIONS = words(
    """
    샀습니다,팔았습니다,찾았습니다,잃어버렸습니다,열었습니다,닫았습니다,가져왔습니다,그렸습니다,닦았습니다,
    고쳤습니다,옮겼습니다,보았습니다,좋아합니다,사랑합니다,기억합니다,보여 주었습니다,보냈습니다,받았습니다,
    숨겼습니다,던졌습니다,잡았습니다,밀었습니다,세었습니다,만들었습니다,씻었습니다,빌렸습니다,돌려주었습니다,
    골랐습니다,먹었습니다,읽었습니다,썼습니다,들었습니다,원합니다,주문했습니다,준비했습니다,기다립니다,
    사고 싶습니다,보고 싶습니다,만들 수 있습니다
    """
)
MOVES = words(
    """
    갔습니다,왔습니다,걸어갔습니다,뛰어갔습니다,돌아왔습니다,떠났습니다,출발했습니다,도착했습니다,올라갔습니다,
    내려갔습니다,여행했습니다,들어갔습니다,나갔습니다,갑니다,옵니다,가고 싶습니다
    """
)
STATES = words(
    """
    큽니다,작습니다,깁니다,짧습니다,높습니다,낮습니다,무겁습니다,가볍습니다,빠릅니다,느립니다,따뜻합니다,
    차갑습니다,조용합니다,시끄럽습니다,밝습니다,어둡습니다,깨끗합니다,더럽습니다,비쌉니다,쌉니다,예쁩니다,
    아름답습니다,이상합니다,쉽습니다,어렵습니다,좋습니다,나쁩니다,재미있습니다,맛있습니다,행복합니다,슬픕니다,
    바쁩니다,건강합니다,친절합니다
    """
)
MODIFIERS = words(
    """
    큰,작은,긴,짧은,높은,낮은,무거운,가벼운,빠른,느린,따뜻한,차가운,조용한,시끄러운,밝은,어두운,깨끗한,더러운,
    비싼,싼,예쁜,아름다운,이상한,쉬운,어려운,좋은,나쁜,재미있는,맛있는,행복한,슬픈,바쁜,새로운,오래된,빨간,파란,
    노란,하얀,까만
    """
)
WEATHER = words(
    """
    날씨가 좋습니다,비가 옵니다,눈이 옵니다,바람이 붑니다,하늘이 맑습니다,구름이 많습니다,아주 덥습니다,
    조금 춥습니다
    """
)
SHORT = lines(
    """
    안녕하세요.
    반갑습니다.
    감사합니다.
    죄송합니다.
    안녕히 가세요.
    잘 지냈어요?
    네, 알겠습니다.
    아니요, 괜찮습니다.
    좋은 아침입니다.
    내일 만나요.
    잠깐만 기다려 주세요.
    지금 몇 시입니까?
    어디에 가세요?
    이것은 시험입니다.
    시작하겠습니다.
    천천히 말해 주세요.
    정말 좋습니다.
    다시 한번 말해 주세요.
    맛있게 드세요.
    안녕히 주무세요.
    """
)
ABOUT = lines(
    """
    저는 작은 모델이고 컴퓨터에서 말합니다.
    이 목소리는 컴퓨터가 만든 목소리입니다.
    안녕하세요, 저는 시범 목소리입니다.
    이 작은 모델은 한국어와 영어와 중국어를 말합니다.
    기계가 문장을 읽고 단어를 말합니다.
    """
)
_PHONE = words("일,이,삼,사,오,육,칠,팔,구,공")
_COUNTERS = (
    ("사과", "개"),
    ("책", "권"),
    ("고양이", "마리"),
    ("나무", "그루"),
    ("종이", "장"),
    ("자동차", "대"),
    ("커피", "잔"),
)
_NATIVE = words(
    """
    ,하나,둘,셋,넷,다섯,여섯,일곱,여덟,아홉
    """
)
_NATIVE_BEFORE = words(
    """
    ,한,두,세,네,다섯,여섯,일곱,여덟,아홉
    """
)
_NATIVE_TENS = words(
    """
    ,열,스물,서른,마흔,쉰,예순,일흔,여든,아흔
    """
)
_DIGITS = words(
    """
    ,일,이,삼,사,오,육,칠,팔,구
    """
)


def spell(number: int) -> str:
    """The Sino-Korean words of a number from 0 to 99,999,999."""
    if number == 0:
        return "영"
    text = ""
    if number >= 10_000:
        head = number // 10_000
        text = ("" if head == 1 else spell(head)) + "만"
        number %= 10_000
    for unit, name in ((1000, "천"), (100, "백"), (10, "십")):
        digit = number // unit
        if digit:
            text += ("" if digit == 1 else _DIGITS[digit]) + name
        number %= unit
    return text + _DIGITS[number]


def spell_native(number: int) -> str:
    """The native Korean number before a counter, 1 to 99."""
    if number == 20:
        return "스무"
    return _NATIVE_TENS[number // 10] + _NATIVE_BEFORE[number % 10]


def particle(word: str, after_consonant: str, after_vowel: str) -> str:
    """The word with the particle that fits its last syllable (으로 also after ㄹ: 로)."""
    final = (ord(word[-1]) - 0xAC00) % 28
    if after_consonant == "으로" and final == 8:
        return word + after_vowel
    return word + (after_consonant if final else after_vowel)


def sentence(rng: random.Random) -> str:
    """One random sentence with its full stop."""
    kind = rng.random()
    if kind < 0.05:
        return rng.choice(SHORT)
    if kind < 0.07:
        return rng.choice(ABOUT)
    if kind < 0.17:
        return _salad(rng)
    return rng.choice(_TEMPLATES)(rng)


def _topic(rng: random.Random) -> str:
    word = rng.choice(PEOPLE)
    return particle(word, "은", "는") if rng.random() < 0.6 or word == "저" else particle(word, "이", "가")


def _subject(rng: random.Random) -> str:
    return particle(rng.choice(NOUNS), "은", "는")


def _object(rng: random.Random) -> str:
    noun = rng.choice(NOUNS)
    return (rng.choice(MODIFIERS) + " " if rng.random() < 0.5 else "") + particle(noun, "을", "를")


def _salad(rng: random.Random) -> str:
    lists = (NOUNS, PEOPLE, MODIFIERS, TIMES, ACTIONS, MOVES, STATES, PLACES)
    if rng.random() < 0.4:  # Words that don't exist: every syllable next to every other
        pool = "".join(NOUNS + PEOPLE + MODIFIERS + ACTIONS + MOVES + STATES).replace(" ", "")
        words = ["".join(rng.choice(pool) for _ in range(rng.randint(2, 4))) for _ in range(rng.randint(4, 6))]
    else:
        words = [rng.choice(rng.choice(lists)) for _ in range(rng.randint(4, 7))]
    return " ".join(words) + "."


def _count(rng: random.Random) -> str:
    thing, counter = rng.choice(_COUNTERS)
    return f"{thing} {spell_native(rng.randint(1, 39))} {counter}"


_TEMPLATES = (
    lambda r: f"{_topic(r)} {r.choice(PLACES)}에서 {_object(r)} {r.choice(ACTIONS)}.",
    lambda r: f"{r.choice(TIMES)} {_topic(r)} {_object(r)} {r.choice(ACTIONS)}.",
    lambda r: f"{_topic(r)} {r.choice(TIMES)} {r.choice(PLACES)}에 {r.choice(MOVES)}.",
    lambda r: f"{r.choice(MODIFIERS)} {particle(r.choice(NOUNS), '이', '가')} {r.choice(PLACES)}에 있습니다.",
    lambda r: f"{particle(r.choice(NOUNS), '과', '와')} {_subject(r)} 아주 {r.choice(STATES)}.",
    lambda r: f"{r.choice(TIMES)} {r.choice(WEATHER)}.",
    lambda r: f"{_topic(r)} {particle(r.choice(PEOPLE[2:]), '과', '와')} 함께 {r.choice(PLACES)}에 {r.choice(MOVES)}.",
    lambda r: f"{_topic(r)} {_count(r)}를 {r.choice(ACTIONS)}.",
    lambda r: f"{particle(r.choice(NOUNS), '은', '는')} {spell(r.randint(1, 99) * 100)} 원입니다.",
    lambda r: f"오늘은 {spell(r.randint(1, 12))}월 {spell(r.randint(1, 31))}일입니다.",
    lambda r: f"기차는 {spell_native(r.randint(1, 12))} 시 {spell(r.randint(1, 59))} 분에 출발합니다.",
    lambda r: f"제 전화번호는 {' '.join(r.choice(_PHONE) for _ in range(7))}입니다.",
    lambda r: f"{_object(r)} {r.choice(PLACES)}에서 찾을 수 있습니까?",
    lambda r: f"{_topic(r)} {spell_native(r.randint(3, 99))} 살이고 아주 {r.choice(STATES)}.",
    lambda r: f"{_subject(r)} {r.choice(STATES)}, 그러나 {_subject(r)} {r.choice(STATES)}.",
    lambda r: f"{r.choice(PLACES)}에 {_count(r)}가 있습니다.",
    lambda r: f"{particle(r.choice(NOUNS), '으로', '로')} {_object(r)} 만들 수 있습니다.",
    lambda r: f"{_topic(r)} {_object(r)} 그리고 {_object(r)} {r.choice(ACTIONS)}.",
)
