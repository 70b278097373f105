"""Whether a model fits into a GPU's memory, and what is said when it doesn't."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.speech import NotEnoughMemory

WORKING_MEMORY_BYTES = 300 * 2**20
"""Beyond the weights: activations of one 15 s utterance, library workspaces (H200: 0.2 to 0.3 GiB)."""


def check_memory(path: Path, device: str, dtype: Any, stays: Sequence[str] = ()) -> None:
    """Say how much is missing before minutes of loading end in an out-of-memory error.

    Args:
        path: checkpoint directory.
        device: where the weights are to go; only a CUDA device is asked.
        dtype: of the language model.
        stays: beginnings of names of tensors that are kept in the host's memory.

    Raises:
        NotEnoughMemory: less is free than the weights and a request need.
    """
    import torch

    from omnivoice_triton.checkpoint import parameter_bytes

    if torch.device(device).type != "cuda":
        return
    needed = sum(parameter_bytes(path, dtype, without=stays).values()) + WORKING_MEMORY_BYTES
    free, total = torch.cuda.mem_get_info(device)
    if free < needed:
        raise NotEnoughMemory(
            f"the model needs about {needed / 2**30:.1f} GiB of GPU memory, {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GiB are free: close other programs, or use device cpu"
        )


def out_of_memory(what: str, device: str) -> NotEnoughMemory:
    """The error for `what` ("this request") that asked for more than there is."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return NotEnoughMemory(
        f"{what} needs more GPU memory than there is ({free / 2**30:.1f} of {total / 2**30:.1f} GiB free): "
        "give fewer or shorter texts, or a smaller graph_budget_mb"
    )


def peak_bytes(device: str) -> int:
    """As `torch.cuda.max_memory_allocated`, which first flattens and sorts some hundred figures (0.1 ms)."""
    import torch

    peak: int = torch.cuda.memory.memory_stats_as_nested_dict(device)["allocated_bytes"]["all"]["peak"]
    return peak
