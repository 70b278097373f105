"""Teacher forcing: what the network says of given tokens, rather than of those that it decided itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omnivoice_triton.engine.scheduler import Job
from omnivoice_triton.engine.step import StepRunner


def forced_logits(
    runner: StepRunner, jobs: Sequence[Job], tokens: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Each job's conditional and unconditional logits, given its tokens as they stand; no graph is used.

    Args:
        runner: holds no jobs, and is nobody else's meanwhile.
        jobs: fit together into one of its buckets. They are let go again.
        tokens: of each job, [C, T] int64; undecided cells hold the mask id.

    Returns:
        For each job fp32 [C, T, Va] twice; the second is None without guidance.
    """
    state = runner.state
    try:
        for job, canvas in zip(jobs, tokens, strict=True):
            runner.admit(job)
            runner.place()
            assert job.placement is not None
            state.write_tokens(job.placement, canvas.to(state.canvas.device))
        flat = runner.logits(runner.arrange(jobs)).float()
    finally:
        for job in jobs:
            runner.release(job)
    codebooks = runner.backbone.weights.shape.codebooks
    rows, results = 0, []
    for job in jobs:
        guided = job.request.options.guided
        branches = []
        for _ in range(2 if guided else 1):
            part = flat[rows : rows + job.request.prompt.frames]
            branches.append(part.view(len(part), codebooks, -1).transpose(0, 1))
            rows += len(part)
        results.append((branches[0], branches[1] if guided else None))
    return results
