"""The pages of the documentation, and what stands in them between fences."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README_ko.md")
PAGES = (*READMES, *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S)


_IN_TEXT = re.compile(
    r"`((?:make|omnivoice-triton|bench|verify|doctor|say|samples|pip install|hf|python|[\w./-]+\.(?:sh|py)) [^`\n]+)`"
)


def in_text(page: Path) -> list[str]:
    """Every command that stands in a page's sentences and tables; one of ours is given its program's name."""
    found = _IN_TEXT.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    ours = ("bench ", "verify ", "doctor ", "say ", "samples ")
    return [f"omnivoice-triton {command}" if command.startswith(ours) else command for command in found]


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
