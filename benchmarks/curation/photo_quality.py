"""The limits of `quality` that docs/curation.md names: how many good photographs pass them, and how many spoilt ones.

45 photographs, and each of them once with each defect. `good` is the share of the photographs beyond a limit, `spoilt`
that of those with the defect that the limit is for. RASURA_BRISQUE names a folder with OpenCV's two files, by which
BRISQUE is measured, too.

    python -m benchmarks photo_quality
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import print_result
from benchmarks.curation.near_duplicates import compress, resize, write_text
from benchmarks.curation.planted import list_photographs
from rasura.manifests.images import RGB, decode_image
from rasura.stages.curation.brisque import read_brisque, score_brisque
from rasura.stages.curation.quality import Quality, measure_quality

LIMITS: Mapping[str, tuple[float | None, float | None]] = {
    "sharpness": (-1.4, None),
    "noise": (None, 6.0),
    "blocks": (None, 0.4),
    "brightness": (0.06, 0.94),
    "information": (4.5, None),
    "colour": (3.0, None),
    "border": (None, 0.1),
    "overlay": (None, 0.0),
    "aspect": (None, 2.5),
    "side": (256.0, None),
}
"""Least and largest value, as in docs/curation.md."""


def add_noise(picture: RGB) -> RGB:
    """Return the picture with noise of 12 levels in each channel."""
    noise = np.random.default_rng(5).normal(0, 12, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def add_border(picture: RGB) -> RGB:
    """Return the picture with black bars above and below, a tenth of its height each."""
    bar = picture.shape[0] // 10
    return np.asarray(cv2.copyMakeBorder(picture, bar, bar, 0, 0, cv2.BORDER_CONSTANT), np.uint8)


def remove_colour(picture: RGB) -> RGB:
    """Return the picture in grey."""
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


DEFECTS: Mapping[str, tuple[str, Callable[[RGB], RGB]]] = {
    "blur of 2 px": ("sharpness", lambda picture: np.asarray(cv2.GaussianBlur(picture, (0, 0), 2.0), np.uint8)),
    "enlarged 3 times": ("sharpness", lambda picture: resize(picture, 3)),
    "noise of 12 levels": ("noise", add_noise),
    "JPEG 10": ("blocks", lambda picture: compress(picture, 10)),
    "JPEG 30": ("blocks", lambda picture: compress(picture, 30)),
    "a tenth of the light": ("brightness", lambda picture: (picture * 0.1).astype(np.uint8)),
    "grey": ("colour", remove_colour),
    "black bars": ("border", add_border),
    "a caption": ("overlay", write_text),
    "a strip of it": ("aspect", lambda picture: np.ascontiguousarray(picture[: picture.shape[0] // 4])),
    "a quarter of the size": ("side", lambda picture: resize(picture, 0.25)),
}


def is_beyond(measured: Quality, name: str) -> bool:
    """Return whether a measure is beyond its limits."""
    value, (least, most) = getattr(measured, name), LIMITS[name]
    return (least is not None and value < least) or (most is not None and value > most)


def measure_brisque(folder: Path, pictures: Sequence[RGB], limit: float = 45.0) -> None:
    """Print which share of the photographs, and of those with each defect, BRISQUE scores above a limit."""
    model = read_brisque(folder / "brisque_model_live.yml", folder / "brisque_range_live.yml")
    changes: dict[str, Callable[[RGB], RGB]] = {"good": lambda picture: picture}
    changes |= {defect: spoil for defect, (_, spoil) in DEFECTS.items()}
    beyond = {
        name: round(float(np.mean([(score_brisque(change(p), model) or 0) > limit for p in pictures])), 3)
        for name, change in changes.items()
    }
    print_result("quality brisque", limit=limit, **beyond)


def main() -> None:
    """Measure all photographs and their spoilt copies."""
    cv2.setNumThreads(1)
    pictures = [decode_image(path.read_bytes()) for path in list_photographs()]
    good = [measure_quality(picture) for picture in pictures]
    refused = sum(any(is_beyond(measured, name) for name in LIMITS) for measured in good)
    for name in LIMITS:
        spoilt = {
            defect: round(float(np.mean([is_beyond(measure_quality(spoil(p)), name) for p in pictures])), 3)
            for defect, (measure, spoil) in DEFECTS.items()
            if measure == name
        }
        beyond = [is_beyond(measured, name) for measured in good]
        print_result(f"quality {name}", limit=LIMITS[name], good=round(float(np.mean(beyond)), 3), spoilt=spoilt)
    print_result("quality", photographs=len(good), refused=refused)
    if folder := os.environ.get("RASURA_BRISQUE"):
        measure_brisque(Path(folder), pictures)


if __name__ == "__main__":
    main()
