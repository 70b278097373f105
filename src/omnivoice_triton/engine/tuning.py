"""Find the fastest tiles for a GPU: what `omnivoice-triton tune` runs.

At each number of packed rows the whole backbone is timed as a graph, and one choice after the other (attention, then
each GEMM) is replaced by whatever makes that whole fastest. A kernel alone would be timed wrong: what counts is what it
saves around it. A choice other than the default has to win by `MARGIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch

from omnivoice_triton.engine.backbone import Backbone
from omnivoice_triton.engine.candidates import (
    ATTENTION_TILES,
    GEMM_TILES,
    HOPPER_ATTENTION_TILES,
    epilogue,
    fits_hopper,
    hopper_tiles,
)
from omnivoice_triton.engine.layout import Bucket, Placement, pack
from omnivoice_triton.engine.ops import get_ops
from omnivoice_triton.engine.precompile import compile_all
from omnivoice_triton.engine.tiles import GEMMS, AnyAttentionTile, AnyGemmTile, Tiles, tuned_shape
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.kernels.graph_timer import time_graph
from omnivoice_triton.kernels.tiles import GemmTile, HopperTile, VarlenTile, varlen_tile

Timer = Callable[[Callable[[], None]], float]
"""Seconds that one call of the function takes on the device; infinite if it can't run there."""

ROWS = (64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 2048, 3072, 4096)
"""Packed rows to tune at; a choice holds from the row count before up to its own."""
MARGIN = 0.003
"""Share of the whole that a choice must save to be taken: below, it is noise."""
_ORDER = ("gate_up", "qkv", "attention", "o", "down", "heads")
"""What pays by itself first: down gains only where its neighbours launch early too."""
FINALISTS = 3
ROUNDS = 3
MOST_SPLITS = 4


