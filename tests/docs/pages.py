"""The pages of the documentation, and what stands in them between fences."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README_ko.md")
PAGES = (*READMES, *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return [m["body"] for m in _FENCE.finditer(page.read_text(encoding="utf-8")) if m["language"] == language]


def languages(page: Path) -> set[str]:
    """What the fences of a page say they hold."""
    return {m["language"] for m in _FENCE.finditer(page.read_text(encoding="utf-8"))}


def commands(page: Path) -> list[str]:
    """Every command of a page's bash blocks, without comments, a continued line as one."""
    found = []
    for body in blocks(page, "bash"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(shlex.join(words))
    return found
