"""What a person drew on a photograph: its floor, its horizon, upright lengths and what is known of the camera.

One JSON file a photograph, `<name of the photograph without its ending>.ground.json`, beside it or in a folder of such
files that has the photographs' own subfolders:

    {
      "version": 1,
      "width": 640, "height": 427,                           the picture that the coordinates count in, px
      "floor": [[[0, 427], [640, 427], [400, 250]]],         polygons on which objects can stand
      "not_floor": [[[100, 300], [160, 300], [130, 380]]],   parts of them on which they cannot
      "horizon": [[0, 190], [640, 196]],                     two points of the horizon, also beyond the frame
      "uprights": [{"foot": [300, 400], "top": [302, 150], "metres": 2.03}],   of known length, their feet on the floor
      "camera_height": 1.55,                                 metres above the floor
      "camera_pitch": 12.0,                                  degrees by which it looks down
      "field_of_view": 65.0,                                 degrees across the width
      "floor_class": "grass"                                 name of the ground's class
    }

All but version, width and height may be left out. x counts to the right, y down, from the upper left corner of the
upper left pixel. The photograph may have been scaled since; its proportions must be the same.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Array = npt.NDArray[Any]
Number = Annotated[float, Field(strict=True)]  # and no text that reads as one
Point = tuple[Number, Number]
Polygon = Annotated[tuple[Point, ...], Field(min_length=3)]

SUFFIX = ".ground.json"
MAX_BYTES = 4_000_000  # of a file: more is no drawing
MAX_ASPECT_ERROR = 0.02  # by which the photograph's proportions may differ from the drawing's
MIN_FLOOR_AREA = 1e-4  # of the picture
MAX_ROLL = 30.0  # degrees of a horizon
MAX_HORIZON = 4.0  # heights of the picture that a horizon may be away from its middle
HORIZON_SLACK = 0.02  # of the height by which a floor may reach above the horizon
MAX_PITCH_CONFLICT = 5.0  # degrees by which a horizon and the pitch may disagree
WIDEST, NARROWEST = 140.0, 10.0  # degrees of a field of view
MAX_CORNERS = 2000  # of a polygon


class BadDrawing(ValueError):
    """A drawing that is not what it should be: which file, and what is wrong."""


class Upright(BaseModel):
    """An upright length: a door's edge, a person, a measuring rod."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)
    foot: Point
    top: Point
    metres: Number = Field(gt=0.02, lt=100)

    @model_validator(mode="after")
    def _check_direction(self) -> "Upright":
        if not self.top[1] < self.foot[1] - 1:
            raise ValueError(f"its top {list(self.top)} is not above its foot {list(self.foot)}")
        return self


