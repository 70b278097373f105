"""What a tier of checks found: rows of figures, thresholds, problems, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omnivoice_triton.commands import in_words

NOTHING = "nothing was checked"
NOT_JUDGED = "not judged"
"""In place of a verdict, of a figure that is shown only."""

Progress = Callable[[int, str, int, int], None]
"""Told (tier, what comes next, done, all) before each piece of work."""


@dataclass
class Tier:
    """One tier of verification.

    A tier without rows fails: what checked nothing has shown nothing.
    """

    number: int
    name: str
    what: str
    """One sentence: what is compared with what."""
    thresholds: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a check, JSON values only; each has `passed` and `problems`."""
    notes: list[str] = field(default_factory=list)
    """What the reader has to know: what was not measured, and why."""
    problems: list[str] = field(default_factory=list)
    """Failures of the tier as a whole."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further figures behind the rows."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed."""
        return bool(self.rows) and not self.problems and all(row["passed"] is True for row in self.rows)

    @property
    def failures(self) -> list[str]:
        """Every problem, of the tier and of its rows, in words."""
        found = list(self.problems)
        if not self.rows:
            found.append(NOTHING)
        for row in self.rows:
            found += [f"{row.get('name', 'check')}: {problem}" for problem in row["problems"]]
            if row["passed"] is not True and not row["problems"]:
                found.append(f"{row.get('name', 'check')}: failed")
        return found

    def document(self) -> dict[str, Any]:
        """The tier as JSON values."""
        return {
            "tier": self.number,
            "name": self.name,
            "what": self.what,
            "passed": self.passed,
            "checks": len(self.rows),
            "failed": sum(row["passed"] is not True for row in self.rows),
            "seconds": round(self.seconds, 3),
            "thresholds": self.thresholds,
            "notes": self.notes,
            "problems": self.failures,
            "rows": self.rows,
            "details": self.details,
        }


def quiet(tier: int, what: str, done: int, total: int) -> None:
    """A `Progress` that tells nobody."""


def raised(error: BaseException) -> str:
    """A problem in one line, of what was raised where a figure was wanted."""
    return f"raised {in_words(error)}"
