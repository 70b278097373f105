"""Decode on the device: what each cell would become, how sure that is, and which cells are decided now.

A cell is one codebook c of one frame. With raw logits a (conditional) and b (unconditional) over V ids and the mask id,
which is the last:

    z     = a + g (a - b)                            g = guidance; z = a when there is no unconditional row
    conf  = max of z over the V ids - log sum exp of z over all V + 1
    token = argmax of z over the V ids, or with class temperature t > 0 the argmax of (z - lse) / t + gumbel over the
            ceil((V + 1) / 10) likeliest ids
    score = conf - penalty * c, and with position temperature p > 0: score / p + gumbel
    decided now: of each request's undecided cells, the k of highest score; k from the request's own schedule

One log-sum-exp equals OmniVoice's three nested log-softmaxes: normalising a and b shifts z by a constant. The mask id
counts in the sum and is left out of the argmax only; leaving it out of the sum gives other confidences.
gumbel = -log(-log(u + 1e-10) + 1e-10), u uniform in [0, 1) with 24 bits: from `philox` (Salmon et al., SC'11, 10
rounds) keyed by the request's seed and counted by (frame, codebook, step, stream), so that a draw depends on nothing
else; or read from a buffer that the caller filled.

Nothing is read back to the host: k, step, seed and settings of each request lie in the slot table, and selection ends
by adding one to the step. Scores of decided cells are -inf and never win; ties go to the earlier frame, then codebook.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.launch import device_function, loop_bound
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs

_T_WIDTH = tl.constexpr(tables.TARGET_WIDTH)
_T_COND = tl.constexpr(tables.TARGET_COND)
_T_UNCOND = tl.constexpr(tables.TARGET_UNCOND)
_T_FRAME = tl.constexpr(tables.TARGET_FRAME)
_T_SLOT = tl.constexpr(tables.TARGET_SLOT)
_T_LOCAL = tl.constexpr(tables.TARGET_LOCAL)
_I_WIDTH = tl.constexpr(tables.ITEM_WIDTH)
_I_SLOT = tl.constexpr(tables.ITEM_SLOT)
_I_FIRST = tl.constexpr(tables.ITEM_FIRST)
_I_FRAMES = tl.constexpr(tables.ITEM_FRAMES)
_S_STEP = tl.constexpr(tables.SLOT_STEP)
_S_STEPS = tl.constexpr(tables.SLOT_STEPS)
_S_SEED_LOW = tl.constexpr(tables.SLOT_SEED_LOW)
_S_SEED_HIGH = tl.constexpr(tables.SLOT_SEED_HIGH)
_S_GUIDANCE = tl.constexpr(tables.SLOT_GUIDANCE)
_S_PENALTY = tl.constexpr(tables.SLOT_PENALTY)
_S_POSITION = tl.constexpr(tables.SLOT_POSITION_TEMPERATURE)
_S_CLASS = tl.constexpr(tables.SLOT_CLASS_TEMPERATURE)
_S_HEADER = tl.constexpr(tables.SLOT_HEADER)

POSITION_STREAM = 0
"""Last word of the counter for position noise; id v of class noise has CLASS_STREAM + v."""
CLASS_STREAM = 1
_POSITION_STREAM = tl.constexpr(POSITION_STREAM)
_CLASS_STREAM = tl.constexpr(CLASS_STREAM)
_LOWEST = tl.constexpr(-3.4028234663852886e38)
_INT_MIN = tl.constexpr(-(2**31))
_INT_MAX = tl.constexpr(2**31 - 1)


@device_function
def philox_uniform(low, high, frame, codebook, step, stream):
    """First word of Philox4x32-10 as a float in [0, 1) with 24 bits; all arguments int32, any of them a vector."""
    k0 = low.to(tl.uint32, bitcast=True)
    k1 = high.to(tl.uint32, bitcast=True)
    c3 = stream.to(tl.uint32, bitcast=True)
    zero = c3 ^ c3  # the shape of the widest argument
    c0 = frame.to(tl.uint32, bitcast=True) | zero
    c1 = codebook.to(tl.uint32, bitcast=True) | zero
    c2 = step.to(tl.uint32, bitcast=True) | zero
    k0 = k0 | zero
    k1 = k1 | zero
    a = tl.full((1,), 0xD2511F53, tl.uint32) | zero
    b = tl.full((1,), 0xCD9E8D57, tl.uint32) | zero
    for _ in tl.static_range(10):
        high0 = tl.umulhi(a, c0)
        high1 = tl.umulhi(b, c2)
        low0 = a * c0
        low1 = b * c2
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return (c0 >> 8).to(tl.float32) * 5.9604644775390625e-08


@device_function
def gumbel(u):
    """Gumbel noise of uniform `u`, with OmniVoice's guards."""
    return -tl.log(-tl.log(u + 1e-10) + 1e-10)


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
    lse = peak + tl.log(tl.sum(tl.exp(z - peak), axis=0) + tl.exp(z_mask - peak))
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
        token = tl.argmax(tl.where(kept, (z - lse) / class_t + gumbel(u), float("-inf")), axis=0)
    else:
        token = tl.argmax(z, axis=0)

    score = top - lse - c.to(tl.float32) * penalty
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


@device_function
def _load_keys(scores, base, cells, BLOCK: tl.constexpr):
    """Order keys of the next BLOCK cells; INT_MIN for decided ones and past the end."""
    n = base + tl.arange(0, BLOCK)
    score = tl.load(scores + n, mask=n < cells, other=float("-inf"))
    return tl.where(score > float("-inf"), order_key(score), _INT_MIN)