class GroundDrawing(BaseModel):
    """A checked drawing, in its own pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    version: Literal[1]
    width: int = Field(ge=1, le=100_000, strict=True)
    height: int = Field(ge=1, le=100_000, strict=True)
    floor: tuple[Polygon, ...] = ()
    not_floor: tuple[Polygon, ...] = ()
    horizon: tuple[Point, Point] | None = None
    uprights: tuple[Upright, ...] = ()
    camera_height: Number | None = Field(None, gt=0.02, lt=200)
    camera_pitch: Number | None = Field(None, ge=-60, lt=90)
    field_of_view: Number | None = Field(None, gt=NARROWEST, lt=WIDEST)
    floor_class: str | None = Field(None, min_length=1, max_length=80)

    @model_validator(mode="after")
    def _check_shapes(self) -> "GroundDrawing":
        if self.horizon is not None:
            (x0, y0), (x1, y1) = self.horizon
            if abs(x1 - x0) < 0.1 * self.width:
                raise ValueError("horizon: its two points must be at least a tenth of the width apart, across")
            if abs(np.rad2deg(np.arctan((y1 - y0) / (x1 - x0)))) > MAX_ROLL:
                raise ValueError(f"horizon: it is tilted by more than {MAX_ROLL:g} degrees")
        for name in ("floor", "not_floor"):
            for number, polygon in enumerate(getattr(self, name)):
                outside = [p for p in polygon if not (-1 <= p[0] <= self.width + 1 and -1 <= p[1] <= self.height + 1)]
                if outside:
                    raise ValueError(f"{name}[{number}]: {list(outside[0])} is outside {self.width} x {self.height}")
                if len(polygon) > MAX_CORNERS:
                    raise ValueError(f"{name}[{number}]: {len(polygon)} corners; it may have {MAX_CORNERS}")
                if (crossing := find_crossing(np.array(polygon))) is not None:
                    first, second = (list(polygon[index]) for index in crossing)
                    raise ValueError(f"{name}[{number}]: its edges from {first} and from {second} cross each other")
        if self.not_floor and not self.floor:
            raise ValueError("not_floor: it is cut out of a floor, and there is none")
        if self.floor:
            area = self.paint_floor((self.height, self.width)).mean()
            if area < MIN_FLOOR_AREA:
                raise ValueError("floor: it has no area")
        self._check_horizon()
        return self

    def _check_horizon(self) -> None:
        """Check that the horizon is possible, above the floor, and not contradicted by the pitch."""
        horizon = self.scale_horizon((self.height, self.width))
        if horizon is None:
            return
        row, roll = horizon
        above = self.height / 2 - row  # px by which it is above the middle
        if abs(above) > MAX_HORIZON * self.height:
            raise ValueError(f"horizon: row {row:.0f} is more than {MAX_HORIZON:g} heights from the picture's middle")
        slope, slack = np.tan(np.deg2rad(roll)), HORIZON_SLACK * self.height
        for number, polygon in enumerate(self.floor):
            for x, y in polygon:
                if y < (line := row + slope * (x - self.width / 2)) - slack:
                    raise ValueError(
                        f"floor[{number}]: {[x, y]} is above the horizon, which is at row {line:.0f} there"
                    )
        if self.camera_pitch is None:
            return
        views = (self.field_of_view, self.field_of_view) if self.field_of_view else (WIDEST, NARROWEST)
        focal_lengths = [self.width / 2 / np.tan(np.deg2rad(view) / 2) for view in views]
        low, high = sorted(float(np.rad2deg(np.arctan(above / focal_length))) for focal_length in focal_lengths)
        if not low - MAX_PITCH_CONFLICT <= self.camera_pitch <= high + MAX_PITCH_CONFLICT:
            text = f"{low:.0f}" if self.field_of_view else f"{low:.0f} to {high:.0f}, by the field of view"
            raise ValueError(
                f"camera_pitch: {self.camera_pitch:g} degrees contradict the horizon, which says {text}; keep one"
            )

    def paint_floor(self, shape: tuple[int, int]) -> Array:
        """Paint the floor into a picture of (height, width), (h, w) bool."""
        scale = np.array([shape[1] / self.width, shape[0] / self.height])
        mask = np.zeros(shape, np.uint8)
        for polygons, value in ((self.floor, 1), (self.not_floor, 0)):
            for polygon in polygons:
                corners = np.rint((np.array(polygon) * scale - 0.5) * 16).astype(np.int32)
                cv2.fillPoly(mask, [corners], value, shift=4)
        return mask > 0

    def scale_horizon(self, shape: tuple[int, int]) -> tuple[float, float] | None:
        """Return the horizon's row (px, at the middle column) and roll (degrees) in a picture of (height, width)."""
        if self.horizon is None:
            return None
        scale = np.array([shape[1] / self.width, shape[0] / self.height])
        (x0, y0), (x1, y1) = np.array(self.horizon) * scale
        slope = (y1 - y0) / (x1 - x0)
        return float(y0 + slope * (shape[1] / 2 - x0)), float(np.rad2deg(np.arctan(slope)))


def find_crossing(corners: Array) -> tuple[int, int] | None:
    """Find two edges of a closed polygon (n, 2) that cross; the indices of their first corners, None where none do.

    Examples:
        >>> find_crossing(np.array([[0, 0], [2, 0], [2, 2], [0, 2]])) is None
        True
        >>> find_crossing(np.array([[0, 0], [2, 2], [2, 0], [0, 2]]))
        (0, 2)
    """
    starts = corners.astype(np.float64)
    ends = np.roll(starts, -1, axis=0)

    def measure_sides(points: Array, start: Array, along: Array) -> Array:
        return np.asarray(np.sign(along[0] * (points[:, 1] - start[1]) - along[1] * (points[:, 0] - start[0])))

    for index in range(len(starts) - 2):
        last = len(starts) - (index == 0)  # the last edge ends where the first begins
        others = np.arange(index + 2, last)
        along = ends[index] - starts[index]
        apart = measure_sides(starts[others], starts[index], along) * measure_sides(ends[others], starts[index], along)
        for other in others[apart < 0].tolist():
            pair = np.stack([starts[index], ends[index]])
            sides = measure_sides(pair, starts[other], ends[other] - starts[other])
            if sides[0] * sides[1] < 0:
                return index, other
    return None


