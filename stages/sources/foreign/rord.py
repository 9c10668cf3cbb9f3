"""RORD's frames and their backgrounds, as its preprocessing writes them, or as they are published: clips in folders."""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rasura.manifests.formats.coco import BadSegmentation, draw_segmentation
from rasura.manifests.images import RGB, Mask, decode_image, encode_mask
from rasura.manifests.json_lines import parse_json
from rasura.stages.imaging.mask_change import find_change, measure_mask_change
from rasura.stages.sources.foreign.folders import FolderRows, Group, Groups
from rasura.stages.sources.foreign.pictures import load_pair
from rasura.stages.stage import Record, Rejected

EMPTY_FRAME = re.compile(r"(?:^|_)g\d+$")
"""End of the name of a clip's empty frame, in small letters; other frames end in F and a number."""
MASK_ENDING = "_m"
"""Ending of the names of masks and outlines, in small letters."""
MIN_CHANGED = 0.25
"""Share of an outline that has to differ from the empty frame: others mark what stays."""
LARGEST_LABELS = 16 * 2**20
"""Bytes of a frame's outlines."""


class Rord(FolderRows):
    """RORD's frames and their backgrounds: `img/`, `gt/` and maybe `mask/`, or clips below `img/` or `jpg/`.

    Frames of one clip are one scene. Masks are stored inverted; what changed decides, as for all masks. Of clips, the
    last frame named `…_G` and a number is the empty one; where a frame has no mask, the outlines of what moved are
    drawn.

    Examples:
        - rord: {path: RORD, max_side: 1024}
    """

    name = "rord"
    version = "1"
    folders: ClassVar[Mapping[str, str]] = {
        "img": "source",
        "jpg": "source",
        "gt": "target",
        "mask": "mask",
        "label": "outlines",
        "m": "outlines",
    }
    or_else = ", and, of a published clip, no empty frame …_G0001 beside it"
    default_kind = "captured"
    scene_pattern = r"^(.+)_[FG]\d+"

    def match_parts(self, groups: Groups, passed_over: Counter[str]) -> Groups:
        """Give the frames of a clip its empty frame, and their masks and outlines, which have names of their own."""
        clips = defaultdict[tuple[str, str], dict[str, Group]](dict)
        for (above, name), group in groups.items():
            folder, _, frame = name.rpartition("/")
            if folder:
                clips[above, folder][frame] = group
        for (above, folder), frames in clips.items():
            if any("target" in group for group in frames.values()):
                continue
            for frame in [frame for frame in frames if frame.endswith(MASK_ENDING) and "source" not in frames[frame]]:
                if (named := frames.get(frame.removesuffix(MASK_ENDING))) is not None:
                    named |= groups.pop((above, f"{folder}/{frame}"))
            empty = sorted(frame for frame, group in frames.items() if EMPTY_FRAME.search(frame) and "source" in group)
            for frame in empty:
                if spare := len(groups.pop((above, f"{folder}/{frame}"))) - 1:
                    passed_over["mask or outlines of an empty frame"] += spare
            if empty:
                for frame in frames.keys() - empty:
                    frames[frame]["target"] = frames[empty[-1]]["source"]
            if len(empty) > 1:
                passed_over["another empty frame of its clip"] += len(empty) - 1
        return groups

    def load(self, item: Record) -> Record | Rejected:
        if "mask" in item["paths"] or "outlines" not in item["paths"]:
            return super().load(item)
        data = {part: self.read_part(item, part) for part in ("source", "target")}
        source, target = (decode_image(data[part] or b"", self.params.max_pixels) for part in ("source", "target"))
        if source.shape != target.shape:
            return Rejected("pictures of two sizes", f"frame {source.shape[:2]}, empty frame {target.shape[:2]}")
        try:
            mask = draw_outlines(self.read_part(item, "outlines") or b"", source, target)
        except BadSegmentation as error:
            return Rejected("no mask in its file", f"outlines: {error}")
        data["mask"] = encode_mask(mask)
        params = self.params.model_copy(update={"mask_polarity": "white"})
        return load_pair(data, self.give, params, self.get_kind(item))


def draw_outlines(data: bytes, source: RGB, target: RGB) -> Mask:
    """Draw the outlines in the file of a frame, of what is not in the empty frame.

    The file has `Annotation` below `Learning_Data_Info.`, each with a flat polygon [x0, y0, x1, y1, …] in
    `segmentation`, in px of the `Resolution` ("1920, 1080") below `Raw_Data_Info.`. Outlines of what stays, such as
    furniture, are among them.

    Args:
        data: contents of the file.
        source, target: (h, w, 3) uint8, the frame and the empty frame.

    Returns:
        (h, w) bool; all outlines where none of them marks a change, for the checks of masks to refuse.

    Raises:
        BadSegmentation: it has no outlines, or another form.
    """
    if len(data) > LARGEST_LABELS:
        raise BadSegmentation(f"{len(data)} bytes, limit {LARGEST_LABELS}")
    height, width = source.shape[:2]
    try:
        values = parse_json(data)
        entries = values["Learning_Data_Info."]["Annotation"]
        resolution = values.get("Raw_Data_Info.", {}).get("Resolution") or f"{width}, {height}"
        sides = [float(side) for side in str(resolution).replace("x", ",").split(",")]
        scale = np.array([width, height]) / sides
        polygons = [np.asarray(entry["segmentation"], np.float64) for entry in entries]
        points = [(polygon.reshape(-1, 2) * scale).ravel().tolist() for polygon in polygons if polygon.size >= 6]
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise BadSegmentation(f"not in RORD's form: {error!r:.200}") from None
    change = find_change(source, target)
    outlines = []
    for polygon in points:
        with contextlib.suppress(BadSegmentation):  # smaller than a pixel
            mask = draw_segmentation([polygon], (width, height))
            outlines.append((mask, measure_mask_change(mask, change).changed >= MIN_CHANGED))
    if not outlines:
        raise BadSegmentation("there are none")
    moved = [mask for mask, has_changed in outlines if has_changed] or [mask for mask, _ in outlines]
    return np.asarray(np.logical_or.reduce(moved), bool)
