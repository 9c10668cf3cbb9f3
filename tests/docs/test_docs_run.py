"""Every code block of README and docs runs, in order, document by document (`make docs-check`).

Commands that cannot run as they stand are replaced as docs_substitutions.py says. The test prints what it ran.
"""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import ROOT
from docs_blocks import DOCUMENTS, Block, read_blocks
from docs_substitutions import FRAGMENTS, Substitution, find_substitution
from docs_workspace import make_environment, make_workspace, start, start_bucket
from support.clusters import run_head
from support.ports import find_free_ports
from test_docs_blocks import check_fragment

SECONDS = 900


class Runner:
    """Runs the blocks of one document in its workspace and notes what was done with each.

    Args:
        folder: the workspace.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = make_environment(folder)
        self.notes: list[str] = []

    def run_block(self, block: Block) -> None:
        """Run a block: write a file, or run its commands.

        Raises:
            AssertionError: it fails; the message has document, line, command and output.
        """
        if block.file_name:
            (self.folder / block.file_name).write_text(block.text + "\n")
            self.notes.append(f"{block.place}: written to {block.file_name}")
        elif block.language == "sh":
            for place, command in block.list_commands():
                self.run_command(place, command)
        elif block.language == "python":
            self.execute(block.place, [sys.executable, "-c", block.text])
            self.notes.append(f"{block.place}: run (python)")
        elif block.language == "yaml":
            check_fragment(block)
            self.notes.append(f"{block.place}: substituted (validated): {FRAGMENTS[block.document]}")
        elif block.language in ("", "nginx"):  # what nginx is told, a test of the review's proxies runs
            self.notes.append(f"{block.place}: a listing, nothing to run")
        else:
            raise AssertionError(f"{block.place}: nothing runs a block of language '{block.language}'")

    def run_command(self, place: str, command: str) -> None:
        """Run one command of a shell block, or what stands in for it."""
        entry = find_substitution(command)
        if entry is None:
            self.execute(place, ["bash", "-c", command])
            self.notes.append(f"{place}: run: {command}")
            return
        replacement = self.substitute(place, command, entry)
        self.notes.append(f"{place}: substituted: {command}\n      by: {replacement}\n      because: {entry.reason}")

    def substitute(self, place: str, command: str, entry: Substitution) -> str:
        """Run what stands in for a command; return what that was."""
        line = entry.rewrite(command)
        if entry.kind == "make":
            target = shlex.split(command)[1]
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), f"{place}: make has no target '{target}'"
            return f"a look at the Makefile: it has the target {target}"
        if entry.kind == "server":
            line = line.replace("PORT", str(port := find_free_ports(1)[0]))
            with start(shlex.split(line), f"http://127.0.0.1:{port}/", self.folder, self.env):
                pass
        elif entry.kind == "cluster":
            with (
                start_bucket(self.folder, self.env) as keys,
                run_head(variables=self.env | keys) as (address, env),
            ):
                self.execute(place, shlex.split(line.replace("ADDRESS", address)), env)
        else:
            if " ID " in line:
                line = line.replace(" ID ", f" {self.find_id(line.split()[-1])} ")
            self.execute(place, ["bash", "-c", line], status=entry.status, output=entry.output)
        return line

    def find_id(self, run: str) -> str:
        """Return the id of a row of a run."""
        code = f"import rasura; print(next(iter(rasura.open_run({run!r}).table('captured')))['id'])"
        return self.execute("id", [sys.executable, "-c", code]).split()[-1]

    def execute(
        self, place: str, command: list[str], env: Mapping[str, str] | None = None, status: int = 0, output: str = ""
    ) -> str:
        """Run a process in the workspace; return what it printed.

        Raises:
            AssertionError: it ends with another status, or lacks the expected text.
        """
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=dict(env or self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        report = f"{place}: {command[-1]}\nended with {done.returncode}, expected {status}:\n{done.stdout}"
        assert done.returncode == status, report
        assert output in done.stdout, f"{report}\nexpected the text '{output}'"
        return done.stdout


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_run(
    document: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a document run in order in a folder that has the data which the text names."""
    if not request.config.getoption("--run-docs"):
        pytest.skip("runs every command of README and docs, which takes minutes: make docs-check, or --run-docs")
    runner = Runner(make_workspace(tmp_path / "work"))
    blocks = read_blocks(document)
    try:
        for block in blocks:
            runner.run_block(block)
    finally:
        with capsys.disabled():
            print(f"\n{document}: {len(blocks)} blocks")
            for note in runner.notes:
                print(f"  {note}")
