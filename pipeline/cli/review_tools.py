"""What a review is served with from the stages: answers to clicks on masks, and the check of drawings."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rasura.stages.segmenters.repair import MaskRepair
    from rasura.stages.segmenters.sam import Promptable


def open_repair(segmenter: str | None) -> "MaskRepair":
    """Open what answers clicks on masks.

    Args:
        segmenter: `ENCODER.onnx,DECODER.onnx` of a SAM, a `.pth` or `.safetensors` of segment-anything, or a folder of
            SAM or SAM 2 for transformers; None: GrabCut.

    Raises:
        BadParameter: it is none of them, or not there.
    """
    from rasura.stages.segmenters.repair import MaskRepair

    return MaskRepair(_parse_segmenter(segmenter) if segmenter else None)


def check_drawing(data: bytes) -> None:
    """Check that a drawing of the ground is one that stage `ground` takes.

    Raises:
        BadDrawing: it is none.
    """
    from rasura.stages.ground_plane.drawing import parse_drawing

    parse_drawing(data, "the drawing")


def _parse_segmenter(segmenter: str) -> "Callable[[], Promptable]":
    from rasura.manifests.errors import WeightsError
    from rasura.stages.segment import Segment, SegmentParams

    names = segmenter.split(",")
    for name in names:
        if not Path(name).exists():
            raise typer.BadParameter(f"'{name}' is not there", param_hint="--segmenter")
    if len(names) == 2:
        params = {"backend": "sam-onnx", "encoder": names[0], "decoder": names[1]}
    elif Path(segmenter).is_dir():
        params = {"backend": "sam2" if "sam2" in Path(segmenter).name else "sam-hf", "weights": segmenter}
    elif Path(segmenter).suffix in (".pth", ".safetensors"):
        params = {"backend": "sam", "weights": segmenter}
    else:
        text = "give ENCODER.onnx,DECODER.onnx, a .pth or .safetensors of segment-anything, or a folder of SAM or SAM 2"
        raise typer.BadParameter(f"'{segmenter}': {text}", param_hint="--segmenter")

    def load() -> "Promptable":
        stage = Segment(SegmentParams.model_validate(params))
        stage.setup()
        if stage.sam is None:
            raise WeightsError(f"'{segmenter}' holds no segmenter")
        return stage.sam

    return load
