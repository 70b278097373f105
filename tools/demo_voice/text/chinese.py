"""Mandarin sentences from word lists and templates; numbers are spelled out in characters."""

from __future__ import annotations

import random

from tools.demo_voice.text import lines, words

PEOPLE = words(
    """
    我,你,他,我们,你们,他们,老师,学生,医生,朋友,妈妈,爸爸,哥哥,姐姐,弟弟,妹妹,爷爷,奶奶,孩子,司机,老板,工人,
    农民,警察,记者,画家,歌手,作家,邻居,客人,同学,小王,小李,老张,先生,女士,那个男人,这个女人,年轻人,国王
    """
)
NOUNS = words(
    """
    书,信,桌子,椅子,窗户,门,房子,花园,船,火车,汽车,自行车,马,狗,猫,鸟,鱼,树,花,苹果,橙子,西瓜,面包,牛奶,咖啡,茶,
    水,米饭,面条,鸡蛋,牛肉,蔬菜,杯子,瓶子,盘子,刀,钟,手表,照片,地图,电话,电脑,收音机,钥匙,箱子,书包,篮子,衣服,
    帽子,鞋子,裤子,戒指,石头,墙,纸,铅笔,歌,故事,问题,答案,数字,词,句子,声音,机器,车票,礼物,秘密,梦,计划,课,游戏,
    球,吉他,钢琴,兔子,老鼠,大象,狮子,老虎,猴子,蝴蝶,土豆,西红柿,香蕉,葡萄,糖,盐,雨伞,灯,镜子,报纸
    """
)
PLACES = words(
    """
    学校,家里,公园,市场,图书馆,医院,公司,车站,机场,饭店,厨房,花园里,海边,山上,河边,森林里,村子里,城市里,北京,
    上海,电影院,博物馆,银行,邮局,教室里,房间里,桥上,树下,窗户旁边,路边,宾馆,工厂,商店,广场
    """
)
TIMES = words(
    """
    今天,昨天,明天,现在,早上,晚上,中午,下午,上午,星期一,星期二,星期三,星期四,星期五,星期六,星期天,春天,夏天,
    秋天,冬天,上个月,下个月,去年,明年,每天,有时候,常常,刚才,以后,从前,周末
    """
)
VERBS = words(
    """
    买了,卖了,找到了,丢了,打开了,带来了,画了,洗了,看见了,喜欢,忘了,记得,拿走了,送了,收到了,藏了,数了,做了,借了,
    还了,选了,想要,需要,检查了,准备了,介绍了,认识,听见了,放下了,看了
    """
)
ADJECTIVES = words(
    """
    大,小,长,短,高,低,重,轻,快,慢,暖和,冷,安静,干净,便宜,贵,漂亮,奇怪,容易,难,好,坏,有意思,高兴,难过,忙,健康,
    热情,新,旧,红,白,黑,蓝,绿,黄,圆,方便,著名,聪明
    """
)
WEATHER = words(
    """
    天气很好,下雨了,下雪了,风很大,天很蓝,有很多云,非常热,有一点儿冷,太阳出来了,月亮很亮
    """
)
MOVES = words(
    """
    去,来,走到,跑到,回到,来到
    """
)
SHORT = lines(
    """
    你好。
    早上好。
    晚安。
    谢谢你。
    对不起。
    没关系。
    再见。
    很高兴认识你。
    你好吗？
    请等一下。
    现在几点？
    你去哪里？
    我不知道。
    太好了。
    欢迎回家。
    这是一个测试。
    请慢慢说。
    我们开始吧。
    明天见。
    祝你好运。
    """
)
ABOUT = lines(
    """
    我是一个小模型，在你的电脑上说话。
    这个声音是电脑做的。
    你好，我是演示声音。
    这个小模型会说英语、韩语和汉语。
    机器读句子，然后说话。
    """
)
_MEASURES = (
    ("本", "书"),
    ("只", "猫"),
    ("条", "鱼"),
    ("张", "纸"),
    ("个", "苹果"),
    ("杯", "咖啡"),
    ("朵", "花"),
    ("辆", "汽车"),
)
_DIGITS = "零一二三四五六七八九"


