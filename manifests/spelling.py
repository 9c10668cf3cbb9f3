"""Hints for misspelt names."""

import difflib
from collections.abc import Iterable


def suggest(name: str, names: Iterable[str]) -> str:
    """Suggest the right word for a misspelt one.

    Args:
        name: a word that does not exist.
        names: all words that do.

    Returns:
        The nearest of the words as a question, or all of them where none is near.

    Examples:
        >>> suggest("effcts", ["effects", "matte"])
        "did you mean 'effects'?"
        >>> suggest("x", ["effects", "matte"])
        'available: effects, matte'
    """
    words = sorted(names)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"available: {', '.join(words) or 'none'}"
