"""ObjectClear's mask loss: what the network looks at for the object's token is to lie on the object and its effects."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rasura.removers.objectclear import Gaze

if TYPE_CHECKING:
    import torch

VISIBLE = 0.1
"""Share of an attention map's cell that has to be M_fg for the cell to count as such."""


@contextmanager
def gazes(unet: Any, token: int, wanted: bool) -> Iterator[list[Gaze]]:
    """Listens to every cross-attention of the network; to none where it is not wanted."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn2")] if wanted else []
    opened = [Gaze(unet, name, token) for name in names]
    for one in opened:
        one.open()
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


def loss(opened: Sequence[Gaze], region: "torch.Tensor") -> "torch.Tensor":
    """mean_bg(A) - mean_fg(A) + 1 for A the attention on the token, averaged over heads, layers and pictures.

    It is linear in A, so the mean over heads may come first.

    Args:
        region: (n, 1, h, w) float, M_fg; square. Pictures whose region fills all or nothing of a map count as 1.
    """
    import torch
    import torch.nn.functional as F

    found = []
    for gaze in opened:
        count, places = gaze.heard["to_q"].shape[:2]
        side = math.isqrt(places)
        looked = gaze.maps((side, side), count)
        scaled = F.interpolate(region.float(), (side, side), mode="bilinear", antialias=True)[:, 0]
        inside = (scaled > VISIBLE).to(looked.dtype)
        beside = 1 - inside
        known = ((inside.sum((1, 2)) > 0) & (beside.sum((1, 2)) > 0)).to(looked.dtype)
        on, off = ((looked * one).sum((1, 2)) / one.sum((1, 2)).clamp(min=1) for one in (inside, beside))
        found.append((known * (off - on) + 1).mean())
    return torch.stack(found).mean()
