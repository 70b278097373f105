"""Kernels compiled ahead: all that the buckets launch, into the cache, and failures are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnivoice_triton.engine.precompile import precompile, variants
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels import hopper_gemm
from omnivoice_triton.kernels.tiles import HopperAttentionTile, varlen_tile

FULL = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, 1e-6)


def test_all_that_a_bucket_launches_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tiles = Tiles.default(FULL, 2, 90)
    wanted = variants(tiles, [320])
    assert sum(isinstance(variant, HopperAttentionTile) for variant in wanted) == 1
    assert len(wanted) == 5  # attention, qkv, o, gate_up, down; the heads are cuBLAS's there
    assert precompile(tiles, [320], bf16=True) == 5
    assert len(list(tmp_path.rglob("*.cubin"))) == 5
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")}
    assert precompile(tiles, [320], bf16=True) == 5
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")} == stamps  # read, not made again


def test_defaults_need_nothing() -> None:
    assert precompile(Tiles(varlen_tile(128, 2, 2, 80)), [64, 320], bf16=False) == 0


def test_a_kernel_that_does_not_compile_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(hopper_gemm, "variant_source", lambda *arguments: ({}, "this is no C++;"))
    with pytest.raises(RuntimeError, match="NVRTC failed on hopper_gemm"):
        precompile(Tiles.default(FULL, 2, 90), [320], bf16=False)
