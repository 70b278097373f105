"""What `bench/results/verify.json` says of the three tiers, as heads, rows and notes; `results_tables` writes them."""

from __future__ import annotations

from typing import Any

from omnivoice_triton.config import MODES
from table_cells import Say, Table

TIERS_NOTE = "A tier that ran nothing fails, and so does the whole; the thresholds are in the JSON."
KERNELS_NOTE = (
    "Largest relative error of all shapes, to the plain PyTorch twin; in brackets to a float64 reference, as a "
    "multiple of the twin's own, which counts where the error is above the JSON's floor. *Equal*: whole numbers, "
    "which have to be the same."
)
SPEECH_NOTE = (
    "Difference from base over the same utterances, with its 95 % interval; *open*: it lies partly beyond the margin, "
    "which more utterances would settle; *not judged*: INT8 modes are not held to token agreement. Random weights say "
    "nothing that could be understood: error rates are the demo voice's, in its model card."
)
INT8_NOTE = "\\*: not judged. INT8 modes are held to their cosines, above 0.99, and not to base's error or choices."
TIERS = {1: "kernels", 2: "hidden states and logits", 3: "speech"}
MEASURES = {
    "tokens_equal": "tokens of fp32 base",
    "speaker_similarity": "speaker similarity",
    "duration": "duration",
    "silence": "silence",
}

KOREAN = {
    TIERS_NOTE: "아무것도 실행하지 않은 단계는 실패이고 전체도 실패다. 기준값은 JSON에 있다.",
    KERNELS_NOTE: (
        "모든 형태 가운데 가장 큰 상대 오차, 순수 PyTorch 구현 기준. 괄호 안은 float64 기준 오차를 순수 PyTorch 구현의 "
        "오차로 나눈 배수이며 JSON의 하한보다 큰 오차에만 적용된다. *일치*는 같아야 하는 정수다."
    ),
    SPEECH_NOTE: (
        "같은 발화에서 base와의 차이와 95 % 구간. *미정*은 구간 일부가 허용치를 넘어 발화를 더 재야 알 수 있다는 "
        "뜻이고, *판정 안 함*은 INT8 모드가 토큰 일치를 요구받지 않는다는 뜻이다. 무작위 가중치의 말은 알아들을 수 "
        "없으므로 오류율은 데모 음성의 모델 카드에 있다."
    ),
    INT8_NOTE: "\\*: 판정하지 않는다. INT8 모드는 base의 오차나 선택이 아니라 0.99를 넘는 코사인으로 판정한다.",
    "open": "미정",
    "worse": "나쁨",
    "not judged": "판정 안 함",
    "layer {n}": "{n}층",
    "logit error of base's": "base 대비 로짓 오차",
    "screened argmax": "선별 argmax",
    "tier": "단계",
    "checks": "검사",
    "failed": "실패한 검사",
    "seconds": "초",
    "kernels": "커널",
    "hidden states and logits": "은닉 상태와 로짓",
    "speech": "음성",
    "equal": "일치",
    "utterances": "발화",
    "tokens of fp32 base": "fp32 base와 같은 토큰",
    "speaker similarity": "화자 유사도",
    "duration": "길이",
    "silence": "무음",
}


def tier(document: dict[str, Any], number: int) -> dict[str, Any]:
    """That tier of a report.

    Raises:
        SystemExit: it did not run.
    """
    for each in document["results"]:
        if each["tier"] == number:
            found: dict[str, Any] = each
            return found
    raise SystemExit(f"bench/results/verify.json has no tier {number}")


def tiers(document: dict[str, Any], say: Say) -> Table:
    """What ran, and the verdicts."""
    rows = [
        [
            f"{each['tier']}: {say(TIERS[each['tier']])}",
            str(each["checks"]),
            str(each["failed"]),
            f"{each['seconds']:.0f}",
            say("pass" if each["passed"] else "FAIL"),
        ]
        for each in document["results"]
    ]
    return [*(say(title) for title in ("tier", "checks", "failed", "seconds")), ""], rows, say(TIERS_NOTE)


