"""Milliseconds of a decoding step, and what they are made of: for development, beside `omnivoice-triton bench`.

    python -m omnivoice_triton.engine.measure step MODEL --case 40x125 --case 195x125x8 [--dtype float16] [--tiles FILE]
        [--attention int8] [--precision fp8]
    python -m omnivoice_triton.engine.measure tune MODEL OUT.json [--dtype float16] [--rows 320,448,832]

A case is prompt rows x frames [x requests]; every request is guided, with upstream's other defaults. MODEL is a
directory or a hub id. Both print JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnivoice_triton.audio_files import check_writable
from omnivoice_triton.checkpoint import resolve_model
from omnivoice_triton.commands import Parser, command
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.tuning import ROWS, tune
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.kernels.graph_timer import time_graph
from omnivoice_triton.kernels.tiles import varlen_tile
from omnivoice_triton.speech import InputError


def parse_case(text: str) -> tuple[int, int, int]:
    """(prompt rows, frames, requests) of `40x125` or `195x125x8`; InputError if it is neither."""
    parts = text.split("x")
    if len(parts) not in (2, 3) or not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"a case is prompt rows x frames [x requests] as in 40x125 or 195x125x8, not {text!r}")
    prompt, frames, *rest = (int(part) for part in parts)
    return prompt, frames, rest[0] if rest else 1


def measure_step(engine: Engine, case: tuple[int, int, int], *, repeats: int = 7) -> dict[str, Any]:
    """Times of one case on a CUDA engine, as medians over whole decodes of 32 steps.

    Returns:
        `step_ms`: from the first kernel of a decode to its last, by its steps, host gaps included; `backbone_ms`: the
        network alone as a graph; `gemm_ms`: its cuBLAS GEMMs alone as a graph, the floor that no fusion changes;
        `host_ms`: what the host takes to enqueue a step when it doesn't wait for the GPU.
    """
    prompt_rows, frames, requests = case
    engine.warmup()
    rng = np.random.default_rng(0)
    text_vocab = engine.weights.text_embedding.shape[0]
    prompt = Prompt(rng.integers(0, min(text_vocab, 30_000), prompt_rows), None, frames)
    step_s, host_s = [], []
    steps_ahead = engine.runner.steps_ahead
    for repeat in range(2 * repeats + 2):
        timing_host = repeat >= repeats + 2
        engine.runner.steps_ahead = 10**6 if timing_host else steps_ahead
        futures = [engine.submit(Request(prompt, DecodeOptions(), seed)) for seed in range(requests)]
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began, steps = time.perf_counter(), 0
        start.record()
        while not all(future.done() for future in futures):
            engine.step()
            steps += 1
        spent = time.perf_counter() - began
        end.record()
        end.synchronize()
        if timing_host:
            host_s.append(spent / steps)
        elif repeat >= 2:
            step_s.append(start.elapsed_time(end) / 1000 / steps)
    engine.runner.steps_ahead = steps_ahead
    layout = engine.runner.layout
    assert layout is not None, "steps were run"
    with torch.no_grad():
        backbone_s = time_graph(lambda: void(engine.runner.logits(layout)))
    bucket_rows = layout.bucket.rows
    return {
        "rows": requests * (prompt_rows + 2 * frames),
        "bucket": bucket_rows,
        "requests": requests,
        "step_ms": round(1000 * float(np.median(step_s)), 4),
        "backbone_ms": round(1000 * backbone_s, 4),
        "gemm_ms": round(1000 * _gemm_seconds(engine, bucket_rows), 4),
        "host_ms": round(1000 * float(np.median(host_s)), 4),
    }


def _gemm_seconds(engine: Engine, rows: int) -> float:
    """The GEMMs of one step by cuBLAS, every layer with its own weights."""
    weights, a = engine.weights, engine.runner.backbone.workspace.views(rows)

    def run() -> None:
        for layer in weights.layers:
            torch.mm(a.y, layer.qkv.t(), out=a.qkv)
            torch.mm(a.attended, layer.o.t(), out=a.delta)
            torch.mm(a.y, layer.gate_up.t(), out=a.gate_up)
            torch.mm(a.activated, layer.down.t(), out=a.delta)
        torch.mm(a.y, weights.audio_heads.t(), out=a.logits)

    with torch.no_grad():
        return time_graph(run)


def void(_: object) -> None:
    """Discard a result."""


def _rows(text: str | None) -> tuple[int, ...]:
    """Packed rows to tune at.

    Raises:
        InputError: none, no whole numbers above 0, or not rising.
    """
    if text is None:
        return ROWS
    parts = text.split(",")
    rows = tuple(int(part) for part in parts if part.strip().isdecimal())
    if len(rows) != len(parts) or sorted(set(rows)) != list(rows) or rows[0] < 1:
        raise InputError(f"--rows must be rising whole numbers with commas between, such as 320,448, not {text!r}")
    return rows


@command("engine.measure")
def main(argv: Sequence[str] | None = None) -> int:
    """The two commands of the module's docstring."""
    parser = Parser(description="Measure or tune the decoding step on this GPU.")
    parser.add_argument("what", choices=("step", "tune"))
    parser.add_argument("model", help="directory or hub id")
    parser.add_argument("out", nargs="?", type=Path, help="where tune writes its table")
    parser.add_argument("--case", action="append", default=None, help="prompt rows x frames [x requests]")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    parser.add_argument("--rows", help="packed rows to tune at, rising, with commas between")
    parser.add_argument("--tiles", type=Path, help="tile table in place of the package's; 'none' for no table")
    parser.add_argument("--attention", choices=("exact", "int8"), default="exact", help="the engine's option, of step")
    parser.add_argument("--precision", choices=("fp8",), help="the engine's option, of step; FP8 at every row count")
    args = parser.parse_args(argv)
    rows = _rows(args.rows)
    cases = [parse_case(text) for text in args.case or ["40x125"]]
    if args.out is not None:
        check_writable(args.out)
    path = resolve_model(args.model)
    from omnivoice.models.omnivoice import OmniVoice

    model = OmniVoice.from_pretrained(str(path), device_map="cuda", dtype=getattr(torch, args.dtype))
    major, minor = torch.cuda.get_device_capability()
    capability = 10 * major + minor
    if args.what == "tune":
        with torch.inference_mode(False), torch.no_grad():
            weights = BackboneWeights.from_upstream(model)
        table = tune(weights, capability=capability, rows=rows, report=lambda line: print(line, file=sys.stderr))
        text = json.dumps(table, indent=1)
        if args.out is not None:
            args.out.write_text(text + "\n", encoding="utf-8")
        print(text)
        return 0
    tiles = None
    if args.tiles is not None:
        llm = model.config.llm_config
        default = varlen_tile(llm.head_dim, llm.num_attention_heads // llm.num_key_value_heads, 2, capability)
        data = {} if str(args.tiles) == "none" else json.loads(args.tiles.read_text(encoding="utf-8"))
        tiles = Tiles.parse(data, default)
    largest = max(requests * (prompt + 2 * frames) for prompt, frames, requests in cases)
    max_rows = max(1024, -(-largest // 512) * 512)
    lossy = {"attention": args.attention, "precision": args.precision}
    with Engine(model, max_rows=max_rows, tiles=tiles, fp8_from_rows=1, **lossy) as engine:
        engine.warmup()
        result = {
            "device": torch.cuda.get_device_name(),
            "dtype": args.dtype,
            **lossy,
            "warmup_s": round(engine.runner.graphs.warmup_s, 3),
            "graphs": engine.runner.graphs.captures,
            "workspace_mb": round(engine.runner.backbone.workspace.nbytes / 2**20, 1),
            "cases": [measure_step(engine, case) for case in cases],
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
