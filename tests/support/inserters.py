"""Inserters with exact truth: rendered scenes of the studio, and an object that is drawn."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rasura.manifests.boxes import compute_bounds
from rasura.removers.base import Capability


def hash_picture(picture: np.ndarray) -> str:
    """Return a key of a picture's pixels."""
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def redraw_ground(
    painted: np.ndarray, photo: np.ndarray, objects: np.ndarray, hole: np.ndarray, seed: int, px: float = 5.0
) -> np.ndarray:
    """Return a painting whose ground is another one, as a network draws it that never saw what its hole hides.

    Details are those of places some px away, continuous at the hole's rim; brightness is off by a slow field of 2 grey
    levels; shadows stay where they are.

    Args:
        objects: (h, w) bool, what is no ground. hole: (h, w) bool. px: standard deviation of the displacement.
    """
    rng = np.random.default_rng(seed)
    height, width = hole.shape
    fields = [cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 12) for _ in range(3)]
    inside = np.clip(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5) / 12, 0, 1)
    across, down, level = (inside * field / field.std() for field in fields)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    ground = photo.astype(np.float32)
    moved = cv2.remap(ground, columns + px * across, rows + px * down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    light = np.where(objects[..., None], 1, (painted.astype(np.float32) + 2) / (ground + 2)).astype(np.float32)
    anew = np.clip((moved + 2 * level[..., None]) * cv2.GaussianBlur(light, (0, 0), 1), 0, 255)
    weight = cv2.GaussianBlur(objects.astype(np.float32), (0, 0), 0.7)[..., None]
    return np.rint(painted * weight + anew * (1 - weight)).astype(np.uint8)


class WeightlessInserter:
    """An inserter without weights, which paints the texts that it was set, and fills nothing."""

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self) -> None:
        pass

    def set_texts(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def fill(self, pictures: Any, holes: Any, seeds: Any) -> list[np.ndarray]:
        raise AssertionError("an inserter is asked to paint a text")


class StudioInserter(WeightlessInserter):
    """Paints what a scene of the studio shows with its objects into the picture that it shows without them.

    Args:
        quality: JPEG quality that its whole picture goes through, as that of a latent code; None: none.
        redrawn: it draws the ground anew. offset: grey levels by which it changes everything.
        nothing: it gives back the photograph.
    """

    capability = Capability("inserter", None, True, "Apache-2.0", effects=True, name="studio")

    def __init__(
        self, quality: int | None = None, redrawn: bool = False, offset: int = 0, nothing: bool = False
    ) -> None:
        self.name = "studio"
        self.quality, self.redrawn, self.offset, self.nothing = quality, redrawn, offset, nothing
        self.pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.texts: list[str] = []

    def add_scene(self, photo: np.ndarray, painted: np.ndarray, objects: np.ndarray) -> None:
        """Add a scene that it can paint: without its objects, with them, and their mask (h, w) bool."""
        self.pairs[hash_picture(photo)] = painted, objects

    def paint(self, pictures: Any, holes: Any, seeds: Any, texts: Sequence[str]) -> list[np.ndarray]:
        assert set(texts) <= set(self.texts)
        results = []
        for picture, hole, seed in zip(pictures, holes, seeds, strict=True):
            painted, objects = self.pairs[hash_picture(picture)]
            painted = picture if self.nothing else painted
            if self.redrawn:
                anew = redraw_ground(painted, picture, objects, hole, seed % 2**32)
                painted = np.where(hole[..., None], anew, painted)
            if self.quality is not None:
                code = cv2.imencode(".jpg", painted[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
                painted = cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]
            results.append(np.clip(painted.astype(int) + self.offset, 0, 255).astype(np.uint8))
        return results


class DrawnInserter(WeightlessInserter):
    """Draws a striped ellipse with a soft shadow into its hole; it needs no argument, so that a recipe can use it."""

    capability = Capability("inserter", None, True, "Apache-2.0", name="drawn")
    name = "drawn"

    def paint(self, pictures: Any, holes: Any, seeds: Any, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.draw(*values) for values in zip(pictures, holes, seeds, texts, strict=True)]

    def draw(self, picture: np.ndarray, hole: np.ndarray, seed: int, text: str) -> np.ndarray:
        """Draw into one picture; the colour comes from the seed."""
        x0, y0, x1, y1 = compute_bounds(hole)
        rows, columns = np.mgrid[: hole.shape[0], : hole.shape[1]].astype(np.float32)
        cx, cy, wide, high = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 6, (y1 - y0) / 4
        shape = ((columns - cx) / wide) ** 2 + ((rows - cy) / high) ** 2 < 1
        dark = np.exp(-((((columns - cx - wide) / wide) ** 2 + ((rows - cy - high) / (0.2 * high)) ** 2) ** 1.5))
        stripes = np.where((columns + rows) % 12 < 6, 1.0, 0.6)[..., None]
        colour = np.random.default_rng(seed).permutation([210.0, 40, 60]) * stripes
        out = picture * (1 - 0.45 * dark[..., None])
        return np.rint(np.where(shape[..., None], colour, out)).clip(0, 255).astype(np.uint8)
