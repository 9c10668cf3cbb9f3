"""GroundingDINO through `transformers`: finds what a list of words names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rasura.manifests.images import RGB
from rasura.networks import weights
from rasura.stages.detectors.boxes import Detection, by_size
from rasura.stages.detectors.text import named, offsets_of, prompts


class GroundingDino:
    """A `GroundingDinoForObjectDetection` in a folder, with its processor."""

    def __init__(self, folder: Path, classes: Sequence[str], min_score: float, text_threshold: float) -> None:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        self.model = weights.pretrained(GroundingDinoForObjectDetection, folder, ["grounding-dino"])
        self.processor = weights.processor(GroundingDinoProcessor, folder)
        self.device = weights.device()
        self.batches = self.device != "cpu"
        self.prompts = prompts(classes, offsets_of(self.processor.tokenizer), self.model.config.max_text_len)
        self.thresholds = min_score, text_threshold

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return by_size(pictures, self._equal)

    def _equal(self, pictures: list[RGB]) -> list[list[Detection]]:
        """Detections in pictures of one size."""
        import torch

        size = (pictures[0].shape[0], pictures[0].shape[1])
        pictures = [np.array(picture) for picture in pictures]  # torch wants to be able to write
        found: list[list[Detection]] = [[] for _ in pictures]
        for asked in self.prompts:
            text = [asked.caption] * len(pictures)
            inputs = self.processor(images=pictures, text=text, return_tensors="pt", **weights.CHANNELS)
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                answers = self.model(**inputs)
            probabilities, boxes = answers.logits.sigmoid().cpu().numpy(), answers.pred_boxes.cpu().numpy()
            for k in range(len(pictures)):
                found[k] += named(probabilities[k], boxes[k], asked, size, *self.thresholds)
        return found
