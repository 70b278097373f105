"""Figures of what a mode's network computed, beside base's, and what they are held to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from omnivoice_triton.config import Mode
from omnivoice_triton.verify.compare import cosine, guided, relative_error, screened_agreement, worst_row_cosine
from omnivoice_triton.verify.outcome import NOTHING
from omnivoice_triton.verify.recording import Forced, Recording

MIN_COSINE = 0.999
MIN_COSINE_INT8 = 0.99
MAX_ERROR_RATIO = 1.25
MIN_AGREEMENT = 0.999
NOT_OF_INT8 = ("logit_error_ratio", "choices_agree")
"""What INT8 modes are not held to: shown all the same."""
ERROR_FLOOR = 1e-6
"""Below this relative distance from fp32 logits no ratio is taken: base in fp32 is its own reference."""


def least(values: Iterable[float]) -> float:
    """The smallest; NaN if one is NaN, which Python's own min() drops unless it comes first, or if there is none."""
    return float(np.min([*values] or [np.nan]))


def most(values: Iterable[float]) -> float:
    """The largest, likewise."""
    return float(np.max([*values] or [np.nan]))


def judge(mode: Mode, got: Recording, base: Recording, exact: Recording, forced: Sequence[Forced]) -> dict[str, Any]:
    """Figures and verdict of one mode. `exact` is base in fp32 on the same canvases."""
    floor = MIN_COSINE_INT8 if mode.int8_qk else MIN_COSINE
    layers = {
        layer: {
            "cosine": least(cosine(a, b) for a, b in zip(states, base.hidden[layer], strict=True)),
            "worst_row_cosine": least(worst_row_cosine(a, b) for a, b in zip(states, base.hidden[layer], strict=True)),
            "relative_error": most(relative_error(a, b) for a, b in zip(states, base.hidden[layer], strict=True)),
        }
        for layer, states in got.hidden.items()
    }
    requests = [request for request in forced for _ in request.canvases]
    steps: list[dict[str, Any]] = []
    for mine, theirs, true, request in zip(got.logits, base.logits, exact.logits, requests, strict=True):
        noise = float((theirs - true).abs().max())
        agreement, compared = screened_agreement(mine, true, 2 * noise)
        z, z_base, z_true = (guided(x, request.guidance, request.mask_id) for x in (mine, theirs, true))
        # In fp32 base is its own reference; two orders of summation are 1e-5 apart.
        margin = 2 * max(float((z_base - z_true).abs().max()), 1e-5 * float(z_true.abs().max()))
        chosen, clear = screened_agreement(z, z_true, margin)
        steps.append(
            {
                "voice": request.voice,
                "relative_error_to_fp32": relative_error(mine, true),
                "base_relative_error_to_fp32": relative_error(theirs, true),
                "cosine_to_base": cosine(mine, theirs),
                "screened_argmax_agreement": agreement if compared else None,
                "screened_rows": compared,
                "margin": margin,
                "choices_agree": chosen if clear else None,
                "clear_choices": clear,
                "choices": z_true[..., 0].numel(),
            }
        )
    ratio = most(s["relative_error_to_fp32"] / max(s["base_relative_error_to_fp32"], ERROR_FLOOR) for s in steps)
    clear = sum(s["clear_choices"] for s in steps)
    agree = sum(s["choices_agree"] * s["clear_choices"] for s in steps if s["clear_choices"])
    problems = [f"layer {k}: cosine {v['cosine']:.6f}" for k, v in layers.items() if not v["cosine"] > floor]
    if mode.int8_qk:
        problems += [f"logits: cosine {s['cosine_to_base']:.6f}" for s in steps if not s["cosine_to_base"] > floor]
    else:
        if not ratio <= MAX_ERROR_RATIO:
            problems.append(f"logits are {ratio:.2f}x as far from fp32 as base's")
        if not clear:
            problems.append("no choice is clear of the dtype's noise: agreement can't be judged")
        elif not agree >= MIN_AGREEMENT * clear:
            problems.append(f"only {100 * agree / clear:.2f} % of {clear} clear choices are base's")
    if not steps or not (layers or got.note):
        problems.append(NOTHING)
    return {
        "mode": mode.name,
        "min_cosine_wanted": floor,
        "layers": layers,
        "steps": steps,
        "logit_error_ratio": ratio,
        "choices_agree": agree / clear if clear else None,
        "clear_choices": clear,
        "not_judged": list(NOT_OF_INT8) if mode.int8_qk else [],
        "note": got.note,
        "passed": not problems,
        "problems": problems,
    }


def nothing_of(mode: Mode, problem: str) -> dict[str, Any]:
    """The row of a mode that gave no figures."""
    return {
        "mode": mode.name,
        "min_cosine_wanted": MIN_COSINE_INT8 if mode.int8_qk else MIN_COSINE,
        "layers": {},
        "steps": [],
        "logit_error_ratio": None,
        "choices_agree": None,
        "clear_choices": 0,
        "not_judged": [],
        "note": "",
        "passed": False,
        "problems": [problem],
    }
