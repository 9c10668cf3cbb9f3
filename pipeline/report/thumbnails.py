"""The pictures of a report: rows read in small batches, as thumbnails with outlines.

No shard is loaded as a whole: only the columns that are shown are read, and of these one row group at a time.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.images import RGB, Mask, decode_mask
from rasura.manifests.run_layout import shard_path, table_path
from rasura.manifests.schemas import PICTURES, Kind, Schema, decode_value
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE

UNREADABLE = (OSError, ValueError, pa.ArrowException)
"""Errors of a file that is missing, cut short or of another format."""
BATCH_ROWS = 4
MASKS = ("mask", "object_mask", "given_mask", "true_object_mask")
FOREGROUNDS = ("foreground_mask", "true_foreground_mask")
LIGHT = "foreground_light"
CUT_OUT_OBJECT = "foreground_object"
BRIGHTEST = 16
"""The light of reflections, which is so weak that it is shown up to 16 times as bright as it is."""
DARK = 10
"""Mean grey level below which brightened light is not shown."""
HEAT = ((246, 211, 160), (246, 169, 91), (212, 58, 44), (109, 15, 63))
"""Colours of a difference, from a faint one to the largest."""
QUALITY = 80
BYTES_PER_PIXEL = 0.16  # of photographs as WebP at that quality, measured; detailed ones have twice that

Place = tuple[str, str, int]  # table, shard, row


def space_evenly(total: int, count: int) -> list[int]:
    """Space positions evenly over a range, each in the middle of its part; all positions where there are fewer.

    Examples:
        >>> space_evenly(100, 4), space_evenly(3, 12)
        ([12, 37, 62, 87], [0, 1, 2])
    """
    count = min(total, count)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def read_rows(run: Store, places: Iterable[Place], columns: Schema) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield encoded rows, shard by shard. A row that cannot be read is {"fault": reason}."""
    by_shard: dict[tuple[str, str], set[int]] = defaultdict(set)
    for table, shard, row in places:
        by_shard[table, shard].add(row)
    for (table, shard), rows in by_shard.items():
        remaining = set(rows)
        try:
            with run.open(f"{table_path(table)}/{shard_path(shard)}") as source:
                for row, raw in _iterate_rows(source, remaining, columns):
                    remaining.discard(row)
                    yield (table, shard, row), raw
            fault = "the shard has no such row"
        except UNREADABLE as error:
            fault = str(error)
        for row in sorted(remaining):
            yield (table, shard, row), {"fault": fault}


def _iterate_rows(source: Any, positions: Iterable[int], columns: Schema) -> Iterator[tuple[int, dict[str, Any]]]:
    file = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
    names = [name for name in columns if name in file.schema_arrow.names]
    rows, start = sorted(positions), 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [row for row in rows if start <= row < end]
        if inside and inside[-1] < end:
            batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=names, use_threads=False)
            for batch in batches:
                for row in inside:
                    if start <= row < start + batch.num_rows:
                        yield row, batch.slice(row - start, 1).to_pylist()[0]
                start += batch.num_rows
                if start > inside[-1]:
                    break
        start = end


