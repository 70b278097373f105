"""Tier 2: does the backbone of each mode compute what base computes? `python -m omnivoice_triton.verify.parity`

Teacher forcing: base decodes one sentence and the canvas of each step is kept; every mode then gets those very
canvases, so that one early difference can't excuse the later ones. Hidden states come from forward hooks on the real
layers, which copy into buffers of their own and so also work inside a captured graph.

Logits are also compared with base in fp32: a mode may be as far from it as base in the same dtype is, times 1.25.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnivoice_triton.config import MODES, Mode
from omnivoice_triton.evidence import default_model, write_json
from omnivoice_triton.models.acceleration import accelerate
from omnivoice_triton.models.availability import check_device, resolve_dtype, unavailable_reason
from omnivoice_triton.models.seeding import seeded
from omnivoice_triton.speech import InputError, OmniVoiceTritonError
from omnivoice_triton.verify.compare import cosine, relative_error, screened_agreement, worst_row_cosine

LAYERS = (0, 7, 14, 21, 27)
MIN_COSINE = 0.999
MIN_COSINE_INT8 = 0.99
MAX_ERROR_RATIO = 1.25
SENTENCE = "Hello, welcome to the OmniVoice text-to-speech system."

Canvas = dict[str, torch.Tensor]


@dataclass
class Recording:
    """What one model made of the recorded canvases."""

    hidden: dict[int, list[torch.Tensor]]  # layer -> per step [rows that count, H]
    logits: list[torch.Tensor]  # per step [rows that count, C, V]


def record_canvases(model: Any, text: str, seconds: float, steps: int, keep: int) -> list[Canvas]:
    """The inputs of `keep` steps, evenly spread, of one decoding by `model`."""
    from omnivoice import OmniVoiceGenerationConfig

    canvases: list[Canvas] = []

    def remember(module: Any, args: Any, kwargs: Any) -> None:
        canvases.append({name: value.clone() for name, value in kwargs.items()})

    task = model._preprocess_all(text=text, language="English", duration=seconds)
    hook = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        with torch.inference_mode(), seeded(model, 0):
            model._generate_iterative(task, OmniVoiceGenerationConfig(num_step=steps))
    finally:
        hook.remove()
    chosen = sorted({round(i * (steps - 1) / max(keep - 1, 1)) for i in range(min(keep, steps))})
    return [canvases[i] for i in chosen]


def counted(canvas: Canvas, values: torch.Tensor, target_only: bool) -> torch.Tensor:
    """Rows of `values` [B, S, ...] that reach the result; padding rows of the unconditional branch are left out.

    With `target_only` only positions still masked or decided of the target, whose logits upstream reads.
    """
    lengths = canvas["attention_mask"][:, 0, 0].sum(-1)
    target = int(lengths[lengths.shape[0] // 2 :].max())
    rows = []
    for row, length in enumerate(lengths.tolist()):
        rows.append(values[row, length - target if target_only else 0 : length])
    return torch.cat(rows)


@contextmanager
def hidden_states(llm: Any, layers: tuple[int, ...], batch: int) -> Iterator[dict[int, torch.Tensor]]:
    """Buffers that hold the output [B, S, H] of each layer after every forward, graph replays included."""
    buffers: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(module: Any, args: Any, output: torch.Tensor) -> None:
            held = buffers.get(layer)
            if held is None or held.shape != output.shape:
                buffers[layer] = output.clone()
            else:
                held.copy_(output)

        return hook

    hooks = [llm.layers[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield buffers
    finally:
        for hook in hooks:
            hook.remove()


def record(model: Any, canvases: list[Canvas], layers: tuple[int, ...]) -> Recording:
    """Run the canvases through `model`; everything is kept on the CPU."""
    made = Recording({layer: [] for layer in layers}, [])
    with torch.inference_mode(), hidden_states(model.llm, layers, canvases[0]["input_ids"].shape[0]) as buffers:
        for canvas in canvases:
            batch, _, length = canvas["input_ids"].shape
            logits = model(**canvas).logits  # [B, C, S, V]
            for layer in layers:
                made.hidden[layer].append(counted(canvas, buffers[layer][:batch, :length], False).float().cpu())
            made.logits.append(counted(canvas, logits.transpose(1, 2), True).float().cpu())
    return made


def judge(mode: Mode, got: Recording, base: Recording, exact: Recording) -> dict[str, Any]:
    """Figures and verdict of one mode. `exact` is base in fp32 on the same canvases."""
    floor = MIN_COSINE_INT8 if mode.int8_qk else MIN_COSINE
    layers = {
        layer: {
            "cosine": min(cosine(a, b) for a, b in zip(states, base.hidden[layer], strict=True)),
            "worst_row_cosine": min(worst_row_cosine(a, b) for a, b in zip(states, base.hidden[layer], strict=True)),
            "relative_error": max(relative_error(a, b) for a, b in zip(states, base.hidden[layer], strict=True)),
        }
        for layer, states in got.hidden.items()
    }
    steps = []
    for mine, theirs, true in zip(got.logits, base.logits, exact.logits, strict=True):
        own = relative_error(theirs, true)
        noise = float((theirs - true).abs().max())
        agreement, compared = screened_agreement(mine, true, 2 * noise)
        steps.append(
            {
                "relative_error_to_fp32": relative_error(mine, true),
                "base_relative_error_to_fp32": own,
                "cosine_to_base": cosine(mine, theirs),
                "screened_argmax_agreement": agreement,
                "screened_rows": compared,
            }
        )
    ratio = max(s["relative_error_to_fp32"] / max(s["base_relative_error_to_fp32"], 1e-6) for s in steps)
    problems = [f"layer {k}: cosine {v['cosine']:.6f}" for k, v in layers.items() if not v["cosine"] > floor]
    if mode.int8_qk:
        problems += [f"logits: cosine {s['cosine_to_base']:.6f}" for s in steps if not s["cosine_to_base"] > floor]
    elif not ratio <= MAX_ERROR_RATIO:
        problems.append(f"logits are {ratio:.2f}x as far from fp32 as base's")
    if not layers or not steps:
        problems.append("nothing was compared")
    return {
        "mode": mode.name,
        "min_cosine_wanted": floor,
        "layers": layers,
        "steps": steps,
        "logit_error_ratio": ratio,
        "passed": not problems,
        "problems": problems,
    }


def check_modes(
    path: Path, modes: list[str], *, device: str, dtype: str, text: str, seconds: float, steps: int, keep: int
) -> list[dict[str, Any]]:
    """Figures and verdict of each mode on the checkpoint at `path`."""
    from omnivoice import OmniVoice

    def load(kind: torch.dtype) -> Any:
        return OmniVoice.from_pretrained(str(path), device_map=device, dtype=kind).eval()

    model = load(resolve_dtype(dtype, device))
    depth = len(model.llm.layers)
    layers = tuple(sorted({min(layer, depth - 1) for layer in LAYERS}))
    canvases = record_canvases(model, text, seconds, steps, keep)
    base = record(model, canvases, layers)
    in_full = load(torch.float32)
    exact = record(in_full, canvases, layers)
    del in_full
    rows = []
    for name in modes:
        with accelerate(model, name) as handle:
            got = record(model, canvases, layers)
        rows.append({"dtype": dtype, **judge(handle.mode, got, base, exact)})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Compare, print a table, write JSON; exit code 1 if a mode fails or nothing ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=None, help="hub id or directory; default: full-size random on a GPU")
    parser.add_argument("--modes", nargs="+", default=None, choices=list(MODES))
    parser.add_argument("--dtypes", nargs="+", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--text", default=SENTENCE)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=32, help="decoding steps")
    parser.add_argument("--keep", type=int, default=8, help="steps whose canvases are compared")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    try:
        device = check_device(options.device)
        path = default_model(options.model, device)
        able = {name: unavailable_reason(mode, device) for name, mode in MODES.items()}
        modes = options.modes or [name for name, reason in able.items() if reason is None and not MODES[name].engine]
        for name in modes:
            if MODES[name].engine:
                raise InputError(f"mode {name} has a backbone of its own, not upstream's layers: leave it out here")
            if able[name]:
                raise InputError(f"mode {name} can't run here: {able[name]}")
        dtypes = options.dtypes or (["fp16", "bf16"] if device != "cpu" else ["fp32"])
        rows = [
            row
            for dtype in dtypes
            for row in check_modes(
                path,
                modes,
                device=device,
                dtype=dtype,
                text=options.text,
                seconds=options.seconds,
                steps=options.steps,
                keep=options.keep,
            )
        ]
        write_json(options.json, "parity", path, {"results": rows})
    except OmniVoiceTritonError as error:
        print(f"verify.parity: {error}", file=sys.stderr)
        return 2
    return report(rows)


def report(rows: list[dict[str, Any]]) -> int:
    """Print a table; the exit code is the verdict, and a table of nothing fails."""
    for row in rows:
        cosines = " ".join(f"L{layer} {v['cosine']:.6f}" for layer, v in row["layers"].items())
        worst = min(s["screened_argmax_agreement"] for s in row["steps"])
        verdict = "PASS" if row["passed"] else f"FAIL ({'; '.join(row['problems'])})"
        print(
            f"{row['dtype']:5}{row['mode']:12} {cosines}  logits {row['logit_error_ratio']:.2f}x base's error, "
            f"screened argmax {worst:.4f}  {verdict}"
        )
    if not rows:
        print("FAIL: nothing was compared")
    return 0 if rows and all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
