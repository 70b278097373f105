"""The codec's decoder: audio codes to samples, as `HiggsAudioV2TokenizerModel.decode`, with fewer passes over memory.

The quantizer and fc2 are one table lookup (`codec_weights`), every Snake takes the bias of the convolution before it
and the residual along (`kernels.snake`), the convolutions are PyTorch's. Items of unequal length share a call: Snake
zeroes what lies beyond an item's end in front of every convolution, which is what a convolution's own zero padding
looks like, so each item comes out as if alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from omnivoice_triton.engine import codec_windows
from omnivoice_triton.engine.codec_ops import convolve, convolve_up, snakes
from omnivoice_triton.engine.codec_weights import DecoderWeights, read_decoder_weights
from omnivoice_triton.engine.codec_windows import Call
from omnivoice_triton.engine.state import upload
from omnivoice_triton.speech import InputError, ModeUnavailable

PRECISIONS = {
    "tf32": torch.float32,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}
"""Dtype of the convolutions. `tf32` leaves PyTorch's flag for cuDNN as the caller has set it (on unless switched off),
as upstream does; `fp32` switches TF32 off for its own calls. `fp64` is for proofs."""

BACKENDS = ("triton", "reference")

CONTEXT_FRAMES = 12
"""Frames beside a cut that a window carries along; a frame's samples depend on 10 on either side."""

WIDEST_CALL_FRAMES = 1024
"""Frames of all rows of an eager call together."""

TAIL_BLOCKS = 3
TAIL_FRAMES = 160
"""The last blocks make the most samples and fill a GPU by themselves, the first hardly do. So rows run together up to
the last three, and from there in groups of so many frames: 140 MB of activations in float32 instead of 0.9 MB for every
frame of the call."""

# On an H200 a graph takes 1.62 ms for 128 frames, 1.78 for 160 and 2.03 for 208: 1.0 ms, and 4.8 us a frame.
_SPARE_FRAMES = {"cuda": 200, "cpu": 0}


