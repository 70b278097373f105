"""The weights that decoding needs, taken out of transformers' HiggsAudioV2TokenizerModel and checked name by name.

    codes (B, Q, T) -> sum over q of project_out_q(embed_q[code]) -> fc2 -> DAC decoder -> samples (B, T * hop)

The quantizer's part is linear up to fc2, so it folds into one table with a row for every codebook and code:

    table[q, v] = fc2.weight @ project_out_q.weight @ embed_q[v]
    bias        = fc2.weight @ (sum over q of project_out_q.bias) + fc2.bias

computed in float64. A layout that differs from this raises, whatever the difference: a codec that is nearly right is
heard, not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from omnivoice_triton.speech import UpstreamChanged

_ENCODER_ONLY = (
    "codebook.embed_avg",
    "codebook.cluster_size",
    "codebook.inited",
    "project_in.weight",
    "project_in.bias",
)


@dataclass(frozen=True)
class Conv:
    """A convolution that keeps the length; the bias stays apart, for Snake's kernel adds it."""

    weight: torch.Tensor  # [C_out, C_in, k]
    bias: torch.Tensor  # [C_out]
    dilation: int

    @property
    def padding(self) -> int:
        """Zeros on either side."""
        return self.dilation * (self.weight.shape[2] - 1) // 2


@dataclass(frozen=True)
class UpConv:
    """A transposed convolution that makes `stride` samples of each."""

    weight: torch.Tensor  # [C_in, C_out, k]
    bias: torch.Tensor  # [C_out]
    stride: int
    padding: int
    output_padding: int


@dataclass(frozen=True)
class ResidualUnit:
    """x + conv2(snake(conv1(snake(x))))."""

    alpha1: torch.Tensor  # [C]
    conv1: Conv
    alpha2: torch.Tensor  # [C]
    conv2: Conv


@dataclass(frozen=True)
class DecoderBlock:
    """up(snake(x)), then the residual units."""

    alpha: torch.Tensor  # [C_in]
    up: UpConv
    units: tuple[ResidualUnit, ...]


