"""Every kernel at awkward sizes, for compute-sanitizer: `python -m omnivoice_triton.verify.workload [PART]`

modes    the kernels of the six modes at odd widths: one row, one column, one past a tile
kernels  the grid of `kernel_cases`, the kernels of turbo and its codec included: one frame, one text token, a bucket
         filled to its last row and one row more
engine-fp32, engine-fp16, engine-bf16
         whole decodings of a small model by the turbo engine, at the same edges, and its codec

Every argument that is a view of something larger is copied first, so that what lies beyond its end is nobody's. A
launcher of the package that no part launches makes the run fail. `--plant TOOL` launches that tool's fault instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from omnivoice_triton.verify import hopper_cases, hopper_grid, kernel_case, kernel_cases
from omnivoice_triton.verify.kernel_case import Case, Draw, Sizes
from omnivoice_triton.verify.planted import FAULTS

Launch = tuple[str, str, Callable[[], object]]
"""A launcher's name, sizes in words, and what launches it."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROWS = (1, 3, 65)
WIDTHS = (1, 77, 128, 1000, 1024, 3072, 3073)

EXTRA: tuple[tuple[str, Callable[[Draw], Iterator[Callable[[], object]]]], ...] = hopper_cases.LAUNCHES
"""Kernels that the grid of `kernel_cases` lacks: the launcher's name, and a function that yields a launch for each size
of one dtype (none where the GPU can't run it)."""

EDGES: tuple[tuple[tuple[int, int, bool], ...], ...] = (
    ((1, 1, True), (2, 27, True)),  # 59 rows, and 5 that pad: a bucket of 64 to its last row
    ((1, 1, True), (3, 27, True)),  # 65 rows
    ((1, 1, False),),
    ((0, 1, True),),
)
"""(prompt rows, frames, guided) of the packed batches, beside the grid's own."""


