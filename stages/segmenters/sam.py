"""The protocol of a promptable segmenter: it encodes a picture once and answers any number of prompts about it."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB

Floats = npt.NDArray[np.float32]
Region = tuple[int, int, int, int]  # x0, y0, x1, y1, the last two exclusive

POSITIVE, NEGATIVE, BOX_START, BOX_END, PADDING = 1, 0, 2, 3, -1


@dataclass(frozen=True)
class Embedding:
    """The encoder's output for a picture, or for a part of it that starts at (left, top)."""

    features: Any  # in a form that only the segmenter itself uses
    width: int
    height: int
    left: int = 0
    top: int = 0


class Promptable(Protocol):
    """A segmenter of the SAM family. Prompts are in px of the whole picture, masks in px of the encoded part."""

    def encode(self, picture: RGB, region: Region | None = None) -> Embedding:
        """Run the encoder on a picture, or on a region of it: small objects get more of its pixels."""
        ...

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        """Return the one mask that fits a prompt best: logits (h, w), object above 0, and the IoU that is predicted.

        It is meant for prompts that are not ambiguous: a box, or several points.
        """
        ...

    def prompt_all(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats]:
        """Return all masks that a prompt may mean (part, object, group): logits (k, h, w), and predicted IoU (k,)."""
        ...


def build_prompt(
    positive: npt.ArrayLike = (), negative: npt.ArrayLike = (), box: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Build a prompt as SAM's decoder takes it: (n, 2) x, y in px of the picture, and (n,) labels.

    A box is two points with labels of their own; without one, SAM requires a padding point.

    Args:
        positive: (n, 2) points on the object.
        negative: (n, 2) points off the object.
        box: x0, y0, x1, y1 around the object.

    Examples:
        >>> points, labels = build_prompt([[5, 6]], box=[0, 0, 9, 9])
        >>> points.tolist(), labels.tolist()
        ([[5.0, 6.0], [0.0, 0.0], [9.0, 9.0]], [1.0, 2.0, 3.0])
    """
    good, bad = (np.asarray(p, np.float32).reshape(-1, 2) for p in (positive, negative))
    corners = np.zeros((1, 2), np.float32) if box is None else np.asarray(box, np.float32).reshape(2, 2)
    labels = [POSITIVE] * len(good) + [NEGATIVE] * len(bad) + ([PADDING] if box is None else [BOX_START, BOX_END])
    return np.concatenate([good, bad, corners]), np.asarray(labels, np.float32)


def split_prompt(
    embedding: Embedding, points: Floats, labels: Floats
) -> tuple[Floats | None, Floats | None, Floats | None]:
    """Split a prompt as SAM's libraries take it, in px of the encoded part: points (n, 2), their labels (n,), box (4,).

    What the prompt does not have is None.
    """
    moved = points - np.array([embedding.left, embedding.top], np.float32)
    single = (labels == POSITIVE) | (labels == NEGATIVE)
    corners = (labels == BOX_START) | (labels == BOX_END)
    box = moved[corners].reshape(4) if corners.any() else None
    return (moved[single], labels[single], box) if single.any() else (None, None, box)


def crop_region(picture: RGB, region: Region | None) -> tuple[RGB, Region]:
    """Crop a picture to a region (None: the whole picture), and return both."""
    left, top, right, bottom = region or (0, 0, picture.shape[1], picture.shape[0])
    return np.ascontiguousarray(picture[top:bottom, left:right]), (left, top, right, bottom)
