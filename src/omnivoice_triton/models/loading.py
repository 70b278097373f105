"""Loading an upstream model onto a device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

_lock = threading.Lock()


def load_upstream(path: Path, device: str, dtype: Any, *, parts_will_leave: bool = False) -> Any:
    """The upstream OmniVoice at `path`, on `device`, for inference.

    Args:
        path: checkpoint directory.
        device: a torch device.
        dtype: of the language model; the codec is loaded in fp32, as upstream does.
        parts_will_leave: some weights will be parked in the host's memory; see `separate_allocations`.
    """
    from omnivoice import OmniVoice

    with separate_allocations() if parts_will_leave else nullcontext():
        return OmniVoice.from_pretrained(str(path), device_map=device, dtype=dtype).eval()


@contextmanager
def separate_allocations() -> Iterator[None]:
    """Let weights that transformers loads within the block have memory of their own, so that it is free once they go.

    transformers first asks the GPU for one block of the whole model's size (`caching_allocator_warmup` of its
    `modeling_utils`, for speed); torch returns a block only when nothing is left in it, so a parked half of the model
    would stay on the GPU as torch's reserve. A transformers without that function needs nothing.
    """
    from transformers import modeling_utils

    name = "caching_allocator_warmup"
    with _lock:
        theirs = getattr(modeling_utils, name, None)
        if theirs is None:
            yield
            return
        setattr(modeling_utils, name, lambda *args, **kwargs: None)
        try:
            yield
        finally:
            setattr(modeling_utils, name, theirs)
