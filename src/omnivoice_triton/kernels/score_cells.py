"""What each cell would become on the device, and how sure that is: the first half of a decode step after the heads.

A cell is one codebook c of one frame. With raw logits a (conditional) and b (unconditional) over V ids and the mask id,
which is the last:

    z     = a + g (a - b)                            g = guidance; z = a when there is no unconditional row
    conf  = max of z over the V ids - log sum exp of z over all V + 1, as (max - peak) - log sum exp (z - peak)
    token = argmax of z over the V ids, or with class temperature t > 0 the argmax of (z - lse) / t + gumbel over the
            ceil((V + 1) / 10) likeliest ids
    score = conf - penalty * c, and with position temperature p > 0: score / p + gumbel

One log-sum-exp equals OmniVoice's three nested log-softmaxes: normalising a and b shifts z by a constant. The mask id
counts in the sum and is left out of the argmax only; leaving it out of the sum gives other confidences.
Noise is drawn by `philox`, or read from a buffer that the caller filled.

Nothing is read back to the host: k, step, seed and settings of each request lie in the slot table. Scores of decided
cells are -inf and never win in `select_cells`, which writes the best into the canvas.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.launch import device_function
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.philox import CLASS_STREAM, POSITION_STREAM, gumbel, philox_uniform

_T_WIDTH = tl.constexpr(tables.TARGET_WIDTH)
_T_COND = tl.constexpr(tables.TARGET_COND)
_T_UNCOND = tl.constexpr(tables.TARGET_UNCOND)
_T_FRAME = tl.constexpr(tables.TARGET_FRAME)
_T_SLOT = tl.constexpr(tables.TARGET_SLOT)
_T_LOCAL = tl.constexpr(tables.TARGET_LOCAL)
_S_STEP = tl.constexpr(tables.SLOT_STEP)
_S_STEPS = tl.constexpr(tables.SLOT_STEPS)
_S_SEED_LOW = tl.constexpr(tables.SLOT_SEED_LOW)
_S_SEED_HIGH = tl.constexpr(tables.SLOT_SEED_HIGH)
_S_GUIDANCE = tl.constexpr(tables.SLOT_GUIDANCE)
_S_PENALTY = tl.constexpr(tables.SLOT_PENALTY)
_S_POSITION = tl.constexpr(tables.SLOT_POSITION_TEMPERATURE)
_S_CLASS = tl.constexpr(tables.SLOT_CLASS_TEMPERATURE)
_S_HEADER = tl.constexpr(tables.SLOT_HEADER)
_POSITION_STREAM = tl.constexpr(POSITION_STREAM)
_CLASS_STREAM = tl.constexpr(CLASS_STREAM)
_LOWEST = tl.constexpr(-3.4028234663852886e38)
_INT_MIN = tl.constexpr(-(2**31))


@device_function
def order_key(x):
    """int32 that sorts like the fp32 `x`."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@device_function
def count_now(slots_ptr, slot, W: tl.constexpr):
    """Cells that the request of `slot` decides in this step."""
    at = slots_ptr + slot.to(tl.int64) * (_S_HEADER + W)
    step = tl.load(at + _S_STEP)
    steps = tl.load(at + _S_STEPS)
    k = tl.load(at + _S_HEADER + step % W)
    return tl.where(step < steps, k, 0)


@triton.jit
def _score_kernel(
    logits_ptr,
    targets_ptr,
    canvas_ptr,
    slots_ptr,
    position_u_ptr,
    class_u_ptr,
    tokens_ptr,
    scores_ptr,
    C: tl.constexpr,
    V: tl.constexpr,
    W: tl.constexpr,
    KEEP: tl.constexpr,
    FROM_BUFFER: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    target = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1)
    entry = targets_ptr + target * _T_WIDTH
    slot = tl.load(entry + _T_SLOT)
    if slot < 0:
        return
    if count_now(slots_ptr, slot, W) <= 0:
        return
    frame = tl.load(entry + _T_FRAME).to(tl.int64)
    if tl.load(canvas_ptr + frame * C + c) != V:
        tl.store(scores_ptr + target * C + c, float("-inf"))
        return

    settings = slots_ptr + slot.to(tl.int64) * (_S_HEADER + W)
    guidance = tl.load(settings + _S_GUIDANCE).to(tl.float32, bitcast=True)
    penalty = tl.load(settings + _S_PENALTY).to(tl.float32, bitcast=True)
    position_t = tl.load(settings + _S_POSITION).to(tl.float32, bitcast=True)
    class_t = tl.load(settings + _S_CLASS).to(tl.float32, bitcast=True)
    step = tl.load(settings + _S_STEP)
    low = tl.load(settings + _S_SEED_LOW)
    high = tl.load(settings + _S_SEED_HIGH)
    local = tl.load(entry + _T_LOCAL)

    ids = tl.arange(0, BLOCK_V)
    real = ids < V
    cond = logits_ptr + (tl.load(entry + _T_COND).to(tl.int64) * C + c) * (V + 1)
    z = tl.load(cond + ids, mask=real, other=0.0).to(tl.float32)
    z_mask = tl.load(cond + V).to(tl.float32)
    uncond_row = tl.load(entry + _T_UNCOND).to(tl.int64)
    if uncond_row >= 0:
        uncond = logits_ptr + (uncond_row * C + c) * (V + 1)
        b = tl.load(uncond + ids, mask=real, other=0.0).to(tl.float32)
        b_mask = tl.load(uncond + V).to(tl.float32)
        z = z + guidance * (z - b)
        z_mask = z_mask + guidance * (z_mask - b_mask)
    z = tl.where(real, z, float("-inf"))

    top = tl.max(z, axis=0)
    peak = tl.maximum(top, z_mask)
    # Never added to the peak: of a cell that is almost sure, what is left beside the peak is all that ranks it.
    log_sum = tl.log(tl.sum(tl.exp(z - peak), axis=0) + tl.exp(z_mask - peak))
    if class_t > 0.0:
        key = tl.where(real, order_key(z), _INT_MIN)
        # Largest threshold that at least KEEP ids reach, bit by bit; the 32 rounds stay in registers.
        threshold = tl.full((1,), _INT_MIN, tl.int64)
        for bit in tl.static_range(32):
            trial = threshold + (1 << (31 - bit))
            enough = tl.sum((key.to(tl.int64) >= trial).to(tl.int32), axis=0) >= KEEP
            threshold = tl.where(enough, trial, threshold)
        above = key.to(tl.int64) > threshold
        equal = real & (key.to(tl.int64) == threshold)
        room = KEEP - tl.sum(above.to(tl.int32), axis=0)
        kept = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= room))
        if FROM_BUFFER:
            u = tl.load(class_u_ptr + (target * C + c) * (V + 1) + ids, mask=real, other=0.5)
        else:
            u = philox_uniform(low, high, local, c, step, ids + _CLASS_STREAM)
        token = tl.argmax(tl.where(kept, (z - peak - log_sum) / class_t + gumbel(u), float("-inf")), axis=0)
    else:
        token = tl.argmax(z, axis=0)

    score = top - peak - log_sum - c.to(tl.float32) * penalty
    if position_t > 0.0:
        if FROM_BUFFER:
            u = tl.load(position_u_ptr + target * C + c)
        else:
            stream = tl.full((1,), _POSITION_STREAM, tl.int32)
            u = tl.sum(philox_uniform(low, high, local, c, step, stream), axis=0)
        score = tl.math.div_rn(score, position_t) + gumbel(u)
    # -inf marks decided cells, so no other may have it; a NaN (broken weights) ranks last.
    score = tl.where(score >= _LOWEST, score, _LOWEST)
    # Among NaN alone the compiled argmax runs past the end: keep the token in range.
    tl.store(tokens_ptr + target * C + c, tl.minimum(token, V - 1).to(tl.int32))
    tl.store(scores_ptr + target * C + c, score)


