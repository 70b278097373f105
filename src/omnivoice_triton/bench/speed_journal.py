"""What `bench speed` has measured and what it has not, kept in its JSON on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.bench import definitions
from omnivoice_triton.bench.speed_cases import FIVE_SECONDS, Cell
from omnivoice_triton.evidence import write_json

Row = dict[str, Any]
LeftOut = dict[str, Any]
"""An entry of `not_measured`."""


def left_out(cell: Cell, dtype: str, reason: str, mode: str | None = None) -> LeftOut:
    """An entry of `not_measured`; without a mode it is the whole cell."""
    entry = {"case": cell.name, "batch": cell.batch, "dtype": dtype, "reason": reason}
    return entry if mode is None else {**entry, "mode": mode}


class Journal:
    """What was measured and what was not, written to the JSON whenever something is added."""

    def __init__(self, json: Path | None, model: Path, wanted: Sequence[Cell], dtypes: Sequence[str], facts: Row):
        self.json, self.model, self.facts = json, model, facts
        self.rows: list[Row] = []
        self.missing: list[LeftOut] = []
        self.taken: dict[tuple[str, str], Row] = {}
        self._waiting = [left_out(cell, dtype, "the run ended before it") for dtype in dtypes for cell in wanted]

    def keep(self, rows: list[Row], missing: list[LeftOut]) -> None:
        """Add the rows of one cell, and what was left out of it."""
        done = {(entry["case"], entry["dtype"]) for entry in (*rows, *missing)}
        self._waiting = [entry for entry in self._waiting if (entry["case"], entry["dtype"]) not in done]
        for row in rows:
            alone = self.taken.get((row["mode"], row["dtype"]), {}) if row["case"] == FIVE_SECONDS else {}
            self.rows.append({**row, **alone})
        self.missing += missing
        if self.rows:
            write_json(self.json, "speed", self.model, self.document())

    def document(self) -> Row:
        """Everything but the stamp."""
        left = [*self.missing, *self._waiting]
        return {**self.facts, "definitions": definitions.SPEED, "not_measured": left, "results": self.rows}
