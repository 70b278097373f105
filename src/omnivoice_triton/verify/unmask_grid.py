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
)
from omnivoice_triton.verify.packed_grid import Packed

UNTOUCHED = -7
"""Lies in tokens and scores before: no token, and no score that these logits can have."""


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
    plans: tuple[tuple[str, dict[str, Any], Any], ...] = (
        ("step 0, noise philox", {"step": 0}, {}),
        ("step 3, noise philox", {"step": 3}, {}),
        ("step 1, noise drawn outside", {"step": 1}, uniforms),
        ("step 1, no noise", {"step": 1, "position_temperature": 0.0}, {}),
        ("step 2, class temperature 0.7, noise philox", {"step": 2, "class_temperature": 0.7}, {}),
        ("step 2, class temperature 0.7, noise drawn outside", {"step": 2, "class_temperature": 0.7}, uniforms),
        ("one request done", {"step": 1, "done": packed.placements[0].slot}, {}),
    )
    for what, setting, buffers in plans:
        slots = slot_table(packed.slots, draw.device, **setting)

        def score(function: Function, slots: Tensor = slots, buffers: Any = buffers) -> Outputs:
            tokens = torch.full((packed.rows, codebooks), UNTOUCHED, dtype=torch.int32, device=draw.device)
            # Of a request that is done nothing is written: a mark has to stay, and NaN would read as unwritten.
            scores = torch.full((packed.rows, codebooks), float(UNTOUCHED), device=draw.device)
            function(logits, targets, canvas, slots, tokens=tokens, scores=scores, **buffers)
            return {"tokens": tokens[:used], "scores": scores[:used]}

        def score_exactly(slots: Tensor = slots, buffers: Any = buffers) -> Outputs:
            return _score_exactly(packed, logits, canvas, slots, codebooks, buffers)

        label = f"{used} frames x {codebooks} x {vocabulary}, {what}"
        get = launcher("score_cells", "triton_score_cells")
        yield Case("triton_score_cells", label, draw.dtype, score, get, ref.score_cells, score_exactly)

    if draw.dtype is not torch.float32:
        return  # scores are fp32 whatever the dtype
    for count, done in ((1, None), (7, None), (10**6, None), (7, packed.placements[0].slot)):
        slots = slot_table(packed.slots, draw.device, step=1, count=count, done=done)
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

        label = f"{used} frames x {codebooks}, {count} a step{'' if done is None else ', one request done'}"
        get = launcher("select_cells", "triton_select_cells")
        yield Case("triton_select_cells", label, draw.dtype, select, get, ref.select_cells, select_exactly)


def slot_table(
    slots: int,
    device: str,
    *,
    step: int,
    steps: int = 8,
    count: int = 5,
    window: int = 8,
    position_temperature: float = 5.0,
    class_temperature: float = 0.0,
    done: int | None = None,
) -> Tensor:
    """A slot table: guidance 2, penalty 5, a seed of its own in every row; slot `done` has taken all its steps."""
    rows = torch.zeros(slots, t.SLOT_HEADER + window, dtype=torch.int32)
    rows[:, t.SLOT_STEP], rows[:, t.SLOT_STEPS] = step, steps
    rows[:, t.SLOT_SEED_LOW], rows[:, t.SLOT_SEED_HIGH] = torch.arange(slots) + 11, torch.arange(slots) * 7 - 3
    floats = rows.view(torch.float32)
    floats[:, t.SLOT_GUIDANCE], floats[:, t.SLOT_PENALTY] = 2.0, 5.0
    floats[:, t.SLOT_POSITION_TEMPERATURE] = position_temperature
    floats[:, t.SLOT_CLASS_TEMPERATURE] = class_temperature
    rows[:, t.SLOT_HEADER :] = count
    if done is not None:
        rows[done, t.SLOT_STEP] = steps
    return rows.to(device)


def _score_exactly(
    packed: Packed, logits: Tensor, canvas: Tensor, slots: Tensor, codebooks: int, uniforms: Any
) -> Outputs:
    """OmniVoice's own formulas in float64: three log-softmaxes, the mask id out of the choice but not of the sum."""
    from omnivoice_triton.kernels import unmask_reference as ref

    z = logits.to(WIDE).view(packed.rows, codebooks, -1)
    mask_id = z.shape[-1] - 1
    tokens, scores = [], []
    targets = packed.tables["targets"]
    codebook = torch.arange(codebooks, device=z.device)
    first = 0
    for place in packed.placements:
        last = first + len(place.frames)
        run = targets[first:last].long()
        row = slots[place.slot].cpu()
        step, low, high = row[[t.SLOT_STEP, t.SLOT_SEED_LOW, t.SLOT_SEED_HIGH]].tolist()
        position_t, class_t = row.view(torch.float32)[[t.SLOT_POSITION_TEMPERATURE, t.SLOT_CLASS_TEMPERATURE]].tolist()
        if step >= int(row[t.SLOT_STEPS]):
            tokens.append(torch.full((len(run), codebooks), UNTOUCHED, device=z.device, dtype=torch.int64))
            scores.append(torch.full((len(run), codebooks), float(UNTOUCHED), device=z.device, dtype=WIDE))
            first = last
            continue
        log_p = z[run[:, t.TARGET_COND]].log_softmax(-1)
        if place.guided:
            free = z[run[:, t.TARGET_UNCOND]].log_softmax(-1)
            log_p = (log_p + 2.0 * (log_p - free)).log_softmax(-1)
        log_p = log_p[..., :mask_id]
        frame = run[:, t.TARGET_LOCAL].view(-1, 1)
        token = log_p.argmax(-1)
        if class_t > 0:
            # The likeliest tenth of all ids, the mask id counted, as upstream's top-k filter takes them; 16-bit logits
            # tie, and of equals the lower ids stay.
            best = log_p.sort(dim=-1, descending=True, stable=True).indices[..., : -(-z.shape[-1] // 10)]
            kept = torch.full_like(log_p, float("-inf")).scatter(-1, best, log_p.gather(-1, best))
            if uniforms:
                u = uniforms["class_uniforms"][first:last, :, :mask_id]
            else:
                ids = torch.arange(mask_id, device=z.device) + ref.CLASS_STREAM
                u = ref.philox_uniform(low, high, frame[..., None], codebook[:, None], step, ids)
            token = (kept / class_t + ref.gumbel(u.float()).to(WIDE)).argmax(-1)
        score = log_p.amax(-1) - 5.0 * codebook
        if position_t > 0:
            if uniforms:
                u = uniforms["position_uniforms"][first:last]
            else:
                u = ref.philox_uniform(low, high, frame, codebook, step, torch.zeros_like(codebook))
            score = score / position_t + ref.gumbel(u.float()).to(WIDE)
        undecided = canvas[run[:, t.TARGET_FRAME]] == mask_id
        scores.append(torch.where(undecided, score, float("-inf")))
        tokens.append(torch.where(undecided, token, UNTOUCHED))
        first = last
    return {"tokens": torch.cat(tokens), "scores": torch.cat(scores)}
