"""Where a call's time goes: language model, codec, post-processing, and the host's rest.

Measured in calls of their own, the device synchronised around each part, which costs a little. Of turbo the parts are
`turbo_split.split`'s. Of the modes that run upstream's generate():

- lm: from the end of the request's preparation (`_preprocess_all`) to the first `_decode_and_post_process`: prompts,
  and all decoding steps of all texts;
- codec: `audio_tokenizer.decode`, once a text; post: `_post_process_audio`, once a text;
- host: what is left: preparation, and copies of samples to the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from omnivoice_triton.bench.turbo_split import medians, replaced, split, turbo_of, with_rest
from omnivoice_triton.speech import InputError

Synchronize = Callable[[], None]


@dataclass
class _Marks:
    """Instants and sums of one call, in seconds."""

    prepared: float | None = None
    decoded: float | None = None
    spent: dict[str, float] = field(default_factory=dict)


@contextmanager
def _watched(model: Any, synchronize: Synchronize, clock: Callable[[], float]) -> Iterator[_Marks]:
    """Within the block upstream's parts of `model` tell when they run."""
    marks = _Marks()

    def now() -> float:
        synchronize()
        return clock()

    def preparing(function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            marks.prepared = now()
            return result

        return run

    def finishing(function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if marks.decoded is None:
                marks.decoded = now()
            return function(*args, **kwargs)

        return run

    def timed(part: str) -> Callable[[Any], Any]:
        def make(function: Any) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                began = now()
                result = function(*args, **kwargs)
                marks.spent[part] = marks.spent.get(part, 0.0) + now() - began
                return result

            return run

        return make

    with ExitStack() as stack:
        stack.enter_context(replaced(model, "_preprocess_all", preparing))
        stack.enter_context(replaced(model, "_decode_and_post_process", finishing))
        stack.enter_context(replaced(model.audio_tokenizer, "decode", timed("codec")))
        stack.enter_context(replaced(model, "_post_process_audio", timed("post")))
        yield marks


def upstream_split(
    generate: Callable[[int], float],
    model: Any,
    runs: int,
    synchronize: Synchronize,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Medians of the parts in ms over `runs` calls of a model whose generate() is upstream's.

    Args:
        generate: speaks with a seed and gives the call's milliseconds.

    Raises:
        InputError: a part did not run: its time would be the host's.
    """
    seen: list[dict[str, float]] = []
    for seed in range(runs):
        with _watched(model, synchronize, clock) as marks:
            total = generate(seed)
        if marks.prepared is None or marks.decoded is None or set(marks.spent) != {"codec", "post"}:
            raise InputError("generate() did not run upstream's parts: the split means nothing")
        seen.append(with_rest({"lm": marks.decoded - marks.prepared, **marks.spent}, total))
    return medians(seen)


def split_of(
    runner: Any, keywords: dict[str, Any], steps: int, runs: int, synchronize: Synchronize
) -> dict[str, float]:
    """The parts of a loaded runner's call in ms, and decoding steps a second (`steps_per_s`: steps over lm)."""

    def generate(seed: int) -> float:
        made = runner.generate(seed=seed, **keywords)
        speech = made[0] if isinstance(made, list) else made
        return float(speech.time_ms)

    if runner.mode.engine:
        parts = split(generate, turbo_of(runner), runs, synchronize)
    else:
        parts = upstream_split(generate, runner.model, runs, synchronize)
    return {**parts, "steps_per_s": 1000.0 * steps / parts["lm_ms"]}


__all__ = ["split_of", "upstream_split"]