def kernels(document: dict[str, Any], say: Say) -> Table:
    """Each kernel's largest error, by dtype."""
    found = tier(document, 1)["rows"]
    dtypes = [name for name in ("float32", "float16", "bfloat16") if any(r["dtype"] == name for r in found)]
    rows = []
    for kernel in dict.fromkeys(r["kernel"] for r in found):
        mine = [r for r in found if r["kernel"] == kernel]
        cells = [_worst([r for r in mine if r["dtype"] == dtype], say) for dtype in dtypes]
        rows.append([f"`{kernel}`", str(len(mine)), *cells, say("pass" if all(r["passed"] for r in mine) else "FAIL")])
    return [say("kernel"), say("checks"), *dtypes, ""], rows, say(KERNELS_NOTE)


def _worst(rows: list[dict[str, Any]], say: Say) -> str:
    errors = [r["error_to_twin"] for r in rows if r.get("error_to_twin") is not None]
    if not errors:
        return say("equal") if rows and all(r.get("unequal") == 0 for r in rows) else "–"
    ratios = [
        r["error_to_float64"] / r["twin_error_to_float64"]
        for r in rows
        if r.get("error_to_float64") is not None and r.get("twin_error_to_float64")
    ]
    return f"{max(errors):.1e}" + (f" ({max(ratios):.2f}x)" if ratios else "")


def parity(document: dict[str, Any], say: Say) -> Table:
    """Hidden-state cosines and logit error of each mode."""
    found = tier(document, 2)["rows"]
    layers = list(dict.fromkeys(layer for r in found for layer in r["layers"]))
    rows = [
        [
            r["dtype"],
            f"`{r['mode']}`",
            *(f"{r['layers'][layer]['cosine']:.6f}" if layer in r["layers"] else "–" for layer in layers),
            _marked(None if r["logit_error_ratio"] is None else f"{r['logit_error_ratio']:.2f}x", r),
            _marked(_screened(r), r),
            say("pass" if r["passed"] else "FAIL"),
        ]
        for r in found
    ]
    head = [say("dtype"), say("mode"), *(say("layer {n}").format(n=layer) for layer in layers)]
    note = say(INT8_NOTE) if any(_int8(r) for r in found) else ""
    return [*head, say("logit error of base's"), say("screened argmax"), ""], rows, note


def _int8(row: dict[str, Any]) -> bool:
    return MODES[row["mode"]].int8_qk


def _marked(cell: str | None, row: dict[str, Any]) -> str:
    """A figure, starred where the mode isn't held to it."""
    if cell is None:
        return "–"
    return f"{cell} \\*" if _int8(row) else cell


def _screened(row: dict[str, Any]) -> str | None:
    """Lowest agreement of a step that had choices to compare."""
    judged = [s["screened_argmax_agreement"] for s in row["steps"] if s["screened_argmax_agreement"] is not None]
    return f"{100 * min(judged):.2f} %" if judged else None


def speech(document: dict[str, Any], say: Say) -> Table:
    """Each mode beside base: differences with intervals."""
    rows = []
    for r in tier(document, 3)["rows"]:
        if r["mode"] == "base":
            continue
        cells = [_difference(r["comparisons"].get(name), say) for name in MEASURES]
        verdict = say("pass" if r["passed"] else "FAIL")
        rows.append([f"`{r['mode']}`", r["dtype"], str(r["utterances"]), *cells, verdict])
    head = [say("mode"), say("dtype"), say("utterances"), *(say(title) for title in MEASURES.values()), ""]
    return head, rows, say(SPEECH_NOTE)


def _difference(found: dict[str, Any] | None, say: Say) -> str:
    """With the verdict, unless it is that the interval lies within the margin."""
    if found is None:
        return "–"
    verdict = "" if found["verdict"] == "within" else f" {say(found['verdict'])}"
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]{verdict}"
