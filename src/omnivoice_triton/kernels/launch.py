"""What every launcher shares: where a kernel may run, what it may be given, and the rows it is handed.

Dispatch is by the tensors' device alone. A CUDA tensor runs compiled; a CPU tensor runs in Triton's interpreter if
that was switched on (TRITON_INTERPRET=1 before triton was imported), and is refused otherwise.

Checks cost about a microsecond together: an eager forward pass launches more than a hundred of these kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What the kernels take."""

MAX_WIDTH = 65536
"""Widest row that one program holds in registers."""

_VECTOR = 16  # elements: 16 bytes at the least, whatever the dtype
_HERE: AbstractContextManager[None] = nullcontext()


@triton.jit
def _probe_kernel():
    pass


_INTERPRETING = not isinstance(_probe_kernel, triton.JITFunction)
INTERPRETED = tl.constexpr(_INTERPRETING)
"""For kernels: true under the interpreter."""


def interpreting() -> bool:
    """Whether Triton's interpreter stands in for the compiler (decided when triton was first imported)."""
    return _INTERPRETING


def device_function(fn: Callable[..., Any]) -> Any:
    """Mark a function that kernels call.

    The interpreter re-patches the whole language around a nested jit call, 1 ms each time; a plain function called
    from an interpreted kernel needs none of that.
    """
    return fn if _INTERPRETING else triton.jit(fn)


@device_function
def round_to(x, dtype: tl.constexpr):
    """fp32 `x` rounded to the nearest value of `dtype`, ties to even, in that dtype.

    The interpreter's own cast to bfloat16 truncates, so there the rounding is done on the bits.
    """
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


if _INTERPRETING:

    def loop_bound(n):
        """A scalar of a kernel as the end of a `range`: NumPy refuses to index with the 1-element array it is."""
        return int(n.handle.data.item())

else:

    @triton.jit
    def loop_bound(n):
        """A scalar of a kernel as the end of a `range`."""
        return n


def cdiv(a: int, b: int) -> int:
    """a / b rounded up (`triton.cdiv` takes 2 us when called from Python)."""
    return -(-a // b)


def as_rows(x: torch.Tensor) -> tuple[torch.Tensor, int, int, int]:
    """`x` (…, N) as rows of N, copied only where its strides allow no such view.

    Returns:
        (tensor, number of rows, row stride, column stride): element (r, c) lies at r * row stride + c * column stride.
    """
    if x.is_contiguous():
        width = x.shape[-1]
        return x, x.numel() // width, width, 1
    flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    row_stride, col_stride = flat.stride()
    return flat, flat.shape[0], row_stride, col_stride


def output_for(out: torch.Tensor | None, like: torch.Tensor, name: str = "out") -> tuple[torch.Tensor, int, int]:
    """`out`, or a new contiguous tensor like `like`, with its row stride and column stride.

    Raises:
        ValueError: `out` differs from `like` in shape, dtype or device, or can't be written as rows in place.
    """
    if out is None:
        return torch.empty_like(like, memory_format=torch.contiguous_format), like.shape[-1], 1
    check_like(name, out, like, like.shape)
    flat, _, row_stride, col_stride = as_rows(out)
    folded = any(size > 1 and stride == 0 for size, stride in zip(out.shape, out.stride(), strict=True))
    if folded or (out.numel() and flat.data_ptr() != out.data_ptr()):
        raise ValueError(f"{name} has strides {out.stride()}: wanted rows that can be written in place")
    return out, row_stride, col_stride


def describe(x: object) -> str:
    """A tensor in words, for messages."""
    if not isinstance(x, torch.Tensor):
        return f"a {type(x).__name__}"
    return f"{x.dtype} {tuple(x.shape)} on {x.device}"


def check_input(name: str, x: torch.Tensor) -> None:
    """Raise ValueError unless `x` is a float tensor with at least one column, on a device that kernels run on."""
    if isinstance(x, torch.Tensor) and x.is_cuda and x.dtype in FLOAT_DTYPES and x.dim() and x.shape[-1]:
        return
    if not isinstance(x, torch.Tensor) or x.dtype not in FLOAT_DTYPES:
        raise ValueError(f"{name} is {describe(x)}: wanted a tensor of float32, float16 or bfloat16")
    check_device(name, x)
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name} is {describe(x)}: wanted shape (..., N) with N of at least 1")


