"""Tier 1's grid of unmasking: scores of the cells, and which of them are decided."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.kernels import tables as t
from omnivoice_triton.verify.kernel_case import (
    WIDE,
    Case,
    Draw,
    Function,
    Outputs,
    Sizes,
    launcher,
    poison,
)
from omnivoice_triton.verify.packed_grid import Packed


def cases(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    """All of them, in one dtype."""
    from omnivoice_triton.kernels import unmask_reference as ref

    packed = Packed(sizes, draw.device, sizes.attention.rows)
    codebooks, vocabulary = sizes.codebooks, sizes.vocabulary
    logits = draw.normal(1, packed.rows, codebooks * vocabulary, std=4.0)
    mask_id = vocabulary - 1
    canvas = torch.full((packed.canvas_rows, codebooks), mask_id, dtype=torch.int32, device=draw.device)
    canvas[packed.placements[-1].frames[0]] = 3  # decided
    targets, items = packed.tables["targets"], packed.tables["items"]
    uniforms = {
        "position_uniforms": torch.rand(packed.rows, codebooks, generator=torch.Generator().manual_seed(2)),
        "class_uniforms": torch.rand(packed.rows, codebooks, vocabulary, generator=torch.Generator().manual_seed(3)),
    }
    uniforms = {name: value.to(draw.device) for name, value in uniforms.items()}
    used = packed.targets
    for step, noise, buffers in ((0, "philox", {}), (3, "philox", {}), (1, "drawn outside", uniforms)):
        slots = slot_table(packed.slots, draw.device, step=step)

        def score(function: Function, slots: Tensor = slots, buffers: Any = buffers) -> Outputs:
            tokens = torch.full((packed.rows, codebooks), -7, dtype=torch.int32, device=draw.device)
            scores = poison(tokens, packed.rows, codebooks, dtype=torch.float32)
            function(logits, targets, canvas, slots, tokens=tokens, scores=scores, **buffers)
            return {"tokens": tokens[:used], "scores": scores[:used]}

        def score_exactly(slots: Tensor = slots, buffers: Any = buffers, step: int = step) -> Outputs:
            return _score_exactly(packed, logits, canvas, slots, step, codebooks, buffers)

        label = f"{used} frames x {codebooks} x {vocabulary}, step {step}, noise {noise}"
        get = launcher("score_cells", "triton_score_cells")
        yield Case("triton_score_cells", label, draw.dtype, score, get, ref.score_cells, score_exactly)

    if draw.dtype is not torch.float32:
        return  # scores are fp32 whatever the dtype
    for count in (1, 7, 10**6):
        slots = slot_table(packed.slots, draw.device, step=1, count=count)
        scores = draw.normal(5, packed.rows, codebooks).mul(4).round().div(4)  # with ties
        scores[:used][canvas[targets[:used, t.TARGET_FRAME].long()] != mask_id] = float("-inf")
        tokens = torch.randint(0, mask_id, scores.shape, generator=torch.Generator().manual_seed(6))
        tokens = tokens.to(draw.device, torch.int32)

        def select(
            function: Function, slots: Tensor = slots, scores: Tensor = scores, tokens: Tensor = tokens
        ) -> Outputs:
            board, state = canvas.clone(), slots.clone()
            function(items, targets, tokens, scores, canvas=board, slots=state)
            return {"canvas": board, "slots": state}

        def select_exactly(
            select: Any = select, slots: Tensor = slots, scores: Tensor = scores, tokens: Tensor = tokens
        ) -> Outputs:
            done: Outputs = select(ref.select_cells, slots, scores.to(WIDE), tokens)
            return done

        label = f"{used} frames x {codebooks}, {count} a step"
        get = launcher("select_cells", "triton_select_cells")
        yield Case("triton_select_cells", label, draw.dtype, select, get, ref.select_cells, select_exactly)


def slot_table(slots: int, device: str, *, step: int, steps: int = 8, count: int = 5, window: int = 8) -> Tensor:
    """A slot table: guidance 2, penalty 5, position temperature 5, a seed of its own in every row."""
    rows = torch.zeros(slots, t.SLOT_HEADER + window, dtype=torch.int32)
    rows[:, t.SLOT_STEP], rows[:, t.SLOT_STEPS] = step, steps
    rows[:, t.SLOT_SEED_LOW], rows[:, t.SLOT_SEED_HIGH] = torch.arange(slots) + 11, torch.arange(slots) * 7 - 3
    floats = rows.view(torch.float32)
    floats[:, t.SLOT_GUIDANCE], floats[:, t.SLOT_PENALTY], floats[:, t.SLOT_POSITION_TEMPERATURE] = 2.0, 5.0, 5.0
    rows[:, t.SLOT_HEADER :] = count
    return rows.to(device)


def _score_exactly(
    packed: Packed, logits: Tensor, canvas: Tensor, slots: Tensor, step: int, codebooks: int, uniforms: Any
) -> Outputs:
    """OmniVoice's own formulas in float64: three log-softmaxes, the mask id out of the choice but not of the sum."""
    from omnivoice_triton.kernels import unmask_reference as ref

    z = logits.to(WIDE).view(packed.rows, codebooks, -1)
    mask_id = z.shape[-1] - 1
    tokens, scores = [], []
    targets = packed.tables["targets"]
    first = 0
    for place in packed.placements:
        run = targets[first : first + len(place.frames)].long()
        log_p = z[run[:, t.TARGET_COND]].log_softmax(-1)
        if place.guided:
            free = z[run[:, t.TARGET_UNCOND]].log_softmax(-1)
            log_p = (log_p + 2.0 * (log_p - free)).log_softmax(-1)
        log_p = log_p[..., :mask_id]
        codebook = torch.arange(codebooks, device=z.device)
        if uniforms:
            u = uniforms["position_uniforms"][first : first + len(place.frames)]
        else:
            low, high = slots[place.slot, [t.SLOT_SEED_LOW, t.SLOT_SEED_HIGH]].tolist()
            frame = run[:, t.TARGET_LOCAL].view(-1, 1)
            u = ref.philox_uniform(low, high, frame, codebook, step, torch.zeros_like(codebook))
        score = (log_p.amax(-1) - 5.0 * codebook) / 5.0 + ref.gumbel(u.float()).to(WIDE)
        undecided = canvas[run[:, t.TARGET_FRAME]] == mask_id
        scores.append(torch.where(undecided, score, float("-inf")))
        tokens.append(torch.where(undecided, log_p.argmax(-1), -7))
        first += len(place.frames)
    return {"tokens": torch.cat(tokens), "scores": torch.cat(scores)}
