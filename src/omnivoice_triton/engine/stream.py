"""The CUDA stream of an engine, and what passes between it and the streams of callers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class EngineStream:
    """The stream that is current when this is made: all of the engine's work goes there, whoever calls.

    Off CUDA there is no stream and nothing to wait for.

    Args:
        device: of the engine.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The engine's device and stream are the current ones, and `no_grad` holds."""
        with no_grad():
            if self._stream is None:
                yield
            else:
                with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                    yield

    def join_caller(self) -> torch.cuda.Stream | None:
        """Make the engine's stream wait for the caller's, if they differ, and return the caller's."""
        if self._stream is None:
            return None
        caller = torch.cuda.current_stream(self._device)
        if caller == self._stream:
            return None
        self._stream.wait_stream(caller)
        return caller

    def take(self, tensor: torch.Tensor | None) -> None:
        """Make the engine's stream wait for the caller's, and keep `tensor` until the engine is through with it."""
        caller = self.join_caller()
        if caller is not None and self._stream is not None and tensor is not None and tensor.is_cuda:
            tensor.record_stream(self._stream)

    def hand_over(self, tensors: Sequence[torch.Tensor], caller: torch.cuda.Stream | None) -> None:
        """Make `caller`, as `join_caller` returned it, wait for the engine's stream; it may use `tensors` then."""
        if caller is None or self._stream is None:
            return
        for tensor in tensors:
            tensor.record_stream(caller)
        caller.wait_stream(self._stream)


@contextmanager
def no_grad() -> Iterator[None]:
    """No autograd, and ordinary tensors even inside a caller's inference mode: the buffers outlive it."""
    with torch.inference_mode(False), torch.no_grad():
        yield
