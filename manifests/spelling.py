"""Hints for misspelt names; counted nouns, durations and amounts of bytes in messages."""

import difflib
import math
from collections.abc import Iterable

MOST_WORDS = 8
"""Words that a hint lists where none is near."""


def suggest(name: str, names: Iterable[str]) -> str:
    """Suggest the right word for a misspelt one.

    Args:
        name: a word that does not exist.
        names: all words that do.

    Returns:
        The nearest of the words as a question, or a list of them where none is near.

    Examples:
        >>> suggest("effcts", ["effects", "matte"])
        "did you mean 'effects'?"
        >>> suggest("EFFECTS", ["effects", "matte"])
        "did you mean 'effects'?"
        >>> suggest("x", ["effects", "matte"])
        'available: effects, matte'
    """
    words = list(names)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    close = close or [word for word in words if word.lower() == name.lower()]
    return f"did you mean '{close[0]}'?" if close else f"available: {list_nearest(name, words)}"


def list_nearest(name: str, names: Iterable[str], limit: int = MOST_WORDS) -> str:
    """List words; where there are more than a few, the nearest to a name, nearest first, and count the others.

    Examples:
        >>> list_nearest("c", ["a", "b"])
        'a, b'
        >>> list_nearest("width", ["height", "mask", "widths", "gt"], limit=2)
        'widths, height and 2 more'
    """
    words = sorted(names)
    if len(words) <= limit:
        return ", ".join(words) or "none"
    nearest = sorted(words, key=lambda word: difflib.SequenceMatcher(None, name, word).ratio(), reverse=True)
    return f"{', '.join(nearest[:limit])} and {len(words) - limit} more"


def format_count(count: int, noun: str) -> str:
    """Format a number with its noun, in the plural where it is not one.

    Examples:
        >>> format_count(1, "row"), format_count(0, "entry"), format_count(2, "row of the test set")
        ('1 row', '0 entries', '2 rows of the test set')
    """
    if count != 1:
        head, space, rest = noun.partition(" ")
        noun = (f"{head[:-1]}ies" if head.endswith("ry") else f"{head}s") + space + rest
    return f"{count} {noun}"


def format_seconds(seconds: float) -> str:
    """Format a duration.

    Examples:
        >>> format_seconds(0.068), format_seconds(75), format_seconds(7260), format_seconds(math.inf)
        ('0.068 s', '1 min 15 s', '2 h 1 min', 'inf s')
    """
    if not 60 <= seconds < math.inf:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_bytes(count: float) -> str:
    """Format bytes in the unit that needs the fewest digits.

    Examples:
        >>> format_bytes(999), format_bytes(999_600), format_bytes(21_600_000)
        ('999 bytes', '1 MB', '21.6 MB')
    """
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:  # more has four digits
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:,.0f} {unit}"
