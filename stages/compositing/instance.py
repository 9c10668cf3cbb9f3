"""Stage `instance`: cuts a masked object out of its photo, without effects, and scores how well it shows its class.

The first step of Syn4Removal (arXiv 2501.08279): an instance is what a binary mask cuts out. Cut-outs of pairs, which
have their effects and a matted rim, get the score alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.networks.memory import NetworkMemory, count_parameters, estimate_memory
from rasura.networks.weights import Reference, Revision, resolve
from rasura.stages.compositing.clip_model import ClipModel, list_clip_files, paint_on_white
from rasura.stages.split import measure_frame_share
from rasura.stages.stage import Kept, MissingColumns, Outcome, Params, Record, Rejected, Stage

CUTOUT: Schema = {
    "foreground": Kind.RGBA,
    "foreground_object": Kind.MASK,
    "foreground_box": Kind.FLOATS,
    "foreground_cut": Kind.FLOAT,  # share of its outline on the frame of its picture
    "foreground_area": Kind.FLOAT,  # share of its picture
    "picture_width": Kind.INT,
    "picture_height": Kind.INT,
}
CLIP_FILES = ("*.json", "*.txt", "*.safetensors")
CLIP_ELEMENTS = 30_000_000  # of its activations, for one picture


class InstanceParams(Params):
    clip: Reference | None = Field(
        None,
        description="Folder of a CLIP of transformers (ViT-L/14 in Syn4Removal), or with `revision` a model of the "
        "hub; without it `clip_score` is null.",
    )
    revision: Revision | None = Field(None, description="Commit of `clip` on the hub.")
    text: str = Field("a photo of {label}", description="Text that is compared with an instance; {label} is its class.")
    min_side: int = Field(8, ge=1, description="Px; instances with a shorter side are rejected.")

    @field_validator("text")
    @classmethod
    def _check_text(cls, value: str) -> str:
        if "{label}" not in value:
            raise ValueError(f"has to name the class as {{label}}: {value!r}")
        return value


class Instance(Stage):
    """Cut a masked object out of its photograph, and score by CLIP how well it shows its class.

    Examples:
        - instance: {clip: models/clip-vit-large-patch14}
    """

    name = "instance"
    gives: ClassVar[Schema] = {**CUTOUT, "clip_score": Kind.FLOAT}
    drops: ClassVar[frozenset[str]] = frozenset({"source", "object_mask", "kind"})
    Params = InstanceParams
    params: InstanceParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.clip: ClipModel | None = None
        self.weights()  # what is missing is reported when the recipe is read

    def schema(self, columns: Schema) -> Schema:
        if "foreground" in columns:
            return {**columns, "clip_score": Kind.FLOAT}
        if missing := tuple(name for name in ("source", "object_mask") if name not in columns):
            raise MissingColumns(self.name, missing, tuple(columns))
        after = super().schema(columns)
        return {name: kind for name, kind in after.items() if kind not in PICTURES or name in self.gives}

    def weights(self) -> Mapping[str, Path]:
        return {} if self.params.clip is None else list_clip_files(self._resolve(self.params.clip))

    def _resolve(self, reference: str) -> Path:
        return resolve(reference, self.params.revision, CLIP_FILES)

    def network_memory(self, batch_size: int) -> NetworkMemory | None:
        if self.params.clip is None:
            return None
        return estimate_memory(count_parameters(self.weights().values()), CLIP_ELEMENTS, "float32")

    def setup(self) -> None:
        if self.params.clip is not None:
            self.clip = ClipModel(self._resolve(self.params.clip))

    def process_one(self, record: Record) -> Outcome:
        if record.get("foreground") is None:
            mask = record["object_mask"]
            if mask is None or not mask.any():
                return Rejected("no object found", "object_mask is empty")
            record = self.cut_out(record)
        height, width = record["foreground_object"].shape
        if min(height, width) < self.params.min_side:
            return Rejected("too small", f"{width} x {height} px, less than {self.params.min_side}")
        return Kept([record | {"clip_score": self.score(record)}])

    def cut_out(self, record: Record) -> Record:
        """Return the record of an instance: its crop with the mask as alpha, and where it was."""
        source, mask = record["source"], record["object_mask"]
        height, width = mask.shape
        x0, y0, x1, y1 = box = compute_bounds(mask)
        solid = mask[y0:y1, x0:x1].copy()
        colour = np.where(solid[..., None], source[y0:y1, x0:x1], 0)
        rest = {
            name: value
            for name, value in record.items()
            if name not in self.drops and not (isinstance(value, np.ndarray) and value.ndim > 1)
        }
        return rest | {
            "foreground": np.dstack([colour, solid * np.uint8(255)]).astype(np.uint8),
            "foreground_object": solid,
            "foreground_box": [float(value) for value in box],
            "foreground_cut": measure_frame_share(solid, box, (width, height)),
            "foreground_area": float(mask.mean()),
            "picture_width": width,
            "picture_height": height,
        }

    def score(self, record: Record) -> float | None:
        """Return the CLIP score of an instance on white; None without weights, or without a class."""
        label = record.get("label")
        if self.clip is None or not label:
            return None
        mask = record["foreground_object"]
        x0, y0, x1, y1 = compute_bounds(mask)
        picture = paint_on_white(record["foreground"][..., :3], mask)[y0:y1, x0:x1]
        return self.clip.score(picture, self.params.text.replace("{label}", label))