@dataclass(frozen=True)
class DecoderWeights:
    """Everything between codes and samples."""

    table: torch.Tensor  # [Q * V, C] float32 (float64 for proofs)
    table_bias: torch.Tensor  # [C]
    codebooks: int
    codebook_size: int
    conv_in: Conv
    blocks: tuple[DecoderBlock, ...]
    alpha: torch.Tensor  # [C] of the last Snake
    conv_out: Conv  # to one channel; never below float32

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(block.up.stride for block in self.blocks)

    def context_frames(self) -> tuple[int, int]:
        """How many frames to the (left, right) of its own a frame's samples depend on; (10, 10) for the real codec."""
        return -self._reach(0, -1), self._reach(self.hop - 1, 1)

    def _reach(self, sample: int, side: int) -> int:
        """Outermost frame on one side (-1: left, 1: right) that output sample `sample` depends on."""
        at = sample + side * self.conv_out.padding
        for block in reversed(self.blocks):
            for unit in reversed(block.units):
                at += side * (unit.conv1.padding + unit.conv2.padding)
            up = block.up
            taps = up.weight.shape[2]
            # Output n takes the inputs i with 0 <= n + padding - i * stride < taps.
            at = -((taps - 1 - at - up.padding) // up.stride) if side < 0 else (at + up.padding) // up.stride
        return at + side * self.conv_in.padding


def read_decoder_weights(audio_tokenizer: nn.Module, *, dtype: torch.dtype = torch.float32) -> DecoderWeights:
    """Take the decoding weights; tensors that need no cast are shared with the module.

    Args:
        audio_tokenizer: transformers' HiggsAudioV2TokenizerModel, as in `model.audio_tokenizer`.
        dtype: of the convolutions, but for the last. Biases, alphas, the table and the last convolution are in
            float32, or in float64 if that is asked for.

    Raises:
        UpstreamChanged: a tensor is missing, left over or of the wrong shape, or a layer is not what it should be.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    reader = _Reader(audio_tokenizer, dtype, wide)
    quantizers = reader.layers("quantizer.quantizers")
    table, table_bias = _fold(reader, quantizers)
    latent = table.shape[2]

    conv_in = reader.conv("acoustic_decoder.conv1", latent)
    channels = conv_in.weight.shape[0]
    blocks = []
    for path in reader.layers("acoustic_decoder.block"):
        alpha = reader.alpha(f"{path}.snake1", channels)
        up = reader.up_conv(f"{path}.conv_t1", channels)
        channels = up.weight.shape[1]
        units = tuple(reader.unit(f"{path}.res_unit{i}", channels) for i in (1, 2, 3))
        blocks.append(DecoderBlock(alpha, up, units))
    alpha = reader.alpha("acoustic_decoder.snake1", channels)
    conv_out = reader.conv("acoustic_decoder.conv2", channels, dtype=wide)
    if conv_out.weight.shape[0] != 1:
        raise UpstreamChanged(f"the codec makes {conv_out.weight.shape[0]} channels, not one")
    reader.expect("acoustic_decoder.tanh", nn.Identity)
    reader.finish()

    weights = DecoderWeights(
        table=table.reshape(-1, latent).to(wide),
        table_bias=table_bias.to(wide),
        codebooks=table.shape[0],
        codebook_size=table.shape[1],
        conv_in=conv_in,
        blocks=tuple(blocks),
        alpha=alpha,
        conv_out=conv_out,
    )
    config: Any = audio_tokenizer.config
    if weights.hop != config.hop_length:
        raise UpstreamChanged(
            f"the decoder's strides make {weights.hop} samples a frame, but its config says {config.hop_length}"
        )
    return weights


def _fold(reader: _Reader, quantizers: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(table [Q, V, C], bias [C]) in float64."""
    last = reader.take("fc2.weight", torch.float64)  # [C, H]
    bias = reader.take("fc2.bias", torch.float64)
    rows = []
    for path in quantizers:
        embed = reader.take(f"{path}.codebook.embed", torch.float64)  # [V, D]
        out = reader.take(f"{path}.project_out.weight", torch.float64)  # [H, D]
        if out.shape != (last.shape[1], embed.shape[1]):
            raise UpstreamChanged(f"{path}.project_out has shape {tuple(out.shape)} beside fc2 {tuple(last.shape)}")
        rows.append(embed @ (last @ out).T)
        bias = bias + last @ reader.take(f"{path}.project_out.bias", torch.float64)
        for name in _ENCODER_ONLY:
            reader.skip(f"{path}.{name}")
    if len({tuple(row.shape) for row in rows}) != 1:
        raise UpstreamChanged("the codebooks of the codec differ in size")
    return torch.stack(rows), bias


class _Reader:
    """Hands out tensors and layers by name and knows at the end what nobody asked for."""

    def __init__(self, root: nn.Module, dtype: torch.dtype, wide: torch.dtype) -> None:
        self._root = root
        self._dtype = dtype
        self._wide = wide
        self._left = {
            name: tensor
            for name, tensor in root.state_dict().items()
            if name.startswith(("quantizer.", "acoustic_decoder.", "fc2."))
        }

    def take(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.skip(name).detach().to(dtype)

    def skip(self, name: str) -> torch.Tensor:
        """The tensor as it is; it must be there even if nothing is done with it."""
        tensor: torch.Tensor | None = self._left.pop(name, None)
        if tensor is None:
            raise UpstreamChanged(f"the codec has no tensor {name!r}")
        return tensor

    def finish(self) -> None:
        if self._left:
            raise UpstreamChanged(f"the codec has {len(self._left)} tensors too many, the first is {min(self._left)!r}")

    def layers(self, path: str) -> list[str]:
        """Paths of the members of a ModuleList."""
        members = self.expect(path, nn.ModuleList)
        if not len(members):
            raise UpstreamChanged(f"{path} of the codec is empty")
        return [f"{path}.{i}" for i in range(len(members))]

    def expect(self, path: str, kind: type[nn.Module]) -> Any:
        try:
            layer = self._root.get_submodule(path)
        except AttributeError:
            raise UpstreamChanged(f"the codec has no layer {path!r}") from None
        if not isinstance(layer, kind):
            raise UpstreamChanged(f"{path} of the codec is a {type(layer).__name__}, not a {kind.__name__}")
        return layer

    def alpha(self, path: str, channels: int) -> torch.Tensor:
        alpha = self.take(f"{path}.alpha", self._wide)
        if alpha.shape != (1, channels, 1):
            raise UpstreamChanged(f"{path}.alpha of the codec has shape {tuple(alpha.shape)}, not (1, {channels}, 1)")
        return alpha.reshape(channels)

    def conv(self, path: str, channels: int, dtype: torch.dtype | None = None) -> Conv:
        layer = self.expect(path, nn.Conv1d)
        weight, bias = self._weight_and_bias(path, dtype)
        (dilation,), (taps,) = layer.dilation, layer.kernel_size
        same_length = layer.stride == (1,) and taps % 2 == 1 and layer.padding == (dilation * (taps - 1) // 2,)
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and layer.in_channels == channels
        if not (same_length and plain):
            raise UpstreamChanged(f"{path} of the codec is {layer}: not a plain convolution that keeps the length")
        return Conv(weight, bias, dilation)

    def up_conv(self, path: str, channels: int) -> UpConv:
        layer = self.expect(path, nn.ConvTranspose1d)
        weight, bias = self._weight_and_bias(path)
        (stride,), (padding,), (extra,), (taps,) = (
            layer.stride,
            layer.padding,
            layer.output_padding,
            layer.kernel_size,
        )
        exact = taps + extra - 2 * padding == stride and layer.dilation == (1,)
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and layer.in_channels == channels
        if not (exact and plain):
            raise UpstreamChanged(f"{path} of the codec is {layer}: it doesn't make {stride} samples of each")
        return UpConv(weight, bias, stride, padding, extra)

    def unit(self, path: str, channels: int) -> ResidualUnit:
        unit = ResidualUnit(
            self.alpha(f"{path}.snake1", channels),
            self.conv(f"{path}.conv1", channels),
            self.alpha(f"{path}.snake2", channels),
            self.conv(f"{path}.conv2", channels),
        )
        for conv in (unit.conv1, unit.conv2):
            if conv.weight.shape[0] != channels:
                raise UpstreamChanged(f"{path} of the codec turns {channels} channels into {conv.weight.shape[0]}")
        return unit

    def _weight_and_bias(self, path: str, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.take(f"{path}.weight", dtype or self._dtype), self.take(f"{path}.bias", self._wide)
