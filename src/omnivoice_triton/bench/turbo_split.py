"""Where a call of turbo goes: language model, codec, post-processing, and the host's rest.

Measured in calls of their own, the device synchronised around each part, which costs a little. Other modes: `splits`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.models.turbo import TurboHandle
from omnivoice_triton.speech import InputError

SPLIT_PARTS = ("lm", "codec", "post")


def turbo_of(runner: BaseRunner) -> TurboHandle:
    """The turbo handle of a loaded runner; InputError for another mode's."""
    turbo = runner.acceleration.turbo if runner.acceleration is not None else None
    if turbo is None:
        raise InputError(f"{runner!r} has no turbo engine")
    return turbo


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block `owner.name` is what `make` makes of it."""
    own = vars(owner)
    if name in own:
        raise InputError(f"{name} is replaced already")
    own[name] = make(getattr(owner, name))
    try:
        yield
    finally:
        del own[name]


@contextmanager
def timed_parts(turbo: TurboHandle, synchronize: Callable[[], None]) -> Iterator[dict[str, float]]:
    """Seconds that turbo's parts take within the block, as a dict that is filled on the way: lm, codec, post."""
    spent: dict[str, float] = {}

    def timed(part: str) -> Callable[[Any], Any]:
        def make(function: Any) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                synchronize()
                began = time.perf_counter()
                result = function(*args, **kwargs)
                synchronize()
                spent[part] = spent.get(part, 0.0) + time.perf_counter() - began
                return result

            return run

        return make

    owners = ((turbo.engine, "generate_tokens"), (turbo.codec, "decode"), (turbo._finisher, "finish"))
    with ExitStack() as stack:
        for part, (owner, name) in zip(SPLIT_PARTS, owners, strict=True):
            stack.enter_context(replaced(owner, name, timed(part)))
        yield spent


def split(
    generate: Callable[[int], float], turbo: TurboHandle, runs: int, synchronize: Callable[[], None]
) -> dict[str, float]:
    """Medians of the parts in ms over `runs` calls; the host's is what is left of each call.

    Args:
        generate: speaks with a seed and gives the call's milliseconds.

    Raises:
        InputError: a part did not run: its time would be the host's.
    """
    seen: list[dict[str, float]] = []
    for seed in range(runs):
        with timed_parts(turbo, synchronize) as spent:
            total = generate(seed)
        missing = [part for part in SPLIT_PARTS if part not in spent]
        if missing:
            raise InputError(f"turbo did not run its {missing[0]}: the split means nothing")
        seen.append(with_rest(spent, total))
    return medians(seen)


def with_rest(spent_s: Mapping[str, float], total_ms: float) -> dict[str, float]:
    """One call's parts in ms, what is left of it as the host's, and the whole."""
    parts = {f"{part}_ms": 1000.0 * spent_s[part] for part in SPLIT_PARTS}
    return {**parts, "host_ms": total_ms - sum(parts.values()), "split_total_ms": total_ms}


def medians(seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure over several calls.

    Raises:
        InputError: no call.
    """
    if not seen:
        raise InputError("nothing was measured")
    return {name: median(figures[name] for figures in seen) for name in seen[0]}
