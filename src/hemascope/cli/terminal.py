"""What the commands print with: two consoles, progress, errors and shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hemascope.escaping import escape_controls
from hemascope.files import remove_torn
from hemascope.folders import PassedOver
from hemascope.records import RESEARCH_USE_ONLY

BROKEN_PIPE = 141  # the exit status of a program that SIGPIPE ended


class PipeConsole(Console):
    """Ends the command as other programs end whose output nobody reads any more, as by `head`."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()  # which lets no later output fail, and exits with 1
        except SystemExit:
            raise SystemExit(BROKEN_PIPE) from None


out = PipeConsole()
err = PipeConsole(stderr=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Any]:
    """A bar on the terminal's error stream, so that output can be piped; gives (done, total)."""
    text, left = TextColumn("{task.description}"), TimeRemainingColumn()
    columns = (text, BarColumn(), MofNCompleteColumn(), RateColumn(), left)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(label, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class RateColumn(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s", style="progress.data.speed")


def escape(text: str) -> str:
    """Text from outside, to be printed as it is: neither markup nor control characters count."""
    return escape_markup(escape_controls(text))


def print_error(text: str) -> None:
    """Prints an error in one line on stderr."""
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, highlight=False)


def print_warning(text: str) -> None:
    """Prints a warning in one line on stderr."""
    err.print(f"[bold yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)


def refuse_existing(force: bool, *paths: Path | None) -> None:
    """Raises ValueError for a file that is there; clears what killed runs left of another."""
    for path in paths:
        if path is not None:
            if path.exists() and not force:
                raise ValueError(f"{path}: exists already; use --force to replace it")
            remove_torn(path)


def refuse_shared(*paths: Path | None) -> None:
    """Raises ValueError for a file that two results would be written to."""
    files = [os.path.abspath(path) for path in paths if path is not None]
    for file in files:
        if files.count(file) > 1:
            raise ValueError(f"{file}: two results would be written to it; name a file for each")


def print_last_line(done: str, passed_over: PassedOver, written: str) -> None:
    """Prints what was done, what was passed over beside it, and where the results are."""
    rest = f"; passed over: {passed_over}" if passed_over else ""
    line = escape(f"{done}{rest}; written to {written}")
    out.print(f"{line}. {RESEARCH_USE_ONLY}", soft_wrap=True)


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
