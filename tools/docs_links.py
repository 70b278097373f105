"""A hook of mkdocs: links from the docs to files outside of them go to the repository.

On a code host `../tools/x.md` is a file beside the docs; on the site there is none, so it becomes an address. A link to
a file that isn't in the repository stays as it is, and mkdocs warns of it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)((?:#[^)\s]*)?\))")


def to_repository(markdown: str, repository: str, page: str) -> str:
    """`markdown` of docs/`page` with the links that leave docs/ as addresses in `repository`."""

    def address(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), match[2]))
        if path.startswith(("docs/", "..")) or not (ROOT / path).exists():
            return match[0]
        return f"{match[1]}{repository.rstrip('/')}/blob/main/{path}{match[3]}"

    return LINK.sub(address, markdown)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return to_repository(markdown, config["repo_url"], page.file.src_uri)
