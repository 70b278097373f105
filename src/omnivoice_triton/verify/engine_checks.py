"""What only mode turbo has to show: replays equal eager steps, requests repeat, noise is fresh, the codec is right.

All figures are taken on the engine that a user's generate() runs on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.step_graphs import StepGraphs, run_eagerly
from omnivoice_triton.verify.compare import relative_error
from omnivoice_triton.verify.recording import Forced

if TYPE_CHECKING:
    from omnivoice_triton.engine.engine import Engine
    from omnivoice_triton.models.turbo import TurboHandle

MAX_ERROR_RATIO = 1.25
CODEC_FLOOR = 1e-5
"""Below this distance from exact fp32 samples no ratio is taken."""
NOISE_SIGMAS = 6.0
GUMBEL_MEAN, GUMBEL_STD = 0.5772156649, math.pi / math.sqrt(6)


@dataclass
class Trace:
    """One decoding, step by step."""

    tokens: torch.Tensor
    """[C, T] int64."""
    scores: list[torch.Tensor]
    """Of each step [T, C] fp32; -inf where a cell was decided before."""

    def equals(self, other: Trace) -> bool:
        """Whether every bit is the same."""
        return (
            torch.equal(self.tokens, other.tokens)
            and len(self.scores) == len(other.scores)
            and all(torch.equal(a, b) for a, b in zip(self.scores, other.scores, strict=True))
        )


def trace(engine: Engine, forced: Forced, seed: int) -> Trace:
    """Decode the first item of a task, keeping the scores of every step."""
    options = DecodeOptions.from_config(forced.config)
    prompt = engine.prompts.from_task(forced.task, 0, forced.config.denoise)
    future = engine.submit(Request(prompt, options, seed))
    scores = []
    busy = True
    while busy:
        busy = engine.step()
        scores.append(engine.runner.state.scores[: prompt.frames].clone())
    return Trace(future.result(), scores)


def replay_equals_eager(engine: Engine, forced: Forced, seed: int = 5) -> bool | None:
    """Whether captured graphs compute the eager engine's bits; None where the engine captures none."""
    if not engine._captures_graphs:
        return None
    runner = engine.runner
    captured = runner.graphs
    replayed = trace(engine, forced, seed)
    runner.graphs = StepGraphs(runner.launches.enqueue, runner.grid.buckets, run_eagerly)
    try:
        eager = trace(engine, forced, seed)
    finally:
        runner.graphs = captured
    return replayed.equals(eager)


def repeats(engine: Engine, forced: Forced, seed: int = 5) -> bool:
    """Whether two identical requests give equal bits, with another request between them."""
    first = trace(engine, forced, seed)
    trace(engine, forced, seed + 1)
    return first.equals(trace(engine, forced, seed))


def noise_of(engine: Engine, forced: Forced, made: Trace, step: int) -> torch.Tensor:
    """The noise [T, C] that a step added, NaN at decided cells: its scores less what its own logits give.

    score = (confidence - penalty * codebook) / temperature + noise, the confidence from the guided log-softmax.
    """
    scores = made.scores[step]
    undecided = scores > float("-inf")
    mask_id = engine.shape.audio_vocab - 1
    canvas = torch.where(undecided.T, mask_id, made.tokens)
    ((conditional, free),) = engine.logits(forced.task, forced.config, [canvas])
    z = conditional if free is None else conditional + forced.guidance * (conditional - free)
    confidence = z.log_softmax(-1)[..., :mask_id].amax(-1).T  # [T, C]
    penalty = forced.config.layer_penalty_factor * torch.arange(confidence.shape[1], device=confidence.device)
    plain = (confidence - penalty) / forced.config.position_temperature
    return torch.where(undecided, scores - plain, float("nan"))


