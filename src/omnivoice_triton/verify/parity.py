"""Tier 2: does each mode's network compute what base computes? `python -m omnivoice_triton.verify.parity`

Teacher forcing (see `recording`): every mode gets the canvases of one decoding by base, in a voice of the model's
choice and in a cloned one. Hidden states are compared with base's, logits also with base in fp32: a mode may be as far
from it as base in the same dtype is, times 1.25, and where base's choice is clear of the dtype's noise it has to choose
alike.
Mode turbo has a backbone, noise and a codec of its own: see `engine_checks`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnivoice_triton.checkpoint import is_demo
from omnivoice_triton.config import MODES, Mode
from omnivoice_triton.evidence import default_model, write_json
from omnivoice_triton.models.acceleration import accelerate
from omnivoice_triton.models.availability import check_device, resolve_dtype, unavailable_reason
from omnivoice_triton.speech import InputError, OmniVoiceTritonError
from omnivoice_triton.verify import engine_checks
from omnivoice_triton.verify.compare import cosine, guided, relative_error, screened_agreement, worst_row_cosine
from omnivoice_triton.verify.outcome import NOTHING, Progress, Tier, quiet
from omnivoice_triton.verify.recording import VOICES, Forced, Recording, chosen_layers, force, record, record_engine
from omnivoice_triton.verify.sentences import material

LAYERS = (0, 7, 14, 21, 27)
MIN_COSINE = 0.999
MIN_COSINE_INT8 = 0.99
MAX_ERROR_RATIO = 1.25
MIN_AGREEMENT = 0.999
ERROR_FLOOR = 1e-6
"""Below this relative distance from fp32 logits no ratio is taken: base in fp32 is its own reference."""
SENTENCE = "Hello, welcome to the OmniVoice text-to-speech system."


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
        "note": got.note,
        "passed": not problems,
        "problems": problems,
    }


def check_modes(
    path: Path,
    modes: Sequence[str],
    *,
    device: str,
    dtype: str,
    text: str | None = None,
    seconds: float,
    steps: int,
    keep: int,
    layers: Sequence[int] | None = LAYERS,
    voices: Sequence[str] = VOICES,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """Figures and verdict of each mode on the checkpoint at `path`; no text means one that the model knows."""
    from omnivoice import OmniVoice

    def load(kind: torch.dtype) -> Any:
        return OmniVoice.from_pretrained(str(path), device_map=device, dtype=kind).eval()

    progress(2, f"base in {dtype} and fp32", 0, len(modes) + 1)
    model = load(resolve_dtype(dtype, device))
    wanted = chosen_layers(layers, len(model.llm.layers))
    said = text or known_text(path)
    forced = [force(model, said, seconds, steps, keep, voice) for voice in voices]

    def of_upstream(upstream: Any) -> Recording:
        made = Recording({}, [])
        for request in forced:
            made.extend(record(upstream, request, wanted))
        return made

    base = of_upstream(model)
    in_full = load(torch.float32)
    exact = of_upstream(in_full)
    del in_full
    rows = []
    for number, name in enumerate(modes):
        progress(2, f"{name} in {dtype}", number + 1, len(modes) + 1)
        got, own = Recording({}, []), {}
        for request in forced:
            # Anew for each: a graph that was captured under hooks goes on writing to their buffers.
            with accelerate(model, name) as handle:
                if handle.turbo is None:
                    got.extend(record(model, request, wanted))
                    continue
                engine = handle.turbo.engine
                got.extend(record_engine(engine, request, wanted))
                if request is forced[0]:
                    handle.turbo.warmup()
                    own = engine_checks.check_engine(handle.turbo, model, request)
        row = {"name": f"{name} {dtype}", "dtype": dtype, **judge(MODES[name], got, base, exact, forced)}
        if own:
            row["problems"] += own.pop("problems")
            row["passed"] = not row["problems"]
            row["engine"] = own
        rows.append(row)
    return rows


def known_text(path: Path) -> str:
    """What the model at `path` can say: a demo voice knows its own sentences only."""
    return material(path).sentences[0].text if is_demo(path) else SENTENCE


def usable_modes(modes: Sequence[str] | None, device: str) -> list[str]:
    """The modes asked for, or all that can run on `device`.

    Raises:
        InputError: one that was asked for can't run here.
    """
    able = {name: unavailable_reason(mode, device) for name, mode in MODES.items()}
    if modes is None:
        return [name for name, reason in able.items() if reason is None]
    for name in modes:
        if name not in able:
            raise InputError(f"unknown mode {name!r}: choose from {', '.join(MODES)}")
        if able[name]:
            raise InputError(f"mode {name} can't run here: {able[name]}")
    return list(modes)


def default_dtypes(device: str) -> list[str]:
    """fp16 and bf16 on a GPU, fp32 on a CPU."""
    return ["fp32"] if torch.device(device).type == "cpu" else ["fp16", "bf16"]


def run(
    path: Path, modes: Sequence[str], *, device: str, dtypes: Sequence[str], progress: Progress = quiet, **settings: Any
) -> Tier:
    """Tier 2 on the checkpoint at `path`; settings as `check_modes` takes them."""
    tier = Tier(
        2,
        "model",
        "hidden states, logits and choices of each mode on base's own canvases, against base and base in fp32",
        {
            "min_cosine": MIN_COSINE,
            "min_cosine_int8": MIN_COSINE_INT8,
            "logit_error_of_base": MAX_ERROR_RATIO,
            "choices_agree": MIN_AGREEMENT,
        },
    )
    start = time.perf_counter()
    for dtype in dtypes:
        tier.rows += check_modes(path, modes, device=device, dtype=dtype, progress=progress, **settings)
    if not set(modes) - {"base"}:
        tier.problems.append("no mode was compared with base: name one")
    tier.notes += sorted({f"{row['mode']}: {row['note']}" for row in tier.rows if row["note"]})
    if any("engine" in row and row["engine"]["replay_equals_eager"] is None for row in tier.rows):
        tier.notes.append("turbo: no graphs on this device, so replay against eager was not compared")
    if any(MODES[mode].int8_qk for mode in modes):
        tier.notes.append("INT8-QK modes are approximate: held to their cosines, not to base's error or choices")
    tier.seconds = time.perf_counter() - start
    return tier


def main(argv: list[str] | None = None) -> int:
    """Compare, print a table, write JSON; exit code 1 if a mode fails or nothing ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=None, help="hub id or directory; default: full-size random on a GPU")
    parser.add_argument("--modes", nargs="+", default=None, choices=list(MODES))
    parser.add_argument("--dtypes", nargs="+", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--text", help=f"default: {SENTENCE!r}, or a sentence of the demo voice's own")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=32, help="decoding steps")
    parser.add_argument("--keep", type=int, default=8, help="steps whose canvases are compared, of each voice")
    parser.add_argument("--voices", nargs="+", default=list(VOICES), choices=VOICES)
    parser.add_argument("--all-layers", action="store_true", help="hidden states of every layer, not of five")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    try:
        device = check_device(options.device)
        path = default_model(options.model, device)
        tier = run(
            path,
            usable_modes(options.modes, device),
            device=device,
            dtypes=options.dtypes or default_dtypes(device),
            text=options.text,
            seconds=options.seconds,
            steps=options.steps,
            keep=options.keep,
            layers=None if options.all_layers else LAYERS,
            voices=options.voices,
        )
        write_json(options.json, "parity", path, {"notes": tier.notes, "results": tier.rows})
    except OmniVoiceTritonError as error:
        print(f"verify.parity: {error}", file=sys.stderr)
        return 2
    code = report(tier.rows)
    for problem in tier.problems:
        print(f"FAIL: {problem}")
    return code if not tier.problems else 1


def report(rows: list[dict[str, Any]]) -> int:
    """Print a table; the exit code is the verdict, and a table of nothing fails."""
    for row in rows:
        cosines = " ".join(f"L{layer} {v['cosine']:.6f}" for layer, v in row["layers"].items())
        agree = "none clear" if row["choices_agree"] is None else f"{row['choices_agree']:.4f}"
        verdict = "PASS" if row["passed"] else f"FAIL ({'; '.join(row['problems'])})"
        print(
            f"{row['dtype']:5}{row['mode']:12} {cosines}  logits {row['logit_error_ratio']:.2f}x base's error, "
            f"choices {agree} of {row['clear_choices']}  {verdict}"
        )
    if not rows:
        print(f"FAIL: {NOTHING}")
    return 0 if rows and all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
