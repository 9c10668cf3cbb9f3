"""The pictures of a report: rows drawn evenly over a table, read in small batches, made into thumbnails and outlines.

No shard is loaded whole: only the columns that are shown are read, and of these one row group at a time.
"""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from rasura.manifests.images import RGB, Mask, decode_mask
from rasura.manifests.schemas import PICTURES, Kind, Schema, decode_value
from rasura.manifests.shards import Line
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE

UNREADABLE = (OSError, ValueError, pa.ArrowException)  # what a missing, cut or foreign file raises
COUNTED = ("split", "kind", "label", "licence")
BATCH_ROWS = 4
MASKS = ("mask", "object_mask", "given_mask", "true_object_mask")
FOREGROUNDS = ("foreground_mask", "true_foreground_mask")
QUALITY = 80
BYTES_PER_PIXEL = 0.16  # of photographs as WebP at that quality, measured; detailed ones have twice that

Place = tuple[str, str, int]  # table, shard, row


@dataclass
class Survey:
    """What a look at all light columns of a table says."""

    rows: int = 0
    bytes: int = 0
    counts: dict[str, Counter[str | None]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    weights: Counter[tuple[str, str]] = field(default_factory=Counter)  # (name, sha256) -> rows
    shards: list[tuple[str, int]] = field(default_factory=list)  # (id, rows) of those that can be read
    faults: list[str] = field(default_factory=list)


def survey(run: Store, flow: str, lines: Sequence[Line]) -> Survey:
    """Counts over a table, one shard at a time. A shard that cannot be read is a fault, and left out."""
    found = Survey()
    for line in lines:
        if line.data is None:
            continue
        try:
            with run.open(f"tables/{flow}/{line.data.name}") as source:
                file = pq.ParquetFile(source, pre_buffer=False)
                names = [name for name in (*COUNTED, "bytes", "weights") if name in file.schema_arrow.names]
                light = file.read(columns=names, use_threads=False)
        except UNREADABLE as error:
            found.faults.append(f"{line.data.name}: {error}")
            continue
        found.rows += light.num_rows
        found.shards.append((line.shard, light.num_rows))
        for name in COUNTED:
            column = light[name] if name in names else pa.nulls(light.num_rows, pa.string())
            found.counts[name].update({e["values"]: e["counts"] for e in pc.value_counts(column).to_pylist()})
        if "bytes" in names:
            found.bytes += pc.sum(light["bytes"]).as_py() or 0
        if "weights" in names:
            flat = pc.list_flatten(light["weights"]).to_pylist()
            found.weights.update((entry["name"], entry["value"]) for entry in flat)
    return found


def drawn(total: int, count: int) -> list[int]:
    """`count` places spread evenly over `total`, each in the middle of its part; all of them where there are fewer."""
    count = min(total, count)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def places(flow: str, found: Survey, count: int) -> list[Place]:
    """Places of rows drawn evenly over a table."""
    wanted, result, start = drawn(found.rows, count), [], 0
    for shard, rows in found.shards:
        result += [(flow, shard, index - start) for index in wanted if start <= index < start + rows]
        start += rows
    return result


def read(run: Store, wanted: Iterable[Place], columns: Schema) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows as they are encoded, shard by shard. Rows of a shard that cannot be read come as {"fault": why}."""
    by_shard: dict[tuple[str, str], set[int]] = defaultdict(set)
    for table, shard, row in wanted:
        by_shard[table, shard].add(row)
    for (table, shard), rows in by_shard.items():
        left = set(rows)
        try:
            with run.open(f"tables/{table}/shards/{shard}.parquet") as source:
                for row, raw in _rows(source, left, columns):
                    left.discard(row)
                    yield (table, shard, row), raw
            why = "the shard has no such row"
        except UNREADABLE as error:
            why = str(error)
        for row in sorted(left):
            yield (table, shard, row), {"fault": why}


def _rows(source: Any, wanted: Iterable[int], columns: Schema) -> Iterator[tuple[int, dict[str, Any]]]:
    file = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
    names = [name for name in columns if name in file.schema_arrow.names]
    rows, start = sorted(wanted), 0
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


def look(run: Store, wanted: Sequence[Place], own: Schema, pictures: Schema) -> Iterator[dict[str, Any]]:
    """Rows with light values decoded and pictures encoded, references followed, in the order of their shards.

    Args:
        own: the table's columns.
        pictures: picture columns to read, where the rows or what they refer to have them.
    """
    light = {name: kind for name, kind in own.items() if kind not in PICTURES}
    rows: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    for place, raw in read(run, wanted, light):
        row = {name: decode_value(light[name], value) if name in light else value for name, value in raw.items()}
        if row.get("ref_shard") is not None:
            place = (row["ref_table"], row["ref_shard"], row["ref_row"])
        rows[place].append({name: value for name, value in row.items() if name not in REFERENCE})
    for place, raw in read(run, rows, pictures):
        for row in rows[place]:
            yield raw | row


@dataclass(frozen=True)
class Panel:
    """One picture of an example, ready for the page."""

    name: str
    uri: str
    width: int
    height: int
    paths: Mapping[str, str] = field(default_factory=dict)  # class -> SVG path in the panel's pixels


@dataclass
class Example:
    """One row with its pictures."""

    row: dict[str, Any]
    panels: list[Panel] = field(default_factory=list)
    areas: dict[str, float] = field(default_factory=dict)  # share of the picture: object, effects, ground
    fault: str = ""


@dataclass(frozen=True)
class Roles:
    """Which columns of a table are shown as what."""

    source: str | None
    target: str | None
    cut_out: str | None
    others: tuple[str, ...]  # shown as they are, where there is no source
    columns: Schema  # all picture columns that are read

    @property
    def panels(self) -> int:
        """How many pictures an example has."""
        return len(self.others) + (self.source is not None) + 2 * (self.target is not None) + bool(self.cut_out)


def roles(columns: Schema) -> Roles:
    """What of a table's whole columns is shown: before and after, and masks and cut-outs on and beside them."""
    pictures = {name: kind for name, kind in columns.items() if kind in PICTURES}
    source = next((name for name in ("input", "source") if name in pictures), None)
    target = next((name for name in ("target", "gt") if name in pictures), None) if source else None
    cut_out = "foreground" if pictures.get("foreground") is Kind.RGBA else None
    others = () if source else tuple(name for name, kind in pictures.items() if kind is not Kind.DEPTH)[:4]
    read = {source, target, cut_out, *others, *MASKS, *FOREGROUNDS, "ground_mask"} & set(pictures)
    others = tuple(name for name in others if name != cut_out)
    return Roles(source, target, cut_out, others, {name: pictures[name] for name in pictures if name in read})


def side_for(pictures: int, budget: int, longest: int = 480, least: int = 160) -> int:
    """Long side in px at which so many pictures of aspect 3:2 stay within a budget of bytes."""
    side = (1.5 * budget / (max(1, pictures) * BYTES_PER_PIXEL)) ** 0.5
    return int(min(longest, max(least, side)))


def fitted(pixels: RGB, side: int) -> tuple[int, int]:
    """Width and height of a picture's thumbnail: at most `side` px long, never enlarged."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def thumbnail(pixels: RGB, side: int) -> Image.Image:
    """A picture scaled down to `fitted`. RGBA is scaled with its colours weighted by alpha."""
    image, size = Image.fromarray(np.ascontiguousarray(pixels)), fitted(pixels, side)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def difference(source: RGB, target: RGB) -> RGB:
    """Heat map of |source - target|, (h, w, 3): the largest channel, by its square root, so that faint shadows show."""
    apart = cv2.absdiff(source, target).max(axis=2).astype(np.float32)
    heat = cv2.applyColorMap(np.rint(np.sqrt(apart / 255) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(heat[..., ::-1], np.uint8)


def outline(mask: Mask, size: tuple[int, int], parts: int = 80) -> str:
    """SVG path around a mask, in the pixels of a thumbnail of `size` (width, height); its largest parts only."""
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
    found, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    path = []
    for contour in sorted(found, key=cv2.contourArea, reverse=True)[:parts]:
        points = cv2.approxPolyDP(contour, 0.8, True)[:, 0, :].tolist()
        if len(points) > 2:
            path.append("M" + " ".join(f"{x} {y}" for x, y in points) + "Z")
    return "".join(path)


def _panel(name: str, pixels: RGB, side: int, paths: Mapping[str, str] | None = None) -> Panel:
    image, out = thumbnail(pixels, side), io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
    return Panel(name, uri, image.width, image.height, paths or {})


def _shown(kind: Kind, pixels: Any) -> RGB:
    """A picture of any kind as RGB or RGBA."""
    if kind is Kind.MASK:
        return np.repeat((pixels * np.uint8(255))[..., None], 3, axis=2).astype(np.uint8)
    return np.asarray(pixels, np.uint8)


def example(raw: Mapping[str, Any], shown: Roles, side: int) -> Example:
    """Thumbnails, outlines and areas of a row. What cannot be decoded becomes the example's fault."""
    result = Example({name: value for name, value in raw.items() if name not in shown.columns and name != "fault"})
    if "fault" in raw:
        result.fault = str(raw["fault"])
        return result
    try:
        _fill(result, {n: decode_value(kind, raw.get(n)) for n, kind in shown.columns.items()}, shown, side)
    except UNREADABLE as error:
        result.fault = str(error)
    return result


def _fill(result: Example, pictures: Mapping[str, Any], shown: Roles, side: int) -> None:
    for name in shown.others:
        if pictures[name] is not None:
            result.panels.append(_panel(name, _shown(shown.columns[name], pictures[name]), side))
    source = pictures.get(shown.source or "")
    if source is not None:
        (height, width), small = source.shape[:2], fitted(source, side)
        paths = _paths(result, pictures, (width, height), small)
        box = result.row.get("box")
        if box and len(box) == 4:
            x, y = small[0] / width, small[1] / height
            x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, (x, y, x, y), strict=True))
            paths["box"] = f"M{x0} {y0}H{x1}V{y1}H{x0}Z"
        result.panels.append(_panel("source", source, side, paths))
    target = pictures.get(shown.target or "")
    if target is not None:
        result.panels.append(_panel("target", target, side))
        if source is not None and source.shape == target.shape:
            result.panels.append(_panel("difference", difference(source, target), side))
    if shown.cut_out and pictures[shown.cut_out] is not None:
        result.panels.append(_panel("cut-out", pictures[shown.cut_out], side))


