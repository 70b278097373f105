"""A thread that steps an engine, so that callers only wait for their futures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from omnivoice_triton.engine.scheduler import Scheduler

logger = logging.getLogger(__name__)


class Background:
    """Steps for as long as there is anything to do, and sleeps until there is again; started and stopped once.

    Args:
        scheduler: tells when there is; a step that fails ends all of its jobs.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether the thread steps, so that nobody else has to."""
        return self._thread is not None

    @property
    def is_current(self) -> bool:
        """Whether this is the thread: it must not wait for what it alone does."""
        return self._thread is threading.current_thread()

    def start(self, step: Callable[[], bool]) -> None:
        """Call `step` from now on, which returns whether anything is left to do; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, args=(step,), name="omnivoice-turbo", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended, after the step that it is at; what is left stays with the scheduler.

        From a future's callback, which the thread itself runs, it returns at once, and the thread ends after it.
        """
        self._stopping = True
        self._scheduler.wake()
        if self._thread is not None and not self.is_current:
            self._thread.join()
        self._thread = None

    def _serve(self, step: Callable[[], bool]) -> None:
        while not self._stopping:
            try:
                busy = step()
            except Exception as error:
                # Nobody else would ever tell those who wait.
                logger.exception("the turbo engine failed a step")
                self._scheduler.abort(error)
                continue
            except BaseException:  # of a future's callback, such as a SystemExit: no reason to leave the others alone
                logger.exception("a callback of a future of the turbo engine")
                continue
            if not busy:
                self._scheduler.wait(unless=lambda: self._stopping)
