"""ObjectClear's mask loss at tiny size: where the attention to the object's word is, with the loss and without it.

    python -m benchmarks objectclear_attention

Networks of SDXL-inpainting's and CLIP's classes with random weights are trained with the preset's settings, but for
size, batch and rate, on pictures of 128 px with an object and its shadow. Measured on 16 others: the mean attention to
the object's word on the object, on its shadow and elsewhere, over all cross-attentions; and where the remover that the
trained folder is changes the picture. The VAE is random, so that what it fills in means nothing.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import make_scratch_folder, print_result

Array = npt.NDArray[Any]

SIDE, STEPS, WEIGHTS = 128, (100, 300), (0.0, 0.01)
TRAINED, MEASURED = range(1000, 1064), range(2000, 2016)
"""Seeds of the pictures."""


def measure_attention(learner: Any, crops: list[Any], settings: Any) -> tuple[float, ...]:
    """Return the mean attention on objects, on their shadows, and elsewhere."""
    import torch

    from rasura.removers.training import attention_loss, train

    noisy, condition, times, *_ = train.prepare_inputs(learner, settings, crops, list(range(len(crops))))
    with torch.no_grad(), attention_loss.record_attention(learner.unet, settings.token, True) as recorders:
        train.predict(learner.network, learner, SIDE, noisy, condition, times, learner.embed(crops))
    values = []
    for recorder in recorders:
        side = round(recorder.outputs["to_q"].shape[1] ** 0.5)
        maps = recorder.compute_maps((side, side), len(crops)).numpy()
        for crop, attention in zip(crops, maps, strict=True):
            parts = (crop.mask, crop.foreground & ~crop.mask, ~crop.foreground)
            values.append([attention[cells].mean() for cells in (shrink_mask(part, side) for part in parts)])
    return tuple(round(float(value), 3) for value in np.mean(values, axis=0))


def shrink_mask(mask: Array, side: int) -> Array:
    """Return the cells (side, side) bool of which the mask covers more than a third."""
    cell = len(mask) // side
    return np.asarray(mask.reshape(side, cell, side, cell).mean((1, 3)) > 1 / 3)


def measure_changes(folder: Path, triplets: list[Any]) -> dict[str, float]:
    """Return the share of the shadows, and of what is neither object nor shadow, that a trained folder changes."""
    from rasura.removers.registry import ModelParams, open_remover

    model = ModelParams(base=str(folder), size=SIDE, steps=8, device="cpu")
    remover: Any = open_remover("objectclear", {"objectclear": model})
    remover.weights()
    remover.setup()
    fills = remover.fill([one.source for one in triplets], [one.mask for one in triplets], list(MEASURED))
    changed = [fill.weight > 0.5 for fill in fills]
    pairs = list(zip(changed, triplets, strict=True))
    return {
        "changed_shadow": round(float(np.mean([one[t.foreground & ~t.mask].mean() for one, t in pairs])), 2),
        "changed_elsewhere": round(float(np.mean([one[~t.foreground].mean() for one, t in pairs])), 2),
    }


def run_trainings(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the measurements before any training, and after each."""
    from support import tiny_models
    from support.training_triplets import make_shadow_triplet

    from rasura.removers.diffusion.remover import Files
    from rasura.removers.training import objectclear, train

    base, clip = tiny_models.sdxl_folder(folder / "sdxl"), tiny_models.clip_folder(folder / "clip")
    items = [train.Item(f"s{seed}", lambda seed=seed: make_shadow_triplet(seed, SIDE)) for seed in TRAINED]  # type: ignore[misc]
    triplets = [make_shadow_triplet(seed, SIDE) for seed in MEASURED]
    plain = replace(objectclear.PUBLISHED, size=SIDE, crop="whole", flip=False, vary_mask=False, vary_colours=False)
    crops = [train.crop_triplet(one, plain, np.random.default_rng(0)) for one in triplets]
    for weight in WEIGHTS:
        for steps in (0, *STEPS) if weight == WEIGHTS[0] else STEPS:
            learner = objectclear.open_learner(Files(base), clip, 1, device="cpu")
            out = folder / f"{weight}-{steps}"
            changes = {}
            if steps:
                settings = replace(objectclear.PUBLISHED, size=SIDE, batch=4, rate=1e-3, warm_up=20, save_memory=False)
                train.train(learner, items, replace(settings, steps=steps, mask_loss=weight), out)
                changes = measure_changes(out, triplets)
            on_object, on_shadow, elsewhere = measure_attention(learner, crops, plain)
            yield {"mask_loss": weight, "steps": steps, "object": on_object, "shadow": on_shadow} | {
                "elsewhere": elsewhere,
                **changes,
            }


def main() -> None:
    """Train, measure and print."""
    import torch

    torch.set_num_threads(1)
    with make_scratch_folder() as folder:
        for values in run_trainings(folder):
            print_result("objectclear_attention", **values)


if __name__ == "__main__":
    main()