def _paths(
    result: Example, pictures: Mapping[str, Any], size: tuple[int, int], small: tuple[int, int]
) -> dict[str, str]:
    """Outlines of the masks that fit the picture; notes their areas."""

    def first(names: Iterable[str]) -> Mask | None:
        masks = (pictures.get(name) for name in names)
        return next((m for m in masks if m is not None and m.shape == size[::-1]), None)

    ground, inner, outer = first(["ground_mask"]), first(MASKS), first(FOREGROUNDS)
    paths = {}
    if ground is not None:
        paths["ground"], result.areas["ground"] = outline(ground, small), float(ground.mean())
    if outer is not None:
        paths["effects"] = outline(outer, small)
        if inner is not None:
            result.areas["effects"] = float((outer & ~inner).mean())
    if inner is not None:
        paths["object"], result.areas["object"] = outline(inner, small), float(inner.mean())
    return paths


def areas(run: Store, wanted: Sequence[Place], own: Schema, whole: Schema) -> dict[str, list[float]]:
    """Shares of the picture of the drawn rows: of the object, and of the object with its effects."""
    result: dict[str, list[float]] = {"mask": [], "foreground_mask": []}
    columns = {name: whole[name] for name in result if name in whole}
    for raw in look(run, wanted, {name: kind for name, kind in own.items() if name in REFERENCE}, columns):
        for name in columns:
            cell = raw.get(name)
            if cell is not None:
                try:
                    result[name].append(float(decode_mask(cell["bytes"]).mean()))
                except UNREADABLE:
                    continue  # the pictures' section says what is wrong with it, where it was drawn
    return result
