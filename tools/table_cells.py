"""What tables of several result files share: the shape of a table, names of cases, figures, notes, machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from omnivoice_triton.bench.result_rows import FEWEST_RUNS

Say = Callable[[str], str]
"""A text in the page's language."""
Table = tuple[list[str], list[list[str]], str]
"""Head, rows, a note (empty for none)."""

NOT_YET = "Not measured yet."
LEFT_OUT = "Left out, with the reason in the JSON: {names}."

FEW_RUNS = "{few} of {all} figures are of fewer than {n} runs, down to {least}: no noise bounds."

KOREAN = {
    FEW_RUNS: "{all}개 수치 중 {few}개는 {n}회 미만(최소 {least}회)을 잰 값이다. 잡음 범위가 없다.",
    NOT_YET: "아직 측정하지 않았다.",
    LEFT_OUT: "재지 않은 것(이유는 JSON에 있다): {names}.",
    "none": "없음",
    "batch": "배치",
    "ms": "ms",
    "LM": "LM",
    "codec": "코덱",
    "post": "후처리",
    "host": "호스트",
    "case": "사례",
    "mode": "모드",
    "of base": "base 대비",
    "first call": "첫 호출",
    "times real time": "실시간 대비",
    "kernel": "커널",
    "dtype": "자료형",
    "pass": "통과",
    "FAIL": "실패",
    "en": "영어",
    "ko": "한국어",
    "zh": "중국어",
    "clone": "복제",
    "design": "설계",
    "short": "짧은 문장",
    "{n} s": "{n}초",
    "no GPU": "GPU 없음",
}


def few_runs(rows: Sequence[dict[str, Any]], say: Say) -> str:
    """How many of the timings have too few runs to tell noise; nothing if none."""
    runs = [row["runs"] for row in rows if "runs" in row]
    few = [count for count in runs if count < FEWEST_RUNS]
    return say(FEW_RUNS).format(few=len(few), all=len(runs), n=FEWEST_RUNS, least=min(few)) if few else ""


def in_english(text: str) -> str:
    return text


def case_name(case: str, say: Say) -> str:
    """`en 15 s`, or `ko short`, in words of the language."""
    if say is in_english:
        return case
    what, length = case.split(" ", 1)
    if many := re.fullmatch(r"(\d+) x ([\d.]+) s", length):
        return f"{say(what)} {many[1]} x {say('{n} s').format(n=many[2])}"
    seconds = re.fullmatch(r"([\d.]+) s", length)
    return f"{say(what)} {say('{n} s').format(n=seconds[1]) if seconds else say(length)}"


def figure(row: dict[str, Any], key: str, form: str, factor: float = 1.0) -> str:
    """A figure of a row, or a dash if it was not measured."""
    return form.format(row[key] * factor) if key in row else "–"


def notes(*texts: str) -> str:
    """Those that say something, each a paragraph."""
    return "\n\n".join(text for text in texts if text)


def source(document: dict[str, Any]) -> str:
    """Device, date and versions, the same in every language."""
    env = document["environment"]
    versions = ", ".join(f"{p} {env['versions'][p]}" for p in ("torch", "triton", "transformers", "omnivoice"))
    return f"{env['date_utc'][:10]}, {versions}"


def device(document: dict[str, Any], say: Say) -> str:
    gpus = document["environment"].get("gpus")
    return str(gpus[0]["name"]) if gpus else say("no GPU")
