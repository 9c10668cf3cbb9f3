"""Semantic and panoptic classes of a photo by Mask2Former, and the table of classes that something can stand on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.networks.pretrained import open_processor, open_transformers
from rasura.stages.ground_plane.depth import group_by_shape

Array = npt.NDArray[Any]
Mode = Literal["panoptic", "semantic"]

OUTDOORS = (
    "road, sidewalk, pavement, path, runway, parking, crosswalk, bike lane, pedestrian area, earth, ground, soil, "
    "land, dirt, dirt track, terrain, field, playingfield, grass, gravel, sand, snow, pier"
)
INDOORS = "floor, flooring, rug, carpet, stage, platform"
FURNITURE = "table, dining table, coffee table, pool table, desk, counter, countertop, kitchen island"
STANDABLE = tuple(name for names in (OUTDOORS, INDOORS, FURNITURE) for name in names.split(", "))
"""Names from COCO panoptic, ADE20k, Cityscapes and Mapillary. Water, sea, river, sky, walls, ceilings, plants, roofs,
rails, stairs and every object that is no table are left out: an object occupies what it stands on."""

NO_CLASS = -1  # of a class map: no segment is sure enough here


def split_label(label: str) -> set[str]:
    """Return the names that a data set's label goes by, lower case.

    Examples:
        >>> sorted(split_label("floor, flooring")), sorted(split_label("Crosswalk - Plain"))
        (['floor', 'flooring'], ['crosswalk', 'crosswalk - plain'])
    """
    names = {part.strip() for part in label.lower().replace("_", " ").split(",")}
    return {name for name in names if name} | {name.split("-")[0].strip() for name in names}


def find_standable_ids(labels: Mapping[int, str], table: Sequence[str]) -> frozenset[int]:
    """Return the ids of the labels (`id2label` of a checkpoint) that are in the table.

    Raises:
        ValueError: none is: the table is of another data set, or the checkpoint has no names.
    """
    names = {name.strip().lower() for name in table}
    ids = frozenset(int(number) for number, label in labels.items() if split_label(label) & names)
    if not ids:
        raise ValueError(
            f"none of the classes to stand on ({', '.join(table)}) is among the network's own: "
            f"{', '.join(list(labels.values())[:20])}, …"
        )
    return ids


def mask_standable(classes: Array, ids: frozenset[int]) -> Array:
    """Return (h, w) bool: the pixels of a class map that have one of `ids`."""
    return np.isin(classes, list(ids))


def find_commonest_class(classes: Array, where: Array, labels: Mapping[int, str]) -> str | None:
    """Return the name of the class that fills most of `where`, (h, w) bool; None where it has no class."""
    ids, counts = np.unique(classes[where], return_counts=True)
    order = [int(ids[k]) for k in np.argsort(-counts, kind="stable") if int(ids[k]) in labels]
    return labels[order[0]] if order else None


# Checkpoints of older versions hold tables that the network now computes; a network always has them.
_COMPUTED = tuple(
    f"model.pixel_level_module.encoder.{swin}encoder.layers.{layer}.blocks.{block}.attention.self.relative_position_index"
    for swin in ("", "swin.")
    for layer in range(4)
    for block in range(24)
)


class Mask2Former:
    """A checkpoint from a folder that `save_pretrained` or the hub made; safetensors only.

    `panoptic` leaves out what no segment claims with a score of `threshold`; `semantic` gives every pixel its best
    class. Both go through the library's own post-processing.
    """

    def __init__(self, folder: Path, mode: Mode = "panoptic", threshold: float = 0.5) -> None:
        from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

        self.mode, self.threshold = mode, threshold
        spare = ("criterion.", *_COMPUTED)
        self.model = open_transformers(Mask2FormerForUniversalSegmentation, folder, ["mask2former"], spare)
        self.processor = open_processor(AutoImageProcessor, folder)
        self.labels: dict[int, str] = {int(number): str(name) for number, name in self.model.config.id2label.items()}

    def segment(self, pictures: Sequence[Array]) -> list[Array]:
        """Return class ids (h, w) int32 of each (h, w, 3) uint8 picture, NO_CLASS where none is sure enough."""
        import torch

        maps: list[Array] = [np.empty((0, 0), np.int32)] * len(pictures)
        for indices in group_by_shape(pictures):
            batch = [np.array(pictures[k]) for k in indices]  # torch takes no read-only arrays
            inputs = self.processor(images=batch, return_tensors="pt", input_data_format="channels_last")
            with torch.inference_mode():
                out = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
            sizes = [picture.shape[:2] for picture in batch]
            if self.mode == "semantic":
                results = self.processor.post_process_semantic_segmentation(out, target_sizes=sizes)
                batch_maps = [result.cpu().numpy().astype(np.int32) for result in results]
            else:
                results = self.processor.post_process_panoptic_segmentation(
                    out, threshold=self.threshold, label_ids_to_fuse=set(), target_sizes=sizes
                )
                batch_maps = [_paint_segments(result, size) for result, size in zip(results, sizes, strict=True)]
            for k, classes in zip(indices, batch_maps, strict=True):
                maps[k] = classes
        return maps


def _paint_segments(result: Mapping[str, Any], size: tuple[int, int]) -> Array:
    """Return the class map (h, w) of a panoptic result: each segment has its label's id."""
    classes = np.full(size, NO_CLASS, np.int32)
    if not result["segments_info"]:
        return classes
    segments = result["segmentation"].cpu().numpy()
    for segment in result["segments_info"]:
        classes[segments == segment["id"]] = segment["label_id"]
    return classes
