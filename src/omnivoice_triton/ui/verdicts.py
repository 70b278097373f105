"""What of a result file passed or failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnivoice_triton.ui.figures import Damaged, number

VERDICTS = ("verify", "parity", "smoke", "sanitizer", "soak", "tests")
"""Kinds whose rows pass or fail."""


def verdict_of(document: Mapping[str, Any]) -> tuple[bool, int, int]:
    """Whether all passed, checks, and how many failed; a row of a whole verification is a tier of many checks."""
    if document["kind"] == "tests":
        good, *bad = (int(number(document, key)) for key in ("passed", "failed", "error"))
        return good > 0 and not any(bad), good + sum(bad), sum(bad)
    rows = document["results"]
    failed = sum(int(number(row, "failed")) if "failed" in row else not _is_good(row) for row in rows)
    checks = sum(int(number(row, "checks")) if "checks" in row else 1 for row in rows)
    return document.get("passed", True) is True and all(map(_is_good, rows)), checks, failed


def _is_good(row: Mapping[str, Any]) -> bool:
    """Whether a row passed, by all that it says."""
    if "growth_mb_max" in row and "passed" not in row:  # of a soak, as older files have it
        return not row.get("failures") and number(row, "growth_mb_max") <= number(row, "budget_mb")
    faults = any(row.get(key) for key in ("problems", "failures")) or bool(row.get("failed"))
    return row.get("passed") is True and not faults


def failures_of(document: Mapping[str, Any]) -> list[str]:
    """What failed, in words, of a file that lists it."""
    listed = document.get("failures")
    return [str(entry) for entry in listed] if isinstance(listed, list) else []


def modes_of(tier: Mapping[str, Any]) -> list[str]:
    """Modes that a tier's rows are of."""
    return list(dict.fromkeys(str(row["mode"]) for row in tier["rows"] if "mode" in row))


def check_tier(tier: Mapping[str, Any]) -> None:
    """Raise Damaged unless a tier has what its card shows."""
    for key in ("checks", "failed", "seconds"):
        number(tier, key)
    if isinstance(tier.get("tier"), bool) or type(tier.get("tier")) is not int or tier["tier"] not in (1, 2, 3):
        raise Damaged("tier")
    if not isinstance(tier["passed"], bool):
        raise Damaged("passed")
    for key in ("notes", "problems", "rows"):
        if not isinstance(tier.get(key), list):
            raise Damaged(key)
    if not all(isinstance(row, dict) for row in tier["rows"]):
        raise Damaged("rows")
    str(tier["what"])
