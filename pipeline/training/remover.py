"""The remover of a loop in training, opened by preset."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rasura.manifests.storage import Store
from rasura.networks.pca_codec import Pca
from rasura.networks.pretrained import MissingWeights
from rasura.networks.trainer import OnProgress
from rasura.pipeline.training.rows import FOREGROUND, RowReader, RowRef
from rasura.pipeline.training.settings import DistillSettings, RemoverSettings
from rasura.removers import tiny
from rasura.removers.base import resize
from rasura.removers.diffusion.remover import FUSION, Files, refuse_objectclear
from rasura.removers.training import catdiffusion, distill, objectclear, sdxl
from rasura.removers.training import train as trainer
from rasura.removers.training.catdiffusion_settings import CatSettings
from rasura.removers.training.distill import Distillation
from rasura.removers.training.train import Item, Learner, Settings, Triplet

CURRENT = "current"
"""The trained remover's name among a round's removers."""
CODEC = "codec.safetensors"
LORA = sdxl.LORA_FILE
CODEC_PICTURES = 400
"""Pictures that the linear codec is fitted on, at most."""


def list_items(home: Store, refs: Sequence[RowRef]) -> list[Item]:
    """List triplets to learn from; each is read where it is stored when its turn comes.

    Args:
        home: of a `RowReader`.
    """
    reader = RowReader(home)
    return [Item(ref.id, partial(_read_triplet, reader, ref), ref.label or "") for ref in refs]


def _read_triplet(reader: RowReader, ref: RowRef) -> Triplet:
    row = reader.read_row(ref)
    return Triplet(row["source"], row["target"], row["mask"], row.get(FOREGROUND))


def train_remover(
    config: RemoverSettings,
    settings: Settings,
    items: Sequence[Item],
    codec: Path,
    start: Path | None,
    out: Path,
    on_progress: OnProgress | None = None,
) -> None:
    """Train a remover, as each process of a training does it.

    Args:
        codec: the linear codec, which a fresh remover of preset `tiny` starts from.
        start: folder of the remover that the training goes on from; None for a fresh one.
        out: folder of the remover.
    """
    if isinstance(settings, CatSettings):
        catdiffusion.train(find_files(config, None), items, settings, start, out, on_progress)
        return
    trainer.train(load_learner(config, settings, codec, start), items, settings, out, on_progress)


def distill_remover(
    config: RemoverSettings,
    settings: Distillation,
    items: Sequence[Item],
    teacher: Files,
    out: Path,
    on_progress: OnProgress | None = None,
) -> None:
    """Distill a remover, as each process of a distillation does it."""
    prompts = config.distill or DistillSettings()
    learner = sdxl.open_learner(teacher)
    learner.about = {**learner.about, "prompt": prompts.prompt, "negative": prompts.negative}
    guidance = sdxl.encode_guidance(teacher, prompts.prompt, prompts.negative, prompts.teacher_prompts, learner)
    distill.distill(learner, guidance, items, settings, out, on_progress)


def prepare_teacher(config: RemoverSettings, start: Path, out: Path) -> Files:
    """Return the files of a trained remover with a UNet of its own; a LoRA is fused into one, which is put in `out`."""
    return sdxl.fuse_lora(find_files(config, start), out / "unet")


def load_learner(config: RemoverSettings, settings: Settings, codec: Path, start: Path | None) -> Learner:
    """Load the network that is trained: fresh where `start` is None, else as an earlier training left it."""
    if config.preset == "tiny":
        if start is not None:
            return tiny.load_learner(start)
        return tiny.create_learner(Pca.load(codec), settings.size, settings.seed)
    if config.preset == "objectclear":
        files = find_files(config, start)
        image_encoder = config.image_encoder if files.base == config.base else None
        return objectclear.open_learner(files, image_encoder, settings.seed)
    files = find_files(config, start)
    refuse_objectclear(f"preset {config.preset}", files.base, files.unet)
    return sdxl.open_learner(files)


def find_files(config: RemoverSettings, start: Path | None) -> Files:
    """Find the files of SDXL-inpainting, with the UNet or the LoRA that a training left in `start`.

    What a training of the preset objectclear left is a base of its own, but for the UNet that a LoRA belongs to.

    Args:
        start: may also be the folder of a UNet. None: SDXL-inpainting as it is.

    Raises:
        MissingWeights: none of them is there.
    """
    assert config.base is not None  # the recipe was checked
    image_encoder = config.image_encoder if config.preset == "catdiffusion" else None
    files = Files(config.base, prompts=config.prompts, image_encoder=image_encoder)
    if start is None:
        return files
    if config.preset == "objectclear" and (start / FUSION).is_dir():
        files = replace(files, base=start, unet=config.base / "unet")
    if (start / "unet").is_dir():
        return replace(files, unet=start / "unet")
    if (start / LORA).is_file():
        return replace(files, lora=start / LORA)
    if (start / "config.json").is_file():
        return replace(files, unet=start)
    raise MissingWeights(
        f"no remover in '{start}': it has neither a UNet (unet/, config.json) nor {LORA}; name a folder that "
        "`rasura remover train` wrote"
    )


def fit_codec(pictures: Sequence[Any], path: Path, size: int) -> None:
    """Fit the linear codec of a remover of preset `tiny` on pictures (h, w, 3) squeezed to its size, and save it."""
    codec = Pca.fit([resize(picture, (size, size)) for picture in pictures])
    part = path.with_suffix(".part")
    codec.save(part)
    part.replace(path)
