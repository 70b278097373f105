"""Three clocks for short kernels: Triton's do_bench, a CUDA graph with a warm L2 cache, and one with a cold one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from omnivoice_triton.bench.kernel_case import Tensors
from omnivoice_triton.cuda_graphs import side_stream
from omnivoice_triton.kernels.utils import do_bench_ms
from omnivoice_triton.speech import InputError

WARM_SETS = 4
MOST_SETS = 2048
"""Sets of inputs in a cold graph; what would need more to leave the L2 cache has no cold time."""
GRAPH_CALLS = 200
GRAPH_REPLAYS = 50
GRAPH_MS = 10.0
"""Calls in a graph end here, at so many milliseconds: 200 of a slow one would take seconds a replay."""
REPLAYS_MS = 150.0
"""And so do replays, but for the first ten."""


def summary_us(times_us: Sequence[float]) -> dict[str, float]:
    """Median, p5 and p95 in microseconds, and how many timings there were."""
    if not times_us:
        raise InputError("nothing was timed")
    p5, p50, p95 = np.percentile(times_us, [5, 50, 95])
    return {"median": float(p50), "p5": float(p5), "p95": float(p95), "timings": len(times_us)}


def graph_size(sets: int, call_us: float | None) -> tuple[int, int]:
    """(rounds over all sets in a graph, replays of it) for calls that take so long; None is short."""
    calls, replays = GRAPH_CALLS, GRAPH_REPLAYS
    if call_us is not None:
        calls = min(calls, max(1, round(GRAPH_MS * 1000 / call_us)))
    rounds = math.ceil(calls / sets)
    if call_us is not None:
        replays = min(replays, max(10, round(REPLAYS_MS * 1000 / (rounds * sets * call_us))))
    return rounds, replays


def graph_times_us(
    fn: Callable[..., Any], sets: Sequence[Tensors], keep_outputs: bool, call_us: float | None = None
) -> list[float]:
    """Microseconds a call, one figure per replay of a graph that calls `fn` on each set in turn, 200 times or so.

    With `keep_outputs` each set's outputs have memory of their own, so that stores go to cold lines too. `call_us`,
    what a call takes about, keeps graphs of slow calls short.
    """
    rounds, replays = graph_size(len(sets), call_us)
    stream = side_stream(torch.device("cuda", torch.cuda.current_device()))
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for inputs in sets[:3]:
            fn(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph, stream=stream):
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
    for replay in range(replays + 5):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        if replay >= 5:
            times.append(start.elapsed_time(end) * 1000 / (rounds * len(sets)))
    return times


Clocks = dict[str, dict[str, float]]


def three_clocks(fn: Callable[..., Any], sets: Sequence[Tensors], cold: bool = True) -> Clocks:
    """Microseconds of one function under each clock; without `cold` the sets are too few for the last."""

    def call() -> None:
        fn(*sets[0])

    figures = {"do_bench": summary_us([ms * 1000 for ms in do_bench_ms(call)])}
    call_us = figures["do_bench"]["median"]
    figures["graph"] = summary_us(graph_times_us(fn, sets[:WARM_SETS], keep_outputs=False, call_us=call_us))
    if cold:
        figures["graph_cold"] = summary_us(graph_times_us(fn, sets, keep_outputs=True, call_us=call_us))
    torch.cuda.empty_cache()
    return figures
