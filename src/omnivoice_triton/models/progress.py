"""Progress of a call, counted in decoding steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omnivoice_triton.models.request import Request

Progress = Callable[[int, int], None]
"""Called after each decoding step with (steps done, steps in all). With mode turbo a step is done once it is queued."""


@contextmanager
def reporting(model: Any, request: Request | None, progress: Progress | None) -> Iterator[None]:
    """Count forwards and tell `progress`; the total grows when upstream splits a long text into chunks."""
    if progress is None or request is None:
        yield
        return
    steps = request.options.num_step
    state = {"done": 0, "total": steps}
    chunked = model._generate_chunked

    def counting_chunks(task: Any, config: Any) -> Any:
        short = state["done"]
        state["total"] = short + steps * _count_chunks(model, task, config)
        return chunked(task, config)

    def after_step(*_: Any) -> None:
        state["done"] += 1
        progress(min(state["done"], state["total"]), state["total"])

    model.__dict__["_generate_chunked"] = counting_chunks
    hook = model.register_forward_hook(after_step)
    try:
        yield
    finally:
        hook.remove()
        model.__dict__.pop("_generate_chunked", None)


def _count_chunks(model: Any, task: Any, config: Any) -> int:
    """How many decode loops upstream's `_generate_chunked` will run: the most chunks of any of its items."""
    return max(len(chunk_texts(model, task, item, config)) for item in range(task.batch_size))


def chunk_texts(model: Any, task: Any, item: int, config: Any) -> list[str]:
    """The chunks that upstream's `_generate_chunked` cuts an item's text into."""
    from omnivoice.utils.text import chunk_text_punctuation

    text, length = task.texts[item], task.target_lens[item]
    frames = config.audio_chunk_duration * model.audio_tokenizer.config.frame_rate
    chunks: list[str] = chunk_text_punctuation(text=text, chunk_len=int(frames / (length / len(text))), min_chunk_len=3)
    return chunks
