"""Short synthetic clips of a fixed camera."""

from pathlib import Path

import cv2
import numpy as np


def write_clip(path: Path) -> Path:
    """Write a clip of a fixed camera above a road: noise, and a box that crosses it."""
    rng = np.random.default_rng(1)
    road = rng.integers(90, 150, (144, 192, 3), dtype=np.uint8)
    road = cv2.GaussianBlur(road, (0, 0), 2)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (192, 144))
    for frame in range(90):
        picture = np.clip(road + rng.normal(0, 1.5, road.shape), 0, 255).astype(np.uint8)
        if 30 <= frame < 60:
            left = 10 + (frame - 30) * 5
            picture[60:96, left : left + 40] = (30, 30, 190)
        writer.write(picture)
    writer.release()
    return path
