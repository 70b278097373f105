"""Python's bytecode of what is imported: a module that has none is compiled anew at every start, 2 ms apiece.

Python writes it beside the source as it imports, unless `PYTHONDONTWRITEBYTECODE` is set, as in many container images,
or the folder can't be written. pip compiles what it installs; uv does on request (`--compile-bytecode`).
"""

from __future__ import annotations

import py_compile
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["without_bytecode", "write_bytecode"]


def without_bytecode() -> int:
    """How many modules imported so far have no bytecode in a file."""
    return len(_missing())


def write_bytecode() -> int:
    """Write it, for all that are imported, to where Python looks for it (`__pycache__`, or `PYTHONPYCACHEPREFIX`).

    `PYTHONDONTWRITEBYTECODE` is no obstacle: that is about what imports do, and this is asked for by name.

    Returns:
        How many modules got theirs.

    Raises:
        OSError: a folder can't be written; what was written until then stays.
    """
    written = 0
    for source, cached in _missing():
        with suppress(py_compile.PyCompileError):  # a file that is no longer what was imported
            py_compile.compile(str(source), str(cached), doraise=True)
            written += 1
    return written


def _missing() -> list[tuple[Path, Path]]:
    """Source of each module that was imported without bytecode, and where that belongs."""
    found = {
        Path(spec.origin): Path(spec.cached)
        for name, module in [*sys.modules.items()]
        if name != "__main__" and (spec := getattr(module, "__spec__", None)) is not None
        if getattr(spec, "cached", None) and spec.origin
    }
    return [(source, cached) for source, cached in found.items() if source.is_file() and not cached.exists()]
