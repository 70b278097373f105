"""Tier 2: does each mode's network compute what base computes? `python -m omnivoice_triton.verify.parity`

Teacher forcing (see `recording`): every mode gets the canvases of one decoding by base, in a voice of the model's
choice and in a cloned one. Hidden states are compared with base's, logits also with base in fp32: a mode may be as far
from it as base in the same dtype is, times 1.25, and where base's choice is clear of the dtype's noise it has to choose
alike.
Mode turbo has a backbone, noise and a codec of its own: see `engine_checks`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from omnivoice_triton.checkpoint import is_demo
from omnivoice_triton.commands import MODEL_HELP, Parser, command
from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import check_outputs, default_model, write_json
from omnivoice_triton.models.acceleration import accelerate
from omnivoice_triton.models.availability import check_device, resolve_dtype, unavailable_reason
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import engine_checks
from omnivoice_triton.verify.model_figures import (
    MAX_ERROR_RATIO,
    MIN_AGREEMENT,
    MIN_COSINE,
    MIN_COSINE_INT8,
    judge,
    nothing_of,
)
from omnivoice_triton.verify.outcome import NOTHING, Progress, Tier, quiet, raised
from omnivoice_triton.verify.recording import VOICES, Forced, Recording, chosen_layers, force, record, record_engine
from omnivoice_triton.verify.sentences import material

LAYERS = (0, 7, 14, 21, 27)
SENTENCE = "Hello, welcome to the OmniVoice text-to-speech system."


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
        try:
            got, own = _record_mode(model, name, forced, wanted)
            found = judge(MODES[name], got, base, exact, forced)
        except Exception as error:  # the other modes' figures are still worth their time
            found, own = nothing_of(MODES[name], raised(error)), {}
        row = {"name": f"{name} {dtype}", "dtype": dtype, **found}
        if own:
            row["problems"] += own.pop("problems")
            row["passed"] = not row["problems"]
            row["engine"] = own
        rows.append(row)
    return rows


def _record_mode(
    model: Any, name: str, forced: Sequence[Forced], layers: tuple[int, ...]
) -> tuple[Recording, dict[str, Any]]:
    """What the mode computes on each request's canvases, and the engine's own checks if it has one."""
    got, own = Recording({}, []), {}
    for request in forced:
        # Anew for each: a graph that was captured under hooks goes on writing to their buffers.
        with accelerate(model, name) as handle:
            if handle.turbo is None:
                got.extend(record(model, request, layers))
                continue
            engine = handle.turbo.engine
            got.extend(record_engine(engine, request, layers))
            if request is forced[0]:
                handle.turbo.warmup()
                own = engine_checks.check_engine(handle.turbo, model, request)
    return got, own


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


@command("verify.parity")
def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print a table, write JSON; exit code 1 if a mode fails or nothing ran."""
    parser = Parser(prog="omnivoice-triton verify parity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=None, help=MODEL_HELP)
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
    _check_flags(options)
    check_outputs(options.json)
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
    code = report(tier.rows)
    for problem in tier.problems:
        print(f"FAIL: {problem}")
    return code if not tier.problems else 1


def _check_flags(options: argparse.Namespace) -> None:
    for name, least_allowed in (("steps", 1), ("keep", 1)):
        if getattr(options, name) < least_allowed:
            raise InputError(f"--{name} must be at least {least_allowed}, not {getattr(options, name)}")
    if not 0.1 <= options.seconds <= 60:
        raise InputError(f"--seconds must be 0.1 to 60, not {options.seconds}")
    if options.text is not None and not options.text.strip():
        raise InputError("--text is empty: give a sentence, or leave the flag out")


def report(rows: list[dict[str, Any]]) -> int:
    """Print a table; the exit code is the verdict, and a table of nothing fails."""
    for row in rows:
        cosines = " ".join(f"L{layer} {v['cosine']:.6f}" for layer, v in row["layers"].items())
        agree = "none clear" if row["choices_agree"] is None else f"{row['choices_agree']:.4f}"
        ratio = "-" if row["logit_error_ratio"] is None else f"{row['logit_error_ratio']:.2f}x"
        judged = " (not judged)" if row["not_judged"] else ""
        verdict = "PASS" if row["passed"] else f"FAIL ({'; '.join(row['problems'])})"
        print(
            f"{row['dtype']:5}{row['mode']:12} {cosines}  logits {ratio} base's error, "
            f"choices {agree} of {row['clear_choices']}{judged}  {verdict}"
        )
    if not rows:
        print(f"FAIL: {NOTHING}")
    return 0 if rows and all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