def parse_drawing(text: str | bytes, name: str) -> GroundDrawing:
    """Parse the JSON of a drawing.

    Args:
        name: of its file, for messages.

    Raises:
        BadDrawing: with the file, the key and the value.

    Examples:
        >>> text = '{"version": 1, "width": 4, "height": 3, "horizon": [[0, 1], [4, 1]]}'
        >>> parse_drawing(text, "a").scale_horizon((6, 8))
        (2.0, 0.0)
    """
    if len(text) > MAX_BYTES:
        raise BadDrawing(f"'{name}' has {len(text)} bytes; a drawing has at most {MAX_BYTES}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadDrawing(f"'{name}' is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadDrawing(f"'{name}' holds a {type(value).__name__}; a drawing is an object with version, width, height")
    try:
        return GroundDrawing.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] in ("missing", "value_error") else f", not {json.dumps(first['input'])[:60]}"
        message = first["msg"].removeprefix("Value error, ")
        raise BadDrawing(f"'{name}': {f'{where}: ' if where else ''}{message}{given}") from None


def check_aspect(drawing: GroundDrawing, shape: tuple[int, int], name: str) -> None:
    """Check that a drawing was made on a picture of these proportions (height, width).

    Raises:
        BadDrawing
    """
    ratio = (shape[1] / shape[0]) / (drawing.width / drawing.height)
    if abs(np.log(ratio)) > MAX_ASPECT_ERROR + 1 / min(shape):
        raise BadDrawing(
            f"'{name}' was drawn on {drawing.width} x {drawing.height} px; the photograph has {shape[1]} x {shape[0]}"
        )


@dataclass(frozen=True)
class DrawingFolder:
    """The drawings of a folder: name of a photograph without its ending to file."""

    folder: Path
    files: dict[str, Path]  # relative to the folder, with / and without `SUFFIX`

    def find(self, origin: str) -> Path | None:
        """Find the drawing of a photograph by its origin (path or URI); None where there is none.

        A photograph inside the folder has the drawing beside it. Of others the name decides, with as many of its
        folders as the drawing has.

        Raises:
            BadDrawing: two drawings fit equally well.
        """
        stem = origin.rsplit("/", 1)[-1]
        cut = len(stem) - (stem.rfind(".") if stem.rfind(".") > 0 else len(stem))
        bare = origin[: len(origin) - cut] if cut else origin
        root = str(self.folder).rstrip("/") + "/"
        if origin.startswith(root):
            return self.files.get(bare[len(root) :], self.files.get(origin[len(root) :]))
        keys = [key for key in self.files if any(name == key or name.endswith(f"/{key}") for name in (bare, origin))]
        longest = max((key.count("/") for key in keys), default=0)
        keys = [key for key in keys if key.count("/") == longest]
        if len(keys) > 1:
            raise BadDrawing(f"two drawings fit '{origin}': {', '.join(sorted(keys))}")
        return self.files[keys[0]] if keys else None


def list_drawings(folder: str | Path) -> DrawingFolder:
    """List the drawings in a folder and its subfolders.

    Raises:
        BadDrawing: there is no such folder, or no drawing in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise BadDrawing(f"there is no folder '{folder}' of drawings")
    paths = sorted(path for path in root.rglob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith("."))
    files = {path.relative_to(root).as_posix().removesuffix(SUFFIX): path for path in paths}
    if not files:
        raise BadDrawing(f"there is no drawing (*{SUFFIX}) in '{folder}'")
    return DrawingFolder(root, files)


def hash_drawings(folder: str | Path) -> str:
    """Check all drawings of a folder and return a hash of their names and contents.

    Raises:
        BadDrawing: one of them is not what it should be.
    """
    digest = hashlib.sha256()
    for key, path in list_drawings(folder).files.items():
        data = path.read_bytes()
        parse_drawing(data, str(path))
        digest.update(f"{key} {hashlib.sha256(data).hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def scale_uprights(drawing: GroundDrawing, shape: tuple[int, int]) -> Sequence[tuple[Point, Point, float]]:
    """Return foot, top (px of a picture of `shape`) and metres of each upright."""
    sx, sy = shape[1] / drawing.width, shape[0] / drawing.height
    return [
        ((line.foot[0] * sx, line.foot[1] * sy), (line.top[0] * sx, line.top[1] * sy), line.metres)
        for line in drawing.uprights
    ]
