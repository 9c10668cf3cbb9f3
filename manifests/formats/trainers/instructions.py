"""Instruction texts for models that edit by text: made from a row's label and place, by templates.

A language is a file `instructions.<language>.txt` beside this one, with sections [removal], [insertion] (templates,
one a line), [places], [words] and, where labels are translated, [labels]. Which template a row gets depends on its id
alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from rasura.manifests.errors import UnknownNameError
from rasura.manifests.ids import compute_seed
from rasura.manifests.images import Mask
from rasura.manifests.spelling import suggest

DIRECTIONS = ("removal", "insertion")
LANGUAGES: Sequence[str] = ("en", "zh")
LONGEST_LABEL = 100
"""Letters of a label that a text has at most: what is longer is no name of an object."""
_COLUMNS, _LINES = ("left", "middle", "right"), ("top", "middle", "bottom")


@dataclass(frozen=True)
class Language:
    """The contents of a language's file.

    Attributes:
        templates: direction -> texts with `{object}` or `{a_object}`, and `{place}`.
        places: name of a ninth of the picture -> phrase.
        words: names of what has no label, and articles.
        labels: label in lower case -> word.
    """

    templates: Mapping[str, Sequence[str]]
    places: Mapping[str, str]
    words: Mapping[str, str]
    labels: Mapping[str, str]


def check_language(name: str) -> None:
    """Check that there are templates in a language.

    Raises:
        UnknownNameError: there are none.

    Examples:
        >>> check_language("de")
        Traceback (most recent call last):
        rasura.manifests.errors.UnknownNameError: there are no instruction texts in 'de'; did you mean 'en'?
    """
    if name not in LANGUAGES:
        raise UnknownNameError(f"there are no instruction texts in '{name}'; {suggest(name, LANGUAGES)}")


@cache
def read_language(name: str) -> Language:
    """Read the templates of a language of `LANGUAGES`."""
    check_language(name)
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in files(__package__).joinpath(f"instructions.{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line.strip() and not line.startswith("#"):
            lines.append(line.strip())

    def read_pairs(section: str) -> dict[str, str]:
        split = (line.partition(" = ") for line in sections.get(section, ()))
        return {key: value for key, _, value in split}

    templates = {direction: sections[direction] for direction in DIRECTIONS}
    return Language(templates, read_pairs("places"), read_pairs("words"), read_pairs("labels"))


def clean_text(text: str | None) -> str:
    """Return a text from data as one line: no control characters, single blanks.

    Examples:
        >>> clean_text(" a\\tbig\\n\\x00dog ")
        'a big dog'
    """
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]", " ", text or "").split())


def locate_object(mask: Mask) -> str:
    """Name the ninth of the picture that has the centre of a mask.

    Args:
        mask: (h, w); where it is empty, the middle is named.

    Examples:
        >>> mask = np.zeros((30, 30), bool)
        >>> mask[22:, 12:18] = True
        >>> locate_object(mask), locate_object(~mask)
        ('bottom', 'middle')
    """
    if not mask.any():
        return "middle"
    shares = (np.flatnonzero(mask.any(axis=axis)).mean() + 0.5 for axis in (1, 0))
    line, column = (min(2, int(3 * share / side)) for share, side in zip(shares, mask.shape, strict=True))
    name = " ".join(dict.fromkeys((_LINES[line], _COLUMNS[column])))
    return name.replace("middle ", "").replace(" middle", "")


def render_instruction(row: Mapping[str, Any], mask: Mask, direction: str, language: str = "en") -> str:
    """Render the text that asks for what a row shows.

    Args:
        row: with `id`, and `label` and `instruction` as far as it has them. A text of its own in `instruction` is the
            one for its removal.
        mask: of the object, (h, w).
        direction: removal or insertion.
        language: one of `LANGUAGES`.

    Examples:
        >>> render_instruction({"id": "7", "label": "dog"}, np.ones((3, 3), bool), "removal")
        'Remove the dog in the middle.'
        >>> render_instruction({"id": "7", "label": "dog"}, np.ones((3, 3), bool), "insertion", "zh")
        '在中间添加狗。'
    """
    if direction == "removal" and (own := clean_text(row.get("instruction"))):
        return own
    texts = read_language(language)
    templates = texts.templates[direction]
    template = templates[compute_seed(0, f"instruction.{direction}", str(row["id"])) % len(templates)]
    label = clean_text(row.get("label"))
    is_name = 0 < len(label) <= LONGEST_LABEL
    name = texts.labels.get(label.lower().replace("_", " "), label) if is_name else texts.words["object"]
    values = {"object": name, "a_object": _add_article(name, texts.words), "place": texts.places[locate_object(mask)]}
    return re.sub(r"\{(\w+)\}", lambda match: values[match.group(1)], template)


def _add_article(name: str, words: Mapping[str, str]) -> str:
    """Add the indefinite article to a word, where the language has one."""
    if "a" not in words or re.fullmatch(words["plural"], name.lower()):
        return name
    return f"{words['an' if re.fullmatch(words['vowel'], name.lower()) else 'a']} {name}"
