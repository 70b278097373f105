"""How long captured kernels take: the clock that tile choices go by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import torch
import triton

from omnivoice_triton.cuda_graphs import side_stream


def time_graph(run: Callable[[], None], *, repeats: int = 20) -> float:
    """Seconds of one call, as the median over replays of a CUDA graph; math.inf if the GPU lacks the resources."""
    stream = side_stream(torch.device("cuda", torch.cuda.current_device()))
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            run()
    except triton.OutOfResources:
        return math.inf
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    times: list[float] = []
    for _ in range(repeats + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times[3:])
