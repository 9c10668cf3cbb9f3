"""Text that reaches a terminal: names of files, values of columns and messages of libraries, which others wrote.

A terminal obeys escape sequences: a file name can hide lines, set a title, or send keys. Whatever prints text from data
passes it through `escape_controls`: the command line, the progress, logs, and the errors of `manifests.errors`.
"""

import logging
import unicodedata
from collections.abc import Callable

ESCAPED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
"""Of Unicode: control characters, lone surrogates, separators of lines and of paragraphs."""
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of writing, so that a name reads as another one (UAX #9)."""
INVISIBLE = frozenset({"\ufeff", "\u2060", "\u180e", "\u00ad", *map(chr, range(0xE0000, 0xE0080))})
LINES = "\n\t"
"""What a text of several lines keeps."""
LONGEST_ERROR = 300


def read_text(value: object, convert: Callable[[object], str] = str) -> str:
    """Return a value as text; where that raises, as an error of somebody's own may, the text says so.

    Examples:
        >>> read_text(ValueError("no picture")), read_text("two\\nlines", repr)
        ('no picture', "'two\\\\nlines'")
    """
    try:
        return convert(value)
    except Exception as error:
        return f"<{type(value).__name__} without text: {type(error).__name__}>"


def make_text(value: object) -> str:
    """Return what a stage says as text on one line that can be written anywhere, whatever it is.

    Examples:
        >>> make_text("no\\npicture \\udce9"), make_text(["list"])
        ('no picture \\\\udce9', "['list']")
    """
    return " ".join(read_text(value).encode("utf-8", "backslashreplace").decode().split())


def describe_error(error: BaseException) -> str:
    """Return the class and the text of an error, on one line.

    Examples:
        >>> describe_error(ValueError("no\\npicture"))
        'ValueError: no picture'
    """
    return f"{type(error).__name__}: {make_text(error)}"[:LONGEST_ERROR]


def escape_controls(value: object, keep: str = "") -> str:
    """Write a value as text in which a terminal obeys nothing, and which any terminal can print.

    Args:
        value: converted by `read_text`.
        keep: characters that stay all the same: `LINES` for a text of several lines.

    Examples:
        >>> escape_controls("a\\x1b[2J\\u202egpj.exe\\udc80\\nb")
        'a\\\\x1b[2J\\\\u202egpj.exe\\\\x80\\\\x0ab'
        >>> escape_controls("Größe 10 × 5\\nnext", keep=LINES)
        'Größe 10 × 5\\nnext'
    """
    text = read_text(value)
    if text.isprintable():
        return text
    return "".join(char if char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if unicodedata.category(char) not in ESCAPED_CATEGORIES and char not in DIRECTIONS and char not in INVISIBLE:
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8 (PEP 383)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class SafeFormatter(logging.Formatter):
    """The formatter of every log that a terminal may show."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return escape_controls(super().format(record), LINES)
