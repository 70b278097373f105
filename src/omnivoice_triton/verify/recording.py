"""Teacher forcing: the canvases of one decoding by base, and what any model or engine makes of them.

Every mode gets base's own canvases, so that one early difference can't excuse the later ones. Hidden states of
upstream's layers come from forward hooks that copy into buffers of their own, which also works inside a captured graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from omnivoice_triton.models.seeding import seeded

if TYPE_CHECKING:
    from omnivoice_triton.engine.engine import Engine

VOICES = ("auto", "clone")

Canvas = dict[str, torch.Tensor]


@dataclass
class Forced:
    """One request and the canvases that its decoding went through, evenly spread over the steps."""

    voice: str
    task: Any
    config: Any
    canvases: list[Canvas]
    mask_id: int
    """The id of an undecided cell: what no step may choose."""

    @property
    def guidance(self) -> float:
        """Weight of the unconditional branch."""
        return float(self.config.guidance_scale)


@dataclass
class Recording:
    """What one model made of the recorded canvases; everything in fp32 on the CPU."""

    hidden: dict[int, list[torch.Tensor]]  # layer -> per step [rows that count, H]
    logits: list[torch.Tensor]  # per step [rows that count, C, V]: the target's, conditional then unconditional
    note: str = ""
    """What could not be recorded, and why."""

    def extend(self, other: Recording) -> None:
        """Append another request's steps."""
        for layer, states in other.hidden.items():
            self.hidden.setdefault(layer, []).extend(states)
        self.logits.extend(other.logits)
        self.note = self.note or other.note


