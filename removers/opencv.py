"""OpenCV's two inpainters: always available, fast, and blurred where the hole is large. The baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.removers.base import Capability

Array = npt.NDArray[Any]


class OpenCV:
    """`telea` marches inwards along the hole's border; `ns` continues the lines of equal brightness."""

    capability = Capability(role="remover", native_size=None, needs_prompt=False, licence="Apache-2.0", name="OpenCV")

    def __init__(self, name: str, flag: int, radius: int) -> None:
        self.name = name
        self.flag = flag
        self.radius = radius

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self) -> None:
        pass

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does; deterministic, the seeds are not used."""
        return [
            np.asarray(cv2.inpaint(np.ascontiguousarray(picture), hole.astype(np.uint8), self.radius, self.flag))
            for picture, hole in zip(pictures, holes, strict=True)
        ]


def telea() -> OpenCV:
    """Create the remover `telea`."""
    return OpenCV("telea", cv2.INPAINT_TELEA, 5)


def ns() -> OpenCV:
    """Create the remover `ns`."""
    return OpenCV("ns", cv2.INPAINT_NS, 4)
