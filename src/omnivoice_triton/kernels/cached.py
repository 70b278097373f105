"""Launching a compiled kernel again without Triton's argument binding.

`kernel[grid](...)` binds, inspects and formats every argument anew: 25 to 60 µs on the host of the reference H200,
where PyTorch's own operations take about 5. `Cached` remembers the compiled kernel under what its compilation depended
on and calls it directly. Hooks (profilers) are still honoured, by Triton's own launch method.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

# Calling a compiled kernel with all parameters in order is how 3.6 does it; others get Triton's own way.
_KNOWN_VERSIONS = ("3.6.",)
_DIRECT = triton.__version__.startswith(_KNOWN_VERSIONS)


def is_kernel(value: object) -> bool:
    """Whether `value` is a Triton kernel (compiled or the interpreter's), or a `Cached` one."""
    return isinstance(value, (Cached, JITFunction, InterpretedFunction))


class Cached:
    """Launches one kernel; callers pass the same keywords in the same order each time.

    What a compilation depends on (Triton 3.6): the device, each tensor's dtype and whether it starts on 16 bytes, each
    whole number that is specialised on, whether the others need 64 bits, every constexpr and every option.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._direct = _DIRECT and isinstance(kernel, JITFunction)  # the interpreter's kernels are not compiled
        if self._direct:
            self._names = tuple(param.name for param in kernel.params)
            self._constexprs = frozenset(param.name for param in kernel.params if param.is_constexpr)
            self._free = frozenset(param.name for param in kernel.params if param.do_not_specialize)

    def __call__(self, grid: tuple[int, ...], /, **arguments: Any) -> None:
        """Launch on the current device and stream; `grid` of one to three sizes."""
        if not self._direct:
            self._kernel[grid](**arguments)
            return
        key = self._key(arguments)
        compiled = self._compiled.get(key)
        if compiled is None:
            self._compiled[key] = self._kernel[grid](**arguments)
            return
        compiled[(*grid, 1, 1)](*[arguments[name] for name in self._names])

    def _key(self, arguments: dict[str, Any]) -> tuple[Any, ...]:
        key: list[Any] = [torch.cuda.current_device()]
        for name, value in arguments.items():
            kind = type(value)
            if kind is int:
                key.append(value >> 31 if name in self._free else value)
            elif kind is not float or name in self._constexprs:
                if isinstance(value, torch.Tensor):
                    key.append(value.dtype)
                    key.append(value.data_ptr() & 15 == 0)
                else:
                    key.append(value)
        return tuple(key)
