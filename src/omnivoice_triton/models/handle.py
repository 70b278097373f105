"""The handle that every patch returns."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class PatchHandle:
    """What was changed, and how to change it back. Also a context manager that undoes on exit."""

    def __init__(self, what: str, counts: dict[str, int]) -> None:
        self.what = what
        self.counts = counts
        self._undo: list[Callable[[], None]] = []

    @property
    def active(self) -> bool:
        """Whether the change is still in place."""
        return bool(self._undo)

    def on_undo(self, step: Callable[[], None]) -> None:
        """Add a step to be run, last added first, by `undo()`."""
        self._undo.append(step)

    def undo(self) -> None:
        """Restore what was there before; a second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        """Use as `with apply_triton_kernels(model.llm): …`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Undo."""
        self.undo()

    def __repr__(self) -> str:
        """E.g. `<triton kernels: 28 decoder layers, …; active>`."""
        parts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return f"<{self.what}: {parts or 'nothing'}; {'active' if self.active else 'undone'}>"
