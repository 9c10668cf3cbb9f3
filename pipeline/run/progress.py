"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import ProgressColumn as Column
from rich.text import Text

LINE_EVERY_S = 15.0


class _Rate(Column):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} rows/s" if speed else "", style="dim")


class Report:
    """Rows done, rate, and what is left, flow by flow."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bar: Progress | None = None
        if self.console.is_terminal and not quiet:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            # shards land in lumps: look back a minute for the rate
            self._bar = Progress(*columns, console=self.console, speed_estimate_period=60)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line for the person who waits."""
        self.console.print(text, highlight=False, markup=False)

    def begin(self, name: str, total: int) -> None:
        """A flow begins: `total` rows to do, without those that were done before."""
        self._name, self._total, self._done, self._note = name, total, 0, ""
        self._start = self._said = time.monotonic()
        if self._bar:
            self._task = self._bar.add_task(name, total=total, note="")

    def advance(self, rows: int, note: str = "") -> None:
        """Some rows more."""
        self._done += rows
        self._note = note or self._note
        if self._bar:
            self._bar.update(self._task, advance=rows, note=self._note)
        elif time.monotonic() - self._said > LINE_EVERY_S or self._done >= self._total:
            self._said = time.monotonic()
            seconds = max(self._said - self._start, 1e-3)
            rate = self._done / seconds
            left = (self._total - self._done) / rate if rate else 0
            self.say(
                f"{self._name}: {self._done}/{self._total} rows, {rate:.1f} rows/s, {left:.0f} s left {self._note}"
            )
