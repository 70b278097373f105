"""The clocks in the CUDA C++ kernels: their places are there, what comes of it compiles, and sums are right."""

from __future__ import annotations

import numpy as np
import pytest

from omnivoice_triton.engine.candidates import epilogue
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels import hopper_attention, hopper_gemm, nvrtc
from omnivoice_triton.kernels.tiles import HopperAttentionTile, HopperTile
from tools import kernel_timeline as timeline


@pytest.mark.parametrize("name", timeline.ORDER)
def test_every_kernel_of_a_layer_takes_clocks(name: str) -> None:
    tiles = Tiles.default(timeline.FULL, 2, 90)
    kernel = "hopper_attention" if name == "attention" else "hopper_gemm"
    tile = tiles.for_attention(320) if name == "attention" else tiles.for_gemm(name, 320)
    if isinstance(tile, HopperAttentionTile):
        defines, prologue = hopper_attention.variant_source(tile, False, True)
    else:
        assert isinstance(tile, HopperTile)
        defines, prologue = hopper_gemm.variant_source(tile, epilogue(name, tile), False, True)
    source = timeline.with_clocks(kernel, nvrtc.assembled(kernel, defines, prologue))
    assert source.count("mark(") == 1 + len(timeline.POINTS)
    code, _ = nvrtc.compile_cubin(kernel, source, "sm_90a")
    assert b"timeline" in code


def test_a_place_that_is_gone_is_told() -> None:
    with pytest.raises(ValueError, match="hopper_attention: 0 places look like 'const int"):
        timeline.with_clocks("hopper_attention", "nothing of it")


def test_medians_and_gaps() -> None:
    def table(start: int) -> np.ndarray:
        rows = [[start + sm, *(start + sm + 1000 * i for i in range(1, 6)), sm, 0] for sm in range(3)]
        return np.array(rows)

    told = timeline.lines({"qkv": table(0), "attention": table(7000)}, 1e9)
    assert told[1].split() == ["qkv", "3", *["1.00"] * 5]
    assert "qkv to attention entry: 2.00 2.00 2.00" in told
    assert "qkv to attention waited: 4.00 4.00 4.00" in told


def test_elsewhere_it_says_what_it_needs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline.torch.cuda, "is_available", lambda: False)
    assert timeline.main([]) == 2
    assert capsys.readouterr().err == "kernel_timeline: needs a GPU of compute capability 9.0\n"
