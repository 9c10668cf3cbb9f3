"""Removers that fail on purpose, behind the protocol: what a loop's judge has to tell from good ones."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from removers.remover import Capability

Array = npt.NDArray[Any]


class Failing(ABC):
    """What they share; `one` fills one picture."""

    name = "failing"
    capability = Capability(role="remover", native_size=None, needs_prompt=False, licence="Apache-2.0")

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self) -> None:
        """There are no weights to load."""
        return

    @abstractmethod
    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        """A filled picture (h, w, 3) uint8."""

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        return [
            self.one(picture, hole, np.random.default_rng(seed))
            for picture, hole, seed in zip(pictures, holes, seeds, strict=True)
        ]


def telea(picture: Array, hole: Array) -> Array:
    """The hole continued from its rim."""
    return np.asarray(cv2.inpaint(np.ascontiguousarray(picture), hole.astype(np.uint8), 3, cv2.INPAINT_TELEA))


class Left(Failing):
    """Nothing is removed."""

    name = "left"

    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        return picture.copy()


class Ghost(Failing):
    """A fifth to three fifths of the object still shows."""

    name = "ghost"

    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        share = rng.uniform(0.2, 0.6)
        mixed = telea(picture, hole) * (1 - share) + picture * share
        return np.rint(mixed).astype(np.uint8)


class Wrong(Failing):
    """A patch of somewhere else in the picture, as large as a third of it, in the hole."""

    name = "wrong"

    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        height, width = hole.shape
        high, wide = max(2, height // 3), max(2, width // 3)
        y, x = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        return np.asarray(cv2.resize(np.ascontiguousarray(picture[y : y + high, x : x + wide]), (width, height)))


class Hallucinated(Failing):
    """A good enough fill with a thing of another colour in it."""

    name = "hallucinated"

    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        made = telea(picture, hole)
        ys, xs = np.nonzero(hole)
        at = int(rng.integers(len(ys)))
        reach = max(2, round(0.3 * len(ys) ** 0.5))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.ellipse(made, (int(xs[at]), int(ys[at])), (reach, max(1, int(reach * rng.uniform(0.5, 1)))),
                    float(rng.uniform(0, 180)), 0, 360, colour, -1)  # fmt: skip
        return made
