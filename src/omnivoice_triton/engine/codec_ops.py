"""What the codec's decoder is made of: PyTorch's convolutions, and Snake of one back end.

Convolutions' results are made contiguous: a row of one frame looks like a channels-last image to cuDNN, which then
gives its result in that order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from omnivoice_triton.engine.codec_weights import Conv, UpConv


def snakes(backend: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(Snake, add and Snake) of `triton` or `reference`; those of `triton` write over their inputs."""
    if backend == "triton":
        return _snake_in_place, _add_snake_in_place
    from omnivoice_triton.kernels import reference

    return reference.snake, reference.add_snake


def _snake_in_place(x: torch.Tensor, alpha: torch.Tensor, *, dtype: torch.dtype | None = None, **rest: Any) -> Any:
    """Snake over a convolution's output, which nobody else needs: a quarter less memory is alive at the peak."""
    from omnivoice_triton.kernels.snake import triton_snake

    own = dtype in (None, x.dtype) and x.is_contiguous()
    return triton_snake(x, alpha, dtype=dtype, out=x if own else None, **rest)


def _add_snake_in_place(
    x: torch.Tensor, alpha: torch.Tensor, *, residual: torch.Tensor | None = None, **rest: Any
) -> Any:
    """The sum takes the residual's place and its Snake that of x."""
    from omnivoice_triton.kernels.snake import triton_add_snake

    if not x.is_contiguous():
        return triton_add_snake(x, alpha, residual=residual, **rest)
    out = (x, torch.empty_like(x)) if residual is None else (residual, x)
    return triton_add_snake(x, alpha, residual=residual, out=out, **rest)


def convolve(x: torch.Tensor, conv: Conv) -> torch.Tensor:
    """(B, Cin, T) to (B, Cout, T), without the bias: Snake adds it."""
    return F.conv1d(x, conv.weight, padding=conv.padding, dilation=conv.dilation).contiguous()


def convolve_up(x: torch.Tensor, up: UpConv) -> torch.Tensor:
    """(B, Cin, T) to (B, Cout, T * stride), without the bias."""
    up_sampled = F.conv_transpose1d(
        x, up.weight, stride=up.stride, padding=up.padding, output_padding=up.output_padding
    )
    return up_sampled.contiguous()
