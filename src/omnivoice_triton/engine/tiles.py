"""Which tile each kernel takes at how many rows: data, one JSON file per GPU family, made by `omnivoice-triton tune`.

    {"shape": {"hidden": 1024, …}, "pdl": true,
     "attention": [{"up_to": 1024, "tile": {"rows": 32, …}}, …],
     "gemm": {"qkv": […], "o": [{"up_to": 512, "tile": {"block_m": 64, …}}], "gate_up": […], "down": […]}}

A GEMM's tile is Triton's (block_m, …) or, for compute capability 9.0, one with a `cluster` (see `HopperTile`);
attention's is Triton's or, with `stages` alone, a `HopperAttentionTile`.
Entries are sorted; the first whose `up_to` is not below the packed rows counts. Above the last entry attention keeps
its default. A GEMM without an entry, with a null tile or above its last entry is cuBLAS's. A tile for `qkv` folds
QK-norm and RoPE into the GEMM, one for `gate_up` folds SwiGLU in, one for `o` or `down` leaves partial sums to the norm
that follows; `heads` (the audio heads) has tiles with a cluster only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.kernels.tiles import GemmTile, HopperAttentionTile, HopperTile, VarlenTile, varlen_tile
from omnivoice_triton.speech import InputError, ModeUnavailable

GEMMS = ("qkv", "o", "gate_up", "down", "heads")
_SUMMED = ("o", "down")  # their output goes into an add + norm, which adds partial sums up

AnyGemmTile = GemmTile | HopperTile
AnyAttentionTile = VarlenTile | HopperAttentionTile
Tile = TypeVar("Tile")


@dataclass(frozen=True)
class Tiles:
    """Tile choices of one GPU family."""

    default_attention: VarlenTile
    attention: tuple[tuple[int, AnyAttentionTile], ...] = ()
    gemm: Mapping[str, tuple[tuple[int, AnyGemmTile | None], ...]] = field(default_factory=dict)
    pdl: bool = False
    """Launch kernels dependent on the one before (compute capability 9.0 and up)."""

    def for_attention(self, rows: int) -> AnyAttentionTile:
        """The attention tile at so many packed rows."""
        return next((tile for up_to, tile in self.attention if rows <= up_to), self.default_attention)

    def for_gemm(self, name: str, rows: int) -> AnyGemmTile | None:
        """The tile of one of `GEMMS` at so many rows, or None for cuBLAS."""
        return next((tile for up_to, tile in self.gemm.get(name, ()) if rows <= up_to), None)

    def partial_floats(self, max_rows: int, hidden: int) -> int:
        """fp32 values that the largest set of partial sums takes."""
        most = 0
        for name in _SUMMED:
            for up_to, tile in self.gemm.get(name, ()):
                if tile is not None and not (isinstance(tile, HopperTile) and tile.sums):
                    most = max(most, tile.splits * min(up_to, max_rows) * hidden)
        return most

    @classmethod
    def default(cls, shape: BackboneShape, itemsize: int, capability: int) -> Tiles:
        """The tuned table of that compute capability (75, 90, …) and shape if there is one, else kernel defaults.

        Raises:
            ModeUnavailable: the table names CUDA C++ kernels and these can't be compiled here.
        """
        attention = varlen_tile(shape.head_dim, shape.q_heads // shape.kv_heads, itemsize, capability)
        file = resources.files("omnivoice_triton") / "data" / "tiles" / f"sm_{capability}.json"
        if itemsize != 2 or not file.is_file():
            return cls(attention)
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["shape"] != tuned_shape(shape):
            return cls(attention)
        return cls.parse(data, attention)._compilable()

    @classmethod
    def read(cls, path: str | Path, shape: BackboneShape, itemsize: int, capability: int) -> Tiles:
        """A table that `omnivoice-triton tune` has written, for a model of that shape on a GPU of that capability.

        Raises:
            InputError: no such file, no table, one for another shape or GPU, or weights of another size than 16 bits.
            ModeUnavailable: as of `default`.
        """
        try:
            data = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"can't read the tile table {str(path)!r}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"the tile table {str(path)!r} is no JSON: {error}") from error
        if not isinstance(data, dict) or not isinstance(data.get("gemm"), dict) or "shape" not in data:
            raise InputError(f"{str(path)!r} is no tile table: `omnivoice-triton tune MODEL FILE` writes one")
        if data["shape"] != tuned_shape(shape):
            raise InputError(f"the tile table {str(path)!r} is for a model of another shape: {data['shape']}")
        if itemsize != 2:
            raise InputError("a tile table is for fp16 and bf16: leave `tiles` out, or load the model in one of them")
        tiles = cls.parse(data, varlen_tile(shape.head_dim, shape.q_heads // shape.kv_heads, itemsize, capability))
        if tiles.needs_nvrtc and capability != 90:
            raise InputError(f"the tile table {str(path)!r} is for compute capability 9.0: make one with `tune` here")
        return tiles._compilable()

    def _compilable(self) -> Tiles:
        if self.needs_nvrtc:
            from omnivoice_triton.kernels.nvrtc import problem

            if (reason := problem()) is not None:
                raise ModeUnavailable(f"the engine's kernels for this GPU can't be compiled: {reason}")
        return self

    @property
    def needs_nvrtc(self) -> bool:
        """Whether a kernel in CUDA C++ is among the choices."""
        choices = [tile for _, tile in self.attention] + [tile for steps in self.gemm.values() for _, tile in steps]
        return any(isinstance(tile, (HopperTile, HopperAttentionTile)) for tile in choices)

    @classmethod
    def parse(cls, data: Mapping[str, Any], default_attention: VarlenTile) -> Tiles:
        """Read a table from the content of its JSON file.

        Raises:
            InputError: an unknown GEMM or field, or unsorted entries.
        """
        unknown = set(data.get("gemm", {})) - set(GEMMS)
        if unknown:
            raise InputError(f"tile table names GEMM {min(unknown)!r}: wanted one of {', '.join(GEMMS)}")
        gemm = {name: _steps(_gemm_tile, entries) for name, entries in data.get("gemm", {}).items()}
        attention = [
            (up_to, tile) for up_to, tile in _steps(_attention_tile, data.get("attention", [])) if tile is not None
        ]
        for name, steps in gemm.items():
            tiles = [tile for _, tile in steps if tile is not None]
            if name not in _SUMMED and any(tile.splits != 1 for tile in tiles):
                raise InputError(f"tile table splits K of {name}: only {' and '.join(_SUMMED)} can be summed")
            if name == "heads" and not all(isinstance(tile, HopperTile) for tile in tiles):
                raise InputError("tile table has a Triton tile for heads: only tiles with a cluster can")
            if name != "down" and any(tile.swiglu for tile in tiles):
                raise InputError(f"tile table takes swiglu into {name}: only down can")
        return cls(default_attention, tuple(attention), gemm, bool(data.get("pdl", False)))


def tuned_shape(shape: BackboneShape) -> dict[str, int]:
    """The dimensions that a table is made for."""
    return {
        "hidden": shape.hidden,
        "intermediate": shape.intermediate,
        "q_heads": shape.q_heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
    }


def _gemm_tile(fields: dict[str, Any]) -> AnyGemmTile:
    return HopperTile(**fields) if "cluster" in fields else GemmTile(**fields)


def _attention_tile(fields: dict[str, Any]) -> AnyAttentionTile:
    return HopperAttentionTile(**fields) if "stages" in fields else VarlenTile(**fields)


def _steps(
    make: Callable[[dict[str, Any]], Tile], entries: list[dict[str, Any]]
) -> tuple[tuple[int, Tile | None], ...]:
    try:
        steps = tuple(
            (int(entry["up_to"]), None if entry["tile"] is None else make(entry["tile"])) for entry in entries
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"bad tile table entry ({error}): wanted up_to and a tile's fields") from error
    limits = [up_to for up_to, _ in steps]
    if limits != sorted(set(limits)):
        raise InputError(f"tile table entries must rise in up_to, not {limits}")
    return steps
