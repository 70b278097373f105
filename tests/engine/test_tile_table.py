"""The packaged tile tables: every choice can be compiled, and is used for the shape it was made for."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton.engine.candidates import epilogue, fits_hopper, hopper_tiles
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.engine.tiles import GEMMS, Tiles
from omnivoice_triton.kernels import nvrtc
from omnivoice_triton.kernels.hopper_gemm import variant_source
from omnivoice_triton.kernels.tiles import HopperAttentionTile, HopperTile, varlen_tile
from omnivoice_triton.speech import InputError, ModeUnavailable

FULL = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, 1e-6)
TABLES = sorted(path.name for path in (resources.files("omnivoice_triton") / "data" / "tiles").iterdir())
DEPTHS = {"qkv": 1024, "o": 2048, "gate_up": 1024, "down": 3072, "heads": 1024}


def choices() -> list[tuple[str, HopperTile]]:
    tiles = Tiles.default(FULL, 2, 90)
    return sorted({(name, tile) for name, steps in tiles.gemm.items() for _, tile in steps if tile is not None})


def test_there_is_one_for_hopper() -> None:
    assert TABLES == ["sm_90.json"]
    tiles = Tiles.default(FULL, 2, 90)
    assert tiles.needs_nvrtc
    assert tiles.pdl
    assert isinstance(tiles.for_attention(290), HopperAttentionTile)
    assert set(tiles.gemm) == set(GEMMS)


@pytest.mark.parametrize(("name", "tile"), choices())
def test_every_choice_fits_and_compiles(name: str, tile: HopperTile) -> None:
    kind = epilogue(name, tile)
    assert tile.problem(kind, DEPTHS[name]) is None
    defines, prologue = variant_source(tile, kind, False, True)
    text = nvrtc.assembled("hopper_gemm", defines, prologue)
    _, messages = nvrtc.compile_cubin("hopper_gemm", text, "sm_90a", anew=True)
    assert "0 bytes spill stores" in messages
    assert "serialized" not in messages


def test_other_shapes_dtypes_and_gpus_get_the_defaults() -> None:
    assert Tiles.default(FULL, 4, 90) == Tiles(varlen_tile(128, 2, 4, 90))
    assert Tiles.default(FULL, 2, 80) == Tiles(varlen_tile(128, 2, 2, 80))
    small = replace(FULL, hidden=256)
    assert Tiles.default(small, 2, 90) == Tiles(varlen_tile(128, 2, 2, 90))


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "problem", lambda: "no cuda-bindings: pip install cuda-bindings")
    with pytest.raises(ModeUnavailable, match=r"can't be compiled: no cuda-bindings: pip install"):
        Tiles.default(FULL, 2, 90)


@pytest.mark.parametrize("rows", [32, 320, 4096])
@pytest.mark.parametrize("name", GEMMS)
def test_candidates_fit(name: str, rows: int) -> None:
    found = hopper_tiles(name, rows, FULL, most=10)
    assert 2 <= len(found) <= 10
    assert len(found) == len(set(found))
    assert all(tile.problem(epilogue(name, tile), DEPTHS[name]) is None for tile in found)


def test_only_heads_of_128_and_two_to_a_key_head_fit() -> None:
    assert fits_hopper(FULL)
    assert not fits_hopper(replace(FULL, head_dim=64))
    assert not fits_hopper(replace(FULL, kv_heads=4))


def test_a_table_reads_back() -> None:
    file = resources.files("omnivoice_triton") / "data" / "tiles" / "sm_90.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    tiles = Tiles.parse(data, varlen_tile(128, 2, 2, 90))
    sums = [(e["tile"]["splits"], e["up_to"]) for n in ("o", "down") for e in data["gemm"][n] if e["tile"]]
    widest = max(splits * rows for splits, rows in sums if splits > 1)
    # At most: sums within a cluster need no room.
    assert 3 * 320 * 1024 <= tiles.partial_floats(4096, 1024) <= widest * 1024


def table() -> dict[str, Any]:
    file = resources.files("omnivoice_triton") / "data" / "tiles" / "sm_90.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def test_a_table_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps(table()))
    assert Tiles.read(path, FULL, 2, 90) == Tiles.default(FULL, 2, 90)
    path.write_text(json.dumps({**table(), "gemm": {}, "attention": [{"up_to": 64, "tile": [16, 32, 4, 2]}]}))
    with pytest.raises(InputError, match="bad tile table entry"):
        Tiles.read(path, FULL, 2, 89)
    tile = {"rows": 16, "block_n": 32, "num_warps": 4, "num_stages": 2}
    path.write_text(json.dumps({**table(), "gemm": {}, "attention": [{"up_to": 64, "tile": tile}]}))
    found = Tiles.read(str(path), FULL, 2, 89)
    assert tuple(found.for_attention(64)) == (16, 32, 4, 2)
    assert found.for_attention(65) == varlen_tile(128, 2, 2, 89)


@pytest.mark.parametrize(
    ("content", "shape", "itemsize", "capability", "message"),
    [
        (None, FULL, 2, 90, "can't read the tile table"),
        ("no", FULL, 2, 90, "is no JSON"),
        ("[]", FULL, 2, 90, "is no tile table: `omnivoice-triton tune MODEL FILE` writes one"),
        ('{"gemm": []}', FULL, 2, 90, "is no tile table"),
        (json.dumps(table()), replace(FULL, hidden=256), 2, 90, "is for a model of another shape"),
        (json.dumps(table()), FULL, 4, 90, "is for fp16 and bf16"),
        (json.dumps(table()), FULL, 2, 89, "is for compute capability 9.0"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, content: str | None, shape: BackboneShape, itemsize: int, capability: int, message: str
) -> None:
    path = tmp_path / "tiles.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        Tiles.read(path, shape, itemsize, capability)
