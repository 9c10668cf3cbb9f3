"""YOLO by ultralytics (the extra `yolo`). The library and its weights are under AGPL-3.0: it is imported only where a
recipe chooses it, and what is built with it may have to be published under that licence.

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
from rasura.stages.detectors.boxes import Detection, by_size

MOST = 300  # boxes of one picture


def library() -> Any:
    """ultralytics, imported so that it asks no host, installs nothing, and leaves the home folder and PIL alone."""
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
    # It replaces PIL's open by one that answers a broken picture with a package that is not installed.
    Image.open = patches._image_open
    return ultralytics


def opened(path: Path) -> Any:
    """The detection model in a checkpoint, opened without running anything that it brings.

    Raises:
        BadWeights
    """
    library()
    from ultralytics.nn import tasks

    if path.suffix != ".pt":
        raise weights.BadWeights(f"'{path}' is no YOLO checkpoint (.pt)")
    try:
        checkpoint, _ = tasks.torch_safe_load(path, safe_only=True)
    except Exception as error:  # the library raises TypeError, ModuleNotFoundError and whatever torch raises
        line = " ".join(str(error).split())[:300]
        raise weights.BadWeights(f"'{path}' cannot be opened as a YOLO of known parts: {line}") from error
    found: Any = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, dict) else None
    if type(found) is not tasks.DetectionModel:
        raise weights.BadWeights(f"'{path}' holds a {type(found).__name__}, not YOLO's DetectionModel")
    return found.float().eval()


class Yolo:
    """A YOLO that finds boxes. Pictures are letterboxed to `side`; suppression is the library's own."""

    def __init__(self, path: Path, min_score: float, nms: float, side: int) -> None:
        model = opened(path)
        from ultralytics.models.yolo.detect import DetectionPredictor

        device = weights.device()
        self.batches = device != "cpu"
        chosen = {"task": "detect", "mode": "predict", "conf": min_score, "iou": nms, "imgsz": side, "max_det": MOST}
        plain = {"rect": True, "device": device, "verbose": False, "save": False}  # as YOLO.predict sets them
        self.predictor = DetectionPredictor(overrides={**chosen, **plain})
        self.predictor.setup_model(model, verbose=False)
        self.names = tuple(str(name) for _, name in sorted(self.predictor.model.names.items()))

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return by_size(pictures, self._equal)

    def _equal(self, pictures: list[RGB]) -> list[list[Detection]]:
        """Detections in pictures of one size."""
        self.predictor.args.batch = len(pictures)
        results = self.predictor([np.ascontiguousarray(picture[..., ::-1]) for picture in pictures])
        found = []
        for result in results:
            rows = result.boxes.data.tolist()  # x0, y0, x1, y1, score, class
            found.append([Detection(self.names[int(row[5])], row[4], (*row[:4],)) for row in rows])
        return found
