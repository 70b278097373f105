"""The report on a terminal, by rich."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any

from omnivoice_triton.verify.outcome import Progress, quiet
from omnivoice_triton.verify.report import MAX_PROBLEMS, headline, tables, threshold_lines, verdict


def show(document: dict[str, Any], file: IO[str] | None = None) -> None:
    """Print the report; wide tables are not cut when the output is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    stream = file or sys.stdout
    console = Console(file=stream, highlight=False, soft_wrap=False, width=None if stream.isatty() else 200)
    console.print(headline(document), markup=False)
    for table in tables(document):
        drawn = Table(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, name in enumerate(table.head):
            drawn.add_column(name, overflow="fold", justify="left" if number < 2 else "right")
        for row, bad in zip(table.rows, table.bad, strict=True):
            drawn.add_row(*row, style="red" if bad else None)
        console.print(drawn)
    for tier in document["results"]:
        for line in threshold_lines(tier):
            console.print(f"tier {tier['tier']} threshold: {line}", markup=False, style="dim")
        for note in tier["notes"]:
            console.print(f"tier {tier['tier']}: {note}", markup=False, style="dim")
        for problem in tier["problems"][:MAX_PROBLEMS]:
            console.print(f"tier {tier['tier']} FAIL: {problem}", markup=False, style="red")
        if len(tier["problems"]) > MAX_PROBLEMS:
            console.print(f"tier {tier['tier']}: {len(tier['problems']) - MAX_PROBLEMS} more failures", markup=False)
    console.print(verdict(document["passed"]), style="bold green" if document["passed"] else "bold red")


def progress_bar(wanted: bool) -> AbstractContextManager[Progress]:
    """A `Progress` that draws a bar on standard error, if that is a terminal."""
    return _bar() if wanted and sys.stderr.isatty() else _none()


@contextmanager
def _none() -> Any:
    yield quiet


@contextmanager
def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def tell(tier: int, what: str, done: int, total: int) -> None:
            bars.update(task, description=f"tier {tier}: {what}"[:60], completed=done, total=total)

        yield tell
