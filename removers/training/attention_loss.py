"""ObjectClear's mask loss: the attention to the object's token has to be on the object and its effects."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rasura.removers.diffusion.objectclear import AttentionRecorder

if TYPE_CHECKING:
    import torch

VISIBLE = 0.1
"""Share of an attention map's cell that has to be M_fg for the cell to count as such."""


@contextmanager
def record_attention(unet: Any, token: int, enabled: bool) -> Iterator[list[AttentionRecorder]]:
    """Record every cross-attention of the network while the context lasts; none where it is not enabled."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn2")] if enabled else []
    recorders = [AttentionRecorder(unet, name, token) for name in names]
    for recorder in recorders:
        recorder.start()
    try:
        yield recorders
    finally:
        for recorder in recorders:
            recorder.stop()


def compute_mask_loss(recorders: Sequence[AttentionRecorder], region: "torch.Tensor") -> "torch.Tensor":
    """Return mean_bg(A) - mean_fg(A) + 1 for A the attention on the token, averaged over heads, layers and pictures.

    It is linear in A, so the mean over heads may come first. The attention itself is computed again for the gradient:
    kept, that of all layers of SDXL takes 0.1 GB a picture.

    Args:
        region: (n, 1, h, w) float, M_fg; square. Pictures whose region fills all or nothing of a map count as 1.

    Source: ObjectClear, arXiv 2505.22636.
    """
    import torch
    import torch.nn.functional as F
    from torch.utils.checkpoint import checkpoint

    losses = []
    for recorder in recorders:
        count, cells = recorder.outputs["to_q"].shape[:2]
        side = math.isqrt(cells)
        attention = checkpoint(
            recorder.compute_maps, (side, side), count, use_reentrant=False, preserve_rng_state=False
        )
        scaled = F.interpolate(region.float(), (side, side), mode="bilinear", antialias=True)[:, 0]
        inside = (scaled > VISIBLE).to(attention.dtype)
        outside = 1 - inside
        has_both = ((inside.sum((1, 2)) > 0) & (outside.sum((1, 2)) > 0)).to(attention.dtype)
        mean_inside, mean_outside = (
            (attention * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1) for part in (inside, outside)
        )
        losses.append((has_both * (mean_outside - mean_inside) + 1).mean())
    return torch.stack(losses).mean()