def chosen_layers(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Layers to compare, in a model of `depth`; None means all.

    Those wanted, if there are so many; else as many at the same shares of the depth: of 8 layers, 0, 2, 4, 5, 7 for
    0, 7, 14, 21, 27.
    """
    if layers is None:
        return tuple(range(depth))
    deepest = max(layers, default=0)
    if deepest < depth:
        return tuple(sorted(set(layers)))
    return tuple(sorted({round(layer * (depth - 1) / deepest) for layer in layers}))


def force(model: Any, text: str, seconds: float, steps: int, keep: int, voice: str = "auto") -> Forced:
    """Decode `text` with `model` (upstream, unpatched) and keep the inputs of `keep` steps."""
    from omnivoice import OmniVoiceGenerationConfig
    from omnivoice.models.omnivoice import VoiceClonePrompt

    canvases: list[Canvas] = []

    def remember(module: Any, args: Any, kwargs: Any) -> None:
        canvases.append({name: value.clone() for name, value in kwargs.items()})

    extra: dict[str, Any] = {}
    if voice == "clone":
        frames = max(2, round(seconds * 25))
        shape, ids = (model.config.num_audio_codebook, frames), model.config.audio_mask_id
        codes = torch.randint(0, ids, shape, generator=torch.Generator().manual_seed(1)).to(model.device)
        extra["voice_clone_prompt"] = VoiceClonePrompt(codes, "A reference of random codes.", 0.1)
    config = OmniVoiceGenerationConfig(num_step=steps)
    task = model._preprocess_all(text=text, language="English", duration=seconds, **extra)
    hook = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        with torch.inference_mode(), seeded(model, 0):
            model._generate_iterative(task, config)
    finally:
        hook.remove()
    last = len(canvases) - 1  # a step that decides nothing is not run by every upstream
    chosen = sorted({round(i * last / max(keep - 1, 1)) for i in range(min(keep, len(canvases)))})
    return Forced(voice, task, config, [canvases[i] for i in chosen], int(model.config.audio_mask_id))


def lengths_of(canvas: Canvas) -> tuple[list[int], int]:
    """Rows of each branch that count, and how many of them are the target."""
    lengths = canvas["attention_mask"][:, 0, 0].sum(-1)
    return lengths.tolist(), int(lengths[lengths.shape[0] // 2 :].max())


def counted(canvas: Canvas, values: torch.Tensor, target_only: bool) -> torch.Tensor:
    """Rows of `values` [B, S, ...] that reach the result; padding rows of the unconditional branch are left out.

    With `target_only` only positions still masked or decided of the target, whose logits upstream reads.
    """
    lengths, target = lengths_of(canvas)
    return torch.cat([values[row, n - target if target_only else 0 : n] for row, n in enumerate(lengths)])


def target_tokens(canvas: Canvas) -> torch.Tensor:
    """The target's cells as they stand, [C, T], undecided ones as the mask id."""
    lengths, target = lengths_of(canvas)
    return canvas["input_ids"][0, :, lengths[0] - target : lengths[0]]


@contextmanager
def hidden_states(llm: Any, layers: tuple[int, ...]) -> Iterator[dict[int, torch.Tensor]]:
    """Buffers that hold the output [B, S, H] of each layer after every forward, graph replays included."""
    buffers: dict[int, torch.Tensor] = {}
    kept: list[torch.Tensor] = []  # a captured graph goes on writing to the buffers of its own shape

    def keep(layer: int) -> Any:
        def hook(module: Any, args: Any, output: torch.Tensor) -> None:
            held = buffers.get(layer)
            if held is None or held.shape != output.shape:
                buffers[layer] = output.clone()
                kept.append(buffers[layer])
            else:
                held.copy_(output)

        return hook

    hooks = [llm.layers[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield buffers
    finally:
        for hook in hooks:
            hook.remove()


def record(model: Any, forced: Forced, layers: tuple[int, ...]) -> Recording:
    """Run the canvases through an upstream model, patched or not."""
    made = Recording({layer: [] for layer in layers}, [])
    with torch.inference_mode(), hidden_states(model.llm, layers) as buffers:
        for canvas in forced.canvases:
            batch, _, length = canvas["input_ids"].shape
            logits = model(**canvas).logits  # [B, C, S, V]
            for layer in layers:
                made.hidden[layer].append(counted(canvas, buffers[layer][:batch, :length], False).float().cpu())
            made.logits.append(counted(canvas, logits.transpose(1, 2), True).float().cpu())
    return made


@contextmanager
def engine_states(engine: Engine) -> Iterator[list[torch.Tensor]]:
    """The sums that each add + norm of the engine's backbone leaves, [R, H] in the order of the calls.

    Works on the eager backbone only; it stands between the backbone and its operations.
    """
    backbone = engine.runner.backbone
    ops = backbone.ops
    sums: list[torch.Tensor] = []

    def add_norm(delta: torch.Tensor, residual: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        partial = delta.sum(0).to(residual.dtype) if delta.dim() == 3 else delta
        sums.append(residual + partial)
        return ops.add_norm(delta, residual, *args, **kwargs)

    backbone.ops = dataclasses.replace(ops, add_norm=add_norm)
    try:
        yield sums
    finally:
        backbone.ops = ops


def record_engine(engine: Engine, forced: Forced, layers: tuple[int, ...]) -> Recording:
    """Run the canvases through the engine: what `record` does, on packed rows."""
    made = Recording({}, [])
    depth = engine.shape.layers
    for canvas in forced.canvases:
        lengths, target = lengths_of(canvas)
        with engine_states(engine) as sums:
            ((conditional, free),) = engine.logits(forced.task, forced.config, [target_tokens(canvas)])
        branches = [conditional] if free is None else [conditional, free]
        made.logits.append(torch.cat([part.transpose(0, 1) for part in branches]).float().cpu())
        if len(sums) != 2 * depth:
            made.note = f"hidden states: the backbone made {len(sums)} sums, not two for each of {depth} layers"
            continue
        rows = lengths[0] + (0 if free is None else target)
        for layer in layers:
            made.hidden.setdefault(layer, []).append(sums[2 * layer + 1][:rows].float().cpu())
    return made
