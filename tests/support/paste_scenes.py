"""Made-up foregrounds and backgrounds for compositing, with exact cameras above exact ground planes."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FLAT = [0.0, 0.0, 100.0]  # pixels per metre that are the same everywhere


def make_foreground(
    name: str = "a",
    height: int = 60,
    width: int = 30,
    colour: tuple[int, int, int] = (200, 40, 40),
    shadow: bool = True,
    at: tuple[int, int] = (100, 80),
    size: tuple[int, int] = (320, 240),
    **more: Any,
) -> dict[str, Any]:
    """A block with a soft shadow to its right, cut from a photo of `size` where its crop lay at `at`."""
    full = width + (40 if shadow else 0)
    rgba = np.zeros((height, full, 4), np.uint8)
    rgba[:, :width, :3] = colour
    rgba[:, :width, 3] = 255
    if shadow:
        rgba[height - 15 :, width:, 3] = 100
    solid = np.zeros((height, full), bool)
    solid[:, :width] = True
    rgba.flags.writeable = solid.flags.writeable = False
    box = [float(at[0]), float(at[1]), float(at[0] + full), float(at[1] + height)]
    row = {"id": name, "label": f"thing {name}", "foreground": rgba, "foreground_object": solid}
    return row | {"foreground_box": box, "source_size": list(size)} | more


def make_background(height: int = 240, width: int = 320, seed: int = 0) -> Array:
    """Grain, read-only."""
    picture = np.random.default_rng(seed).integers(60, 200, (height, width, 3)).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def make_ground_columns(
    pitch: float = 20.0, camera_height: float = 1.6, focal: float = 300.0, metric: bool = True, roll: float = 0.0
) -> Any:
    """Ground columns of a camera that looks down by `pitch` degrees from `camera_height` metres."""
    down, rotation = np.deg2rad(pitch), np.deg2rad(roll)
    n = np.array([np.sin(rotation) * np.cos(down), np.cos(rotation) * np.cos(down), np.sin(down)])
    return {"ground_plane": [*n.tolist(), camera_height], "ground_focal": focal, "ground_metric": metric}


def make_record(
    foregrounds: list[dict[str, Any]],
    name: str = "r",
    ground: Array | None = None,
    scale: list[float] | None = None,
    picture: Array | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What the `draws` source gives; the lower half is ground."""
    picture = make_background() if picture is None else picture
    if ground is None:
        ground = np.zeros(picture.shape[:2], bool)
        ground[picture.shape[0] // 2 :] = True
    row = {"id": name, "background": picture, "ground_mask": ground, "ground_scale": FLAT if scale is None else scale}
    row |= {"ground_rule": "lower-region", "ground_area": 0.5, "ground_residual": None, "foregrounds": foregrounds}
    return row | {"licence": "CC0", "parents": ["bg", *(one["id"] for one in foregrounds)]} | more
