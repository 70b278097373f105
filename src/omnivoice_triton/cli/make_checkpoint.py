"""`omnivoice-triton make-checkpoint`: a model with random weights."""

from __future__ import annotations

import argparse
import time

from omnivoice_triton.cli.console import Console
from omnivoice_triton.config import HUB_MODEL_ID

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `make-checkpoint`."""
    parser.add_argument("directory", metavar="DIR", help="directory to make; it may exist if it is empty")
    parser.add_argument(
        "--size", default="tiny", help="tiny (8 MB) or full (3.3 GB, the real shapes); default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="same seed, same weights (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="fp32", help="how the language model is stored: fp32, fp16 or bf16 (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace the checkpoint that is there")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint and say where it is."""
    from omnivoice_triton.checkpoint import make_checkpoint

    console = Console(quiet=args.quiet)
    start = time.perf_counter()
    with console.progress("B", unit_scale=True) as report:
        path = make_checkpoint(
            args.directory,
            args.size,
            args.seed,
            dtype=_DTYPES.get(args.dtype, args.dtype),
            force=args.force,
            progress=report,
        )
    seconds = time.perf_counter() - start
    megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    console.note(f"these weights are random, so what they say is noise, not speech; the real model is {HUB_MODEL_ID}")
    if not args.quiet:
        print(f"{path}: {args.size} checkpoint, {megabytes:.1f} MB, in {seconds:.1f} s, seed {args.seed}")
    return 0