def mode_launches(device: str) -> Iterator[Launch]:
    """The kernels of the six modes, at more sizes than the grid has."""
    from omnivoice_triton.kernels.attention import int8_qk_attention
    from omnivoice_triton.kernels.fused_norm_residual import triton_fused_add_rms_norm
    from omnivoice_triton.kernels.rms_norm import triton_rms_norm
    from omnivoice_triton.kernels.rope import triton_qk_norm_rope
    from omnivoice_triton.kernels.swiglu import triton_swiglu_forward

    def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    for dtype in DTYPES:
        for rows in ROWS:
            for width in WIDTHS:
                x, y, w = draw(rows, width, dtype=dtype), draw(rows, width, dtype=dtype), draw(width, dtype=dtype)
                label = f"{rows}x{width} {dtype}"
                yield "triton_rms_norm", label, partial(triton_rms_norm, x, w)
                yield "triton_swiglu_forward", label, partial(triton_swiglu_forward, x, y)
                yield "triton_fused_add_rms_norm", label, partial(triton_fused_add_rms_norm, x, y, w)
        for batch, length, heads, kv_heads, dim in ((1, 1, 2, 1, 128), (2, 65, 4, 2, 128), (3, 33, 3, 3, 40)):
            q, k = draw(batch, length, heads, dim, dtype=dtype), draw(batch, length, kv_heads, dim, dtype=dtype)
            cos, sin = draw(1, length, dim, dtype=dtype), draw(1, length, dim, dtype=dtype)
            w = draw(dim, dtype=dtype)
            label = f"{batch}x{length}x{heads}/{kv_heads}x{dim} {dtype}"
            yield "triton_qk_norm_rope", label, partial(triton_qk_norm_rope, q, k, w, w, cos, sin)
            lengths = torch.tensor([length, 0, length // 2][:batch], dtype=torch.int32, device=device)
            v = draw(batch, length, kv_heads, dim, dtype=dtype)
            query, key, value = (t.transpose(1, 2) for t in (q, k, v))
            yield "int8_qk_attention", label, partial(int8_qk_attention, query, key, value, lengths)


def grids(device: str) -> list[Sizes]:
    """The grid of `kernel_cases`, and one at each of the edges with little else in it."""
    if device == "cpu":
        base = kernel_case.CPU
        return [replace(base, rows=(1,), widths=(77,), channels=((1, 1, 1),), requests=EDGES[2])]
    base = replace(kernel_case.GPU, rows=(1, 65), widths=(77, 1024), channels=((1, 1, 1), (2, 33, 5001)))
    lean = replace(base, rows=(1,), widths=(77,), channels=((3, 5, 77),))
    return [base, *(replace(lean, requests=requests) for requests in EDGES)]


def kernel_launches(device: str) -> Iterator[Launch]:
    """Every kernel of the package, and those in `EXTRA`."""
    interpreted = device == "cpu"
    for sizes in grids(device):
        for case in kernel_cases.cases(sizes, device, DTYPES):
            if not (interpreted and case.multiplies and case.dtype is torch.bfloat16):  # it can't do that
                yield case.kernel, f"{case.shape} {case.dtype}", partial(_run_case, case)
    for dtype in DTYPES:
        for name, launches in EXTRA:
            for number, launch in enumerate(launches(Draw(device, dtype))):
                yield name, f"#{number} {dtype}", launch


def _run_case(case: Case) -> None:
    launcher = case.launcher()

    def apart(*arguments: Any, **keywords: Any) -> Any:
        return launcher(*map(_apart, arguments), **{name: _apart(value) for name, value in keywords.items()})

    case.run(apart)


def _apart(value: Any) -> Any:
    """A copy of a tensor that is part of a larger one: a step past its end would fall on its neighbour."""
    if isinstance(value, torch.Tensor) and value.is_contiguous():
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    return value


def engine_launches(device: str, dtype: torch.dtype) -> Iterator[Launch]:
    """Decodings by a small model, its GEMMs on Triton too, then by default tiles; and the codec on what came out."""
    from omnivoice import OmniVoice

    from omnivoice_triton.checkpoint import cached_checkpoint
    from omnivoice_triton.engine.codec import CodecDecoder
    from omnivoice_triton.engine.engine import Engine
    from omnivoice_triton.engine.prompt import Prompt
    from omnivoice_triton.engine.request import DecodeOptions, Request
    from omnivoice_triton.engine.step_graphs import run_eagerly
    from omnivoice_triton.engine.tiles import Tiles
    from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile

    path = cached_checkpoint("tiny")
    block = GemmTile(16, 16, 16, 1, 4, 1)
    sums = block._replace(splits=2)
    own = Tiles(VarlenTile(16, 16, 4, 1), gemm={"o": ((64, sums),), "down": ((64, sums),), "gate_up": ((4096, block),)})
    few = device == "cpu"
    sizes = ((1, 1),) if few else ((1, 1), (2, 31), (3, 31), (64, 32), (1, 100))
    """(text tokens, frames): the least there is; 64, 65 and 128 rows, guided; several tiles."""

    def decode(engine: Any, codec: Any, batch: tuple[tuple[int, int], ...], options: DecodeOptions) -> None:
        rng = np.random.default_rng(0)
        futures = []
        for n_text, frames in batch:
            codes = torch.from_numpy(rng.integers(0, engine.shape.mask_id, (engine.shape.codebooks, n_text - 1)))
            prompt = Prompt(rng.integers(0, 1000, 1), codes if n_text > 1 else None, frames)
            futures.append(engine.submit(Request(prompt, options, seed=1)))
        engine.run_until_idle()
        tokens = [future.result(0) for future in futures]
        if codec is not None:
            codec.decode(tokens)

    model = OmniVoice.from_pretrained(str(path), device_map=device, dtype=dtype).eval()
    codec = None if few else CodecDecoder.from_upstream(model.audio_tokenizer)
    for tiles, noise in ((own, "philox"),) if few else ((own, "philox"), (None, "torch")):
        make = partial(Engine, model, backend="triton", noise=noise, max_rows=256, max_items=4, tiles=tiles)
        engine = make(capture=run_eagerly)
        guided, plain = DecodeOptions(num_step=2), DecodeOptions(num_step=1, guidance_scale=0.0, class_temperature=0.7)
        plans: list[tuple[tuple[tuple[int, int], ...], DecodeOptions]] = [((each,), guided) for each in sizes]
        if not few:
            plans += [(sizes[:3], guided), (sizes[:3], plain), (sizes[:1], plain)]
        for batch, options in plans:
            # The codec knows nothing of tiles: once is enough.
            heard = codec if options is guided and tiles is own else None
            yield "engine", f"{batch} {dtype} {noise}", partial(decode, engine, heard, batch, options)
        engine.close()


PARTS: dict[str, Callable[[str], Iterator[Launch]]] = {
    "modes": mode_launches,
    "kernels": kernel_launches,
    "engine-fp32": partial(engine_launches, dtype=torch.float32),
    "engine-fp16": partial(engine_launches, dtype=torch.float16),
    "engine-bf16": partial(engine_launches, dtype=torch.bfloat16),
}


def missing(launched: set[str], device: str) -> list[str]:
    """Launchers of the package that were not launched, though `device` could."""
    elsewhere = set() if hopper_grid.problem(device) is None else set(hopper_grid.KERNELS)
    return sorted(kernel_case.launchers() - launched - elsewhere)


def main(argv: list[str] | None = None) -> int:
    """Launch a part; prints how many launches were made, of what, and which kernels of the package were left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", default="kernels", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--plant", choices=FAULTS, help="launch this tool's fault instead")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    if options.plant:
        FAULTS[options.plant]()
        return 0
    done: dict[str, int] = {}
    for name, label, launch in PARTS[options.part](options.device):
        print(f"at {name} {label}", flush=True)  # how far a run came that is stopped
        try:
            launch()
            if options.device != "cpu":
                torch.cuda.synchronize()
        except Exception as error:
            print(f"broke at {name} {label}: {type(error).__name__}: {error}")
            return 1
        done[name] = done.get(name, 0) + 1
    print("kernels " + " ".join(f"{name}={count}" for name, count in sorted(done.items())))
    left_out = missing(set(done), options.device) if options.part == "kernels" else []
    if left_out:
        print(f"not launched: {' '.join(left_out)}")
    else:
        print(f"launched {sum(done.values())}")
    return 0 if done and not left_out else 1


if __name__ == "__main__":
    raise SystemExit(main())
