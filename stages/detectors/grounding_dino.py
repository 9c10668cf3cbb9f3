"""GroundingDINO through `transformers`: finds the objects that a list of words names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rasura.manifests.images import RGB
from rasura.networks import pretrained, weights
from rasura.stages.detectors.boxes import Detection, detect_by_size
from rasura.stages.detectors.text import build_prompts, make_offsets, match_classes


class GroundingDino:
    """A `GroundingDinoForObjectDetection` in a folder, with its processor."""

    def __init__(self, folder: Path, classes: Sequence[str], min_score: float, text_threshold: float) -> None:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        self.model = pretrained.open_transformers(GroundingDinoForObjectDetection, folder, ["grounding-dino"])
        self.processor = pretrained.open_processor(GroundingDinoProcessor, folder)
        self.device = weights.pick_device()
        self.batches = self.device != "cpu"
        self.prompts = build_prompts(classes, make_offsets(self.processor.tokenizer), self.model.config.max_text_len)
        self.thresholds = min_score, text_threshold

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return detect_by_size(pictures, self._detect_batch)

    def _detect_batch(self, pictures: list[RGB]) -> list[list[Detection]]:
        """Find objects in pictures of one size."""
        import torch

        size = (pictures[0].shape[0], pictures[0].shape[1])
        pictures = [np.array(picture) for picture in pictures]  # torch wants to be able to write
        detections: list[list[Detection]] = [[] for _ in pictures]
        for prompt in self.prompts:
            text = [prompt.caption] * len(pictures)
            inputs = self.processor(images=pictures, text=text, return_tensors="pt", **weights.CHANNELS)
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                outputs = self.model(**inputs)
            probabilities, boxes = outputs.logits.sigmoid().cpu().numpy(), outputs.pred_boxes.cpu().numpy()
            for k in range(len(pictures)):
                detections[k] += match_classes(probabilities[k], boxes[k], prompt, size, *self.thresholds)
        return detections
