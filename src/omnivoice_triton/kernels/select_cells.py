"""Which cells are decided in this step, on the device: the second half of a decode step after the heads.

    decided now: of each request's undecided cells, the k of highest score; k from the request's own schedule

Scores are those of `score_cells`, [T, C] fp32, -inf for decided cells, which never win; ties go to the lower codebook,
then to the earlier frame, in the order of upstream's [C, T]. Selection writes the tokens of the chosen cells into the
canvas and ends by adding one to the request's step: k, step and steps lie in the slot table, and nothing is read back.
One program a request.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.launch import device_function, loop_bound
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.score_cells import count_now, order_key

_T_WIDTH = tl.constexpr(tables.TARGET_WIDTH)
_T_FRAME = tl.constexpr(tables.TARGET_FRAME)
_I_WIDTH = tl.constexpr(tables.ITEM_WIDTH)
_I_SLOT = tl.constexpr(tables.ITEM_SLOT)
_I_FIRST = tl.constexpr(tables.ITEM_FIRST)
_I_FRAMES = tl.constexpr(tables.ITEM_FRAMES)
_S_STEP = tl.constexpr(tables.SLOT_STEP)
_S_HEADER = tl.constexpr(tables.SLOT_HEADER)
_INT_MIN = tl.constexpr(-(2**31))
_INT_MAX = tl.constexpr(2**31 - 1)


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
def _rank(n, cells, C: tl.constexpr):
    """Place of cell n of [T, C] in [C, T]."""
    return (n % C) * (cells // C) + n // C


@device_function
def _count_ties(scores, cells, key, limit, C: tl.constexpr, BLOCK: tl.constexpr):
    """Cells whose key is `key` among the first `limit` of [C, T]."""
    hits = tl.zeros((BLOCK,), tl.int32)
    for base in range(0, loop_bound(cells), BLOCK):
        n = base + tl.arange(0, BLOCK)
        hits += ((_load_keys(scores, base, cells, BLOCK) == key) & (_rank(n, cells, C) < limit)).to(tl.int32)
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
    limit = cells  # of [C, T]: cells from there on need more than the threshold
    if reached > k:
        ties = k - (reached - _count_ties(scores, cells, threshold, cells, C, BLOCK))
        start = cells - cells
        while limit - start > 1:
            middle = start + (limit - start) // 2
            enough = _count_ties(scores, cells, threshold, middle, C, BLOCK) >= ties
            limit = tl.where(enough, middle, limit)
            start = tl.where(enough, start, middle)

    for base in range(0, loop_bound(cells), BLOCK):
        n = base + tl.arange(0, BLOCK)
        key = _load_keys(scores, base, cells, BLOCK)
        take = (key > threshold) | ((key == threshold) & (_rank(n, cells, C) < limit) & (key > _INT_MIN))
        frame = tl.load(targets_ptr + (first + n // C) * _T_WIDTH + _T_FRAME, mask=take, other=0).to(tl.int64)
        token = tl.load(tokens_ptr + first * C + n, mask=take, other=0)
        tl.store(canvas_ptr + frame * C + n % C, token, mask=take)
    at = slots_ptr + slot.to(tl.int64) * (_S_HEADER + W) + _S_STEP
    tl.store(at, tl.load(at) + 1)


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
