"""The sky of a photo, which bounds the horizon from above."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.ground_plane.depth import compute_work_grid

Array = npt.NDArray[Any]

WORK_SIDE = 208  # px: long side at which the sky is looked for
MAX_TEXTURE = 4.0  # grey levels a pixel, after smoothing: what is rougher is no sky
MIN_TOP_SHARE = 0.35  # of the top row that the sky has to fill
MIN_ROW_SHARE = 0.1  # of a row's width that the sky still fills at its lower end
MIN_BLUE_SHARE = 0.08  # of the upper half, from which the pale parts there are clouds
EDGE_SHARE = 0.7  # of the width that a straight level edge crosses: the sky ends there, and water may go on


def find_sky(picture: Array) -> Array | None:
    """Find the sky, (h', w') bool on a small grid of the whole picture; None where there is none.

    It is connected to the top, smooth, and blue or about as bright as anything: brighter than nine tenths of the
    picture's lower half. Pale walls and ceilings indoors are not brighter than what stands before them.
    """
    size = compute_work_grid((picture.shape[0], picture.shape[1]), WORK_SIDE)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 1.0)
    squares = sum(
        (
            cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=1 / 8) ** 2
            + cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=1 / 8) ** 2
        )
        for channel in cv2.split(lab)
    )
    texture = np.sqrt(np.asarray(squares))
    light, a, b = lab[..., 0], lab[..., 1] - 128, lab[..., 2] - 128
    rows = len(light)
    ground_light = float(np.quantile(light[rows // 2 :], 0.9))
    blue = (b < -4) & (a < 6) & (light > 70)
    upper = blue[: rows // 2]
    # where there is some blue, clouds need not be brighter than the ground
    least = 150.0 if upper.mean() >= MIN_BLUE_SHARE else max(ground_light, 150.0)
    pale = (light > least) & (np.abs(a) < 8) & (b < 14)
    like = ((blue | pale) & (texture < MAX_TEXTURE)).astype(np.uint8)
    level = _find_level_edge(light)
    if level is not None:
        like[level:] = 0
    like = cv2.morphologyEx(like, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels = cv2.connectedComponents(like)
    top = np.unique(labels[: max(2, rows // 40)])
    sky = np.isin(labels, top[top > 0])
    return sky if sky[: max(2, rows // 40)].mean() >= MIN_TOP_SHARE else None


def _find_level_edge(light: Array) -> int | None:
    """Return the row of the uppermost straight level edge across most of the width; None where there is none."""
    slope = np.abs(cv2.Sobel(light, cv2.CV_32F, 0, 1, scale=1 / 8))
    strong = (cv2.dilate(slope, np.ones((3, 1), np.uint8)) > 3).mean(axis=1)
    rows = np.flatnonzero(strong[3:-3] >= EDGE_SHARE) + 3
    return int(rows[0]) + 1 if len(rows) else None


def find_sky_end(sky: Array) -> float:
    """Find the lowest row, as a share of the height, at which the sky still fills a tenth of the width.

    Examples:
        >>> find_sky_end(np.arange(10)[:, None] < np.full(5, 4))
        0.4
    """
    full = np.flatnonzero(sky.mean(axis=1) >= MIN_ROW_SHARE)
    return float(full[-1] + 1) / len(sky) if len(full) else 0.0
