"""What `bench speed` says: cases and batch sizes, the important ones first, and how much time each may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omnivoice_triton.bench.harness import SENTENCES
from omnivoice_triton.speech import InputError

FIVE_SECONDS = "en 5 s"
STEPS = 32

Case = dict[str, Any]


def cases(all_cases: bool) -> dict[str, Case]:
    """Name to keywords of generate(); `voice` stands for a prompt that is encoded once."""
    english = SENTENCES["en"]
    five = {"text": english[1], "language": english[0], "duration": 5.0, "num_step": STEPS}
    made: dict[str, Case] = {FIVE_SECONDS: five}
    if all_cases:
        for code, (language, text) in SENTENCES.items():
            made[f"{code} short"] = {"text": text, "language": language, "num_step": STEPS}
        made["en 15 s"] = {**five, "duration": 15.0}
        made["clone 5 s"] = {**five, "voice": "the reference"}
        made["design 5 s"] = {**five, "instruct": "female, young adult, high pitch"}
        made["en 30 s"] = {**five, "duration": 30.0}
    return made


@dataclass(frozen=True)
class Cell:
    """One case at one batch size."""

    case: str
    batch: int
    keywords: Case

    @property
    def name(self) -> str:
        """`en 5 s`, or `en 5 s x 8`."""
        return self.case if self.batch == 1 else f"{self.case} x {self.batch}"

    @property
    def weight(self) -> int:
        """How many parts of the time it gets: the case that everything is compared on has twice the rounds, and more
        calls for its split and energy."""
        return 4 if self.case == FIVE_SECONDS and self.batch == 1 else 1

    def request(self, voice: Any = None) -> Case:
        """Keywords of generate(): the same text as often as the batch is large, in `voice` if the case needs one."""
        keywords = dict(self.keywords)
        if "voice" in keywords:
            keywords["voice"] = voice
        if self.batch > 1:
            keywords["text"] = [keywords["text"]] * self.batch
        return keywords


def cells(all_cases: bool, batches: Sequence[int], names: Sequence[str] | None = None) -> list[Cell]:
    """Every case at every batch size: first all cases of the smallest batch, then the 5 s one of the others, the rest.

    Raises:
        InputError: a batch below 1, or a case that there isn't.
    """
    if not batches or min(batches) < 1:
        raise InputError(f"--batch wants whole numbers of at least 1, not {list(batches)}")
    known = cases(all_cases or names is not None)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InputError(f"no case is called {unknown[0]!r}: there are {', '.join(known)}")
    wanted = {name: known[name] for name in known if names is None or name in names}
    sizes = sorted(set(batches))
    found = [Cell(name, batch, keywords) for batch in sizes for name, keywords in wanted.items()]

    def importance(cell: Cell) -> tuple[int, int]:
        if cell.batch == sizes[0]:
            return 0, 0
        return (1, 0) if cell.case == FIVE_SECONDS else (2, sizes.index(cell.batch))

    return sorted(found, key=importance)


class Budget:
    """Seconds that a part of a run may take; None is as many as it needs."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if seconds is not None and not 0 < seconds < math.inf:  # JSON has no infinity
            raise InputError(f"--budget-s must be above 0 seconds and finite, not {seconds}")
        self.seconds, self.clock = seconds, clock
        self._began = clock()

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 when more were taken."""
        return math.inf if self.seconds is None else self.seconds - (self.clock() - self._began)

    def share(self, rest: Sequence[Cell], apart_s: float = 0.0) -> float:
        """What the first of these cells may take, if all of them are to have their part.

        Args:
            rest: this cell and those after it.
            apart_s: seconds that each of them is to have besides, whatever its part.
        """
        return (self.left - apart_s * len(rest)) * rest[0].weight / sum(cell.weight for cell in rest)