@device_function
def _count_reaching(scores, cells, threshold, BLOCK: tl.constexpr):
    """Cells whose key is at least `threshold` (int32, above INT_MIN)."""
    hits = tl.zeros((BLOCK,), tl.int32)
    for base in range(0, loop_bound(cells), BLOCK):
        hits += (_load_keys(scores, base, cells, BLOCK) >= threshold).to(tl.int32)
    return tl.sum(hits, axis=0)


@device_function
def _count_ties(scores, cells, key, limit, BLOCK: tl.constexpr):
    """Cells before cell `limit` whose key is `key`."""
    hits = tl.zeros((BLOCK,), tl.int32)
    for base in range(0, loop_bound(cells), BLOCK):
        n = base + tl.arange(0, BLOCK)
        hits += ((_load_keys(scores, base, cells, BLOCK) == key) & (n < limit)).to(tl.int32)
    return tl.sum(hits, axis=0)


@triton.jit
def _select_kernel(
    items_ptr,
    targets_ptr,
    tokens_ptr,
    scores_ptr,
    canvas_ptr,
    slots_ptr,
    C: tl.constexpr,
    W: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    entry = items_ptr + tl.program_id(0) * _I_WIDTH
    slot = tl.load(entry + _I_SLOT)
    if slot < 0:
        return
    k = count_now(slots_ptr, slot, W)
    if k <= 0:
        return
    first = tl.load(entry + _I_FIRST).to(tl.int64)
    cells = tl.load(entry + _I_FRAMES) * C
    scores = scores_ptr + first * C

    # Keys of undecided cells lie in [low, high). Bisect to a threshold that exactly k reach, or to the k-th key if it
    # is tied: some ten rounds, since a threshold fits as soon as it falls between the k-th and the next.
    smallest = tl.full((BLOCK,), _INT_MAX, tl.int32)
    largest = tl.full((BLOCK,), _INT_MIN, tl.int32)
    for base in range(0, loop_bound(cells), BLOCK):
        key = _load_keys(scores, base, cells, BLOCK)
        smallest = tl.minimum(smallest, tl.where(key > _INT_MIN, key, _INT_MAX))
        largest = tl.maximum(largest, key)
    low = tl.min(smallest, axis=0).to(tl.int64)
    high = tl.max(largest, axis=0).to(tl.int64) + 1
    reached = _count_reaching(scores, cells, low.to(tl.int32), BLOCK)  # all undecided cells
    k = tl.minimum(k, reached)
    while (reached != k) & (high - low > 1):
        middle = low + (high - low) // 2
        count = _count_reaching(scores, cells, middle.to(tl.int32), BLOCK)
        enough = count >= k
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
        reached = tl.where(enough, count, reached)

    threshold = low.to(tl.int32)
    limit = cells  # cells from `limit` on need more than the threshold
    if reached > k:
        ties = k - (reached - _count_ties(scores, cells, threshold, cells, BLOCK))
        start = cells - cells
        while limit - start > 1:
            middle = start + (limit - start) // 2
            enough = _count_ties(scores, cells, threshold, middle, BLOCK) >= ties
            limit = tl.where(enough, middle, limit)
            start = tl.where(enough, start, middle)

    for base in range(0, loop_bound(cells), BLOCK):
        n = base + tl.arange(0, BLOCK)
        key = _load_keys(scores, base, cells, BLOCK)
        take = (key > threshold) | ((key == threshold) & (n < limit) & (key > _INT_MIN))
        frame = tl.load(targets_ptr + (first + n // C) * _T_WIDTH + _T_FRAME, mask=take, other=0).to(tl.int64)
        token = tl.load(tokens_ptr + first * C + n, mask=take, other=0)
        tl.store(canvas_ptr + frame * C + n % C, token, mask=take)
    at = slots_ptr + slot.to(tl.int64) * (_S_HEADER + W) + _S_STEP
    tl.store(at, tl.load(at) + 1)


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


def triton_select_cells(
    items: torch.Tensor,
    targets: torch.Tensor,
    tokens: torch.Tensor,
    scores: torch.Tensor,
    *,
    canvas: torch.Tensor,
    slots: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Write the tokens of each request's k best undecided cells into the canvas, and count the step.

    Args:
        items: [N, 4] int32.
        targets: [T, 8] int32.
        tokens: [T, C] int32.
        scores: [T, C] fp32.
        canvas: [F, C] int32, written.
        slots: [S, 8 + W] int32; the step of each request in `items` that isn't done grows by one.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_device("canvas", canvas)
    n_targets, codebooks = targets.shape[0], canvas.shape[1]
    tables.check("items", items, (items.shape[0], tables.ITEM_WIDTH), canvas.device)
    tables.check("targets", targets, (n_targets, tables.TARGET_WIDTH), canvas.device)
    tables.check("tokens", tokens, (n_targets, codebooks), canvas.device)
    tables.check("canvas", canvas, canvas.shape, canvas.device)
    tables.check("slots", slots, slots.shape, canvas.device)
    if scores.dtype is not torch.float32 or scores.shape != tokens.shape or not scores.is_contiguous():
        raise ValueError(f"scores is {launch.describe(scores)}: wanted contiguous float32 {tuple(tokens.shape)}")
    with launch.on_device_of(canvas):
        _select_kernel[(items.shape[0],)](
            items_ptr=items,
            targets_ptr=targets,
            tokens_ptr=tokens,
            scores_ptr=scores,
            canvas_ptr=canvas,
            slots_ptr=slots,
            C=codebooks,
            W=slots.shape[1] - tables.SLOT_HEADER,
            # 1,000 cells (5 s) are one block; longer requests loop over blocks that lie in L1.
            BLOCK=1024,
            num_warps=4,
            **launch_options(pdl),
        )