def keep_count(vocabulary: int) -> int:
    """Ids that class temperature chooses among: a tenth of `vocabulary`, the mask id counted, as OmniVoice rounds."""
    return math.ceil(0.1 * vocabulary)


def triton_score_cells(
    logits: torch.Tensor,
    targets: torch.Tensor,
    canvas: torch.Tensor,
    slots: torch.Tensor,
    *,
    tokens: torch.Tensor,
    scores: torch.Tensor,
    position_uniforms: torch.Tensor | None = None,
    class_uniforms: torch.Tensor | None = None,
    pdl: bool = False,
) -> None:
    """Proposed token and score of every cell of every target.

    Cells of requests that decide nothing in this step are left as they are, tokens of decided cells too.

    Args:
        logits: [heads, C * (V + 1)]; id V is the mask.
        targets: [T, 8] int32.
        canvas: [F, C] int32.
        slots: [S, 8 + W] int32.
        tokens: [T, C] int32, written.
        scores: [T, C] fp32, written; -inf for decided cells.
        position_uniforms: [T, C] fp32 to use in place of Philox, or None.
        class_uniforms: [T, C, V + 1] fp32, given with the other or not at all.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("logits", logits)
    n_targets, codebooks = targets.shape[0], canvas.shape[1]
    vocabulary = logits.shape[1] // codebooks
    window = slots.shape[1] - tables.SLOT_HEADER
    if logits.shape[1] % codebooks or not logits.is_contiguous():
        raise ValueError(f"logits is {launch.describe(logits)}: wanted contiguous rows of {codebooks} codebooks")
    tables.check("targets", targets, (n_targets, tables.TARGET_WIDTH), logits.device)
    tables.check("canvas", canvas, canvas.shape, logits.device)
    tables.check("slots", slots, slots.shape, logits.device)
    tables.check("tokens", tokens, (n_targets, codebooks), logits.device)
    if scores.dtype is not torch.float32 or scores.shape != tokens.shape or not scores.is_contiguous():
        raise ValueError(f"scores is {launch.describe(scores)}: wanted contiguous float32 {tuple(tokens.shape)}")
    from_buffer = position_uniforms is not None and class_uniforms is not None
    if (position_uniforms is None) != (class_uniforms is None):
        raise ValueError("position_uniforms and class_uniforms are given together or not at all")
    for name, u, shape in (
        ("position_uniforms", position_uniforms, (n_targets, codebooks)),
        ("class_uniforms", class_uniforms, (n_targets, codebooks, vocabulary)),
    ):
        if u is not None and (u.dtype is not torch.float32 or tuple(u.shape) != shape or not u.is_contiguous()):
            raise ValueError(f"{name} is {launch.describe(u)}: wanted contiguous float32 {shape}")
    with launch.on_device_of(logits):
        _score_kernel[(n_targets, codebooks)](
            logits_ptr=logits,
            targets_ptr=targets,
            canvas_ptr=canvas,
            slots_ptr=slots,
            position_u_ptr=position_uniforms if from_buffer else scores,
            class_u_ptr=class_uniforms if from_buffer else scores,
            tokens_ptr=tokens,
            scores_ptr=scores,
            C=codebooks,
            V=vocabulary - 1,
            W=window,
            KEEP=keep_count(vocabulary),
            FROM_BUFFER=from_buffer,
            BLOCK_V=max(16, triton.next_power_of_2(vocabulary - 1)),
            num_warps=4,
            **launch_options(pdl),
        )
