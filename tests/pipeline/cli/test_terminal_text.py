"""No text from data commands a terminal: names of files, values, labels, messages of libraries, wherever they are."""

import ast
import contextlib
import json
import logging
import os
import signal
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, rasura, write_recipe
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.dataset_runs import WIDE, make_finished_run, make_row

from rasura.__main__ import main
from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.errors import InputError, RunError, UnknownNameError
from rasura.manifests.run_layout import passed_over_path
from rasura.manifests.safety.text import DIRECTIONS, LINES, SafeFormatter, escape_controls
from rasura.manifests.schemas import encode_records
from rasura.manifests.shards import RejectedRow, StageCount, commit
from rasura.manifests.storage import Store
from rasura.pipeline.run.progress import Progress

EVIL = "\x1b[2J\x1b]0;title\x07\r\x9b31m\x7f\u202egpj\u2066\u2028\nall is well"
PRINTERS = {"pipeline/cli/output.py", "pipeline/cli/interrupts.py", "pipeline/run/progress.py"}


def list_commands(text: str, keep: str = LINES) -> list[str]:
    """The characters of a text that a terminal obeys, or that turn what is read."""
    obeyed = ("Cc", "Cs", "Zl", "Zp")
    return [c for c in text if c not in keep and (unicodedata.category(c) in obeyed or c in DIRECTIONS)]


@given(st.text(), st.text())
def test_nothing_is_obeyed_and_everything_can_be_printed(text: str, more: str) -> None:
    """Whatever a text holds, what is shown has no control character and can be encoded; plain text stays."""
    shown = escape_controls(text + EVIL + "\ud800" + more)
    assert not list_commands(shown, "")
    shown.encode("utf-8")
    assert "all is well" in shown
    plain = "Größe 10 × 5, 画像 é 👩‍👧 [bold]"
    assert escape_controls(plain) == plain


def test_what_has_no_text_is_shown_all_the_same() -> None:
    """An object whose `str` raises, bytes of a file name that are no UTF-8, an error inside an error."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert escape_controls(Mute()) == "<Mute without text: RuntimeError>"
    assert escape_controls(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"
    for kind in (InputError, RunError, UnknownNameError):
        assert not list_commands(str(kind(f"cannot read '{EVIL}'")))


def test_progress_and_logs_show_safe_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, notes and messages are escaped, whoever calls."""
    with Progress() as progress:
        progress.start(EVIL, 2)
        progress.update(2, 2, EVIL)
        progress.print(EVIL)
        progress.show_activity(EVIL)
    assert not list_commands(capsys.readouterr().err)
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "the file %s", (EVIL,), None)
    assert not list_commands(SafeFormatter("%(message)s").format(record))


def make_foreign_run(folder: Path, rows: Sequence[Mapping[str, Any]], flow: str) -> Store:
    """A finished run whose every text is somebody else's: names, reasons, values."""
    run = make_finished_run(folder, rows, flow=flow)
    table, columns = run.sub(f"tables/{flow}"), dict(WIDE)
    counts = [StageCount(EVIL, 2, 1, 1, rejected={EVIL: 1}), StageCount("write", 1, 1, 1)]
    rejected = RejectedRow("0" * 32, "0" * 32, EVIL, "rejected", EVIL, EVIL, EVIL)
    record = commit(table, "more", "p", 2, encode_records(rows[:1], columns), [rejected], counts)
    write_manifest(table, [record], columns)
    table.write("work.json", json.dumps(["more"]).encode())
    plan = json.loads(run.read("plan.json"))
    plan["name"], plan["flows"][flow]["stages"] = EVIL, [EVIL]
    run.write("plan.json", json.dumps(plan).encode())
    run.write(passed_over_path(flow), json.dumps({EVIL: 2}).encode())
    return run


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints, in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setattr(sys, "argv", ["rasura", *map(str, arguments)])
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_a_foreign_run_commands_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that reads a run, on wide and narrow terminals, with texts of others in all of it."""
    flow = "made\x1b[2J\x1b]0;title\x07"
    rows = [make_row(number, origin=EVIL, licence=EVIL, label=EVIL, scene_id=EVIL) for number in range(3)]
    run = make_foreign_run(tmp_path / "run", rows, flow)
    row = str(rows[0]["id"])
    recipe = write_recipe(tmp_path, flows={"photos": {"source": {"photos": {"path": "."}}}})
    for columns in ("200", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        for command in (
            ("status", run.uri),
            ("status", run.uri, "--json"),
            ("show", row, "--run", run.uri),
            ("show", "0" * 32, "--run", run.uri),
            ("show", EVIL, "--run", run.uri),
            ("verify", run.uri),
            ("export", run.uri, "--out", tmp_path / f"out{columns}", "--format", "rorem"),
            ("status", tmp_path / EVIL.replace("/", "")),
            ("run", tmp_path / EVIL),
            ("run", "--only", EVIL, tmp_path / "none.yaml", EVIL),
            ("check", recipe, "--set", f"{EVIL}={EVIL}"),
            ("check", recipe, "--set", f"flows.photos.source.photos.path={EVIL}"),
        ):
            text = run_command(capsys, *command)
            assert "Traceback" not in text, command
            assert not list_commands(text), (command, text)
            assert "\\x1b" in text or command[0] in ("verify", "export") or "--json" in command, (command, text)
            if command[0] == "show":
                assert "\nall is well" not in text, "a line feed in a value begins no line"


@pytest.mark.ray
def test_file_names_of_a_run_command_no_terminal(tmp_path: Path) -> None:
    """Files whose names hold escape sequences, turned letters and bytes that are no UTF-8, whole and broken ones: the
    run, its closing lines, and what is asked of it afterwards show them escaped."""
    photos = os.fsencode(tmp_path / "photos")
    (tmp_path / "photos").mkdir()
    names = (b"a\x1b[31m.png", "b\u202egpj.png".encode(), b"c\xff\n.png", b"d\x1b]0;x\x07.png")
    for number, name in enumerate(names):
        path = photos + b"/" + name
        if number < 2:
            Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        else:
            Path(os.fsdecode(path)).write_bytes(b"no picture \x1b[31m %d" % number)
    recipe = write_recipe(tmp_path, flows={"photos": {"source": {"photos": {"path": str(tmp_path / "photos")}}}})
    outputs = [rasura("run", recipe, "--into", tmp_path / "run")]
    outputs += [rasura(command, tmp_path / "run") for command in ("status", "verify", "report")]
    for output in outputs:
        assert not list_commands(output.stdout + output.stderr), output.args
    assert "2 × NotAnImage" in outputs[0].stdout


def test_one_module_prints() -> None:
    """The command line prints through `output`, whose functions escape; nothing else of the pipeline prints at all."""
    printing = set()
    for file in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("print", "typer.echo", "typer.secho", "console.print", "Console", "sys.stdout.write"):
                    printing.add(str(file.relative_to(ROOT)))
    assert printing == PRINTERS
