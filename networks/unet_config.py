"""Sizes of the UNets: SDXL-inpainting's own, and one that is trained on a CPU in minutes."""

from collections.abc import Mapping
from typing import Any

SDXL_UNET: Mapping[str, Any] = {
    "sample_size": 128,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
"""Arguments of diffusers' `UNet2DConditionModel`."""


def make_tiny_config(channels: int, sample_size: int, widths: tuple[int, int] = (32, 64)) -> dict[str, Any]:
    """Return the arguments of a tiny UNet with 2 C + 1 input channels and two levels.

    Eight groups: 32 would be one or two channels each, which loses contrast.

    Args:
        channels: C, of the latents.
        sample_size: side of the latents.
        widths: channels of the two levels.

    Examples:
        >>> make_tiny_config(channels=16, sample_size=16)["in_channels"]
        33
    """
    return {
        "sample_size": sample_size,
        "in_channels": 2 * channels + 1,
        "out_channels": channels,
        "block_out_channels": widths,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1),
        "attention_head_dim": (1, 2),
        "cross_attention_dim": 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
        "use_linear_projection": True,
        "norm_num_groups": 8,
    }
