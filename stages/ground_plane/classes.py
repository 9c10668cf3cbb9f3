"""What is where in a photo, as classes: Mask2Former, and the table of classes that something can stand on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.networks.weights import pretrained, processor
from rasura.stages.ground_plane.depth import by_shape

Array = npt.NDArray[Any]
Mode = Literal["panoptic", "semantic"]

STANDABLE = (
    # outdoors
    "road", "sidewalk", "pavement", "path", "runway", "parking", "crosswalk", "bike lane", "pedestrian area",
    "earth", "ground", "soil", "land", "dirt", "dirt track", "terrain", "field", "playingfield", "grass", "gravel",
    "sand", "snow", "pier",
    # indoors
    "floor", "flooring", "rug", "carpet", "stage", "platform",
    # furniture
    "table", "dining table", "coffee table", "pool table", "desk", "counter", "countertop", "kitchen island",
)  # fmt: skip
"""Names from COCO panoptic, ADE20k, Cityscapes and Mapillary. Water, sea, river, sky, walls, ceilings, plants, roofs,
rails, stairs and every thing that is no table are left out: a thing occupies what it stands on."""

NOTHING = -1  # of a class map: no segment is sure enough here


def words(label: str) -> set[str]:
    """The names that a data set's label goes by, lower case.

    "floor, flooring" goes by both; "floor-wood" and "floor-other-merged" also by "floor"; "Crosswalk - Plain" also by
    "crosswalk".
    """
    names = {part.strip() for part in label.lower().replace("_", " ").split(",")}
    return {name for name in names if name} | {name.split("-")[0].strip() for name in names}


def standable_ids(labels: Mapping[int, str], table: Sequence[str]) -> frozenset[int]:
    """Ids of the labels (`id2label` of a checkpoint) that are in the table.

    Raises:
        ValueError: none is: the table is of another data set, or the checkpoint has no names.
    """
    wanted = {name.strip().lower() for name in table}
    found = frozenset(int(number) for number, label in labels.items() if words(label) & wanted)
    if not found:
        raise ValueError(
            f"none of the classes to stand on ({', '.join(table)}) is among the network's own: "
            f"{', '.join(list(labels.values())[:20])}, …"
        )
    return found


def standable(classes: Array, ids: frozenset[int]) -> Array:
    """(h, w) bool: where a class map holds one of `ids`."""
    return np.isin(classes, list(ids))


def commonest(classes: Array, where: Array, labels: Mapping[int, str]) -> str | None:
    """The name of the class that fills most of `where`, None where no class is there."""
    ids, counts = np.unique(classes[where], return_counts=True)
    order = [int(ids[k]) for k in np.argsort(-counts, kind="stable") if int(ids[k]) in labels]
    return labels[order[0]] if order else None


# Checkpoints of older versions hold tables that the network now computes; a network never lacks them.
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
        self.model = pretrained(Mask2FormerForUniversalSegmentation, folder, ["mask2former"], spare)
        self.processor = processor(AutoImageProcessor, folder)
        self.labels: dict[int, str] = {int(number): str(name) for number, name in self.model.config.id2label.items()}

    def classes(self, pictures: Sequence[Array]) -> list[Array]:
        """Class ids (h, w) int32 of each (h, w, 3) uint8 picture in its own grid, NOTHING where none is sure enough."""
        import torch

        maps: list[Array] = [np.empty((0, 0), np.int32)] * len(pictures)
        for places in by_shape(pictures):
            batch = [np.array(pictures[k]) for k in places]  # torch takes no read-only arrays
            given = self.processor(images=batch, return_tensors="pt", input_data_format="channels_last")
            with torch.inference_mode():
                out = self.model(**{name: value.to(self.model.device) for name, value in given.items()})
            sizes = [one.shape[:2] for one in batch]
            if self.mode == "semantic":
                found = self.processor.post_process_semantic_segmentation(out, target_sizes=sizes)
                made = [one.cpu().numpy().astype(np.int32) for one in found]
            else:
                found = self.processor.post_process_panoptic_segmentation(
                    out, threshold=self.threshold, label_ids_to_fuse=set(), target_sizes=sizes
                )
                made = [_painted(one, size) for one, size in zip(found, sizes, strict=True)]
            for k, one in zip(places, made, strict=True):
                maps[k] = one
        return maps


def _painted(found: Mapping[str, Any], size: tuple[int, int]) -> Array:
    """A class map (h, w) of a panoptic result: each segment in its label's number."""
    classes = np.full(size, NOTHING, np.int32)
    if not found["segments_info"]:
        return classes
    segments = found["segmentation"].cpu().numpy()
    for segment in found["segments_info"]:
        classes[segments == segment["id"]] = segment["label_id"]
    return classes
