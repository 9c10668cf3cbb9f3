"""Fenced code blocks of README and docs, and the commands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from conftest import ROOT

DOCUMENTS = tuple(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
)
FENCE = re.compile(r"^```(\w*)\s*$")
FILE_NAME = re.compile(r"^# ([\w-]+\.(?:ya?ml|py))$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its document, the line of its first row, language and text."""

    document: str
    line: int
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """Name of the file that the block is, by its first line `# name.yaml` or `# name.py`."""
        match = FILE_NAME.match(self.text.partition("\n")[0])
        return match.group(1) if match else None

    @property
    def place(self) -> str:
        """Document and line."""
        return f"{self.document}:{self.line}"

    def list_commands(self) -> list[tuple[str, str]]:
        """List the commands of a shell block, each with its place; comments are removed, continued lines joined."""
        commands, start, pending = [], 0, ""
        for offset, line in enumerate(self.text.splitlines()):
            start = start if pending else self.line + offset
            if line.rstrip().endswith("\\"):
                pending += line.rstrip()[:-1]
                continue
            command = " ".join(re.sub(r"(^|\s)#.*$", "", pending + line).split())
            pending = ""
            if command:
                commands.append((f"{self.document}:{start}", command))
        return commands


def read_blocks(document: str) -> list[Block]:
    """Read the fenced blocks of a document, in order.

    Raises:
        AssertionError: a block is not closed.
    """
    blocks: list[Block] = []
    opened: tuple[int, str, list[str]] | None = None
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if fence and opened is None:
            opened = (number + 1, fence.group(1), [])
        elif fence and opened is not None:
            blocks.append(Block(document, opened[0], opened[1], "\n".join(opened[2])))
            opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{document}:{opened[0]}: the block is not closed"
    return blocks


def read_spans(document: str) -> Iterator[tuple[str, str]]:
    """Yield the code spans of a document outside of fenced blocks, each with its place."""
    text = (ROOT / document).read_text(encoding="utf-8")
    fenced = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    text = fenced.sub(lambda match: "\n" * match.group().count("\n"), text)
    for match in re.finditer(r"`([^`]+)`", text):
        line = text.count("\n", 0, match.start()) + 1
        yield f"{document}:{line}", " ".join(match.group(1).split())


def read_inline_commands(document: str) -> Iterator[tuple[str, str]]:
    """Yield the `rasura …` commands that the prose of a document names, each with its place."""
    return ((place, span) for place, span in read_spans(document) if span.startswith("rasura "))