def read_examples(run: Store, places: Sequence[Place], columns: Schema, pictures: Schema) -> list[dict[str, Any]]:
    """Read rows with light values decoded and pictures encoded, in the order of their places; references are followed.

    Args:
        columns: of the table itself.
        pictures: picture columns to read, from the rows or from those that they refer to.
    """
    light = {name: kind for name, kind in columns.items() if kind not in PICTURES}
    rows: dict[Place, dict[str, Any]] = {}
    referring: dict[str | None, dict[Place, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for place, raw in read_rows(run, places, light):
        row = {name: decode_value(light[name], value) if name in light else value for name, value in raw.items()}
        stored = (row["ref_table"], row["ref_shard"], row["ref_row"]) if row.get("ref_shard") is not None else place
        referring[row.get("ref_run")][stored].append(place)
        rows[place] = {name: value for name, value in row.items() if name not in RUN_REFERENCE}
    for other, chosen in referring.items():
        for stored, raw in read_rows(run if other is None else Store(other), chosen, pictures):
            for place in chosen[stored]:
                rows[place] = raw | rows[place]
    return [rows[place] for place in places]


@dataclass(frozen=True)
class Panel:
    """One picture of an example, ready for the page.

    data: WebP. natural: width and height of the picture that it was made from.
    paths: outlines over it, by their class, as SVG paths in the panel's pixels.
    """

    name: str
    data: bytes
    width: int
    height: int
    natural: tuple[int, int]
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Example:
    """One row with its pictures.

    areas: shares of the picture, of object, effects and ground. fault: why its pictures cannot be read.
    fingerprint: of its first picture, by `compute_fingerprint`.
    """

    row: dict[str, Any]
    fingerprint: bytes = b""
    panels: list[Panel] = field(default_factory=list)
    areas: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Roles:
    """The columns of a table by their part in an example.

    others: shown unchanged, where there is no source. columns: all picture columns that are read.
    """

    source: str | None
    target: str | None
    cut_out: str | None
    others: tuple[str, ...]
    columns: Schema

    @property
    def panels(self) -> int:
        """Number of pictures of an example."""
        return len(self.others) + (self.source is not None) + 2 * (self.target is not None) + bool(self.cut_out)


def assign_roles(columns: Schema) -> Roles:
    """Assign a table's picture columns to parts of an example: before, after, masks and a cut-out."""
    pictures = {name: kind for name, kind in columns.items() if kind in PICTURES}
    source = next((name for name in ("input", "source") if name in pictures), None)
    target = next((name for name in ("target", "gt") if name in pictures), None) if source else None
    cut_out = "foreground" if pictures.get("foreground") is Kind.RGBA else None
    others = () if source else tuple(name for name, kind in pictures.items() if kind is not Kind.DEPTH)[:4]
    read = {source, target, cut_out, *others, *MASKS, *FOREGROUNDS, "ground_mask"} & set(pictures)
    others = tuple(name for name in others if name != cut_out)
    return Roles(source, target, cut_out, others, {name: pictures[name] for name in pictures if name in read})


def choose_side(pictures: int, budget: int, longest: int = 480, least: int = 160) -> int:
    """Choose the long side in px at which so many pictures of aspect 3:2 stay within a budget of bytes.

    Examples:
        >>> choose_side(1, 4_000_000), choose_side(400, 4_000_000), choose_side(100_000, 4_000_000)
        (480, 306, 160)
    """
    side = (1.5 * budget / (max(1, pictures) * BYTES_PER_PIXEL)) ** 0.5
    return int(min(longest, max(least, side)))


def fit_size(pixels: RGB, side: int) -> tuple[int, int]:
    """Return width and height of a picture's thumbnail: at most `side` px long, never enlarged.

    Examples:
        >>> fit_size(np.zeros((600, 900, 3), np.uint8), 480)
        (480, 320)
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def make_thumbnail(pixels: RGB, side: int) -> Image.Image:
    """Scale a picture down to `fit_size`. RGBA is scaled with its colours weighted by alpha."""
    image, size = Image.fromarray(np.ascontiguousarray(pixels)), fit_size(pixels, side)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def draw_difference(source: RGB, target: RGB) -> RGB:
    """Draw |source - target| over a pale grey target (h, w, 3): the largest channel, by its square root, so that faint
    shadows show. Where nothing differs, the picture stays pale: no part of it is black.
    """
    distance = cv2.absdiff(source, target).max(axis=2)
    pale = 190 + 0.2 * cv2.cvtColor(target, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    share = np.sqrt(np.arange(256, dtype=np.float32) / 255)
    steps = np.linspace(0, 1, len(HEAT))
    heat = np.stack([np.interp(share, steps, channel) for channel in np.array(HEAT, np.float32).T], axis=1)
    weight = np.minimum(1, 3 * share).astype(np.float32)
    shade, cover = (heat.astype(np.float32) * weight[:, None])[distance], weight[distance][..., None]
    return np.asarray(np.rint(pale * (1 - cover) + shade), np.uint8)


def trace_outline(mask: Mask, size: tuple[int, int], parts: int = 80) -> str:
    """Trace a mask as an SVG path in the pixels of a thumbnail.

    Args:
        size: width and height of the thumbnail.
        parts: the largest parts of the mask that are traced.
    """
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
    contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    path = []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True)[:parts]:
        points = cv2.approxPolyDP(contour, 0.8, True)[:, 0, :].tolist()
        if len(points) > 2:
            path.append("M" + " ".join(f"{x} {y}" for x, y in points) + "Z")
    return "".join(path)


def _make_panel(name: str, pixels: RGB, side: int, paths: Mapping[str, str] | None = None) -> Panel:
    image, out = make_thumbnail(pixels, side), io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=2)
    return Panel(name, out.getvalue(), image.width, image.height, (pixels.shape[1], pixels.shape[0]), paths or {})


def _make_light_panel(light: RGB, side: int) -> Panel | None:
    """Make the picture of a cut-out's light, brightened, with the factor in its name; None where it would be black."""
    factor = min(BRIGHTEST, 255 // max(1, int(np.percentile(light, 99.9))))
    bright = np.minimum(light.astype(np.uint16) * factor, 255).astype(np.uint8)
    if bright.max(axis=2).mean() < DARK:
        return None
    return _make_panel(f"{LIGHT} × {factor}" if factor > 1 else LIGHT, bright, side)


def _convert_picture(kind: Kind, pixels: Any) -> RGB:
    """Convert a picture of any kind to RGB or RGBA."""
    if kind is Kind.MASK:
        return np.repeat((pixels * np.uint8(255))[..., None], 3, axis=2).astype(np.uint8)
    return np.asarray(pixels, np.uint8)


def build_example(raw: Mapping[str, Any], roles: Roles, side: int) -> Example:
    """Build the thumbnails, outlines and areas of a row. An error of decoding becomes the example's fault.

    Args:
        side: long side of the thumbnails, px.
    """
    result = Example({name: value for name, value in raw.items() if name not in roles.columns and name != "fault"})
    if "fault" in raw:
        result.fault = str(raw["fault"])
        return result
    try:
        pictures = {n: decode_value(kind, raw.get(n)) for n, kind in roles.columns.items()}
        _add_panels(result, pictures, roles, side)
        first = pictures.get(roles.source or "")
        if first is not None:
            result.fingerprint = compute_fingerprint(first)
    except UNREADABLE as error:
        result.fault = str(error)
    return result


def _add_panels(result: Example, pictures: Mapping[str, Any], roles: Roles, side: int) -> None:
    cut_out = pictures.get(roles.cut_out or "")
    if cut_out is not None and not roles.source:
        result.panels.append(_make_panel("cut-out", cut_out, side, _trace_object(pictures, cut_out, side)))
    for name in roles.others:
        if name == LIGHT and pictures[name] is not None:
            result.panels += filter(None, [_make_light_panel(pictures[name], side)])
        elif name == CUT_OUT_OBJECT and cut_out is not None:
            continue  # its outline is over the cut-out
        elif pictures[name] is not None and (roles.columns[name] is not Kind.MASK or pictures[name].any()):
            result.panels.append(_make_panel(name, _convert_picture(roles.columns[name], pictures[name]), side))
    source = pictures.get(roles.source or "")
    if source is not None:
        (height, width), thumbnail_size = source.shape[:2], fit_size(source, side)
        paths = _trace_paths(result, pictures, (width, height), thumbnail_size)
        if roles.target:
            result.areas.pop("ground", None)  # of a triplet, it says little
        box = result.row.get("box")
        if box and len(box) == 4:
            x, y = thumbnail_size[0] / width, thumbnail_size[1] / height
            x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, (x, y, x, y), strict=True))
            paths["box"] = f"M{x0} {y0}H{x1}V{y1}H{x0}Z"
        result.panels.append(_make_panel("source", source, side, paths))
    target = pictures.get(roles.target or "")
    if target is not None:
        result.panels.append(_make_panel("target", target, side))
        if source is not None and source.shape == target.shape:
            result.panels.append(_make_panel("difference", draw_difference(source, target), side))
    if cut_out is not None and roles.source:
        result.panels.append(_make_panel("cut-out", cut_out, side))


def _trace_object(pictures: Mapping[str, Any], cut_out: RGB, side: int) -> dict[str, str]:
    """Trace the object within a cut-out."""
    mask: Mask | None = pictures.get(CUT_OUT_OBJECT)
    if mask is None or mask.shape != cut_out.shape[:2]:
        return {}
    return {"object": trace_outline(mask, fit_size(cut_out, side))}


def _trace_paths(
    result: Example, pictures: Mapping[str, Any], size: tuple[int, int], small: tuple[int, int]
) -> dict[str, str]:
    """Trace the masks that fit the picture, and note their areas."""

    def first(names: Iterable[str]) -> Mask | None:
        masks = (pictures.get(name) for name in names)
        return next((m for m in masks if m is not None and m.shape == size[::-1]), None)

    ground, inner, outer = first(["ground_mask"]), first(MASKS), first(FOREGROUNDS)
    paths = {}
    if ground is not None:
        paths["ground"], result.areas["ground"] = trace_outline(ground, small), float(ground.mean())
    if outer is not None:
        paths["effects"] = trace_outline(outer, small)
        if inner is not None:
            result.areas["effects"] = float((outer & ~inner).mean())
    if inner is not None:
        paths["object"], result.areas["object"] = trace_outline(inner, small), float(inner.mean())
    return paths


def measure_areas(
    run: Store, places: Sequence[Place], own_columns: Schema, full_columns: Schema
) -> dict[str, list[float]]:
    """Measure shares of the picture of some rows: of the object, and of the object with its effects.

    Args:
        own_columns: of the table itself. full_columns: with those of the table that it refers to.
    """
    result: dict[str, list[float]] = {"mask": [], "foreground_mask": []}
    columns = {name: full_columns[name] for name in result if name in full_columns}
    for raw in read_examples(
        run, places, {name: kind for name, kind in own_columns.items() if name in RUN_REFERENCE}, columns
    ):
        for name in columns:
            cell = raw.get(name)
            if cell is not None:
                try:
                    result[name].append(float(decode_mask(cell["bytes"]).mean()))
                except UNREADABLE:
                    continue  # the fault is shown with the pictures, where the row is among them
    return result
