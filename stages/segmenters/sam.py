"""What a promptable segmenter is: it sees a picture once and answers any number of prompts about it."""

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
    """What an encoder made of a picture, or of a part of it that starts at (left, top)."""

    features: Any  # the segmenter's own
    width: int
    height: int
    left: int = 0
    top: int = 0


class Promptable(Protocol):
    """A segmenter of the SAM family. Prompts are in px of the whole picture, answers in those of what was embedded."""

    def embed(self, picture: RGB, region: Region | None = None) -> Embedding:
        """Runs the encoder on a picture, or on a region of it: small objects get more of its pixels."""
        ...

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        """The one mask that answers a prompt best: logits (h, w), object above 0, and the network's guess of its IoU.

        For prompts that leave little doubt: a box, or several points.
        """
        ...

    def prompt_all(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats]:
        """All masks that a prompt may mean (part, object, group): logits (k, h, w), and guesses of their IoU (k,)."""
        ...


def points_prompt(
    positive: npt.ArrayLike = (), negative: npt.ArrayLike = (), box: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """A prompt as SAM's decoder takes it: (n, 2) x, y in px of the picture, and (n,) labels.

    A box [x0, y0, x1, y1] is two points of their own labels; without one, SAM wants a padding point.
    """
    good, bad = (np.asarray(p, np.float32).reshape(-1, 2) for p in (positive, negative))
    corners = np.zeros((1, 2), np.float32) if box is None else np.asarray(box, np.float32).reshape(2, 2)
    labels = [POSITIVE] * len(good) + [NEGATIVE] * len(bad) + ([PADDING] if box is None else [BOX_START, BOX_END])
    return np.concatenate([good, bad, corners]), np.asarray(labels, np.float32)


def parted(embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats | None, Floats | None, Floats | None]:
    """A prompt as SAM's libraries take it, in px of what was embedded: points (n, 2), their labels (n,), box (4,).

    None for what the prompt has not.
    """
    moved = points - np.array([embedding.left, embedding.top], np.float32)
    single = (labels == POSITIVE) | (labels == NEGATIVE)
    corners = (labels == BOX_START) | (labels == BOX_END)
    box = moved[corners].reshape(4) if corners.any() else None
    return (moved[single], labels[single], box) if single.any() else (None, None, box)


def cropped(picture: RGB, region: Region | None) -> tuple[RGB, Region]:
    """What is to be embedded: the region of a picture (the whole where None), and where it lies."""
    left, top, right, bottom = region or (0, 0, picture.shape[1], picture.shape[0])
    return np.ascontiguousarray(picture[top:bottom, left:right]), (left, top, right, bottom)