def check_device(name: str, x: torch.Tensor) -> None:
    """Raise ValueError unless kernels run where `x` lies."""
    if not x.is_cuda and not (_INTERPRETING and x.device.type == "cpu"):
        raise ValueError(
            f"{name} is {describe(x)}: wanted a CUDA device "
            "(a CPU only under Triton's interpreter, TRITON_INTERPRET=1 set before triton is imported)"
        )


def check_like(name: str, x: torch.Tensor, like: torch.Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless `x` has that shape, and the dtype and device of `like`."""
    if not isinstance(x, torch.Tensor) or x.dtype is not like.dtype or x.device != like.device or x.shape != shape:
        raise ValueError(f"{name} is {describe(x)}: wanted {like.dtype} {tuple(shape)} on {like.device}")


def check_width(name: str, x: torch.Tensor) -> None:
    """Raise ValueError if a row of `x` is too wide for one program."""
    if x.shape[-1] > MAX_WIDTH:
        raise ValueError(f"{name} is {describe(x)}: wanted at most {MAX_WIDTH} columns")


def check_unit_stride(name: str, x: torch.Tensor) -> None:
    """Raise ValueError unless neighbours in the last dimension of `x` lie side by side."""
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        raise ValueError(f"{name} has strides {x.stride()}: wanted 1 in the last dimension")


def check_contiguous(**tensors: torch.Tensor) -> None:
    """Raise ValueError unless every tensor is contiguous; they are given by name."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} has strides {tensor.stride()}: wanted it contiguous")


def check_eps(eps: float) -> float:
    """`eps` as a float; ValueError unless it is a finite number of at least 0."""
    if not isinstance(eps, float | int) or isinstance(eps, bool) or not 0.0 <= eps < math.inf:
        raise ValueError(f"eps is {eps!r}: wanted a number of at least 0")
    return float(eps)


def on_device_of(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: switch to that of `x`, but only if it is another one."""
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        return torch.cuda.device(x.device)
    return _HERE


@lru_cache(maxsize=16)
def has_tensor_cores(device: torch.device) -> bool:
    """Whether Triton runs matrix products there on tensor cores: from compute capability 8.0 (it left 7.5 to FMA)."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def stride_unit(*strides: int) -> int:
    """Largest power of two up to 16 that divides all `strides`.

    Kernels take strides in this unit and multiply, so that the compiler can prove that a row starts at a vector
    boundary although the strides themselves (which may depend on a length) are kept out of specialisation.
    """
    return math.gcd(_VECTOR, *strides)


class RowTile(NamedTuple):
    """How a row-wise kernel cuts (n_rows, N): each program holds `rows` whole rows in registers."""

    rows: int
    block: int
    num_warps: int


@lru_cache(maxsize=256)
def row_tile(width: int) -> RowTile:
    """The tile for rows of `width`: about 1,024 elements a program, 8 a thread.

    At 1,024 columns that is one row for 4 warps, each thread with one 16-byte load of 16-bit values; narrow rows
    (128: per-head norms) share a program, wide ones take more warps.
    """
    block = max(16, triton.next_power_of_2(width))
    num_warps = 4 if block < 2048 else 8 if block < 8192 else 16 if block < 32768 else 32
    return RowTile(rows=max(1, 1024 // block), block=block, num_warps=num_warps)


class AttentionTile(NamedTuple):
    """How INT8-QK attention cuts queries (block_m) and keys (block_n), and the padded head size (block_d)."""

    block_m: int
    block_n: int
    block_d: int
    num_warps: int
    num_stages: int


ROUNDED = {"enable_fp_fusion": False}
"""For launches of kernels that round a product and then add to it: contracted, the product would not be rounded."""

SMOOTH_ROWS = 128
"""Rows of K that set the grid on which its mean is taken (see `attention`)."""


@lru_cache(maxsize=64)
def attention_tile(head_dim: int, dtype: torch.dtype, tensor_cores: bool = True) -> AttentionTile:
    """The tile for a head size and dtype.

    Products without tensor cores (fp32, or compute capability 7.5) keep whole operands in registers: larger tiles
    than these spill. Each tile fits its GPU's shared memory, the 64 KB of 7.5 included; a test compiles them.
    """
    block_d = max(32, triton.next_power_of_2(head_dim))
    if dtype.itemsize >= 4 or not tensor_cores:
        return AttentionTile(32, 32, block_d, 8, 1) if block_d <= 128 else AttentionTile(16, 16, block_d, 4, 1)
    return AttentionTile(64, 64, block_d, 4, 2) if block_d <= 128 else AttentionTile(64, 32, block_d, 8, 2)
