"""Training in pieces: a stage has a budget, keeps its state on disk and goes on where it stopped.

Everything random in a step follows from (seed, stage, step), so nothing but weights, optimizer and counters is stored,
and a run in pieces takes exactly the steps of a run in one.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch


class Stage(Protocol):
    """What can be trained."""

    name: str

    def step(self, number: int, progress: float) -> dict[str, torch.Tensor]:
        """Take one step; returns what goes into the curve, still on the device."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next piece needs."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        ...


@dataclass(frozen=True)
class Budget:
    """The whole length of a stage: in steps (exact, for tests) or in minutes of training time."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"a budget is in steps or in minutes, not {self}")

    def progress(self, step: int, seconds: float) -> float:
        """How much is used, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / (60 * self.minutes)) if self.minutes else 1.0


class Clock:
    """When this piece has to end; `inf` minutes for never."""

    def __init__(self, minutes: float = math.inf) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()


def learning_rate(progress: float, step: int, warmup: int = 200, floor: float = 0.02) -> float:
    """Factor of the peak rate: a short rise, flat for 30 % of the budget, then a half cosine to `floor`."""
    rise = min(1.0, (step + 1) / warmup)
    fall = max(0.0, (progress - 0.3) / 0.7)
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fall)))


def step_seed(seed: int, stage: str, step: int) -> int:
    """Seed of all that is random in one step."""
    return zlib.crc32(f"{seed} {stage} {step}".encode()) + (step << 32) % (1 << 62)


def run_stage(
    stage: Stage,
    directory: Path,
    budget: Budget,
    clock: Clock,
    *,
    pause_at: int | None = None,
    save_every_s: float = 120.0,
    log: Callable[[str], None] = print,
) -> bool:
    """Train until the budget is used (True) or the piece is over (False); the state is saved either way.

    Args:
        pause_at: stop before this step, as the end of a piece does.

    Raises:
        FloatingPointError: a value of the curve is not a number; the last good state stays on disk.
    """
    path = directory / f"{stage.name}.state"
    step, seconds, curve = 0, 0.0, _Curve(directory / f"{stage.name}.curve.jsonl")
    if path.exists():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        step, seconds = saved["step"], saved["seconds"]
        stage.restore(saved["stage"])
        log(f"{stage.name}: continues at step {step}")
    else:
        curve.clear()

    def save() -> None:
        scratch = path.with_suffix(".partial")
        torch.save({"step": step, "seconds": seconds, "stage": stage.state()}, scratch)
        os.replace(scratch, path)

    def flush() -> None:
        if row := curve.flush():
            log(f"{stage.name} step {step} ({seconds:.0f} s): " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()))
            if not all(math.isfinite(value) for value in row.values()):
                raise FloatingPointError(f"stage {stage.name} diverged at step {step}: {row}")

    mark = last_save = time.monotonic()
    # On a GPU several steps to a look at the clock: the device is never waited for in between.
    while budget.progress(step, seconds) < 1.0 and clock.left_s > 0 and step != pause_at:
        curve.add(step, stage.step(step, budget.progress(step, seconds)))
        step += 1
        if step % 25 == 0 or not curve.on_gpu:
            curve.settle()  # Waits for the device: the time counted is time worked.
            now = time.monotonic()
            seconds, mark = seconds + now - mark, now
        if step % 100 == 0:
            flush()
            if time.monotonic() - last_save > save_every_s:
                save()
                last_save = mark = time.monotonic()
    curve.settle()
    seconds += time.monotonic() - mark
    flush()
    save()
    return budget.progress(step, seconds) >= 1.0


class _Curve:
    """Values of every step, averaged over the steps between two flushes, one JSON line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[dict[str, torch.Tensor]] = []
        self._step = 0
        self.on_gpu = False

    def clear(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def add(self, step: int, values: dict[str, torch.Tensor]) -> None:
        self._step, self.on_gpu = step, next(iter(values.values())).is_cuda
        self._pending.append({name: value.detach() for name, value in values.items()})

    def settle(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def flush(self) -> dict[str, float]:
        if not self._pending:
            return {}
        names = self._pending[0]
        row = {name: float(torch.stack([values[name].float() for values in self._pending]).mean()) for name in names}
        self._pending.clear()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self._step, **row}) + "\n")
        return row


def generator(device: torch.device | str, seed: int) -> torch.Generator:
    """A generator of that device, seeded."""
    return torch.Generator(device=device).manual_seed(seed)


def optimizer_to(optimizer: torch.optim.Optimizer, device: torch.device | str) -> None:
    """Move an optimizer's state to the device of its parameters."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key != "step":
                state[key] = value.to(device)
