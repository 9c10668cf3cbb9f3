"""SAM 2 and SAM through `transformers`, each from a folder with safetensors, config.json and its processor's."""

from pathlib import Path
from typing import Any

import numpy as np

from rasura.manifests.images import RGB
from rasura.networks import pretrained, weights
from rasura.stages.segmenters.sam import Embedding, Floats, Region, crop_region, split_prompt

# Published SAM 2 checkpoints are of the video model, which has the picture model's tensors and those of its memory.
VIDEO = ("memory_", "mask_downsample", "object_pointer_", "temporal_positional_", "no_object_", "occlusion_")


class SamTransformers:
    """A `Sam2Model` or a `SamModel`."""

    def __init__(self, folder: Path, model: str) -> None:
        """Open the model.

        Args:
            folder: holds safetensors, config.json and the processor's files.
            model: `sam2` or `sam`.
        """
        import transformers

        self.one = model
        if model == "sam2":
            self.model = pretrained.open_transformers(transformers.Sam2Model, folder, ["sam2", "sam2_video"], VIDEO)
            self.processor = pretrained.open_processor(transformers.Sam2Processor, folder)
        else:
            self.model = pretrained.open_transformers(transformers.SamModel, folder, ["sam"])
            self.processor = pretrained.open_processor(transformers.SamProcessor, folder)
        self.device = weights.pick_device()

    def encode(self, picture: RGB, region: Region | None = None) -> Embedding:
        import torch

        part, (left, top, right, bottom) = crop_region(picture, region)
        inputs = self.processor(images=np.array(part), return_tensors="pt", **weights.CHANNELS)
        with torch.inference_mode():
            features = self.model.get_image_embeddings(inputs["pixel_values"].to(self.device))
        reshaped = inputs.get("reshaped_input_sizes")  # SAM pads a picture to a square, SAM 2 stretches it to one
        return Embedding((features, reshaped), right - left, bottom - top, left, top)

    def _scale(self, coordinates: Floats, embedding: Embedding) -> Any:
        """Scale coordinates (n, 2) of the encoded part to the network's input: a tensor (1, 1, n, 2)."""
        import torch

        reshaped = embedding.features[1]
        target = self.processor.target_size
        high, wide = (target, target) if reshaped is None else (float(v) for v in reshaped[0])
        scale = torch.tensor([wide / embedding.width, high / embedding.height])
        return (torch.from_numpy(np.ascontiguousarray(coordinates)) * scale)[None, None].to(self.device)

    def _predict(self, embedding: Embedding, points: Floats, labels: Floats, several: bool) -> tuple[Floats, Floats]:
        import torch

        coordinates, kinds, box = split_prompt(embedding, points, labels)
        arguments: dict[str, Any] = {"image_embeddings": embedding.features[0], "multimask_output": several}
        if coordinates is not None and kinds is not None:
            arguments["input_points"] = self._scale(coordinates, embedding)
            arguments["input_labels"] = torch.from_numpy(kinds.astype(np.int64))[None, None].to(self.device)
        if box is not None:
            arguments["input_boxes"] = self._scale(box.reshape(2, 2), embedding).reshape(1, 1, 4)
        with torch.inference_mode():
            answers = self.model(**arguments)
        sizes = [[embedding.height, embedding.width]]
        more = [] if embedding.features[1] is None else [embedding.features[1]]
        masks = self.processor.image_processor.post_process_masks(
            answers.pred_masks.cpu(), sizes, *more, binarize=False
        )
        return masks[0][0].numpy().astype(np.float32), answers.iou_scores.cpu().numpy()[0, 0].astype(np.float32)

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        masks, quality = self._predict(embedding, points, labels, False)
        return masks[0], float(quality[0])

    def prompt_all(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats]:
        return self._predict(embedding, points, labels, True)
