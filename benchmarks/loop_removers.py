"""Simple removers behind the protocol, most of which fail on purpose, for a discriminator to recognize."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.removers.base import Capability

Array = npt.NDArray[Any]


class SyntheticRemover(ABC):
    """Base of the removers; `fill_one` fills a single picture."""

    name = "failing"
    capability = Capability(role="remover", native_size=None, needs_prompt=False, licence="Apache-2.0")

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self) -> None:
        """Do nothing: there are no weights to load."""
        return

    @abstractmethod
    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        """Fill the hole (h, w) bool of a picture, (h, w, 3) uint8."""

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        return [
            self.fill_one(picture, hole, np.random.default_rng(seed))
            for picture, hole, seed in zip(pictures, holes, seeds, strict=True)
        ]


def fill_telea(picture: Array, hole: Array) -> Array:
    """Fill the hole from its rim by Telea's method."""
    return np.asarray(cv2.inpaint(np.ascontiguousarray(picture), hole.astype(np.uint8), 3, cv2.INPAINT_TELEA))


class Left(SyntheticRemover):
    """Remover that removes nothing."""

    name = "left"

    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        return picture.copy()


class Ghost(SyntheticRemover):
    """Remover that leaves the object visible at an opacity of 20 to 60 %."""

    name = "ghost"

    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        share = rng.uniform(0.2, 0.6)
        mixed = fill_telea(picture, hole) * (1 - share) + picture * share
        return np.rint(mixed).astype(np.uint8)


class Wrong(SyntheticRemover):
    """Remover that fills the hole from an unrelated part of the picture, enlarged three times."""

    name = "wrong"

    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        height, width = hole.shape
        high, wide = max(2, height // 3), max(2, width // 3)
        y, x = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        return np.asarray(cv2.resize(np.ascontiguousarray(picture[y : y + high, x : x + wide]), (width, height)))


class Hallucinated(SyntheticRemover):
    """Remover that draws an ellipse of a random colour into a plausible fill."""

    name = "hallucinated"

    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        filled = fill_telea(picture, hole)
        ys, xs = np.nonzero(hole)
        centre = int(rng.integers(len(ys)))
        reach = max(2, round(0.3 * len(ys) ** 0.5))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.ellipse(
            filled,
            (int(xs[centre]), int(ys[centre])),
            (reach, max(1, int(reach * rng.uniform(0.5, 1)))),
            float(rng.uniform(0, 180)),
            0,
            360,
            colour,
            -1,
        )
        return filled


class Shifted(SyntheticRemover):
    """Remover that copies from where the hole's rim fits best in the picture, and matches the colours to the rim.

    Its fills have the texture that fills from the rim lack, and are often good.
    """

    name = "shifted"
    rim = 5

    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        best = self.find_shift(picture.astype(np.float64), hole)
        if best is None:
            return fill_telea(picture, hole)
        down, right = best
        size = (hole.shape[1], hole.shape[0])
        turn = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
        moved = cv2.warpAffine(picture, turn, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        halved = picture.astype(np.float32) / 2 - moved.astype(np.float32) / 2 + 128
        difference = np.clip(halved, 0, 255).astype(np.uint8)
        offset = cv2.inpaint(difference, hole.astype(np.uint8), 3, cv2.INPAINT_NS).astype(np.float32) * 2 - 256
        return np.asarray(np.clip(np.rint(moved + offset), 0, 255).astype(np.uint8))

    def find_shift(self, picture: Array, hole: Array) -> tuple[int, int] | None:
        """Find the shift (down, right) with the least squared error over the rim, by Fourier; None if there is none.

        The shifted hole must be completely outside of the hole, with 70 % of its rim.
        """
        kernel = np.ones((2 * self.rim + 1,) * 2, np.uint8)
        rim = ((cv2.dilate(hole.astype(np.uint8), kernel) > 0) & ~hole).astype(float)
        outside, inside = (~hole).astype(float), hole.astype(float)
        height, width = hole.shape

        def correlate(first: Array, second: Array) -> Array:
            """Compute the sum over x of first(x) second(x + shift), at each shift."""
            size = (2 * height, 2 * width)
            return np.asarray(np.fft.irfft2(np.conj(np.fft.rfft2(first, size)) * np.fft.rfft2(second, size), size))

        error = np.zeros((2 * height, 2 * width))
        for channel in np.moveaxis(picture, 2, 0):
            error += correlate(rim * channel**2, outside) - 2 * correlate(rim * channel, outside * channel)
            error += correlate(rim, outside * channel**2)
        weight = correlate(rim, outside)
        complete = correlate(inside, outside) > hole.sum() - 0.5
        allowed = complete & (weight > 0.7 * rim.sum())
        if not allowed.any():
            return None
        best = int(np.argmin(np.where(allowed, error / np.maximum(weight, 1), np.inf)))
        down, right = divmod(best, 2 * width)
        return down - 2 * height * (down >= height), right - 2 * width * (right >= width)


class Blurred(SyntheticRemover):
    """Remover that fills with the right colours without texture."""

    name = "blurred"

    def fill_one(self, picture: Array, hole: Array, rng: np.random.Generator) -> Array:
        smooth = cv2.GaussianBlur(fill_telea(picture, hole), (0, 0), max(2.0, float(np.sqrt(hole.sum()) / 6)))
        return np.asarray(smooth)
