"""The kernels of the six modes at awkward sizes, for compute-sanitizer: `python -m omnivoice_triton.verify.workload`

Sizes are odd on purpose: one row, one column, one past a tile. `--plant` adds an access past the end, to show that the
sanitizer would see one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch

from omnivoice_triton.kernels.attention import int8_qk_attention
from omnivoice_triton.kernels.fused_norm_residual import triton_fused_add_rms_norm
from omnivoice_triton.kernels.rms_norm import _rms_norm_launch, triton_rms_norm
from omnivoice_triton.kernels.rope import triton_qk_norm_rope
from omnivoice_triton.kernels.swiglu import triton_swiglu_forward

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROWS = (1, 3, 65)
WIDTHS = (1, 77, 128, 1000, 1024, 3072, 3073)


def calls(device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """(name, launch) of every kernel at every size."""

    def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    for dtype in DTYPES:
        for rows in ROWS:
            for width in WIDTHS:
                x, y, w = draw(rows, width, dtype=dtype), draw(rows, width, dtype=dtype), draw(width, dtype=dtype)
                label = f"{rows}x{width} {dtype}"
                yield f"rms_norm {label}", partial(triton_rms_norm, x, w)
                yield f"swiglu {label}", partial(triton_swiglu_forward, x, y)
                yield f"add_rms_norm {label}", partial(triton_fused_add_rms_norm, x, y, w)
        for batch, length, heads, kv_heads, dim in ((1, 1, 2, 1, 128), (2, 65, 4, 2, 128), (3, 33, 3, 3, 40)):
            q, k = draw(batch, length, heads, dim, dtype=dtype), draw(batch, length, kv_heads, dim, dtype=dtype)
            cos, sin = draw(1, length, dim, dtype=dtype), draw(1, length, dim, dtype=dtype)
            w = draw(dim, dtype=dtype)
            label = f"{batch}x{length}x{heads}/{kv_heads}x{dim} {dtype}"
            yield f"qk_norm_rope {label}", partial(triton_qk_norm_rope, q, k, w, w, cos, sin)
            lengths = torch.tensor([length, 0, length // 2][:batch], dtype=torch.int32, device=device)
            v = draw(batch, length, kv_heads, dim, dtype=dtype)
            query, key, value = (t.transpose(1, 2) for t in (q, k, v))
            yield f"int8_qk_attention {label}", partial(int8_qk_attention, query, key, value, lengths)


def main(argv: list[str] | None = None) -> int:
    """Run everything; prints how many launches were made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plant", action="store_true", help="read past the end of a tensor")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    if options.plant:
        # Past the launcher and its checks: three rows 64 MB apart, where there is one row.
        x = torch.randn(1, 64, device="cuda")
        _rms_norm_launch(
            (3,),
            x_ptr=x,
            weight_ptr=torch.ones(64, device="cuda"),
            y_ptr=torch.empty(3, 64, device="cuda"),
            n_rows=3,
            x_row_stride=1 << 24,
            x_col_stride=1,
            y_row_stride=64,
            y_col_stride=1,
            eps=1e-6,
            N=64,
            ROWS=1,
            BLOCK_N=64,
            num_warps=1,
        )
        torch.cuda.synchronize()
        return 0
    done = 0
    for _, launch in calls("cuda"):
        launch()
        done += 1
    torch.cuda.synchronize()
    print(f"launched {done}")
    return 0 if done else 1


if __name__ == "__main__":
    raise SystemExit(main())
