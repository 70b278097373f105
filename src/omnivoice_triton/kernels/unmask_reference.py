"""Plain PyTorch twins of `philox`, `score_cells` and `select_cells`: same arguments, same buffers written, any device.

They define what the kernels compute, and they are the engine's `reference` backend; formulas are in the kernels' files.
Draws are the kernels', bit for bit. They read tables on the host: none of them may be captured into a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from omnivoice_triton.kernels import tables as t

POSITION_STREAM = 0
CLASS_STREAM = 1


def philox_uniform(
    seed_low: int,
    seed_high: int,
    frame: torch.Tensor,
    codebook: torch.Tensor,
    step: int,
    stream: torch.Tensor,
) -> torch.Tensor:
    """First word of Philox4x32-10 as fp32 in [0, 1), bit for bit as the kernel draws it; counters are int64 tensors."""
    word = 0xFFFFFFFF
    c0, c1, c2, c3 = torch.broadcast_tensors(frame, codebook, torch.as_tensor(step, device=frame.device), stream)
    k0, k1 = seed_low & word, seed_high & word
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    u: torch.Tensor = (c0 >> 8).to(torch.float32) * 2.0**-24
    return u


def _multiply(a: int, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low word of a 32 x 32 bit product; int64 has no room for it at once."""
    upper = (a >> 16) * b  # < 2^48
    lower = (a & 0xFFFF) * b
    high = (upper + (lower >> 16)) >> 16
    low = ((upper << 16) + lower) & 0xFFFFFFFF
    return high, low


def gumbel(u: torch.Tensor) -> torch.Tensor:
    """Gumbel noise of uniform `u`, with OmniVoice's guards."""
    noise: torch.Tensor = -torch.log(-torch.log(u + 1e-10) + 1e-10)
    return noise


class Slot:
    """One row of the slot table, read."""

    def __init__(self, row: torch.Tensor) -> None:
        row = row.cpu()
        ints, floats = row.tolist(), row.view(torch.float32).tolist()
        window = len(ints) - t.SLOT_HEADER
        self.step: int = ints[t.SLOT_STEP]
        self.seed: tuple[int, int] = (ints[t.SLOT_SEED_LOW], ints[t.SLOT_SEED_HIGH])
        self.guidance: float = floats[t.SLOT_GUIDANCE]
        self.penalty: float = floats[t.SLOT_PENALTY]
        self.position_temperature: float = floats[t.SLOT_POSITION_TEMPERATURE]
        self.class_temperature: float = floats[t.SLOT_CLASS_TEMPERATURE]
        self.count: int = ints[t.SLOT_HEADER + self.step % window] if self.step < ints[t.SLOT_STEPS] else 0


def _runs(targets: torch.Tensor) -> list[tuple[int, int, int]]:
    """(slot, first, last + 1) of each request's run of targets."""
    runs: list[tuple[int, int, int]] = []
    for index, slot in enumerate(targets[:, t.TARGET_SLOT].tolist()):
        if slot < 0:
            continue
        if runs and runs[-1][0] == slot and runs[-1][2] == index:
            runs[-1] = (slot, runs[-1][1], index + 1)
        else:
            runs.append((slot, index, index + 1))
    return runs


