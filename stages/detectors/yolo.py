"""YOLO by ultralytics (the extra `yolo`). The library and its weights are under AGPL-3.0: it is imported only where a
recipe chooses it, and software that is built with it may have to be published under that licence.

Its checkpoints are pickles of whole modules; they are opened with `weights_only=True` and the library's list of its own
classes, so that a file can bring no code of its own.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rasura.manifests.images import RGB
from rasura.networks import weights
from rasura.stages.detectors.boxes import Detection, detect_by_size

MAX_BOXES = 300  # boxes of one picture


def import_library() -> Any:
    """Import ultralytics so that it contacts no host, installs nothing, and does not touch the home folder or PIL."""
    quiet = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "False", "ULTRALYTICS_SAFE_LOAD": "1"}
    folder = Path(tempfile.gettempdir()) / f"rasura-ultralytics-{os.getuid()}"
    for name, value in {**quiet, "YOLO_CONFIG_DIR": str(folder)}.items():
        os.environ.setdefault(name, value)
    if "YOLO_CONFIG_DIR" in os.environ:
        Path(os.environ["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)
    try:
        import ultralytics
        from ultralytics.utils import patches
    except ImportError as error:
        raise ImportError(
            f"backend 'yolo' needs the extra `yolo` (pip install 'rasura[yolo]'; AGPL-3.0): {error}"
        ) from error
    # It replaces PIL's open by one that reacts to a broken picture by importing a package that is not installed.
    Image.open = patches._image_open
    return ultralytics


def open_checkpoint(path: Path) -> Any:
    """Open the detection model in a checkpoint without running any code that the file contains.

    Raises:
        BadWeights: the file is no such checkpoint, or holds anything else.
    """
    import_library()
    from ultralytics.nn import tasks

    if path.suffix != ".pt":
        raise weights.BadWeights(f"'{path}' is no YOLO checkpoint (.pt)")
    try:
        checkpoint, _ = tasks.torch_safe_load(path, safe_only=True)
    except Exception as error:  # the library raises TypeError, ModuleNotFoundError and whatever torch raises
        line = " ".join(str(error).split())[:300]
        raise weights.BadWeights(f"'{path}' cannot be opened as a YOLO of known parts: {line}") from error
    model: Any = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, dict) else None
    if type(model) is not tasks.DetectionModel:
        raise weights.BadWeights(f"'{path}' holds a {type(model).__name__}, not YOLO's DetectionModel")
    return model.float().eval()


class Yolo:
    """A YOLO that finds boxes. Pictures are letterboxed to `side`; suppression is the library's own."""

    def __init__(self, path: Path, min_score: float, nms: float, side: int) -> None:
        model = open_checkpoint(path)
        from ultralytics.models.yolo.detect import DetectionPredictor

        device = weights.pick_device()
        self.batches = device != "cpu"
        chosen = {
            "task": "detect",
            "mode": "predict",
            "conf": min_score,
            "iou": nms,
            "imgsz": side,
            "max_det": MAX_BOXES,
        }
        plain = {"rect": True, "device": device, "verbose": False, "save": False}  # as YOLO.predict sets them
        self.predictor = DetectionPredictor(overrides={**chosen, **plain})
        self.predictor.setup_model(model, verbose=False)
        self.names = tuple(str(name) for _, name in sorted(self.predictor.model.names.items()))

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return detect_by_size(pictures, self._detect_batch)

    def _detect_batch(self, pictures: list[RGB]) -> list[list[Detection]]:
        """Find objects in pictures of one size."""
        self.predictor.args.batch = len(pictures)
        results = self.predictor([np.ascontiguousarray(picture[..., ::-1]) for picture in pictures])
        detections = []
        for result in results:
            rows = result.boxes.data.tolist()  # x0, y0, x1, y1, score, class
            detections.append([Detection(self.names[int(row[5])], row[4], (*row[:4],)) for row in rows])
        return detections
