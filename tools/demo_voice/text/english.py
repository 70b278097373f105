"""English sentences from word lists and templates; numbers, dates and times are spelled out."""

from __future__ import annotations

import random

from tools.demo_voice.text import lines, words

PEOPLE = words(
    """
    my brother,my sister,our teacher,the doctor,the old man,the young woman,a good friend,the baker,the driver,
    her mother,his father,the captain,the new student,our neighbour,the little girl,the boy,the farmer,
    the singer,the engineer,the nurse,the painter,the writer,my uncle,her aunt,the king,the queen,the waiter,
    the pilot,Anna,David,Peter,Maria,Tom,Lucy,Sam,Emma,Jack,Nora
    """
)
ADJECTIVES = words(
    """
    red,green,blue,yellow,white,black,brown,grey,small,large,big,little,old,new,heavy,light,warm,cold,quiet,
    loud,soft,hard,bright,dark,clean,dirty,long,short,round,square,empty,full,cheap,expensive,simple,strange,
    beautiful,broken,golden,silver,wooden,sweet,fresh,dry,wet,quick,slow,deep,narrow,wide,famous,secret,careful,
    happy,sad,friendly,gentle,hungry,lazy,lucky,modern,perfect,plain,proud,safe,sharp,strong,thin,thick,tiny,
    useful,wild
    """
)
NOUNS = words(
    """
    book,letter,table,chair,window,door,house,garden,river,mountain,bridge,boat,ship,train,car,bicycle,horse,
    dog,cat,bird,fish,tree,flower,apple,orange,lemon,bread,cheese,cake,cup,glass,bottle,plate,knife,spoon,lamp,
    clock,watch,picture,map,camera,radio,computer,phone,key,box,bag,basket,coat,hat,shoe,shirt,ring,stone,wall,
    roof,road,street,field,forest,island,lake,sea,beach,hill,valley,cloud,star,moon,fire,candle,mirror,carpet,
    blanket,pillow,hammer,needle,pencil,paper,song,story,poem,question,answer,number,word,sentence,voice,
    machine,engine,wheel,tower,castle,church,market,kitchen,library,station,school,hospital,office,hotel,
    theatre,museum,factory,ticket,present,secret,dream,idea,plan,problem,lesson,game,ball,guitar,piano,drum,
    violin,rabbit,mouse,elephant,lion,tiger,monkey,butterfly,spider,turtle,dolphin,potato,tomato,carrot,onion,
    banana,cherry,pepper,honey,butter
    """
)
PLURALS = words(
    """
    books,letters,tables,chairs,windows,doors,houses,gardens,rivers,mountains,bridges,boats,ships,trains,cars,
    bicycles,horses,dogs,cats,birds,trees,flowers,apples,oranges,lemons,cups,bottles,plates,lamps,clocks,
    pictures,maps,cameras,computers,phones,keys,boxes,bags,baskets,coats,hats,shoes,shirts,rings,stones,walls,
    roads,streets,fields,islands,lakes,hills,clouds,stars,candles,songs,stories,questions,answers,numbers,words,
    sentences,voices,machines,engines,wheels,towers,castles,tickets,presents,dreams,ideas,plans,problems,
    lessons,games,children,people,students,teachers,friends,sailors,soldiers,workers,tomatoes,potatoes,carrots,
    bananas,cherries,rabbits
    """
)
VERBS_PAST = words(
    """
    found,bought,sold,lost,opened,closed,carried,painted,cleaned,broke,fixed,moved,watched,wanted,liked,loved,
    forgot,remembered,showed,sent,brought,took,kept,hid,dropped,threw,caught,pushed,pulled,counted,measured,
    drew,touched,washed,left,borrowed,returned,described,built,followed,noticed,needed,ordered,picked,saved,saw,
    chose
    """
)
VERBS_BASE = words(
    """
    find,buy,sell,open,close,carry,paint,clean,fix,move,watch,forget,remember,show,send,bring,take,keep,hide,
    drop,catch,push,pull,count,measure,draw,touch,wash,leave,borrow,return,describe,build,follow,order,pick,
    save,choose
    """
)
MOVES = words(
    """
    walked,ran,went,drove,travelled,came,hurried,returned,moved,climbed,rode,sailed,jumped,looked,turned,
    wandered
    """
)
PLACES = words(
    """
    in the garden,near the river,behind the house,under the bridge,on the table,at the station,in the kitchen,
    beside the lake,across the street,in front of the library,at the market,on the island,in the forest,
    between the hills,inside the castle,around the corner,by the window,along the beach,above the clouds,
    next to the hospital,in the middle of the town,at the end of the road,on the other side,outside the city
    """
)
GOALS = words(
    """
    to the market,to the station,to school,to the river,into the forest,over the bridge,through the village,
    towards the mountain,home,across the field,to the north,to the south,up the hill,down the street,
    into the room
    """
)
TIMES = words(
    """
    yesterday,today,tomorrow,last night,this morning,in the evening,every day,on Monday,on Tuesday,on Wednesday,
    on Thursday,on Friday,on Saturday,on Sunday,in January,in March,in April,in June,in August,in October,
    in December,after dinner,before breakfast,last summer,next winter,in the spring,at noon,at midnight,
    a long time ago,once a week,right now,very early,much later,for the first time,every year,again and again
    """
)
FEELINGS = words(
    """
    happy,sad,tired,angry,ready,late,early,hungry,thirsty,busy,afraid,surprised,sure,sorry,alone,ill,awake,
    lucky,quiet,careful,proud,glad,wrong,right,curious,calm,cheerful,nervous,honest,polite,brave,clever
    """
)
MATERIALS = words(
    """
    gold,silver,wood,glass,stone,paper,iron,water,sugar,salt,coffee,tea,milk,rice,sand,snow,wool
    """
)
MONTHS = words(
    """
    January,February,March,April,May,June,July,August,September,October,November,December
    """
)
ORDINALS = words(
    """
    first,second,third,fourth,fifth,sixth,seventh,eighth,ninth,tenth,eleventh,twelfth,thirteenth,fourteenth,
    fifteenth,twentieth,thirtieth
    """
)
SHORT = lines(
    """
    Hello world.
    Good morning.
    Good evening, everyone.
    How are you today?
    Thank you very much.
    Nice to meet you.
    See you tomorrow.
    Welcome home.
    Please wait a moment.
    I don't know.
    That is wonderful.
    Where are you going?
    What time is it?
    Excuse me, please.
    Have a good day.
    Yes, of course.
    No, thank you.
    Good night.
    Well done.
    Here we are again.
    Let us begin.
    This is a test.
    Can you hear me?
    Listen carefully.
    Come with me.
    Not yet.
    """
)
ABOUT = lines(
    """
    This is the demo voice of OmniVoice Triton.
    I am a small model and I speak on your computer.
    The demo voice is small, fast and a little robotic.
    Every word of this sentence was made by a computer.
    The kernel is fast, and the voice is clear.
    This small model speaks English, Korean and Chinese.
    Hello, I am the demo voice, and this is a test.
    The machine reads the text and speaks the words.
    A fast kernel makes a happy computer.
    You can choose a high voice or a low voice.
    """
)
FILLERS = words(
    """
    and,but,or,with,without,from,about,because,very,never,always,sometimes,perhaps,almost,only,also
    """
)

