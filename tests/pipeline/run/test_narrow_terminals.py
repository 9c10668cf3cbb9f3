"""Figures on narrow terminals: names are shortened, figures are not."""

import io
import time
from collections import Counter

import pytest
from rich.console import Console

from rasura.pipeline.run import progress
from rasura.pipeline.run.accounting import FlowAccounting, RunAccounting, StageAccounting, render_tables

WIDTHS = (40, 60, 80, 120)


@pytest.mark.parametrize("width", WIDTHS)
def test_progress_keeps_its_figures(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done, all, rate, and what is kept and rejected are there at every width."""
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    with progress.Progress() as bar:
        bar.start("candidates-of-all-rounds", 12000)
        for _ in range(3):
            bar.advance(1000, "2800 kept, 200 rejected")
            time.sleep(0.01)
    for figure in ("3000/12000", "/s", "2800 kept, 200 rejected", "cand"):
        assert figure in out.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_status_keeps_its_figures(width: int) -> None:
    """Every count of a stage is whole, and each reason is there with its number."""
    reasons = Counter({"segment_score below 0.6": 41})
    select = StageAccounting("select-the-best-of-all", 123456, 123415, 123399, rejected=reasons)
    other = StageAccounting("write", 123399, 123399, 123399)
    accounting = RunAccounting("demo", "0123", [FlowAccounting("captured", True, 1, 1, [select, other])], 1, 0)
    out = io.StringIO()
    console = Console(file=out, width=width)
    for line in render_tables(accounting, width):
        console.print(line, crop=False)
    text = " ".join(out.getvalue().replace("│", " ").split())
    for figure in ("123456", "123415", "123399", " 41 ", "1 row in 1 shard, complete", "dataset: 1 row"):
        assert figure in text
