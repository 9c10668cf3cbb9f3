"""Detectors that are asked in words (GroundingDINO): the prompt of a list of classes, and the class of each answer.

Such a network gives a probability for every token of the prompt. Its libraries turn those above a threshold into a
phrase, which may run together ("traffic light dog"); balancing and capping need a class of the list, so here an answer
gets the class whose tokens it fits best. Its score is the libraries' own: the largest probability of any token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rasura.stages.detectors.boxes import Array, Detection, clipped


@dataclass(frozen=True)
class Prompt:
    """Classes asked for at once: the caption "a cat. a dog.", and each class's tokens in it [first, last)."""

    caption: str
    classes: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""Characters [first, last) of each token of a caption, (0, 0) for those that stand for none."""


def offsets_of(tokenizer: Any) -> Offsets:
    """The token offsets of a fast tokenizer."""
    return lambda caption: tokenizer(caption, return_offsets_mapping=True)["offset_mapping"]


def prompt(classes: Sequence[str], offsets: Offsets) -> Prompt:
    """The prompt of some classes, as GroundingDINO was trained: lower case, each followed by a full stop."""
    names = tuple(name.strip().lower() for name in classes)
    caption = " ".join(f"{name}." for name in names)
    spans, tokens, start = [], offsets(caption), 0
    for name in names:
        inside = [k for k, (low, high) in enumerate(tokens) if start <= low < high <= start + len(name)]
        spans.append((inside[0], inside[-1] + 1) if inside else (0, 0))
        start += len(name) + 2
    return Prompt(caption, names, tuple(spans))


def prompts(classes: Sequence[str], offsets: Offsets, most: int) -> list[Prompt]:
    """As few prompts as hold all classes with at most `most` tokens each: what is beyond, a network does not read.

    Raises:
        ValueError: one class alone is longer.
    """
    found: list[Prompt] = []
    part: list[str] = []
    for name in classes:
        if len(offsets(prompt([name], offsets).caption)) > most:
            raise ValueError(f"the class '{name}' is longer than the {most} tokens that the network reads")
        if part and len(offsets(prompt([*part, name], offsets).caption)) > most:
            found.append(prompt(part, offsets))
            part = []
        part.append(name)
    return [*found, prompt(part, offsets)] if part else found


def named(
    probabilities: Array, boxes: Array, asked: Prompt, size: tuple[int, int], min_score: float, text_threshold: float
) -> list[Detection]:
    """The answers to one prompt about one picture.

    Args:
        probabilities: (q, t) of each query for each token, 0-1. boxes: (q, 4) centre x, y, width, height, 0-1.
        size: (height, width) of the picture.
        min_score: an answer's largest probability has to be above it.
        text_threshold: the mean probability of its class's tokens has to be above it.
    """
    scores = probabilities.max(axis=1)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = np.hstack([centre - half, centre + half]) * [size[1], size[0], size[1], size[0]]
    corners = clipped(corners, size)
    fits = np.stack(
        [probabilities[:, a:b].mean(axis=1) if b > a else np.zeros(len(scores)) for a, b in asked.spans], axis=1
    )
    best, fit = fits.argmax(axis=1), fits.max(axis=1)
    solid = np.prod(corners[:, 2:] - corners[:, :2], axis=1) >= 1
    return [
        Detection(asked.classes[best[k]], float(scores[k]), tuple(corners[k].tolist()))
        for k in np.flatnonzero((scores > min_score) & (fit > text_threshold) & solid)
    ]
