"""A count that several threads may raise: how often a launcher launched its kernels."""

from __future__ import annotations

import threading


class LaunchCounter:
    """Launches since the last reset; replays of a captured graph don't count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add_one(self) -> None:
        """Count a launch."""
        with self._lock:
            self._count += 1

    def read(self) -> int:
        """Launches so far."""
        with self._lock:
            return self._count

    def reset(self) -> None:
        """Start again at 0."""
        with self._lock:
            self._count = 0
