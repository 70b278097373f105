"""Which tile each kernel takes at how many rows: data, one JSON file per GPU family, made by `omnivoice-triton tune`.

    {"pdl": true,
     "attention": [{"up_to": 1024, "tile": {"rows": 32, …}}, …],
     "gemm": {"qkv": […], "o": [{"up_to": 512, "tile": {"block_m": 64, …}}], "gate_up": […], "down": […]}}

Entries are sorted; the first whose `up_to` is not below the packed rows counts. Above the last entry attention keeps
its default. A GEMM without an entry, with a null tile or above its last entry is cuBLAS's. A tile for `qkv` folds
QK-norm and RoPE into the GEMM, one for `gate_up` folds SwiGLU in, one for `o` or `down` leaves partial sums to the norm
that follows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

from omnivoice_triton.engine.weights import BackboneShape
from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile, varlen_tile
from omnivoice_triton.speech import InputError

GEMMS = ("qkv", "o", "gate_up", "down")
_SUMMED = ("o", "down")  # their output goes into an add + norm, which adds partial sums up

Tile = TypeVar("Tile", GemmTile, VarlenTile)


@dataclass(frozen=True)
class Tiles:
    """Tile choices of one GPU family."""

    default_attention: VarlenTile
    attention: tuple[tuple[int, VarlenTile], ...] = ()
    gemm: Mapping[str, tuple[tuple[int, GemmTile | None], ...]] = field(default_factory=dict)
    pdl: bool = False
    """Launch kernels dependent on the one before (compute capability 9.0 and up)."""

    def for_attention(self, rows: int) -> VarlenTile:
        """The attention tile at so many packed rows."""
        return next((tile for up_to, tile in self.attention if rows <= up_to), self.default_attention)

    def for_gemm(self, name: str, rows: int) -> GemmTile | None:
        """The tile of one of `GEMMS` at so many rows, or None for cuBLAS."""
        return next((tile for up_to, tile in self.gemm.get(name, ()) if rows <= up_to), None)

    def partial_floats(self, max_rows: int, hidden: int) -> int:
        """fp32 values that the largest set of partial sums takes."""
        most = 0
        for name in _SUMMED:
            for up_to, tile in self.gemm.get(name, ()):
                if tile is not None:
                    most = max(most, tile.splits * min(up_to, max_rows) * hidden)
        return most

    @classmethod
    def default(cls, shape: BackboneShape, itemsize: int, capability: int) -> Tiles:
        """The tuned table of that compute capability (75, 90, …) if the package has one, else kernel defaults."""
        attention = varlen_tile(shape.head_dim, shape.q_heads // shape.kv_heads, itemsize, capability)
        file = resources.files("omnivoice_triton") / "data" / "tiles" / f"sm_{capability}.json"
        if itemsize != 2 or not file.is_file():
            return cls(attention)
        return cls.parse(json.loads(file.read_text(encoding="utf-8")), attention)

    @classmethod
    def parse(cls, data: Mapping[str, Any], default_attention: VarlenTile) -> Tiles:
        """Read a table from the content of its JSON file.

        Raises:
            InputError: an unknown GEMM or field, or unsorted entries.
        """
        unknown = set(data.get("gemm", {})) - set(GEMMS)
        if unknown:
            raise InputError(f"tile table names GEMM {min(unknown)!r}: wanted one of {', '.join(GEMMS)}")
        gemm = {name: _steps(GemmTile, entries) for name, entries in data.get("gemm", {}).items()}
        attention = [(up_to, tile) for up_to, tile in _steps(VarlenTile, data.get("attention", [])) if tile is not None]
        for name, steps in gemm.items():
            tiles = [tile for _, tile in steps if tile is not None]
            if name not in _SUMMED and any(tile.splits != 1 for tile in tiles):
                raise InputError(f"tile table splits K of {name}: only {' and '.join(_SUMMED)} can be summed")
            if name != "down" and any(tile.swiglu for tile in tiles):
                raise InputError(f"tile table takes swiglu into {name}: only down can")
        return cls(default_attention, tuple(attention), gemm, bool(data.get("pdl", False)))


def _steps(kind: type[Tile], entries: list[dict[str, Any]]) -> tuple[tuple[int, Tile | None], ...]:
    steps: tuple[tuple[int, Tile | None], ...]
    try:
        steps = tuple(
            (int(entry["up_to"]), None if entry["tile"] is None else kind(**entry["tile"])) for entry in entries
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"bad tile table entry ({error}): wanted up_to and a tile with {kind._fields}") from error
    limits = [up_to for up_to, _ in steps]
    if limits != sorted(set(limits)):
        raise InputError(f"tile table entries must rise in up_to, not {limits}")
    return steps
