"""Sentences of our own making, in three languages: a limited vocabulary, endless combinations."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """Comma-separated entries, lines run together; an empty one stays."""
    return tuple("".join(line.strip() for line in text.strip().splitlines()).split(","))


def lines(text: str) -> tuple[str, ...]:
    """One entry a line."""
    return tuple(line.strip() for line in text.strip().splitlines())
