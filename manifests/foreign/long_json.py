"""Long JSON files, read in pieces: the entries of the lists at their top, one after another.

A file of annotations has hundreds of megabytes; parsed at once it takes ten times as much memory.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from rasura.manifests.errors import InputError
from rasura.manifests.json_lines import explain_json_error

PIECE_BYTES = 2**20
ParseFloat = Callable[[str], Any]
LARGEST_ENTRY = 64 * 2**20
"""Bytes of the largest entry that is read: an object's outlines have thousands, its run lengths perhaps a million."""

AFTER = frozenset(" \t\n\r,]}")  # characters that end a number
_SPACE = re.compile(r"[ \t\n\r]*")


class NotLongJson(InputError):
    """A file that is no JSON object, or whose entries are too large."""


class Entry(NamedTuple):
    """An entry of a list at the top, or a value at the top that is no list.

    Attributes:
        key: of the list, or of the value.
        value: parsed.
        start, end: its bytes in the file; `end` is the one after its last.
    """

    key: str
    value: Any
    start: int
    end: int


class _Pieces:
    """The text of a file from a position on. A character is a byte, so that positions in both are the same."""

    def __init__(self, source: IO[bytes], where: str, parse_float: ParseFloat | None) -> None:
        self.source, self.where = source, where
        self.text, self.first, self.place = "", 0, 0  # first: byte at which `text` begins; place: in `text`
        self.decoder = json.JSONDecoder(parse_constant=str, parse_float=parse_float)

    def grow(self) -> bool:
        """Read more, at least as much as there is; False at the end of the file."""
        data = self.source.read(max(PIECE_BYTES, len(self.text) - self.place))
        self.text = self.text[self.place :] + data.decode("latin-1")
        self.first, self.place = self.first + self.place, 0
        return bool(data)

    def peek(self) -> str:
        """Return the next character that is no space; "" at the end."""
        while True:
            self.place = _SPACE.match(self.text, self.place).end()  # type: ignore[union-attr]
            if self.place < len(self.text) or not self.grow():
                return self.text[self.place : self.place + 1]

    def take(self, characters: str) -> str:
        """Take the next character, which has to be one of some.

        Raises:
            NotLongJson: it is another.
        """
        found = self.peek()
        if not found or found not in characters:
            text = f"'{found}'" if found else "its end"
            place = self.first + self.place
            raise NotLongJson(f"'{self.where}' is not JSON: {text} at byte {place}, where one of {characters} belongs")
        self.place += 1
        return found

    def parse(self) -> tuple[Any, int, int]:
        """Parse the next value; return it with its first byte and the one after its last."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
                is_whole = not isinstance(value, int | float) or self.text[end : end + 1] in AFTER
                if (end < len(self.text) and is_whole) or not self.grow():  # a number could go on in the next piece
                    break
                continue
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or len(self.text) - self.place > LARGEST_ENTRY or not self.grow():
                    place, reason = self.first + self.place, explain_json_error(error)
                    raise NotLongJson(f"'{self.where}' is not JSON at byte {place}: {reason}") from None
        piece, start = self.text[self.place : end], self.first + self.place
        if not piece.isascii():
            try:
                value = self.decoder.decode(piece.encode("latin-1").decode())
            except UnicodeDecodeError as error:
                raise NotLongJson(f"'{self.where}' is no UTF-8 at byte {start}: {error}") from None
        self.place = end
        return value, start, start + len(piece)


def iterate_entries(source: IO[bytes], where: str, parse_float: ParseFloat | None = None) -> Iterator[Entry]:
    """Yield the entries of the lists at the top of a JSON object, and the values there that are no lists.

    Args:
        source: the file, from its beginning.
        where: the file, for messages.
        parse_float: of the text of a number with a point or an exponent; None for `float`.

    Raises:
        NotLongJson: it is no JSON object, is cut off, or has an entry of more than `LARGEST_ENTRY` bytes.

    Examples:
        >>> for entry in iterate_entries(io.BytesIO(b'{"year": 2017, "images": [{"id": 1}, {"id": 2}]}'), "a.json"):
        ...     print(*entry)
        year 2017 9 13
        images {'id': 1} 26 35
        images {'id': 2} 37 46
    """
    pieces = _Pieces(source, where, parse_float)
    if pieces.peek() == "\xef":  # a byte order mark
        pieces.place += 3
    pieces.take("{")
    if pieces.peek() == "}":
        return
    while True:
        if pieces.peek() != '"':
            pieces.take('"')
        key = str(pieces.parse()[0])
        pieces.take(":")
        if pieces.peek() != "[":
            yield Entry(key, *pieces.parse())
        else:
            pieces.take("[")
            while pieces.peek() != "]":
                yield Entry(key, *pieces.parse())
                if pieces.peek() != "]":
                    pieces.take(",")
            pieces.take("]")
        if pieces.take(",}") == "}":
            return


def parse_entry(data: bytes) -> Any:
    """Parse the bytes of an entry again; numbers that are not finite are text."""
    return json.load(io.BytesIO(data), parse_constant=str)
