"""A remover on a loop's frozen test set: success, and closeness to the truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from manifests.ids import seed_for
from pipeline import loop_models, oracle
from pipeline.loop import Loop
from pipeline.loop_data import Reader, Ref, records
from removers.remover import hole_of, remove


def psnr(made: Any, true: Any, region: Any) -> float:
    """dB over a region (h, w) bool of (h, w, 3) uint8 pictures; at most 60, so that a perfect answer has a mean."""
    error = ((made.astype(np.float64) - true)[region] ** 2).mean()
    return float(min(60.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def measure(loop: Loop, number: int, test: Sequence[Ref]) -> dict[str, Any]:
    """Success by the oracle (%) and PSNR in the hole and around it (dB), with errors; `yes` is each scene's."""
    recipe = loop.recipe
    remover = loop_models.current(recipe, loop.remover(number))
    inside, around, yes = [], [], []
    for rows in records(Reader(loop.store), test, recipe.shard_scenes):
        # the same seed in every round: what differs is the remover
        seeds = [seed_for(recipe.seed, "test", row["id"]) for row in rows]
        sources, masks = [row["source"] for row in rows], [row["mask"] for row in rows]
        targets = remove(remover, sources, masks, seeds, recipe.dilation, recipe.context)
        for row, made in zip(rows, targets, strict=True):
            hole, foreground = hole_of(row["mask"], recipe.dilation), row.get("foreground_mask")
            effects = foreground & ~row["mask"] if foreground is not None else None
            inside.append(psnr(made, row["target"], hole))
            around.append(psnr(made, row["target"], ~hole))
            yes.append(oracle.judge(made, row["target"], row["source"], hole, effects).verdict == "yes")
    count = len(yes)
    share = sum(yes) / count
    return {
        "count": count, "success": 100 * share, "success_error": 100 * (share * (1 - share) / count) ** 0.5,
        "psnr": float(np.mean(inside)), "psnr_error": float(np.std(inside) / count**0.5),
        "psnr_background": float(np.mean(around)), "yes": yes,
    }  # fmt: skip
