"""Licences of photographs: the text that came with one, as an SPDX identifier and what it allows."""

import re
from typing import NamedTuple

PARTS = (("nc", r"non-?\s?commercial|\bnc\b"), ("nd", r"no-?\s?deriv|\bnd\b"), ("sa", r"share-?\s?alike|\bsa\b"))
OTHERS = (
    (r"\bcc-?\s?0\b|publicdomain/zero|cc zero", "CC0-1.0"),
    (r"publicdomain/mark|public domain mark", "CC-PDM-1.0"),
    (r"public domain|no known copyright|government work|us-gov", "public-domain"),
    (r"apache", "Apache-2.0"),
    (r"\bmit\b", "MIT"),
    (r"\bbsd\b", "BSD-3-Clause"),
    (r"unsplash", "Unsplash"),
    (r"pexels", "Pexels"),
    (r"pixabay", "Pixabay"),
)
FREE = frozenset({"CC0-1.0", "CC-PDM-1.0", "public-domain"})
PERMISSIVE = frozenset({"Apache-2.0", "MIT", "BSD-3-Clause", "Unsplash", "Pexels", "Pixabay"})
FLICKR = {
    "1": "CC-BY-NC-SA-2.0",
    "2": "CC-BY-NC-2.0",
    "3": "CC-BY-NC-ND-2.0",
    "4": "CC-BY-2.0",
    "5": "CC-BY-SA-2.0",
    "6": "CC-BY-ND-2.0",
    "7": "public-domain",
    "8": "public-domain",
    "9": "CC0-1.0",
    "10": "CC-PDM-1.0",
}
"""Numbers of licences in Flickr's API, which annotations copy."""


class Licence(NamedTuple):
    """A licence, as far as its text is understood.

    Attributes:
        id: SPDX identifier; of a Creative Commons licence without a version, without one; None where it is unknown.
        commercial, changes: whether commercial use and changed copies are allowed; None where it is unknown.
        share_alike: changed copies have to have the same licence.
    """

    id: str | None
    commercial: bool | None
    changes: bool | None
    share_alike: bool | None


UNKNOWN = Licence(None, None, None, None)


def parse_licence(text: str | None) -> Licence:
    """Parse a licence: an SPDX identifier, a name, a Creative Commons address, or Flickr's number.

    Examples:
        >>> parse_licence("http://creativecommons.org/licenses/by-nc-sa/2.0/")
        Licence(id='CC-BY-NC-SA-2.0', commercial=False, changes=True, share_alike=True)
        >>> parse_licence("Attribution License").id, parse_licence("all rights reserved").changes
        ('CC-BY', False)
        >>> parse_licence("unknown")
        Licence(id=None, commercial=None, changes=None, share_alike=None)
    """
    words = " ".join((text or "").casefold().replace("_", "-").split())
    if words in FLICKR:
        return parse_licence(FLICKR[words])
    if re.search(r"all rights reserved|proprietary", words):
        return Licence("all-rights-reserved", False, False, False)
    for pattern, name in OTHERS:
        if re.search(pattern, words):
            return Licence(name, True, True, False)
    if not re.search(r"\bcc-by\b|\bcc by\b|creativecommons\.org/licenses|creative commons|\battribution\b", words):
        return UNKNOWN
    spaced = re.sub(r"[-/]", " ", words)
    has = {part: bool(re.search(pattern, words) or re.search(pattern, spaced)) for part, pattern in PARTS}
    version = re.search(r"\b([1-4]\.[05])\b", words)
    name = "-".join(["CC-BY", *(part.upper() for part in ("nc", "nd", "sa") if has[part])])
    return Licence(f"{name}-{version[1]}" if version else name, not has["nc"], not has["nd"], has["sa"])
