"""Where things can stand in a photo, and how large they would be there.

`depth-onnx` fits a plane to a network's depth; `lower-region` needs no network and looks for the calm region that
the picture stands on. Neither knows what a floor is: water, lawn and table tops count.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from manifests.schemas import Kind, Schema
from stages import stage
from stages.onnx import network
from stages.stage import Kept, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]

WORK_SIDE = 208  # px: long side at which regions are found


def plane_of_depth(
    depth: Array, focal: float, rng: np.random.Generator, tolerance: float = 0.06, trials: int = 300
) -> tuple[Array, Array] | None:
    """The floor in a depth map, by RANSAC.

    The points (X, Y, Z) of a plane n.P = d have 1/Z = (n.(x/f, y/f, 1))/d, with x, y from the picture's centre: linear
    in pixel position, whatever the focal length. So the plane is fitted to the inverse depth, and the focal length
    only says how steep it is.

    Args:
        depth: (h, w) positive, any unit of length. focal: in pixels of this map. tolerance: relative depth error.

    Returns:
        (a, b, c) with 1/Z = a x + b y + c in pixels of this map, from its upper left corner; relative error
        |Z / Z_plane - 1| (h, w), infinite above the horizon. None when no plane that could be a floor holds a third of
        the lower half: its normal must point up more than 20 degrees out of the viewing axis and lean sideways less
        than 25 degrees.
    """
    height, width = depth.shape
    ys, xs = np.mgrid[0:height, 0:width]
    inverse = 1 / np.maximum(depth.astype(np.float64), 1e-6)
    rows = np.column_stack([xs.ravel(), ys.ravel(), np.ones(depth.size)])
    low = np.flatnonzero(ys.ravel() >= 0.55 * height)
    values = inverse.ravel()

    def error(plane: Array, at: Any) -> Array:
        fitted = rows[at] @ plane
        return np.where(fitted > 1e-9, np.abs(fitted / values[at] - 1), np.inf)

    def standing(plane: Array) -> bool:
        a, b, c = plane
        normal = np.array([a * focal, b * focal, a * width / 2 + b * height / 2 + c])
        normal = normal / max(float(np.linalg.norm(normal)), 1e-12)
        return bool(normal[1] > np.sin(np.deg2rad(20)) and abs(normal[0]) < np.sin(np.deg2rad(25)))

    best: Array | None = None
    best_count = len(low) // 3
    for _ in range(trials):
        picks = rng.choice(low, 3, replace=False)
        try:
            plane = np.linalg.solve(rows[picks], values[picks])
        except np.linalg.LinAlgError:
            continue
        count = int((error(plane, low) < tolerance).sum())
        if count > best_count and standing(plane):
            best, best_count = plane, count
    if best is None:
        return None
    for _ in range(3):
        inside = low[error(best, low) < tolerance]
        refined = np.linalg.lstsq(rows[inside], values[inside], rcond=None)[0]
        if not standing(refined):
            break
        best = refined
    return best, error(best, slice(None)).reshape(height, width)


def flat_part(depth: Array, plane: Array, error: Array, tolerance: float = 0.1) -> Array:
    """(h, w) bool: pixels on the plane, where depth changes no faster than the plane does (no edge of a thing).

    The slope test compares gradients of the inverse depth: the plane's is (a, b) everywhere.
    """
    inverse = cv2.GaussianBlur((1 / np.maximum(depth, 1e-6)).astype(np.float32), (0, 0), 1)
    gx = cv2.Sobel(inverse, cv2.CV_32F, 1, 0, scale=1 / 8) - plane[0]
    gy = cv2.Sobel(inverse, cv2.CV_32F, 0, 1, scale=1 / 8) - plane[1]
    limit = 0.02 * float(np.quantile(inverse, 0.9)) + abs(plane[1])
    return np.asarray((error < tolerance) & (np.hypot(gx, gy) < limit))


def calm_region(picture: Array, allowed: Array | None = None) -> Array:
    """The largest low-texture region that reaches the lower border, (h, w) bool in the picture's grid.

    Texture is the gradient of the lightness and the colours after smoothing; a pixel is calm below a limit taken from
    the lowest fifth of the picture, so that gravel and grass are calm where they are the floor. Calm pixels must also
    have a colour that occurs along the lower border. `allowed` (h, w) bool limits the search.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 1.5)
    slope = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        slope += cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=1 / 8) ** 2
        slope += cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=1 / 8) ** 2
    texture = cv2.GaussianBlur(np.sqrt(slope), (0, 0), 2)
    rows = len(texture)
    foot = texture[int(0.8 * rows) :]
    limit = float(np.clip(1.8 * np.quantile(foot, 0.5), 1.2, 5.0))
    # colours of the border strip, in bins with their neighbours; a few odd pixels there open no door
    bins = (lab / (12, 5, 5)).astype(np.intp) + 1
    counts = np.zeros((24, 54, 54))
    np.add.at(counts, tuple(bins[int(0.85 * rows) :].reshape(-1, 3).T), 1.0)
    for axis in range(3):
        counts = counts + np.roll(counts, 1, axis) + np.roll(counts, -1, axis)
    like = counts[tuple(np.moveaxis(bins, 2, 0))] >= 0.01 * (rows - int(0.85 * rows)) * size[0]
    calm = (texture < limit) & like
    if allowed is not None:
        calm &= cv2.resize(allowed.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    calm8 = cv2.morphologyEx(calm.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    calm8 = cv2.morphologyEx(calm8, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels = cv2.connectedComponents(calm8)
    touching = np.bincount(labels[int(0.93 * rows) :].ravel(), minlength=labels.max() + 1) > 0.1 * size[0]
    touching[0] = False
    lower = labels[int(0.55 * rows) :]
    areas = np.bincount(lower.ravel(), minlength=labels.max() + 1) * touching
    if not areas.any():
        return np.zeros((height, width), bool)
    region = labels == int(np.argmax(areas))
    # what climbs past the middle is a wall, except where it fills the width: a floor that is seen from above
    if region[int(0.2 * rows) : int(0.45 * rows)].mean() < 0.6:
        region[: int(0.45 * rows)] = False
    grown = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown) > 0


def horizon_guess(region: Array) -> float:
    """Row of the horizon, in pixels, that a region to stand on allows: a little above its top, and never below 55 %.

    The top is where the region still fills a tenth of the width. A region that goes through to the upper fifth is
    seen from above (or is a wall): its scale hardly changes, so the horizon is a picture's height above the picture.
    """
    height, width = region.shape
    full = np.flatnonzero(region.sum(axis=1) >= 0.1 * width)
    top = float(full[0]) if len(full) else float(height)
    if top < 0.2 * height:
        return -float(height)
    return float(min(top - 0.04 * height, 0.55 * height))


def scale_from_horizon(horizon: float, height: int, tall: float = 2.2) -> tuple[float, float, float]:
    """Pixels per metre a x + b y + c with 0 on the horizon, and the height of the picture = `tall` m at the bottom."""
    b = height / tall / max(1.0, height - horizon)
    return 0.0, b, -b * horizon


class GroundParams(stage.Params):
    backend: Literal["depth-onnx", "lower-region"] = Field("lower-region", description="How the ground is found.")
    weights: Path | None = Field(None, description="Depth network (.onnx), RGB 0-1 in, metric depth in cm out.")
    fov: float = Field(60.0, gt=10, lt=140, description="Horizontal field of view that is assumed, degrees.")
    tolerance: float = Field(0.1, gt=0, lt=1, description="Relative distance from the plane that still is ground.")

    @model_validator(mode="after")
    def _weights_are_there(self) -> "GroundParams":
        if self.backend == "depth-onnx" and self.weights is None:
            raise ValueError("backend 'depth-onnx' needs weights: a depth network; 'lower-region' needs none")
        return self


class Ground(Stage):
    """Measures where things can stand in a photo."""

    name = "ground"
    needs: ClassVar[Schema] = {"source": Kind.RGB}
    gives: ClassVar[Schema] = {
        "ground_mask": Kind.MASK,
        "ground_rule": Kind.STRING,
        "ground_area": Kind.FLOAT,
        "ground_residual": Kind.FLOAT,
        "ground_scale": Kind.FLOATS,
    }
    Params = GroundParams

    def weights(self) -> Mapping[str, Path]:
        return {"depth": self.params.weights} if self.params.backend == "depth-onnx" else {}

    def setup(self) -> None:
        if self.params.backend != "depth-onnx":
            return
        self.session = network(self.params.weights)
        self.input = self.session.get_inputs()[0]

    def depth(self, picture: Array) -> Array:
        """Depth in metres at the network's output size. The picture is stretched to the network's input."""
        height, width = self.input.shape[2:]
        values = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        given = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        return np.asarray(self.session.run(None, {self.input.name: given})[0][0, 0]) / 100

    def process_one(self, record: Record) -> Outcome:
        picture = np.ascontiguousarray(record["source"])
        height, width = picture.shape[:2]
        residual: float | None = None
        if self.params.backend == "depth-onnx":
            grid = min(1.0, 128 / max(height, width))  # the picture's own aspect, so that the normal means something
            size = (max(8, round(width * grid)), max(8, round(height * grid)))
            depth = cv2.resize(self.depth(picture), size, interpolation=cv2.INTER_LINEAR)
            focal = size[0] / 2 / float(np.tan(np.deg2rad(self.params.fov) / 2))
            found = plane_of_depth(depth, focal, self.rng(record))
            if found is None:
                return Rejected("no ground", "no plane that could be a floor in the lower half")
            plane, error = found
            flat = flat_part(depth, plane, error, self.params.tolerance)
            allowed = (
                np.asarray(cv2.resize(flat.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)) > 0
            )
            mask = calm_region(picture, allowed)  # depth at 48 rows cannot see what stands on the plane; colour can
            near = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
            residual = float(np.median(error[near])) if near.any() else None
            # 1/Z per pixel of the grid times the focal length in pixels of the picture: pixels per metre
            a, b, c = plane * (focal / grid)
            scale = (a * grid, b * grid, c)
        else:
            mask = calm_region(picture)
            horizon = horizon_guess(mask)
            mask[: max(0, int(horizon + 0.08 * height))] = False
            scale = scale_from_horizon(horizon, height)
        if not mask.any():
            return Rejected("no ground", "no calm region reaches the lower border")
        return Kept(
            [
                record
                | {
                    "ground_mask": mask,
                    "ground_rule": "depth-plane" if self.params.backend == "depth-onnx" else "lower-region",
                    "ground_area": float(mask.mean()),
                    "ground_residual": residual,
                    "ground_scale": [float(v) for v in scale],
                }
            ]
        )
