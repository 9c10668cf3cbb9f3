"""SAM by its authors' library, `segment-anything`, for their original checkpoints (vit_b, vit_l, vit_h)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rasura.manifests.images import RGB
from rasura.networks import weights
from rasura.stages.segmenters.sam import Embedding, Floats, Region, crop_region, split_prompt

HEADS = 8  # of the decoder; in all published models


def infer_architecture(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Infer the sizes of a SAM from its tensors: no name of a model has to be configured, so none can be wrong.

    Raises:
        BadWeights: the tensors are of another network.
    """
    try:
        patch = state["image_encoder.patch_embed.proj.weight"]  # (width, 3, patch, patch)
        grid = int(state["image_encoder.pos_embed"].shape[1])
        depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("image_encoder.blocks."))
        reach = [tuple(state[f"image_encoder.blocks.{k}.attn.rel_pos_h"].shape) for k in range(depth)]
        spans = [(rows + 1) // 2 for rows, _ in reach]  # a window's side, or the whole grid's
        block = "mask_decoder.transformer.layers."
        return {
            "side": grid * int(patch.shape[2]),
            "grid": grid,
            "patch": int(patch.shape[2]),
            "width": int(patch.shape[0]),
            "heads": int(patch.shape[0]) // int(reach[0][1]),
            "depth": depth,
            "whole": [k for k, span in enumerate(spans) if span == grid],
            "window": min(spans) if min(spans) < grid else 0,
            "mlp": state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / int(patch.shape[0]),
            "prompt": int(state["image_encoder.neck.0.weight"].shape[0]),
            "mask_channels": int(state["prompt_encoder.mask_downscaling.3.weight"].shape[0]),
            "layers": 1 + max(int(name.split(".")[3]) for name in state if name.startswith(block)),
            "decoder_mlp": int(state[f"{block}0.mlp.lin1.weight"].shape[0]),
            "masks": int(state["mask_decoder.mask_tokens.weight"].shape[0]) - 1,
            "iou_hidden": int(state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0]),
            "iou_depth": sum(name.startswith("mask_decoder.iou_prediction_head.layers.") for name in state) // 2,
        }
    except (KeyError, ValueError, IndexError) as error:
        hint = "; a MobileSAM is used as ONNX (backend sam-onnx)" if any(".mbconv" in name for name in state) else ""
        raise weights.BadWeights(f"'{path}' is no SAM of the library segment-anything: no {error}{hint}") from error


def build_sam(sizes: Mapping[str, Any]) -> Any:
    """Build a SAM without weights, of the sizes that `infer_architecture` returns."""
    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    encoder = ImageEncoderViT(
        img_size=sizes["side"],
        patch_size=sizes["patch"],
        embed_dim=sizes["width"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        mlp_ratio=sizes["mlp"],
        out_chans=sizes["prompt"],
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes["window"],
        global_attn_indexes=tuple(sizes["whole"]),
    )
    prompter = PromptEncoder(
        embed_dim=sizes["prompt"],
        image_embedding_size=(sizes["grid"], sizes["grid"]),
        input_image_size=(sizes["side"], sizes["side"]),
        mask_in_chans=sizes["mask_channels"],
    )
    decoder = MaskDecoder(
        transformer_dim=sizes["prompt"],
        transformer=TwoWayTransformer(
            depth=sizes["layers"], embedding_dim=sizes["prompt"], mlp_dim=sizes["decoder_mlp"], num_heads=HEADS
        ),
        num_multimask_outputs=sizes["masks"],
        iou_head_depth=sizes["iou_depth"],
        iou_head_hidden_dim=sizes["iou_hidden"],
    )
    return Sam(encoder, prompter, decoder)


class SamTorch:
    """A SAM of segment-anything from one file: .pth (tensors only) or .safetensors."""

    def __init__(self, path: Path) -> None:
        from segment_anything import SamPredictor

        state = weights.read_tensors(path)
        model = weights.load_state(build_sam(infer_architecture(state, path)), state, path)
        self.predictor: Any = SamPredictor(model)

    def encode(self, picture: RGB, region: Region | None = None) -> Embedding:
        part, (left, top, right, bottom) = crop_region(picture, region)
        self.predictor.set_image(part)
        features = self.predictor.features, self.predictor.input_size
        return Embedding(features, right - left, bottom - top, left, top)

    def _predict(self, embedding: Embedding, points: Floats, labels: Floats, several: bool) -> tuple[Floats, Floats]:
        predictor = self.predictor
        predictor.features, predictor.input_size = embedding.features
        predictor.original_size, predictor.is_image_set = (embedding.height, embedding.width), True
        coordinates, kinds, box = split_prompt(embedding, points, labels)
        masks, quality, _ = predictor.predict(coordinates, kinds, box, multimask_output=several, return_logits=True)
        return np.asarray(masks, np.float32), np.asarray(quality, np.float32)

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        masks, quality = self._predict(embedding, points, labels, False)
        return masks[0], float(quality[0])

    def prompt_all(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats]:
        return self._predict(embedding, points, labels, True)
