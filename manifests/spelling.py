"""Hints for misspelt names."""

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggest the right word for a misspelt one.

    Args:
        name: the word that is not known.
        known: all words that are.

    Returns:
        The nearest known word as a question, or all of them where none is near.

    Example:
        >>> suggest("effcts", ["effects", "matte"])
        "did you mean 'effects'?"
        >>> suggest("x", ["effects", "matte"])
        'known are: effects, matte'
    """
    words = sorted(known)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(words) or 'none'}"
