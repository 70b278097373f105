"""A launch through the cache is the launch that Triton would have made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.kernels import cached, reference
from omnivoice_triton.kernels.cached import Cached
from omnivoice_triton.kernels.rms_norm import _rms_norm_launch, triton_rms_norm


def stub() -> Cached:
    """A cache over a kernel of one pointer, a free and a specialised number, and a constexpr; calls are recorded."""
    made = Cached(None)
    params = [("x", 0, 0), ("rows", 1, 0), ("stride", 0, 0), ("eps", 0, 0), ("N", 0, 1)]
    made._direct = True
    made._names = tuple(name for name, *_ in params)
    made._free = frozenset(name for name, free, _ in params if free)
    made._constexprs = frozenset(name for name, _, const in params if const)
    return made


def key(x: torch.Tensor, **changes: Any) -> tuple[Any, ...]:
    arguments = {"x": x, "rows": 3, "stride": 8, "eps": 1e-6, "N": 4, "num_warps": 4, **changes}
    return stub()._key(arguments)


def test_key_holds_what_a_compilation_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    x = torch.zeros(64)
    same = key(x)
    assert key(torch.zeros(64)) == same
    assert key(x, rows=77) == same  # not specialised on
    assert key(x, eps=1e-5) == same
    assert key(x, rows=1 << 31) != same  # another signature: 64 bits
    assert key(x, stride=1) != same
    assert key(x, N=8) != same
    assert key(x, num_warps=8) != same
    assert key(x.half()) != same
    assert key(x[1:]) != same  # no longer starts on 16 bytes
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert key(x) != same


def test_constexpr_floats_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    x = torch.zeros(64)
    assert key(x, N=0.5) != key(x, N=0.25)


def test_second_launch_goes_direct_with_every_argument_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    calls: list[Any] = []

    class Compiled:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *args: calls.append((grid, args))

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def run(**arguments: Any) -> Compiled:
                calls.append(("bound", grid, arguments))
                return Compiled()

            return run

    launch, x = stub(), torch.zeros(64)
    launch._kernel = Kernel()
    for rows in (3, 5):
        launch((rows,), x=x, rows=rows, stride=8, eps=1e-6, N=4, num_warps=4)
    assert calls[0][0] == "bound"
    grid, args = calls[1]
    assert grid[:3] == (5, 1, 1)
    assert args[0] is x
    assert args[1:] == (5, 8, 1e-6, 4)


def test_interpreter_takes_tritons_own_way() -> None:
    assert Cached(SimpleNamespace())._direct is False


@pytest.mark.gpu
def test_mixed_launches_stay_right() -> None:
    """Dtypes, alignments, widths and strides in turn: each result is its own."""
    assert cached._DIRECT, "this Triton is not one whose compiled kernels are called directly"
    torch.manual_seed(0)
    shapes = [(dtype, width, offset) for dtype in (torch.float32, torch.float16, torch.bfloat16)
              for width in (128, 1000, 1024) for offset in (0, 1)]  # fmt: skip
    for _ in range(3):
        for dtype, width, offset in shapes:
            flat = torch.randn(5 * width + offset, device="cuda").to(dtype)[offset:]
            for x in (flat.view(5, width), flat.view(width, 5).t()):
                weight = torch.randn(width, device="cuda").to(dtype)
                torch.testing.assert_close(
                    triton_rms_norm(x, weight), reference.rms_norm(x, weight), atol=0.05, rtol=0.05
                )
    before = len(_rms_norm_launch._compiled)
    triton_rms_norm(torch.randn(1234, 1024, device="cuda"), torch.randn(1024, device="cuda"))
    assert len(_rms_norm_launch._compiled) == before  # a new number of rows is no new kernel
