"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from rasura.manifests.safety.text import LINES, escape_controls

LINE_EVERY_S = 15.0

OnProgress = Callable[[float, float, str], None]
"""Receives the work that is done, the whole work in the same unit, and a note."""


NARROW, MEDIUM = 72, 110
"""Widths of a terminal below which there is no bar and no unit, and below which the note is on a line of its own."""


class _WordsColumn(ProgressColumn):
    """A name or a note: what is shortened where there is not enough room."""

    def __init__(self, render: Callable[[Task], str]) -> None:
        super().__init__(Column(min_width=4))
        self._text = render

    def render(self, task: Task) -> Text:
        return Text(self._text(task), no_wrap=True, overflow="ellipsis")


class _FigureColumn(ProgressColumn):
    """A figure, which is never shortened."""

    def __init__(self, render: Callable[[Task], str], style: str = "") -> None:
        super().__init__(Column(no_wrap=True))
        self._text, self._style = render, style

    def render(self, task: Task) -> Text:
        return Text(self._text(task), style=self._style)


class _TwoLineBar(Bar):
    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.tasks:
            yield Text(f"  {self.tasks[-1].fields['note']}", no_wrap=True, overflow="ellipsis")


def _create_bar(console: Console) -> Bar:
    """Create the bar that fits a terminal."""
    is_narrow = console.width < NARROW

    def render_amount(task: Task) -> str:
        total = "?" if task.total is None else f"{task.total:.0f}"
        return f"{task.completed:.0f}/{total} {'' if is_narrow else task.fields['unit']}".rstrip()

    def render_rate(task: Task) -> str:
        speed, unit = task.finished_speed or task.speed, "" if is_narrow else f" {task.fields['unit']}"
        return f"{speed:.1f}{unit.rstrip()}/s" if speed else ""

    time_left = TimeRemainingColumn(table_column=Column(no_wrap=True))
    figures = (_FigureColumn(render_amount), _FigureColumn(render_rate, "dim"), time_left)
    name, note = _WordsColumn(lambda task: task.description), _WordsColumn(lambda task: str(task.fields["note"]))
    # shards come in lumps: look back a minute for the rate
    bar = () if is_narrow else (SpinnerColumn(), BarColumn(bar_width=20 if console.width < MEDIUM else 40))
    if console.width < MEDIUM:
        return _TwoLineBar(*bar[:1], name, *bar[1:], *figures, console=console, speed_estimate_period=60)
    return Bar(*bar[:1], name, *bar[1:], *figures, note, console=console, speed_estimate_period=60)


@dataclass
class _Work:
    """A piece of work whose progress is shown."""

    name: str
    total: float
    unit: str
    bar: TaskID | None
    done: float = 0
    note: str = ""
    start: float = field(default_factory=time.monotonic)
    last_line: float = field(default_factory=time.monotonic)


class Progress:
    """Shows how much of one piece of work after another is done, how fast it is, and how much time is left.

    Args:
        quiet: show nothing.

    Examples:
        >>> with Progress(quiet=True) as progress:
        ...     progress.start("photos", 120)
        ...     progress.advance(16, "15 kept, 1 rejected")
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._work = _Work("", 0, "", None)
        self._bar: Bar | None = None
        if self.console.is_terminal and not quiet:
            self._bar = _create_bar(self.console)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def print(self, text: str) -> None:
        """Print a line."""
        self.console.print(escape_controls(text, LINES), highlight=False, markup=False, soft_wrap=True)

    def start(self, name: str, total: float, unit: str = "rows") -> None:
        """Start a piece of work.

        Args:
            name: of the work.
            total: how much there is to do, without what was done before.
            unit: what is counted.
        """
        name = escape_controls(name)
        bar = self._bar.add_task(name, total=total, unit=unit, note="") if self._bar else None
        self._work = _Work(name, total, unit, bar)

    def advance(self, amount: float, note: str = "") -> None:
        """Show that some more is done."""
        self.update(self._work.done + amount, self._work.total, note)

    def update(self, done: float, total: float, note: str = "") -> None:
        """Show that so much of so much is done."""
        work = self._work
        work.done, work.total, work.note = done, total, escape_controls(note) or work.note
        if self._bar and work.bar is not None:
            self._bar.update(work.bar, completed=done, total=total, note=work.note)
        elif time.monotonic() - work.last_line > LINE_EVERY_S or done >= total:
            work.last_line = time.monotonic()
            self.print(_describe_work(work, work.last_line - work.start))

    def show_activity(self, text: str) -> None:
        """Show how far long rows are: beside the bar, or as a line now and then."""
        work, text = self._work, escape_controls(text)
        if self._bar and work.bar is not None:
            self._bar.update(work.bar, note=text)
        elif time.monotonic() - work.last_line > LINE_EVERY_S:
            work.last_line = time.monotonic()
            self.print(f"{work.name}: {text}")

    def track(self, name: str, unit: str) -> OnProgress:
        """Return a callback that shows a piece of work, which starts when it is called first.

        Trainings and other work that knows nothing of this class call it with the work done, all work, and a note.

        Examples:
            >>> on_progress = Progress(quiet=True).track("training", "steps")
            >>> on_progress(10, 3000, "loss 0.31")
        """
        started = False

        def show(done: float, total: float, note: str) -> None:
            nonlocal started
            if not started:
                started = True
                self.start(name, total, unit)
            self.update(done, total, note)

        return show


MIN_TIMED_S = 0.1  # over less time than this, a rate would be a guess


def _describe_work(work: _Work, seconds: float) -> str:
    parts = [f"{work.name}: {work.done:.0f}/{work.total:.0f} {work.unit}".rstrip()]
    if seconds >= MIN_TIMED_S:
        parts.append(f"{work.done / seconds:.1f} {work.unit}/s".replace(" /s", "/s"))
    if work.done > 0:
        parts.append(f"{(work.total - work.done) / work.done * seconds:.0f} s left")
    return ", ".join([*parts, work.note] if work.note else parts)
