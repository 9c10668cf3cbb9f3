"""Text files of an export whose entries are written in the order of the rows' ids, whatever order they come in."""

import contextlib
import json
import mmap
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from typing import IO, Any

from rasura.manifests.formats.target import ExportTarget


@dataclass(frozen=True)
class ListFile:
    """A text file of a split that has an entry, or several, for each row.

    Attributes:
        name: of the file.
        before, between, after: texts around the entries; a file without entries has `before` and `after` alone.
    """

    name: str
    before: str = ""
    between: str = ""
    after: str = ""


class SortedLists:
    """Text files whose entries wait in temporary files until they are written in the order of their keys."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self._places: dict[str, list[tuple[str, int, int]]] = defaultdict(list)

    def __enter__(self) -> "SortedLists":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __contains__(self, path: object) -> bool:
        return path in self._files

    def add(self, path: str, key: str, text: str) -> None:
        """Add an entry to the file at a path; entries of one key stay in the order in which they were added."""
        if path not in self._files:
            self._files[path] = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by the stack
        data = text.encode()
        self._places[path].append((key, self._files[path].tell(), len(data)))
        self._files[path].write(data)

    def write(self, target: ExportTarget, path: str, list_file: ListFile) -> dict[str, Any]:
        """Write the file at a path, and return its entry in the manifest."""
        with tempfile.TemporaryFile() as out:
            out.write(list_file.before.encode())
            for number, (_, start, size) in enumerate(sorted(self._places[path])):
                out.write(list_file.between.encode() if number else b"")
                self._files[path].seek(start)
                out.write(self._files[path].read(size))
            out.write(list_file.after.encode())
            out.flush()
            if not out.tell():
                return target.write_data_file(path, b"", 0)
            with mmap.mmap(out.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                return target.write_data_file(path, view, len(self._places[path]))


def render_line(value: Any) -> str:
    """Render a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False) + "\n"
