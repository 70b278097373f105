"""CUDA graphs of OmniVoice's forward, one per bucket of batch rows and sequence length.

Inputs are padded into the bucket, so a handful of graphs serves every text. All graphs share one memory pool; the least
recently used are dropped under a byte budget. Each call copies every input, replays, and returns a copy of the logits.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from omnivoice_triton.config import DEFAULT_GRAPH_BUDGET_MB
from omnivoice_triton.cuda_graphs import GraphPool, Replayable
from omnivoice_triton.models.handle import PatchHandle
from omnivoice_triton.models.seam import find_patchable_model, patch_version, row_lengths_hook
from omnivoice_triton.speech import InputError

logger = logging.getLogger(__name__)

_BATCH_BUCKETS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Bucket:
    """A padded shape: batch rows (both guidance branches) and sequence length."""

    rows: int
    length: int

    @classmethod
    def holding(cls, rows: int, length: int) -> Bucket:
        """The smallest bucket that holds `rows` sequences of `length`; a function of these two alone.

        Steps of 32 positions to 512, then of 64: at 330 rows, 4 % more rows cost about 1 % of a step (H200).
        """
        step = 32 if length <= 512 else 64
        padded_rows = next((b for b in _BATCH_BUCKETS if b >= rows), -(-rows // 32) * 32)
        return cls(padded_rows, max(step, -(-length // step) * step))


@dataclass
class _Captured:
    graph: Replayable
    input_ids: torch.Tensor  # [rows, C, S] int64
    audio_mask: torch.Tensor  # [rows, S] bool
    attention_mask: torch.Tensor  # [rows, 1, S, S] bool
    logits: torch.Tensor  # [rows, C, S, V]
    filled: tuple[int, int] = (0, 0)  # rows and length that the last inputs took


class GraphedForward:
    """Stands in for `OmniVoice.forward`: pads into a bucket, replays its graph, returns the rows that count.

    Args:
        model: an upstream OmniVoice instance on a CUDA device.
        budget_mb: bytes that all graphs together may hold, in MB.
        capture: how to capture; tests give a stand-in that just runs the function again.
    """

    def __init__(self, model: Any, *, budget_mb: int = DEFAULT_GRAPH_BUDGET_MB, capture: Any | None = None) -> None:
        if budget_mb <= 0:
            raise InputError(f"the graph budget must be above 0 MB, not {budget_mb}")
        self._model = model
        self._llm = find_patchable_model(model)
        self._forward = model.forward
        self._budget_bytes = budget_mb * 2**20
        self._capture = capture if capture is not None else GraphPool(model.device)
        self._graphs: OrderedDict[Bucket, _Captured] = OrderedDict()
        self._lock = threading.RLock()
        self._version = patch_version(self._llm)
        self._checked_mask: weakref.ref[torch.Tensor] | None = None
        self._done: torch.cuda.Event | None = None
        self.captures = 0
        self.replays = 0

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Captured buckets, least recently used first."""
        return tuple(self._graphs)

    @property
    def used_bytes(self) -> int:
        """Device memory that the graphs' pool holds."""
        return int(self._capture.used_bytes)

    def __repr__(self) -> str:
        """What is captured and how often it ran."""
        return (
            f"<CUDA graphs: {len(self._graphs)} buckets, {self.used_bytes / 2**20:.0f} of "
            f"{self._budget_bytes / 2**20:.0f} MB, {self.captures} captures, {self.replays} replays>"
        )

    def __call__(
        self,
        input_ids: torch.Tensor,
        audio_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        document_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> Any:
        """Logits [B, C, S, V] of `input_ids` [B, C, S], `audio_mask` [B, S], `attention_mask` [B, 1, S, S] bool.

        Raises:
            InputError: labels, document or position ids are given, or the mask is missing: only upstream's
                generate() path is captured.
        """
        if labels is not None or document_ids is not None or position_ids is not None:
            raise InputError("the CUDA graph runs generate() only: undo() it before training or packed forwards")
        if attention_mask is None or attention_mask.dim() != 4 or attention_mask.dtype != torch.bool:
            raise InputError("the CUDA graph needs upstream's [B, 1, S, S] bool attention mask")
        with self._lock, torch.inference_mode():
            self._check_mask(attention_mask)
            rows, _, length = input_ids.shape
            captured = self._get(Bucket.holding(rows, length))
            self._wait_for_last_use()
            _fill(captured, input_ids, audio_mask, attention_mask)
            captured.graph.replay()
            self.replays += 1
            logits = captured.logits[:rows, :, :length].clone()
            self._mark_use()
        return _output_class()(logits=logits)

    def warmup(self, lengths: Iterable[int], batch_sizes: Iterable[int] = (1,)) -> None:
        """Capture the buckets of these sequence lengths (prompt and target) and batch sizes, largest first."""
        wanted = {Bucket.holding(2 * size, length) for size in batch_sizes for length in lengths}
        with self._lock, torch.inference_mode():
            for bucket in sorted(wanted, key=lambda b: b.rows * b.length, reverse=True):
                self._get(bucket)

    def run_eager(
        self, input_ids: torch.Tensor, audio_mask: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """The same padded computation without a graph, for comparison: logits [B, C, S, V]."""
        with self._lock, torch.inference_mode():
            rows, codebooks, length = input_ids.shape
            padded = self._buffers(Bucket.holding(rows, length), codebooks)
            _fill(padded, input_ids, audio_mask, attention_mask)
            return self._run(padded)[:rows, :, :length].clone()

    def clear(self) -> None:
        """Drop every graph and give the memory back."""
        with self._lock:
            for captured in self._graphs.values():
                captured.graph.reset()
            self._graphs.clear()
            self._capture.restart()

    def _get(self, bucket: Bucket) -> _Captured:
        if self._version != patch_version(self._llm):
            self.clear()  # captured kernels belong to another state of the patches
            self._version = patch_version(self._llm)
        found = self._graphs.get(bucket)
        if found is not None:
            self._graphs.move_to_end(bucket)
            return found
        self._make_room(bucket)
        captured = self._capture_bucket(bucket)
        if self.used_bytes > self._budget_bytes and self._graphs:
            # The pool never shrinks while a graph of it lives: start it afresh with this bucket alone.
            captured.graph.reset()
            del captured
            self.clear()
            captured = self._capture_bucket(bucket)
        if self.used_bytes > self._budget_bytes:
            needed = self.used_bytes / 2**20
            captured.graph.reset()
            del captured
            self.clear()
            raise InputError(
                f"a graph of {bucket.rows} rows x {bucket.length} positions needs {needed:.0f} MB, over the budget of "
                f"{self._budget_bytes / 2**20:.0f} MB: raise graph_budget_mb or give a smaller batch"
            )
        self._graphs[bucket] = captured
        return captured

    def _make_room(self, bucket: Bucket) -> None:
        """Drop the least recently used until the new bucket's buffers fit in what the budget leaves."""
        config = self._model.config
        logits_bytes = config.num_audio_codebook * config.audio_vocab_size * self._model.dtype.itemsize

        def kept(b: Bucket) -> int:
            return b.rows * b.length * int(logits_bytes + b.length + 9 * config.num_audio_codebook)

        while self._graphs and sum(map(kept, self._graphs)) + kept(bucket) > self._budget_bytes:
            dropped, captured = self._graphs.popitem(last=False)
            captured.graph.reset()
            logger.debug("dropped the graph of %s", dropped)

    def _capture_bucket(self, bucket: Bucket) -> _Captured:
        captured = self._buffers(bucket, self._model.config.num_audio_codebook)
        captured.graph, captured.logits = self._capture(lambda: self._run(captured))
        self.captures += 1
        logger.debug("captured %s: pool %.0f MB", bucket, self.used_bytes / 2**20)
        return captured

    def _buffers(self, bucket: Bucket, codebooks: int) -> _Captured:
        device, rows, length = self._model.device, bucket.rows, bucket.length
        ids = torch.full((rows, codebooks, length), self._model.config.audio_mask_id, dtype=torch.long, device=device)
        mask = torch.eye(length, dtype=torch.bool, device=device).expand(rows, 1, length, length).contiguous()
        no_graph: Any = None
        return _Captured(no_graph, ids, torch.zeros(rows, length, dtype=torch.bool, device=device), mask, ids)

    def _run(self, buffers: _Captured) -> torch.Tensor:
        mask = buffers.attention_mask
        if row_lengths_hook(self._llm) is None:
            # SDPA would turn the bool mask into this at every layer.
            mask = torch.zeros_like(mask, dtype=self._model.dtype).masked_fill(~mask, float("-inf"))
        with _without_cache(self._llm.config):
            logits: torch.Tensor = self._forward(buffers.input_ids, buffers.audio_mask, attention_mask=mask).logits
        return logits

    def _check_mask(self, mask: torch.Tensor) -> None:
        hook = row_lengths_hook(self._llm)
        if hook is not None:
            hook.check(mask)

    def _wait_for_last_use(self) -> None:
        if self._done is not None:
            self._done.wait(torch.cuda.current_stream(self._model.device))

    def _mark_use(self) -> None:
        """Callers may come from different streams, and the buffers are shared."""
        if self._model.device.type == "cuda":
            if self._done is None:
                self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(self._model.device))


def _fill(buffers: _Captured, input_ids: torch.Tensor, audio_mask: torch.Tensor, attention_mask: torch.Tensor) -> None:
    """Copy the inputs into the corner of the bucket; what is outside attends to itself only."""
    rows, _, length = input_ids.shape
    if buffers.filled != (rows, length):
        buffers.attention_mask.zero_()
        buffers.attention_mask.diagonal(dim1=-2, dim2=-1).fill_(True)
        buffers.audio_mask.zero_()
        buffers.filled = (rows, length)
    buffers.input_ids[:rows, :, :length].copy_(input_ids)
    buffers.audio_mask[:rows, :length].copy_(audio_mask)
    buffers.attention_mask[:rows, :, :length, :length].copy_(attention_mask)


@contextmanager
def _without_cache(config: Any) -> Iterator[None]:
    """Upstream fills a key/value cache at every step and drops it: two copies a layer for nothing."""
    before = config.use_cache
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before


def _output_class() -> Any:
    from omnivoice.models.omnivoice import OmniVoiceModelOutput

    return OmniVoiceModelOutput


def capture_cuda_graph(
    model: Any, *, budget_mb: int = DEFAULT_GRAPH_BUDGET_MB, capture: Any | None = None
) -> PatchHandle:
    """Run `model.forward` of an upstream OmniVoice instance through CUDA graphs.

    Apply Triton kernels first if both are wanted. The handle's `forward` attribute is the `GraphedForward`
    (`handle.forward.warmup([200, 400])` captures ahead); `undo()` restores upstream's forward and frees the graphs.

    Raises:
        InputError: the model is not on a CUDA device or is captured already.
    """
    find_patchable_model(model)
    if "forward" in model.__dict__:
        raise InputError("this model's forward is replaced already: undo() that first")
    if capture is None and model.device.type != "cuda":
        raise InputError(f"CUDA graphs need a model on a CUDA device, not on {model.device}")
    graphed = GraphedForward(model, budget_mb=budget_mb, capture=capture)
    handle = GraphHandle(graphed)
    model.__dict__["forward"] = graphed

    def restore() -> None:
        model.__dict__.pop("forward", None)
        graphed.clear()

    handle.on_undo(restore)
    return handle


class GraphHandle(PatchHandle):
    """A `PatchHandle` that also gives access to the graphs."""

    def __init__(self, forward: GraphedForward) -> None:
        super().__init__("cuda graph", {"forward": 1})
        self.forward = forward

    def __repr__(self) -> str:
        """Buckets, memory and replays."""
        return f"<cuda graph: OmniVoice.forward, {self.forward!r}; {'active' if self.active else 'undone'}>"
