"""Simple removers behind the protocol, most of which fail on purpose: what a judge has to tell from good ones."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.removers.base import Capability

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


class Shifted(Failing):
    """The hole from where its rim fits best elsewhere in the picture, its colours drawn to the rim's.

    It has the texture that fills from the rim lack, and is often good.
    """

    name = "shifted"
    rim = 5

    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        best = self.shift(picture.astype(np.float64), hole)
        if best is None:
            return telea(picture, hole)
        down, right = best
        size = (hole.shape[1], hole.shape[0])
        turn = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
        moved = cv2.warpAffine(picture, turn, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        away = np.clip(picture.astype(np.float32) / 2 - moved.astype(np.float32) / 2 + 128, 0, 255).astype(np.uint8)
        drawn = cv2.inpaint(away, hole.astype(np.uint8), 3, cv2.INPAINT_NS).astype(np.float32) * 2 - 256
        return np.clip(np.rint(moved + drawn), 0, 255).astype(np.uint8)

    def shift(self, picture: Array, hole: Array) -> tuple[int, int] | None:
        """The shift with the least squared error over the rim, where the hole finds nothing of itself; by Fourier."""
        wide = np.ones((2 * self.rim + 1,) * 2, np.uint8)
        rim = ((cv2.dilate(hole.astype(np.uint8), wide) > 0) & ~hole).astype(float)
        known, gone = (~hole).astype(float), hole.astype(float)
        height, width = hole.shape

        def together(one: Array, other: Array) -> Array:
            """Sum of one(x) other(x + shift), at each shift."""
            size = (2 * height, 2 * width)
            return np.asarray(np.fft.irfft2(np.conj(np.fft.rfft2(one, size)) * np.fft.rfft2(other, size), size))

        error = np.zeros((2 * height, 2 * width))
        for channel in np.moveaxis(picture, 2, 0):
            error += together(rim * channel**2, known) - 2 * together(rim * channel, known * channel)
            error += together(rim, known * channel**2)
        seen = together(rim, known)
        whole = together(gone, known) > hole.sum() - 0.5
        allowed = whole & (seen > 0.7 * rim.sum())
        if not allowed.any():
            return None
        at = int(np.argmin(np.where(allowed, error / np.maximum(seen, 1), np.inf)))
        down, right = divmod(at, 2 * width)
        return down - 2 * height * (down >= height), right - 2 * width * (right >= width)


class Blurred(Failing):
    """The right colours without their texture."""

    name = "blurred"

    def one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        smooth = cv2.GaussianBlur(telea(picture, hole), (0, 0), max(2.0, float(np.sqrt(hole.sum()) / 6)))
        return np.asarray(smooth)