def tune(
    weights: BackboneWeights,
    *,
    backend: str = "triton",
    capability: int = 90,
    rows: Sequence[int] = ROWS,
    timer: Timer = time_graph,
    attention_tiles: Sequence[VarlenTile] | None = None,
    gemm_tiles: Mapping[str, Sequence[GemmTile]] | None = None,
    hopper_candidates: int = 12,
    try_pdl: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The tile table of this GPU, as the content of its JSON file.

    Args:
        weights: of the model to tune for, on the GPU, in a 16-bit dtype.
        backend: of the operations.
        capability: compute capability as 90; below 80 nothing is tried: Triton has no matrix instructions there, so
            its GEMMs can't win, and of the attention tiles only the default needs no spills.
        rows: packed rows to tune at, rising.
        timer: seconds of one call.
        attention_tiles: candidates; by default `ATTENTION_TILES`.
        gemm_tiles: Triton's candidates for each GEMM; by default none where the CUDA C++ GEMMs run.
        hopper_candidates: how many tiles of the CUDA C++ GEMMs to time for each GEMM (compute capability 9.0 only).
        try_pdl: also decide whether kernels are launched dependent on the one before (9.0 and up).
        report: gets a line for each decision.
    """
    shape = weights.shape
    group = shape.q_heads // shape.kv_heads
    default = varlen_tile(shape.head_dim, group, weights.dtype.itemsize, capability)
    most = max(rows)
    bench = _Bench(weights, backend, Tiles(default), most, timer)

    hopper = backend == "triton" and capability == 90 and weights.device.type == "cuda" and hopper_candidates > 0
    hopper = hopper and fits_hopper(shape)
    if gemm_tiles is None:
        # Beside Hopper's own, Triton's were never timed: 70 kernels to compile, which lost to cuBLAS at 320 rows.
        gemm_tiles = {} if hopper else GEMM_TILES
    if attention_tiles is None:
        attention_tiles = ATTENTION_TILES
    if capability < 80:
        gemm_tiles, attention_tiles = {}, ()
        report("below compute capability 8.0 there is nothing to choose: these are the times with the defaults")
    plain, early = Tiles(default), Tiles(default, pdl=True)
    if try_pdl and capability >= 90:
        # Among cuBLAS's kernels, which take no part, it costs a little; where every kernel takes part it pays.
        everywhere = [dict.fromkeys(rows, tiles) for tiles in (plain, early)]
        plain = early if hopper else _faster(bench, everywhere[0], everywhere[1], report)[rows[0]]
    best: dict[int, Tiles] = {}
    seconds: dict[int, float] = {}
    for n in rows:
        trials: dict[str, list[AnyGemmTile]] = {name: list(gemm_tiles.get(name, ())) for name in GEMMS}
        if hopper:
            for name in GEMMS:
                trials[name] += hopper_tiles(name, n, shape, most=hopper_candidates)
            mine = {(t, epilogue(name, t)) for name in GEMMS for t in trials[name] if isinstance(t, HopperTile)}
            compile_all(mine, bf16=weights.dtype is torch.bfloat16, pdl=plain.pdl)
        attention: list[AnyAttentionTile] = [*attention_tiles, *(HOPPER_ATTENTION_TILES if hopper else ())]
        best[n], seconds[n] = _descend(bench, n, plain, attention, trials)
        report(f"{n} rows: {seconds[n] * 1e6:.1f} us with {_describe(best[n], n)}")
    if hopper and plain.pdl:
        best = _faster(bench, {n: replace(tiles, pdl=False) for n, tiles in best.items()}, best, report)
    return {"shape": tuned_shape(shape), **_table(rows, best, seconds, default)}


def _faster(
    bench: _Bench, without: dict[int, Tiles], with_pdl: dict[int, Tiles], report: Callable[[str], None]
) -> dict[int, Tiles]:
    """The faster of two sets over all row counts, measured in turns."""
    sums: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for pdl, choice in ((False, without), (True, with_pdl)):
            sums[pdl].append(sum(bench.seconds(n, tiles) for n, tiles in choice.items()))
    plain, early = median(sums[False]), median(sums[True])
    report(f"pdl: {early * 1e6:.1f} us against {plain * 1e6:.1f} over all row counts")
    return with_pdl if early <= plain else without


class _Bench:
    """Times the backbone at any number of rows with any tiles."""

    def __init__(self, weights: BackboneWeights, backend: str, tiles: Tiles, max_rows: int, timer: Timer) -> None:
        self._backend, self._timer = backend, timer
        partials = MOST_SPLITS * max_rows * weights.shape.hidden
        with torch.no_grad():
            self._backbone = Backbone(weights, get_ops(backend), tiles, max_rows, partial_floats=partials)
            self._prompt = torch.zeros(max_rows, weights.shape.hidden, dtype=weights.dtype, device=weights.device)
            generator = torch.Generator(device=weights.device).manual_seed(0)
            self._prompt.normal_(generator=generator)
            canvas = (max_rows, weights.shape.codebooks)
            self._canvas = torch.zeros(canvas, dtype=torch.int32, device=weights.device)

    def seconds(self, rows: int, tiles: Tiles) -> float:
        """Of one pass over `rows` packed rows."""
        placements = list(_typical(rows))
        bucket = Bucket(rows, len(placements), tiles.for_attention(rows).rows)
        flat = torch.from_numpy(pack(placements, bucket).flat).to(self._canvas.device)
        tables = {
            name: flat[offset : offset + int(np.prod(shape))].view(shape)
            for name, (offset, shape) in bucket.spans.items()
        }
        self._backbone.tiles = tiles
        self._backbone.ops = get_ops(self._backend, pdl=tiles.pdl)

        def run() -> None:
            self._backbone.run(bucket, tables, self._prompt, self._canvas)

        with torch.no_grad():
            return self._timer(run)


def _typical(rows: int) -> Iterable[Placement]:
    """Guided requests of at most 460 rows that fill `rows`: prompt, then frames, as a cloning request has them."""
    items = -(-rows // 460)
    used = 0
    for slot in range(items):
        share = (rows - used) // (items - slot)
        frames = max(1, round(0.43 * share))
        prompt = max(1, share - 2 * frames)
        at = np.arange(used, used + max(prompt, frames), dtype=np.int32) % rows
        yield Placement(slot, at[:prompt], at[:frames], guided=True)
        used += prompt + 2 * frames


def _descend(
    bench: _Bench,
    rows: int,
    tiles: Tiles,
    attention_tiles: Sequence[AnyAttentionTile],
    gemm_tiles: Mapping[str, Sequence[AnyGemmTile]],
) -> tuple[Tiles, float]:
    """Replace one choice after the other by the fastest."""
    best = bench.seconds(rows, tiles)
    for name in _ORDER:
        if name == "attention":
            trials = [replace(tiles, attention=((rows, tile),)) for tile in attention_tiles]
        else:
            trials = [
                replace(tiles, gemm={**tiles.gemm, name: ((rows, tile),)})
                for tile in gemm_tiles.get(name, ())
                # A folded gate_up has taken silu(gate) * up already.
                if not (tile.swiglu and tiles.for_gemm("gate_up", rows))
            ]
        if not trials:
            continue
        timed = sorted(((bench.seconds(rows, trial), index) for index, trial in enumerate(trials)))
        # A GPU's clocks drift by more than a tile gains: the last round is fought in turns.
        final = [tiles, *(trials[index] for _, index in timed[:FINALISTS])]
        rounds = [[bench.seconds(rows, trial) for trial in final] for _ in range(ROUNDS)]
        medians = [median(times) for times in zip(*rounds, strict=True)]
        fastest = min(medians)
        if fastest < (1 - MARGIN) * medians[0]:
            tiles, best = final[medians.index(fastest)], fastest
        else:
            best = medians[0]
    return tiles, best


def _describe(tiles: Tiles, rows: int) -> str:
    parts = [f"attention {tuple(tiles.for_attention(rows))}"]
    parts += [f"{name} {tuple(tile)}" for name in GEMMS if (tile := tiles.for_gemm(name, rows)) is not None]
    return ", ".join(parts)


def _table(
    rows: Sequence[int], best: dict[int, Tiles], seconds: dict[int, float], default: VarlenTile
) -> dict[str, Any]:
    """Choices as steps: equal neighbours become one entry."""
    attention = [(n, best[n].for_attention(n)) for n in rows]
    while attention and attention[-1][1] == default:
        attention.pop()
    gemm: dict[str, list[dict[str, Any]]] = {}
    for name in GEMMS:
        choices = [(n, best[n].for_gemm(name, n)) for n in rows]
        while choices and choices[-1][1] is None:
            choices.pop()
        if choices:
            gemm[name] = _entries(choices)
    return {
        "pdl": any(tiles.pdl for tiles in best.values()),
        "attention": _entries(attention),
        "gemm": gemm,
        "backbone_us": {str(n): round(seconds[n] * 1e6, 1) for n in rows},
    }


def _entries(choices: Sequence[tuple[int, Any]]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for up_to, tile in choices:
        value = None if tile is None else tile._asdict()
        if entries and entries[-1]["tile"] == value:
            entries[-1]["up_to"] = up_to
        else:
            entries.append({"up_to": up_to, "tile": value})
    return entries