def spell(number: int) -> str:
    """The characters of a number from 0 to 99,999."""
    if number < 10:
        return _DIGITS[number]
    if number < 20:
        return "十" + (_DIGITS[number % 10] if number % 10 else "")
    text, gap = "", False
    for unit, name in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十")):
        digit = number // unit
        number %= unit
        if digit:
            text += ("零" if gap else "") + _DIGITS[digit] + name
            gap = False
        elif text:
            gap = True
    return text + (("零" if gap else "") + _DIGITS[number] if number else "")


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


def _thing(rng: random.Random) -> str:
    noun = rng.choice(NOUNS)
    return f"{rng.choice(ADJECTIVES)}的{noun}" if rng.random() < 0.4 else noun


def _count(rng: random.Random) -> str:
    measure, noun = rng.choice(_MEASURES)
    number = rng.randint(1, 99)
    return f"{'两' if number == 2 else spell(number)}{measure}{noun}"


def _salad(rng: random.Random) -> str:
    lists = (NOUNS, PEOPLE, TIMES, PLACES, ADJECTIVES, VERBS)
    count = rng.randint(5, 9)
    words = [rng.choice(rng.choice(lists)) for _ in range(count)]
    return "".join(words) + "。"


_TEMPLATES = (
    lambda r: f"{r.choice(PEOPLE)}在{r.choice(PLACES)}{r.choice(VERBS)}{_thing(r)}。",
    lambda r: f"{r.choice(TIMES)}{r.choice(PEOPLE)}{r.choice(VERBS)}{_thing(r)}和{_thing(r)}。",
    lambda r: f"{r.choice(PEOPLE)}{r.choice(TIMES)}{r.choice(MOVES)}{r.choice(PLACES)}，{r.choice(WEATHER)}。",
    lambda r: f"{r.choice(PLACES)}有{_count(r)}，还有{_count(r)}。",
    lambda r: f"{r.choice(NOUNS)}很{r.choice(ADJECTIVES)}，但是{r.choice(NOUNS)}不{r.choice(ADJECTIVES)}。",
    lambda r: f"{r.choice(TIMES)}{r.choice(WEATHER)}，{r.choice(PEOPLE)}想{r.choice(('去', '来'))}{r.choice(PLACES)}。",
    lambda r: f"{r.choice(PEOPLE)}和{r.choice(PEOPLE)}一起去{r.choice(PLACES)}买{_thing(r)}。",
    lambda r: f"{r.choice(PEOPLE)}买了{_count(r)}，{r.choice(PEOPLE)}买了{_count(r)}。",
    lambda r: f"这个{r.choice(NOUNS)}{spell(r.randint(2, 9999))}块钱，那个{r.choice(NOUNS)}很便宜。",
    lambda r: f"今天是{spell(r.randint(1, 12))}月{spell(r.randint(1, 31))}号，{r.choice(TIMES[9:16])}。",
    lambda r: f"火车{r.choice(('早上', '下午', '晚上'))}{spell(r.randint(1, 12))}点{spell(r.randint(10, 59))}分出发。",
    lambda r: f"我的电话号码是{''.join(_DIGITS[r.randint(0, 9)] for _ in range(8))}。",
    lambda r: f"请问，{r.choice(PLACES)}有没有{r.choice(ADJECTIVES)}的{r.choice(NOUNS)}？",
    lambda r: f"{r.choice(PEOPLE)}今年{spell(r.randint(3, 99))}岁，非常{r.choice(ADJECTIVES)}。",
    lambda r: f"{r.choice(PEOPLE)}觉得{r.choice(NOUNS)}比{r.choice(NOUNS)}{r.choice(ADJECTIVES)}。",
    lambda r: f"因为{r.choice(WEATHER)}，所以{r.choice(PEOPLE)}没有去{r.choice(PLACES)}。",
    lambda r: f"{spell(r.randint(1, 99))}加{spell(r.randint(1, 99))}不是{spell(r.randint(2, 199))}，你知道吗？",
    lambda r: f"如果{r.choice(WEATHER)}，{r.choice(PEOPLE)}就在{r.choice(PLACES)}等{r.choice(PEOPLE)}。",
)