def score_cells(
    logits: torch.Tensor,
    targets: torch.Tensor,
    canvas: torch.Tensor,
    slots: torch.Tensor,
    *,
    tokens: torch.Tensor,
    scores: torch.Tensor,
    position_uniforms: torch.Tensor | None = None,
    class_uniforms: torch.Tensor | None = None,
) -> None:
    """Twin of `score_cells.triton_score_cells`."""
    codebooks = canvas.shape[1]
    logits = logits.view(logits.shape[0], codebooks, -1)
    mask_id = logits.shape[2] - 1
    for slot, first, last in _runs(targets):
        setting = Slot(slots[slot])
        if setting.count <= 0:
            continue
        run = targets[first:last].long()
        undecided = canvas[run[:, t.TARGET_FRAME]] == mask_id
        log_p = logits[run[:, t.TARGET_COND]].to(torch.float32).log_softmax(-1)  # [T, C, V + 1]
        if run[0, t.TARGET_UNCOND] >= 0:
            # Upstream's very operations: the kernel's single log-sum-exp rounds otherwise.
            free = logits[run[:, t.TARGET_UNCOND]].to(torch.float32).log_softmax(-1)
            log_p = (log_p + setting.guidance * (log_p - free)).log_softmax(-1)
        log_p = log_p[..., :mask_id]
        token = log_p.argmax(dim=-1)
        frame = run[:, t.TARGET_LOCAL].view(-1, 1, 1)
        codebook = torch.arange(codebooks, device=logits.device).view(1, -1, 1)
        if setting.class_temperature > 0:
            if class_uniforms is None:
                ids = torch.arange(mask_id, device=logits.device)
                u = philox_uniform(*setting.seed, frame, codebook, setting.step, CLASS_STREAM + ids)
            else:
                u = class_uniforms[first:last, :, :mask_id]
            kept = _likeliest(log_p, keep_count(mask_id + 1))
            token = (kept / setting.class_temperature + gumbel(u)).argmax(dim=-1)
        score = log_p.amax(dim=-1) - codebook[..., 0] * setting.penalty
        if setting.position_temperature > 0:
            if position_uniforms is None:
                stream = torch.full_like(codebook, POSITION_STREAM)
                u = philox_uniform(*setting.seed, frame, codebook, setting.step, stream)[..., 0]
            else:
                u = position_uniforms[first:last]
            score = score / setting.position_temperature + gumbel(u)
        lowest = torch.finfo(torch.float32).min
        score = torch.nan_to_num(score, nan=lowest, neginf=lowest)
        scores[first:last] = torch.where(undecided, score, float("-inf"))
        tokens[first:last] = torch.where(undecided, token.to(torch.int32), tokens[first:last])


def keep_count(vocabulary: int) -> int:
    """Same as `score_cells.keep_count`; that module needs triton."""
    return math.ceil(0.1 * vocabulary)


def _likeliest(log_p: torch.Tensor, keep: int) -> torch.Tensor:
    """log_p with all but the `keep` largest of the last dimension at -inf; ties go to the lower id."""
    order = torch.sort(log_p, dim=-1, descending=True, stable=True).indices[..., :keep]
    kept = torch.full_like(log_p, float("-inf"))
    return kept.scatter_(-1, order, log_p.gather(-1, order))


def earliest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Places of the `count` largest, of equals the earliest: what the kernel takes."""
    return torch.sort(scores, descending=True, stable=True).indices[:count]


def as_upstream(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The same by upstream's own operation, which on a CPU breaks ties in a way of its own."""
    return torch.topk(scores, count).indices


def select_cells(
    items: torch.Tensor,
    targets: torch.Tensor,
    tokens: torch.Tensor,
    scores: torch.Tensor,
    *,
    canvas: torch.Tensor,
    slots: torch.Tensor,
    choose: Callable[[torch.Tensor, int], torch.Tensor] = earliest,
) -> None:
    """Twin of `select_cells.triton_select_cells`; `choose` takes the best of a request's scores, [C, T] as a row."""
    for slot, first, frames, _ in items.tolist():
        if slot < 0:
            continue
        count = Slot(slots[slot]).count
        if count <= 0:
            continue
        last = first + frames
        flat = scores[first:last].T.flatten()  # codebook by codebook, as upstream has it
        count = min(count, int((flat > float("-inf")).sum()))
        chosen = choose(flat, count)
        codebook, local = chosen // frames, chosen % frames
        frame = targets[first:last, t.TARGET_FRAME].long()[local]
        canvas[frame, codebook] = tokens[first:last][local, codebook]
        slots[slot, t.SLOT_STEP] += 1