def fresh_noise(engine: Engine, forced: Forced) -> dict[str, Any]:
    """Whether each step and each seed draws Gumbel noise of its own.

    Returns:
        Mean and spread of the noise, correlations between two steps and between two seeds, what they may be, and
        `problems` in words.
    """
    # One step decides all at once and would leave nothing to compare.
    forced = replace(forced, config=replace(forced.config, num_step=8, position_temperature=5.0))
    first, other = trace(engine, forced, 5), trace(engine, forced, 6)
    zero, one = noise_of(engine, forced, first, 0), noise_of(engine, forced, first, 1)
    foreign = noise_of(engine, forced, other, 0)
    both = ~(zero.isnan() | one.isnan())
    cells = int(both.sum())
    if cells < 50:
        return {"cells": cells, "problems": [f"only {cells} cells to look at the noise of: give more seconds"]}
    limit = NOISE_SIGMAS / math.sqrt(cells)
    figures: dict[str, Any] = {
        "cells": cells,
        "mean": float(zero.nanmean()),
        "std": float(zero[~zero.isnan()].std()),
        "correlation_of_steps": _correlation(zero[both], one[both]),
        "correlation_of_seeds": _correlation(zero[both], foreign[both]),
        "limit": limit,
    }
    problems = []
    if not abs(figures["correlation_of_steps"]) <= limit:
        problems.append(f"noise of two steps correlates by {figures['correlation_of_steps']:.2f}: it is reused")
    if not abs(figures["correlation_of_seeds"]) <= limit:
        problems.append(f"noise of two seeds correlates by {figures['correlation_of_seeds']:.2f}")
    # The mean of n Gumbel draws has a spread of 1.28 / sqrt(n); their standard deviation, with a kurtosis of 5.4, of
    # 1.28 * sqrt((5.4 - 1) / 4 / n).
    if not abs(figures["mean"] - GUMBEL_MEAN) <= limit * GUMBEL_STD:
        problems.append(f"noise has mean {figures['mean']:.3f}, Gumbel's is {GUMBEL_MEAN:.3f}")
    if not abs(figures["std"] - GUMBEL_STD) <= limit * GUMBEL_STD * math.sqrt((5.4 - 1) / 4):
        problems.append(f"noise has spread {figures['std']:.3f}, Gumbel's is {GUMBEL_STD:.3f}")
    return {**figures, "problems": problems}


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.double(), b.double())))[0, 1])


def codec_error(handle: TurboHandle, model: Any, forced: Forced) -> dict[str, Any]:
    """Our decoder's samples and upstream's, each against upstream's in fp32 without TF32, on the same codes."""
    tokens = trace(handle.engine, forced, 5).tokens
    with torch.inference_mode():
        ours = handle.codec.decode([tokens], check=True)[0]
        theirs = model.audio_tokenizer.decode(tokens[None]).audio_values.flatten()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            exact = model.audio_tokenizer.decode(tokens[None]).audio_values.flatten()
    if ours.shape != exact.shape:
        return {"problems": [f"codec made {ours.numel()} samples, upstream {exact.numel()}"]}
    own, base = relative_error(ours, exact), relative_error(theirs, exact)
    ratio = own / max(base, CODEC_FLOOR)
    problems = [] if ratio <= MAX_ERROR_RATIO else [f"codec is {own:.2g} from exact samples, upstream {base:.2g}"]
    return {"relative_error": own, "base_relative_error": base, "ratio": ratio, "problems": problems}


def check_engine(handle: TurboHandle, model: Any, forced: Forced) -> dict[str, Any]:
    """All of the above; `problems` collects what failed."""
    engine = handle.engine
    found: dict[str, Any] = {
        "replay_equals_eager": replay_equals_eager(engine, forced),
        "identical_requests_equal": repeats(engine, forced),
        "noise": fresh_noise(engine, forced),
        "codec": codec_error(handle, model, forced),
    }
    problems = [*found["noise"].pop("problems"), *found["codec"].pop("problems")]
    if found["replay_equals_eager"] is False:
        problems.append("a replayed graph gives other bits than the eager engine")
    if not found["identical_requests_equal"]:
        problems.append("two identical requests give different bits")
    found["problems"] = problems
    return found