_ONES = words(
    """
    zero,one,two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,thirteen,fourteen,fifteen,sixteen,
    seventeen,eighteen,nineteen
    """
)
_TENS = words(
    """
    zero,ten,twenty,thirty,forty,fifty,sixty,seventy,eighty,ninety
    """
)


def spell(number: int) -> str:
    """The words of a number from 0 to 999,999."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (" " + _ONES[number % 10] if number % 10 else "")
    if number < 1000:
        rest = number % 100
        return f"{_ONES[number // 100]} hundred" + (f" and {spell(rest)}" if rest else "")
    rest = number % 1000
    return f"{spell(number // 1000)} thousand" + (f" {spell(rest)}" if rest else "")


def sentence(rng: random.Random) -> str:
    """One random sentence with its full stop."""
    pick = rng.choice
    kind = rng.random()
    if kind < 0.05:
        return pick(SHORT)
    if kind < 0.07:
        return pick(ABOUT)
    if kind < 0.19:
        return _salad(rng)
    text = pick(_TEMPLATES)(rng)
    return text[0].upper() + text[1:]


def _thing(rng: random.Random) -> str:
    noun = rng.choice(NOUNS)
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.6 else ""
    phrase = f"{adjective} {noun}".strip()
    if rng.random() < 0.5:
        return f"the {phrase}"
    return f"{'an' if phrase[0] in 'aeiou' and not phrase.startswith('use') else 'a'} {phrase}"


def _things(rng: random.Random) -> str:
    number = rng.choice((rng.randint(2, 12), rng.randint(2, 12), rng.randint(13, 100)))
    adjective = rng.choice(ADJECTIVES) + " " if rng.random() < 0.4 else ""
    return f"{spell(number)} {adjective}{rng.choice(PLURALS)}"


def _number(rng: random.Random) -> str:
    return spell(rng.choice((rng.randint(0, 99), rng.randint(100, 999), rng.randint(1000, 9999))))


def _salad(rng: random.Random) -> str:
    lists = (NOUNS, PLURALS, ADJECTIVES, VERBS_PAST, VERBS_BASE, MOVES, FEELINGS, MATERIALS, FILLERS, _ONES, MONTHS)
    words = [rng.choice(rng.choice(lists)) for _ in range(rng.randint(4, 8))]
    text = " ".join(words)
    return text[0].upper() + text[1:] + "."


_TEMPLATES = (
    lambda r: f"{r.choice(PEOPLE)} {r.choice(VERBS_PAST)} {_thing(r)} {r.choice(PLACES)}.",
    lambda r: f"{r.choice(PEOPLE)} {r.choice(VERBS_PAST)} {_things(r)} {r.choice(TIMES)}.",
    lambda r: f"{r.choice(PEOPLE)} {r.choice(MOVES)} {r.choice(GOALS)} {r.choice(TIMES)}.",
    lambda r: f"{_thing(r)} is {r.choice(PLACES)}, and {_thing(r)} is {r.choice(PLACES)}.",
    lambda r: f"there are {_things(r)} {r.choice(PLACES)}.",
    lambda r: f"please {r.choice(VERBS_BASE)} {_thing(r)} {r.choice(TIMES)}.",
    lambda r: f"can you {r.choice(VERBS_BASE)} {_thing(r)} for {r.choice(PEOPLE)}?",
    lambda r: f"{r.choice(PEOPLE)} was {r.choice(FEELINGS)} and {r.choice(FEELINGS)} {r.choice(TIMES)}.",
    lambda r: f"the {r.choice(NOUNS)} is {r.choice(ADJECTIVES)}, but the {r.choice(NOUNS)} is {r.choice(ADJECTIVES)}.",
    lambda r: f"I want to {r.choice(VERBS_BASE)} {_thing(r)} and {r.choice(VERBS_BASE)} {_thing(r)}.",
    lambda r: f"we {r.choice(VERBS_PAST)} {_thing(r)} because {r.choice(PEOPLE)} was {r.choice(FEELINGS)}.",
    lambda r: f"the number is {_number(r)}.",
    lambda r: f"{spell(r.randint(1, 99))} plus {spell(r.randint(1, 99))} is not {spell(r.randint(2, 199))}.",
    lambda r: f"the {r.choice(NOUNS)} costs {_number(r)} dollars and {spell(r.randint(1, 99))} cents.",
    lambda r: f"the train leaves at {spell(r.randint(1, 12))} {spell(r.randint(10, 59))} {r.choice(TIMES)}.",
    lambda r: f"today is the {r.choice(ORDINALS)} of {r.choice(MONTHS)}.",
    lambda r: f"{r.choice(PEOPLE)} is {spell(r.randint(3, 99))} years old and very {r.choice(FEELINGS)}.",
    lambda r: f"my phone number is {', '.join(' '.join(_ONES[r.randint(0, 9)] for _ in range(3)) for _ in range(2))}.",
    lambda r: f"{r.choice(TIMES)}, {r.choice(PEOPLE)} {r.choice(VERBS_PAST)} some {r.choice(MATERIALS)}.",
    lambda r: f"who {r.choice(VERBS_PAST)} the {r.choice(ADJECTIVES)} {r.choice(NOUNS)} {r.choice(PLACES)}?",
    lambda r: f"{r.choice(PEOPLE)} never {r.choice(VERBS_PAST)} the {r.choice(NOUNS)} made of {r.choice(MATERIALS)}.",
    lambda r: f"if you {r.choice(VERBS_BASE)} the {r.choice(NOUNS)}, {r.choice(PEOPLE)} will be {r.choice(FEELINGS)}.",
)
