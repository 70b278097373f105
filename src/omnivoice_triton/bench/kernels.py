"""Each kernel beside PyTorch's eager ops: `python -m omnivoice_triton.bench.kernels --json OUT`.

Three clocks, since short kernels look different under each (medians, p5 and p95, microseconds a call):

- `do_bench`: `triton.testing.do_bench`, as 0.1.0 measured. The L2 cache is cleared before each call; host time counts
  as far as the GPU waits for it.
- `graph`: many calls in one CUDA graph over a few sets of inputs, so no host and a warm L2 cache: what a captured
  model sees of activations.
- `graph_cold`: the same over more than twice the L2 cache's size of inputs and outputs, each used in turn.

A kernel is timed only after its result was compared with its PyTorch twin; a wrong one ends the run. GB/s counts every
input and output byte once, whatever the implementation really moves.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnivoice_triton import kernels
from omnivoice_triton.evidence import need_gpu, write_json
from omnivoice_triton.kernels import reference
from omnivoice_triton.kernels.utils import do_bench_ms
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-2}
HIDDEN, INTERMEDIATE = 1024, 3072
Q_HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128
WARM_SETS = 4
GRAPH_CALLS = 200
GRAPH_REPLAYS = 50

Tensors = tuple[Tensor, ...]


class WrongResult(OmniVoiceTritonError):
    """A kernel's result is not that of its twin: it has no speed worth reporting."""


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype; `make(seed)` gives a set of inputs for the three functions."""

    kernel: str
    shape: dict[str, Any]
    dtype: torch.dtype
    make: Callable[[int], Tensors]
    triton: Callable[..., Any]
    twin: Callable[..., Any]
    pytorch: Callable[..., Any]
    counted: int
    """How many of the inputs are activations or weights that a call must read."""

    def bytes(self, inputs: Tensors) -> int:
        """Bytes that any implementation must move: each counted input once, each output once."""
        return sum(x.numel() * x.element_size() for x in (*inputs[: self.counted], *_outputs(self.triton(*inputs))))


def _outputs(result: Any) -> Tensors:
    return result if isinstance(result, tuple) else (result,)


def split_rows(rows: int) -> tuple[int, int]:
    """Rows of the conditional and unconditional item of one utterance: 290 are 165 and 125, as 5 s of speech has."""
    conditional = math.ceil(rows * 165 / 290)
    return conditional, rows - conditional


def masked_sdpa(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
    """What upstream runs: keys and values repeated per group, SDPA with a mask, heads brought back beside rows."""
    group = q.shape[1] // k.shape[1]
    k, v = (x[:, :, None].expand(-1, -1, group, -1, -1).reshape(q.shape) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).contiguous()


def cases(rows: int, dtype: torch.dtype, device: str = "cuda") -> list[Case]:
    """Every kernel at that many rows, in the shapes of OmniVoice's backbone."""

    def normal(seed: int, *shape: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    lengths = split_rows(rows)
    batch, size = len(lengths), max(lengths)
    valid = torch.arange(size, device=device) < torch.tensor(lengths, device=device)[:, None]
    mask = (valid[:, None, :] | torch.eye(size, dtype=torch.bool, device=device))[:, None]  # padding sees itself
    heads = {"batch": batch, "rows": size, "q_heads": Q_HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM}

    def rope_inputs(seed: int) -> Tensors:
        angles = torch.arange(size, device=device)[:, None] * 1e6 ** (-torch.arange(0, 1, 2 / HEAD_DIM, device=device))
        angles = torch.cat((angles, angles), -1)[None]
        q, k = (normal(seed, batch, size, n, HEAD_DIM) for n in (Q_HEADS, KV_HEADS))
        return q, k, normal(seed, HEAD_DIM), normal(seed + 1, HEAD_DIM), angles.cos().to(dtype), angles.sin().to(dtype)

    def attention_inputs(seed: int) -> Tensors:
        q, k, v = (normal(seed + i, batch, n, size, HEAD_DIM) for i, n in enumerate((Q_HEADS, KV_HEADS, KV_HEADS)))
        return q, k, v, torch.tensor(lengths, dtype=torch.int32, device=device), mask

    made = [
        Case(
            kernel="rms_norm",
            shape={"rows": rows, "columns": HIDDEN},
            dtype=dtype,
            make=lambda seed: (normal(seed, rows, HIDDEN), normal(seed + 1, HIDDEN)),
            triton=kernels.triton_rms_norm,
            twin=reference.rms_norm,
            pytorch=reference.rms_norm,
            counted=2,
        ),
        Case(
            kernel="fused_norm_residual",
            shape={"rows": rows, "columns": HIDDEN},
            dtype=dtype,
            make=lambda seed: (normal(seed, rows, HIDDEN), normal(seed + 1, rows, HIDDEN), normal(seed + 2, HIDDEN)),
            triton=kernels.triton_fused_add_rms_norm,
            twin=reference.add_rms_norm,
            pytorch=reference.add_rms_norm,
            counted=3,
        ),
        Case(
            kernel="rope",
            shape=heads,
            dtype=dtype,
            make=rope_inputs,
            triton=kernels.triton_qk_norm_rope,
            twin=reference.qk_norm_rope,
            pytorch=reference.qk_norm_rope,
            counted=6,
        ),
        Case(
            kernel="attention",
            shape={**heads, "lengths": list(lengths)},
            dtype=dtype,
            make=attention_inputs,
            triton=lambda q, k, v, lengths, mask: kernels.int8_qk_attention(q, k, v, lengths),
            twin=lambda q, k, v, lengths, mask: reference.int8_qk_attention(q, k, v, lengths),
            pytorch=masked_sdpa,
            counted=4,
        ),
    ]
    swiglu = [
        Case(
            kernel="swiglu",
            shape={"rows": rows, "columns": columns},
            dtype=dtype,
            make=lambda seed, n=columns: (normal(seed, rows, n), normal(seed + 1, rows, n)),  # type: ignore[misc]
            triton=kernels.triton_swiglu_forward,
            twin=reference.swiglu,
            pytorch=reference.swiglu,
            counted=2,
        )
        for columns in (HIDDEN, INTERMEDIATE)
    ]
    return [*made[:1], *swiglu, *made[1:]]


def check(case: Case) -> dict[str, float]:
    """Relative errors (of norms) of the kernel against its twin and against PyTorch's op.

    Raises:
        WrongResult: an element is unwritten or further from the twin than two roundings of the dtype explain.
    """
    inputs = case.make(0)
    errors = {}
    for name, other in (("error_to_twin", case.twin), ("error_to_pytorch", case.pytorch)):
        worst = 0.0
        for ours, theirs in zip(_outputs(case.triton(*inputs)), _outputs(other(*inputs)), strict=True):
            out, wanted = ours.double(), theirs.double()
            if case.kernel == "attention" and name == "error_to_pytorch":  # what padding attends to is nobody's concern
                rows = (torch.arange(out.shape[1], device=out.device) < inputs[3][:, None])[..., None, None]
                out, wanted = out * rows, wanted * rows
            worst = max(worst, ((out - wanted).norm() / wanted.norm()).item())
            if name == "error_to_twin":
                off = (out - wanted).abs() > 2 * TOLERANCE[case.dtype] * (1 + wanted.abs())
                bad = int((off | ~out.isfinite()).sum())
                if bad or not worst <= TOLERANCE[case.dtype]:
                    raise WrongResult(
                        f"{case.kernel} {case.shape} {case.dtype}: {bad} of {out.numel()} elements are wrong, "
                        f"relative error {worst:.3g}; nothing is timed"
                    )
        errors[name] = worst
    return errors


def summary_us(times_us: Sequence[float]) -> dict[str, float]:
    """Median, p5 and p95 in microseconds, and how many timings there were."""
    if not times_us:
        raise InputError("nothing was timed")
    p5, p50, p95 = np.percentile(times_us, [5, 50, 95])
    return {"median": float(p50), "p5": float(p5), "p95": float(p95), "timings": len(times_us)}


def graph_times_us(fn: Callable[..., Any], sets: Sequence[Tensors], keep_outputs: bool) -> list[float]:
    """Microseconds a call, one figure per replay of a graph that calls `fn` on each set in turn, 200 times or more.

    With `keep_outputs` each set's outputs have memory of their own, so that stores go to cold lines too.
    """
    rounds = math.ceil(GRAPH_CALLS / len(sets))
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for inputs in sets[:3]:
            fn(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for inputs in sets:
                result = fn(*inputs)
                if keep_outputs:
                    kept.append(result)
            del result
            if len(kept) > len(sets):
                kept = kept[-len(sets) :]
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    times = []
    for replay in range(GRAPH_REPLAYS + 5):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        if replay >= 5:
            times.append(start.elapsed_time(end) * 1000 / (rounds * len(sets)))
    return times


def measure(case: Case) -> dict[str, Any]:
    """Errors and every figure of one case.

    Raises:
        WrongResult: the kernel doesn't compute what its twin does.
    """
    errors = check(case)
    first = case.make(0)
    n_bytes = case.bytes(first)
    l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    n_cold = max(2 * WARM_SETS, math.ceil(2.2 * l2_bytes / n_bytes))
    cold = [case.make(10 * seed) for seed in range(n_cold)]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, fn in (("triton", case.triton), ("pytorch", case.pytorch)):

        def call(fn: Callable[..., Any] = fn) -> None:
            fn(*first)

        figures[name] = {
            "do_bench": summary_us([ms * 1000 for ms in do_bench_ms(call)]),
            "graph": summary_us(graph_times_us(fn, cold[:WARM_SETS], keep_outputs=False)),
            "graph_cold": summary_us(graph_times_us(fn, cold, keep_outputs=True)),
        }
        torch.cuda.empty_cache()
    clocks = tuple(figures["triton"])
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": str(case.dtype).removeprefix("torch."),
        "bytes": n_bytes,
        "l2_bytes": l2_bytes,
        "cold_sets": n_cold,
        **errors,
        "triton_us": figures["triton"],
        "pytorch_us": figures["pytorch"],
        "speedup": {c: figures["pytorch"][c]["median"] / figures["triton"][c]["median"] for c in clocks},
        "triton_gb_per_s": {c: n_bytes / figures["triton"][c]["median"] / 1e3 for c in clocks},
    }


def run(rows: Sequence[int] = (290, 512), dtypes: Sequence[str] = ("fp16", "bf16")) -> list[dict[str, Any]]:
    """Measure every kernel at each number of rows in each dtype (`fp32`, `fp16`, `bf16`).

    Raises:
        InputError: rows or dtypes that can't be measured.
        ModeUnavailable: no GPU.
        WrongResult: a kernel doesn't compute what its twin does.
    """
    unknown = [name for name in dtypes if name not in DTYPES]
    if unknown or not dtypes:
        raise InputError(f"dtypes is {list(dtypes)}: choose from {', '.join(DTYPES)}")
    if not rows or min(rows) < 2:
        raise InputError(f"rows is {list(rows)}: wanted numbers of at least 2")
    need_gpu()
    results = []
    with torch.inference_mode():
        for name in dtypes:
            for n in rows:
                for case in cases(n, DTYPES[name]):
                    results.append(measure(case))
                    print(_line(results[-1]), file=sys.stderr)
    return results


def _line(result: dict[str, Any]) -> str:
    """One row of the table: shape, microseconds of the kernel and how many times PyTorch's those are, per clock."""
    shape = result["shape"]
    size = f"{shape['rows']}x{shape['columns']}" if "columns" in shape else f"{shape['batch']}x{shape['rows']}x16/8x128"
    cells = "".join(
        f"{result['triton_us'][clock]['median']:9.2f}{result['speedup'][clock]:7.2f}x" for clock in result["speedup"]
    )
    return f"{result['kernel']:20}{size:18}{result['dtype']:9}{cells}{result['triton_gb_per_s']['graph_cold']:8.0f}"


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description="each Triton kernel beside PyTorch's eager ops")
    parser.add_argument("--rows", nargs="+", type=int, default=[290, 512])
    parser.add_argument("--dtypes", nargs="+", default=["fp16", "bf16"], metavar="DTYPE", help=", ".join(DTYPES))
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file")
    options = parser.parse_args(argv)
    try:
        results = run(options.rows, options.dtypes)
        write_json(options.json, "kernels", None, {"results": results})
    except OmniVoiceTritonError as error:
        print(f"bench.kernels: {error}", file=sys.stderr)
        return 1 if isinstance(error, WrongResult) else 2
    print(
        f"{'kernel':20}{'shape':18}{'dtype':9}{'do_bench us':>9}{'':6}{'graph us':>9}{'':8}{'cold us':>8}{'GB/s':>15}"
    )
    for result in results:
        print(_line(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