class CodecDecoder:
    """Decodes audio codes with the weights of an upstream tokenizer.

    Args:
        weights: see `read_decoder_weights`.
        precision: a key of `PRECISIONS`.
        backend: `triton` or `reference` for Snake; by default the first on a CUDA device and the second elsewhere.

    Raises:
        InputError: unknown precision or backend, or one that doesn't go with the other.
        ModeUnavailable: bf16 on a GPU that lacks it.
    """

    def __init__(self, weights: DecoderWeights, *, precision: str = "tf32", backend: str | None = None) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"unknown codec precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
        self.device = weights.table.device
        if backend is None:
            backend = "triton" if self.device.type == "cuda" else "reference"
        if backend not in BACKENDS:
            raise InputError(f"unknown codec backend {backend!r}: choose one of {', '.join(BACKENDS)}")
        if precision == "fp64" and backend != "reference":
            raise InputError("codec precision fp64 needs the reference backend")
        if (
            precision == "bf16"
            and self.device.type == "cuda"
            and torch.cuda.get_device_capability(self.device) < (8, 0)
        ):
            raise ModeUnavailable("codec precision bf16 needs a GPU of compute capability 8.0 or newer: use tf32")
        self.weights = weights
        self.precision = precision
        self.backend = backend
        self.hop = weights.hop
        self.context = max(CONTEXT_FRAMES, *weights.context_frames())
        self.spare_frames = _SPARE_FRAMES.get(self.device.type, 0)
        self._snake, self._add_snake = snakes(backend)
        rows = torch.arange(weights.codebooks, device=self.device) * weights.codebook_size
        self._first_row = rows[:, None]  # [Q, 1]

    @classmethod
    def from_upstream(
        cls, audio_tokenizer: nn.Module, *, precision: str = "tf32", backend: str | None = None
    ) -> CodecDecoder:
        """A decoder that shares the tensors of `model.audio_tokenizer` where no cast is needed.

        Raises:
            UpstreamChanged: the tokenizer is not laid out as expected.
            InputError: see the class.
        """
        if precision not in PRECISIONS:
            raise InputError(f"unknown codec precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
        weights = read_decoder_weights(audio_tokenizer, dtype=PRECISIONS[precision])
        return cls(weights, precision=precision, backend=backend)

    def __repr__(self) -> str:
        """Device, precision and backend."""
        return f"<CodecDecoder: {self.precision}, {self.backend} on {self.device}>"

    def decode(self, codes: torch.Tensor | Sequence[torch.Tensor], *, check: bool = True) -> list[torch.Tensor]:
        """Samples of each item, shape (T_i * hop,), float32, on the decoder's device.

        Items of one length run together, and on a GPU so do others where that saves a call. Items longer than
        `WIDEST_CALL_FRAMES` run in windows.

        Args:
            codes: one item or several, each (Q, T_i), integers in [0, codebook size).
            check: look at the codes' range, which waits for the device; without it a code out of range is undefined.

        Raises:
            InputError: another shape or dtype, no frames, or a code out of range.
        """
        with torch.inference_mode():
            items = self.prepare(codes, check=check)
            calls = codec_windows.group(
                [item.shape[1] for item in items],
                widest=WIDEST_CALL_FRAMES,
                context=self.context,
                spare_frames=self.spare_frames,
            )
            return self.assemble(items, calls, self.run_call)

    def decode_windowed(self, codes: torch.Tensor, window: int) -> torch.Tensor:
        """Samples (T * hop,) of one item (Q, T) from windows of at most `window` frames, all in one call.

        Equal to `decode` up to rounding.

        Raises:
            InputError: as `decode`, or a window that leaves nothing beside its context.
        """
        with torch.inference_mode():
            items = self.prepare(codes, check=True)
            rows = codec_windows.cut(0, items[0].shape[1], window, self.context)
            call = Call(len(rows), rows[0].frames, rows)
            return self.assemble(items, [call], self.run_call)[0]

    def prepare(self, codes: torch.Tensor | Sequence[torch.Tensor], *, check: bool) -> list[torch.Tensor]:
        """The items as int64 on the decoder's device; see `decode`."""
        given = [codes] if isinstance(codes, torch.Tensor) else list(codes)
        books, size = self.weights.codebooks, self.weights.codebook_size
        for item in given:
            if item.dim() != 2 or item.shape[0] != books or item.shape[1] < 1:
                raise InputError(f"codes must have shape ({books}, T) with at least one frame, not {tuple(item.shape)}")
            if item.is_floating_point() or item.is_complex() or item.dtype == torch.bool:
                raise InputError(f"codes must be integers, not {item.dtype}")
        items = [item.to(self.device, torch.int64) for item in given]
        if check and items:
            low, high = torch.stack([torch.stack(item.aminmax()) for item in items]).T
            lowest, highest = torch.stack([low.min(), high.max()]).tolist()
            if lowest < 0 or highest >= size:
                raise InputError(f"codes must lie in 0 to {size - 1}, but go from {lowest} to {highest}")
        return items

    def assemble(
        self, items: Sequence[torch.Tensor], calls: Sequence[Call], run: Callable[[Sequence[torch.Tensor], Call], Any]
    ) -> list[torch.Tensor]:
        """Run the calls and put each item's kept pieces together: (T_i * hop,) each.

        `run` gives the samples (batch, width * hop) of a call; they must stay as they are when the next one runs. An
        item that no call mentions comes out empty.
        """
        pieces: list[list[tuple[int, torch.Tensor]]] = [[] for _ in items]
        for call in calls:
            samples = run(items, call)
            for index, row in enumerate(call.rows):
                kept = slice((row.keep_from - row.start) * self.hop, (row.keep_to - row.start) * self.hop)
                pieces[row.item].append((row.keep_from, samples[index, kept]))
        return [_join([piece for _, piece in sorted(own, key=lambda p: p[0])]) for own in pieces]

    def run_call(self, items: Sequence[torch.Tensor], call: Call) -> torch.Tensor:
        """Samples (batch, width * hop) of one call, eagerly."""
        if call.is_exact:
            rows = [items[row.item][:, row.start : row.start + row.frames] for row in call.rows]
            return self.run(torch.stack(rows))
        codes = torch.zeros(call.batch, self.weights.codebooks, call.width, dtype=torch.int64, device=self.device)
        lengths = torch.zeros(call.batch, dtype=torch.int32, device=self.device)
        fill_call(codes, lengths, items, call)
        return self.run(codes, lengths)

    def run(self, codes: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Samples (B, T * hop) of codes (B, Q, T); no host synchronisation, so it can be captured.

        Args:
            codes: int64, in range.
            lengths: (B,) int32, frames that count of each row; None: all. Samples beyond are undefined.
        """
        weights = self.weights
        batch, _, frames = codes.shape
        together = max(1, TAIL_FRAMES // frames)
        with self._convolution_flags():
            x = self._embed(codes, lengths)
            first = weights.blocks[0].alpha
            active = self._snake(
                convolve(x, weights.conv_in), first, bias=weights.conv_in.bias, lengths=lengths, rate=1
            )
            del x
            split = max(0, len(weights.blocks) - TAIL_BLOCKS)
            active, rate = self._run_blocks(active, 0, split, lengths, 1)
            if batch <= together:
                return self._finish_rows(active, split, lengths, rate)
            samples = torch.empty(batch, frames * self.hop, dtype=weights.conv_out.weight.dtype, device=codes.device)
            for row in range(0, batch, together):
                rows = slice(row, row + together)
                own = None if lengths is None else lengths[rows]
                samples[rows] = self._finish_rows(active[rows], split, own, rate)
            return samples

    def _finish_rows(self, active: torch.Tensor, first: int, lengths: torch.Tensor | None, rate: int) -> torch.Tensor:
        """Samples (B, T * hop) from what block `first` takes."""
        weights = self.weights
        active, _ = self._run_blocks(active, first, len(weights.blocks), lengths, rate)
        return convolve(active, weights.conv_out).add_(weights.conv_out.bias[:, None])[:, 0]

    def _run_blocks(
        self, active: torch.Tensor, first: int, end: int, lengths: torch.Tensor | None, rate: int
    ) -> tuple[torch.Tensor, int]:
        """Blocks `first` to `end` - 1: what the next convolution takes, and its samples per frame."""
        weights = self.weights
        following = [*(block.alpha for block in weights.blocks[1:]), weights.alpha]
        for block, next_alpha in zip(weights.blocks[first:end], following[first:end], strict=True):
            rate *= block.up.stride
            at = {"lengths": lengths, "rate": rate}
            units = block.units
            x, active = self._add_snake(convolve_up(active, block.up), units[0].alpha1, bias=block.up.bias, **at)
            for unit, later in zip(units, (*units[1:], None), strict=True):
                active = self._snake(convolve(active, unit.conv1), unit.alpha2, bias=unit.conv1.bias, **at)
                y, bias = convolve(active, unit.conv2), unit.conv2.bias
                if later is not None:
                    x, active = self._add_snake(y, later.alpha1, bias=bias, residual=x, **at)
                else:
                    # Nobody but the next Snake needs this sum. The last convolution is never below float32.
                    wide = weights.conv_out.weight.dtype if next_alpha is weights.alpha else None
                    active = self._snake(y, next_alpha, bias=bias, residual=x, dtype=wide, **at)
        return active, rate

    def _embed(self, codes: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """(B, C, T) in the convolutions' dtype."""
        x = F.embedding(codes + self._first_row, self.weights.table).sum(1).add_(self.weights.table_bias)
        if lengths is not None:
            beyond = torch.arange(codes.shape[2], device=codes.device) >= lengths[:, None]
            x = x.masked_fill_(beyond[:, :, None], 0.0)
        return x.transpose(1, 2).to(self.weights.conv_in.weight.dtype).contiguous()

    @contextmanager
    def _convolution_flags(self) -> Iterator[None]:
        if self.precision != "fp32":
            yield
            return
        cudnn = torch.backends.cudnn
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        ):
            yield


def fill_call(codes: torch.Tensor, lengths: torch.Tensor, items: Sequence[torch.Tensor], call: Call) -> None:
    """Copy a call's rows into `codes` (batch, Q, width) and `lengths` (batch,); empty rows have length 0.

    What lies beyond a length keeps whatever valid codes it held.
    """
    counts = [row.frames for row in call.rows] + [0] * (call.batch - len(call.rows))
    # From pageable memory torch would wait for the stream, which still has the whole decode loop to run.
    lengths.copy_(upload(np.array(counts, np.int32), lengths.device))
    for index, row in enumerate(call.rows):
        codes[index, :, : row.frames].copy_(items[row.item][:, row.start : row.start + row.frames])


def _join(pieces: list[torch.Tensor]) -> torch.Tensor:
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat(pieces) if pieces else torch.empty(0)
