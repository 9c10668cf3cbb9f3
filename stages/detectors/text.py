"""Detectors that are prompted with words (GroundingDINO): the prompt of a list of classes, and the class of each box.

Such a network gives a probability for every token of the prompt. Its libraries turn those above a threshold into a
phrase, which may run together ("traffic light dog"); balancing and capping need a class of the list, so here a box
gets the class whose tokens it fits best. Its score is the libraries' own: the largest probability of any token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rasura.stages.detectors.boxes import Array, Detection, clip_boxes


@dataclass(frozen=True)
class Prompt:
    """Classes of one prompt: the caption "a cat. a dog.", and the tokens [first, last) of each class in it."""

    caption: str
    classes: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""Characters [first, last) of each token of a caption, (0, 0) for those that stand for none."""


def make_offsets(tokenizer: Any) -> Offsets:
    """Return the function that gives the token offsets of a fast tokenizer."""
    return lambda caption: tokenizer(caption, return_offsets_mapping=True)["offset_mapping"]


def build_prompt(classes: Sequence[str], offsets: Offsets) -> Prompt:
    """Build the prompt of some classes, as GroundingDINO was trained: lower case, each followed by a full stop.

    Examples:
        >>> def split_words(caption):
        ...     return [(0, 1), (2, 5), (5, 6), (7, 10), (10, 11)]
        >>> build_prompt(["A cat", "dog"], split_words)
        Prompt(caption='a cat. dog.', classes=('a cat', 'dog'), spans=((0, 2), (3, 4)))
    """
    names = tuple(name.strip().lower() for name in classes)
    caption = " ".join(f"{name}." for name in names)
    spans, tokens, start = [], offsets(caption), 0
    for name in names:
        inside = [k for k, (low, high) in enumerate(tokens) if start <= low < high <= start + len(name)]
        spans.append((inside[0], inside[-1] + 1) if inside else (0, 0))
        start += len(name) + 2
    return Prompt(caption, names, tuple(spans))


def build_prompts(classes: Sequence[str], offsets: Offsets, max_tokens: int) -> list[Prompt]:
    """Build as few prompts as hold all classes with at most `max_tokens` tokens each: a network reads no more.

    Raises:
        ValueError: a single class is longer.
    """
    prompts: list[Prompt] = []
    part: list[str] = []
    for name in classes:
        if len(offsets(build_prompt([name], offsets).caption)) > max_tokens:
            raise ValueError(f"the class '{name}' is longer than the {max_tokens} tokens that the network reads")
        if part and len(offsets(build_prompt([*part, name], offsets).caption)) > max_tokens:
            prompts.append(build_prompt(part, offsets))
            part = []
        part.append(name)
    return [*prompts, build_prompt(part, offsets)] if part else prompts


def match_classes(
    probabilities: Array, boxes: Array, prompt: Prompt, size: tuple[int, int], min_score: float, text_threshold: float
) -> list[Detection]:
    """Turn a network's output for one prompt and one picture into detections.

    Args:
        probabilities: (q, t) of each query for each token, 0 to 1.
        boxes: (q, 4) centre x, y, width, height, 0 to 1.
        prompt: the prompt that was used.
        size: (height, width) of the picture.
        min_score: a query's largest probability has to be above it.
        text_threshold: the mean probability of its class's tokens has to be above it.
    """
    scores = probabilities.max(axis=1)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = np.hstack([centre - half, centre + half]) * [size[1], size[0], size[1], size[0]]
    corners = clip_boxes(corners, size)
    fits = np.stack(
        [probabilities[:, a:b].mean(axis=1) if b > a else np.zeros(len(scores)) for a, b in prompt.spans], axis=1
    )
    best, fit = fits.argmax(axis=1), fits.max(axis=1)
    solid = np.prod(corners[:, 2:] - corners[:, :2], axis=1) >= 1
    return [
        Detection(prompt.classes[best[k]], float(scores[k]), tuple(corners[k].tolist()))
        for k in np.flatnonzero((scores > min_score) & (fit > text_threshold) & solid)
    ]
