"""The choice of tiles, with a clock that knows which ones are good."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.engine import measure, tuning
from omnivoice_triton.engine.candidates import GEMM_TILES
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.measure import measure_step, parse_case
from omnivoice_triton.engine.ops import Ops
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.engine.tiles import GEMMS, Tiles, tuned_shape
from omnivoice_triton.engine.tuning import MOST_SPLITS, tune
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.kernels.tiles import GemmTile, HopperAttentionTile, VarlenTile, varlen_tile
from omnivoice_triton.speech import InputError

from .tiny import make_model

GOOD_ATTENTION, BAD_ATTENTION = VarlenTile(8, 16, 4, 1), VarlenTile(4, 16, 4, 1)
FAST, SLOW = GemmTile(16, 16, 16, 2, 4, 1), GemmTile(16, 32, 16, 2, 4, 1)
IN_DOWN = FAST._replace(swiglu=True)
CANDIDATES = {
    "qkv": (FAST._replace(splits=1),),
    "o": (SLOW, FAST),
    "gate_up": (SLOW._replace(splits=1),),
    "down": (FAST, IN_DOWN),
}


class Clock:
    """Runs the function once and prices it by the operations that it called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cost = 0.0
        self.ran = 0
        self.pdl = False
        from omnivoice_triton.engine import tuning

        real = tuning.get_ops

        def priced(backend: str, *, pdl: bool = False) -> Ops:
            ops = real(backend)
            self.pdl = pdl

            def price(name: str) -> Callable[..., Any]:
                function = getattr(ops, name)

                def called(*args: Any, **kwargs: Any) -> Any:
                    self.cost += self.price(name, args, kwargs)
                    return function(*args, **kwargs)

                return called

            return Ops("priced", *(price(field) for field in Ops.__dataclass_fields__ if field != "name"))

        monkeypatch.setattr(tuning, "get_ops", priced)

    def price(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        if name == "attention":
            return {GOOD_ATTENTION: 1.0, BAD_ATTENTION: 2.0}.get(kwargs["tile"], 1.5)
        if name == "split_k":
            tile = args[2]
            return math.inf if tile == SLOW else -0.5 if tile == FAST and args[0].shape[0] <= 64 else -0.1
        if name == "gate_up":
            return 9.0
        if name == "qkv_rope":
            return 0.5
        return 1.0

    def __call__(self, run: Callable[[], None]) -> float:
        self.cost = 100.0 * (0.9 if self.pdl else 1.0)
        self.ran += 1
        run()
        return self.cost


def test_the_fastest_of_each_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    weights = BackboneWeights.from_upstream(make_model())
    lines: list[str] = []
    data = tune(
        weights,
        backend="reference",
        rows=(32, 64, 128),
        timer=clock,
        attention_tiles=(BAD_ATTENTION, GOOD_ATTENTION),
        gemm_tiles=CANDIDATES,
        report=lines.append,
    )
    assert len(lines) == 4
    assert data["shape"] == tuned_shape(weights.shape)
    assert data["pdl"]
    assert data["attention"] == [{"up_to": 128, "tile": GOOD_ATTENTION._asdict()}]
    # qkv: folded costs 0.5 where GEMM and kernel apart cost 1; at every row count.
    assert data["gemm"]["qkv"] == [{"up_to": 128, "tile": CANDIDATES["qkv"][0]._asdict()}]
    assert "gate_up" not in data["gemm"]
    assert [entry["up_to"] for entry in data["gemm"]["o"]] == [64]  # above 64 rows it saves less than the margin
    # down: with swiglu on the way in a whole kernel (1.0) goes, which beats the faster sum.
    assert data["gemm"]["down"] == [{"up_to": 128, "tile": IN_DOWN._asdict()}]
    tiles = Tiles.parse(json.loads(json.dumps(data)), varlen_tile(16, 2, 4, 90))
    assert tiles.pdl
    assert tiles.for_gemm("o", 64) == FAST
    assert tiles.for_gemm("o", 65) is None


def test_nothing_of_ours_is_tried_without_matrix_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    weights = BackboneWeights.from_upstream(make_model(layers=1))
    data = tune(
        weights,
        backend="reference",
        capability=75,
        rows=(32,),
        timer=clock,
        attention_tiles=(BAD_ATTENTION,),
        gemm_tiles=CANDIDATES,
    )
    assert data["gemm"] == {}
    assert data["attention"] == []
    assert not data["pdl"]


def test_candidates_stay_within_the_partial_sums_allotted() -> None:
    assert max(tile.splits for tiles in GEMM_TILES.values() for tile in tiles) == MOST_SPLITS
    assert {tile.splits for name in ("qkv", "gate_up") for tile in GEMM_TILES[name]} == {1}


def test_cases_are_read_from_the_command_line() -> None:
    assert parse_case("40x125") == (40, 125, 1)
    assert parse_case("195x125x8") == (195, 125, 8)
    for bad in ("40", "40x0", "axb", "1x2x3x4"):
        with pytest.raises(InputError, match="a case is prompt rows x frames"):
            parse_case(bad)


@pytest.mark.gpu
def test_a_step_is_measured_on_the_gpu() -> None:
    import torch

    model = make_model(hidden=256, intermediate=512, heads=4, kv_heads=2, head_dim=128, dtype=torch.float16).cuda()
    with Engine(model, max_rows=256) as engine:
        result = measure_step(engine, (20, 40, 2), repeats=2)
    assert result["rows"] == 200
    assert 0 < result["gemm_ms"] < result["backbone_ms"] < result["step_ms"]


def test_hoppers_own_kernels_are_tried_where_they_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The branch for compute capability 9.0, with a clock in place of the GPU; the candidates are compiled for real."""
    tried: list[Tiles] = []

    class FakeBench:
        def __init__(self, *arguments: Any) -> None:
            pass

        def seconds(self, rows: int, tiles: Tiles) -> float:
            tried.append(tiles)
            return (1.0 if tiles.pdl else 2.0) - 0.1 * sum(bool(steps) for steps in tiles.gemm.values())

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "_Bench", FakeBench)
    full = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, 1e-6)
    for shape, own in ((full, True), (replace(full, head_dim=64), False)):
        tried.clear()
        weights: Any = SimpleNamespace(shape=shape, dtype=torch.float16, device=SimpleNamespace(type="cuda"))
        data = tuning.tune(weights, capability=90, rows=(320,), attention_tiles=(), hopper_candidates=1)
        tiles = Tiles.parse(json.loads(json.dumps(data)), varlen_tile(128, 2, 2, 90))
        assert data["pdl"]
        assert set(tiles.gemm) == set(GEMMS if own else GEMM_TILES)
        assert tiles.needs_nvrtc is own
        assert own is any(isinstance(tiles.for_attention(320), HopperAttentionTile) for tiles in tried)
    assert len(list(tmp_path.rglob("*.cubin"))) == 4  # of five GEMMs: o and down are cut alike


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["tune", "MODEL", "OUT", "--rows", "448,320"], "--rows must be rising whole numbers"),
        (["tune", "MODEL", "OUT", "--rows", "0"], "--rows must be rising whole numbers"),
        (["tune", "MODEL", "OUT", "--rows", "x"], "--rows must be rising whole numbers"),
        (["tune", "MODEL", "nowhere/at/all.json"], "does not exist"),
        (["step", "./no-model"], "no-model"),
        (["step", "MODEL", "--case", "40"], "a case is prompt rows x frames"),
        (["step", "MODEL", "--fast"], "unrecognized arguments"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"OUT": str(tmp_path / "out.json"), "MODEL": str(tmp_path)}.get(flag, flag) for flag in flags]
    assert measure.main(given) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
