"""Turbo's decoding on the device for `bench kernels`: scores of all cells, and which of them are decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.bench.kernel_case import Case, Tensors
from omnivoice_triton.bench.kernel_packed import SHAPE, STEP, Batch, Draw
from omnivoice_triton.kernels import tables, unmask_reference

BOOKS, IDS, MASK = SHAPE.codebooks, SHAPE.audio_vocab, SHAPE.mask_id
GUIDANCE, PENALTY, TEMPERATURE = 2.0, 5.0, 5.0

Function = Callable[..., Any]


def score_cells(rows: int, draw: Draw) -> Case:
    """Guidance, log-softmax, argmax, confidence and noise for every cell, nothing decided yet.

    PyTorch runs upstream's operations, one utterance after the other as upstream does, and gets the kernel's own
    uniform draws ready-made: the kernel draws them itself.
    """
    from omnivoice_triton.kernels.score_cells import triton_score_cells

    batch = Batch(rows, draw.device)
    slots, frames = batch.slots(), batch.canvas_rows
    noise = torch.cat([_uniforms(slots[i], n) for i, n in enumerate(batch.frames)])

    def make(seed: int) -> Tensors:
        canvas = torch.full((frames, BOOKS), MASK, dtype=torch.int32, device=draw.device)
        logits = draw.normal(seed, batch.head_rows, BOOKS * IDS, std=4.0)
        tokens, scores = torch.full_like(canvas, -7), draw.empty(frames, BOOKS, dtype=torch.float32)
        return logits, batch["targets"], canvas, slots, tokens, scores, noise

    def score(function: Function) -> Function:
        def run(
            logits: Tensor, targets: Tensor, canvas: Tensor, slots: Tensor, tokens: Tensor, scores: Tensor, _: Tensor
        ) -> Tensors:
            function(logits, targets, canvas, slots, tokens=tokens, scores=scores)
            return tokens, scores

        return run

    def eager(
        logits: Tensor, targets: Tensor, canvas: Tensor, slots: Tensor, tokens: Tensor, scores: Tensor, u: Tensor
    ) -> Tensors:
        first = 0
        for n in batch.frames:
            here = slice(first, first + n)
            branches = logits[2 * first : 2 * (first + n)].view(2, n, BOOKS, IDS)
            branches = branches.to(torch.promote_types(logits.dtype, torch.float32))
            token, score = eager_scores(branches[0], branches[1], u[here])
            tokens[here], scores[here] = token, score.masked_fill(canvas[here] != MASK, float("-inf"))
            first += n
        return tokens, scores

    def values(inputs: Tensors, outputs: Tensors) -> Tensors:
        return _guided(inputs, outputs[0]), outputs[1]

    return Case(
        kernel="score_cells",
        shape={"rows": rows, "frames": frames, "codebooks": BOOKS, "vocabulary": IDS},
        dtype=draw.dtype,
        make=make,
        triton=score(triton_score_cells),
        twin=score(unmask_reference.score_cells),
        pytorch=eager,
        counted=3,  # logits of both branches, and what is small beside them: targets and canvas
        values=values,
        # fp32 in any dtype, but for noise of a draw next to 1: its inner logarithm has few digits left.
        tolerance=(1e-3, 2e-2),
    )


def eager_scores(cond: Tensor, free: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Upstream's token and score of each cell, [T, C], from logits [T, C, V] of both branches and uniform draws."""
    cond, free = cond.log_softmax(-1), free.log_softmax(-1)
    log_p = (cond + GUIDANCE * (cond - free)).log_softmax(-1)
    log_p[..., MASK] = float("-inf")
    score = log_p.amax(-1) - PENALTY * torch.arange(BOOKS, device=cond.device)
    return log_p.argmax(-1), score / TEMPERATURE + unmask_reference.gumbel(u)


def _uniforms(slot: Tensor, frames: int) -> Tensor:
    """What the kernel draws for the cells of one utterance, [T, C]."""
    low, high = slot[[tables.SLOT_SEED_LOW, tables.SLOT_SEED_HIGH]].tolist()
    frame = torch.arange(frames, device=slot.device)[:, None]
    book = torch.arange(BOOKS, device=slot.device)
    stream = torch.full_like(book, unmask_reference.POSITION_STREAM)
    return unmask_reference.philox_uniform(low, high, frame, book, STEP, stream)


def _guided(inputs: Tensors, tokens: Tensor) -> Tensor:
    """The guided logit of each token: equal ones are equally right. NaN for what is no token."""
    logits, targets = inputs[0].double().view(-1, BOOKS, IDS), inputs[1].long()
    cond, free = logits[targets[:, tables.TARGET_COND]], logits[targets[:, tables.TARGET_UNCOND]]
    z = cond + GUIDANCE * (cond - free)
    found = z.gather(-1, tokens.long().clamp(0, MASK - 1)[..., None])[..., 0]
    return found.masked_fill((tokens < 0) | (tokens >= MASK), float("nan"))


def select_cells(rows: int, draw: Draw) -> Case:
    """The 32nd part of each utterance's cells with the highest scores into the canvas; scores are fp32 in any dtype.

    PyTorch: top-k of each utterance and a scatter, as upstream.
    """
    from omnivoice_triton.kernels.select_cells import triton_select_cells

    batch = Batch(rows, draw.device)
    slots, frames = batch.slots(), batch.canvas_rows

    def make(seed: int) -> Tensors:
        canvas = torch.full((frames, BOOKS), MASK, dtype=torch.int32, device=draw.device)
        scores = draw.normal(seed, frames, BOOKS, dtype=torch.float32)
        return scores, draw.ids(seed, MASK, frames, BOOKS), canvas, batch["items"], batch["targets"], slots.clone()

    def select(function: Function) -> Function:
        def run(
            scores: Tensor, tokens: Tensor, canvas: Tensor, items: Tensor, targets: Tensor, slots: Tensor
        ) -> Tensor:
            function(items, targets, tokens, scores, canvas=canvas, slots=slots)
            return canvas

        return run

    def eager(scores: Tensor, tokens: Tensor, canvas: Tensor, *_: Tensor) -> Tensor:
        first = 0
        for n, count in zip(batch.frames, batch.counts, strict=True):
            here = slice(first, first + n)
            best = scores[here].flatten().topk(count).indices
            canvas[here].view(-1)[best] = tokens[here].flatten()[best]
            first += n
        return canvas

    return Case(
        kernel="select_cells",
        shape={"rows": rows, "frames": frames, "codebooks": BOOKS},
        dtype=draw.dtype,
        make=make,
        triton=select(triton_select_cells),
        twin=select(unmask_reference.select_cells),
        pytorch=eager,
        counted=0,
        # Every score; of the chosen cells the token read and written.
        moved=lambda inputs: 4 * (inputs[0].numel() + 2 * sum(batch.counts)),
    )
