"""ObjectClear as a network to be trained: SDXL-inpainting, which sees the whole source, and the fusion module.

The prompt is "remove the instance of object"; the word "object" is replaced by what the fusion module makes of CLIP's
embedding of the object. UNet and fusion module learn; the image encoder does not. The loss is that of the noise and the
mask loss: the attention to that word has to be on the object and its effects. Source: arXiv 2505.22636 and its release.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rasura.networks.pretrained import MissingWeights, list_diffusers_files
from rasura.removers.diffusion import conditioning, objectclear
from rasura.removers.diffusion.objectclear import IMAGE_ENCODER, OBJECT_TOKEN, PROMPT, Background
from rasura.removers.diffusion.remover import FUSION, Files
from rasura.removers.training import sdxl
from rasura.removers.training.train import Learner, Settings, Triplet

if TYPE_CHECKING:
    import torch

PUBLISHED = Settings(
    steps=100_000,
    batch=32,
    rate=1e-5,
    decay="cosine",
    weight_decay=1e-4,
    source="whole",
    crop="square",
    vary_mask=True,
    vary_colours=True,
    mask_loss=0.01,
    token=OBJECT_TOKEN,
    save_memory=True,
)
"""The release's settings (`train.sh`: 8 processes of 4 make its batch); gradients are checkpointed in addition."""
FIXED: Mapping[str, Any] = {"objective": "epsilon", "source": "whole", "token": OBJECT_TOKEN}
"""Settings by which the remover is run, so that it cannot be trained with others."""
BACKGROUND: Background = "black"
"""What is around the object in the image encoder's input, as in the release's training. A folder that was trained here
says so in its record, and is run with the same."""
LICENCE = "that of SDXL-inpainting (CreativeML Open RAIL++-M) and of its triplets"
"""Licence of weights that do not come from the published ones."""
FUSION_FILE = "model.safetensors"


def find_misfits(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the settings that an ObjectClear cannot be trained with: their names, and why."""
    for name, value in FIXED.items():
        if (other := getattr(settings, name)) != value:
            yield name, f"the preset objectclear is trained as it is run, with {value!r} (it is {other!r})"


def open_learner(
    files: Files, image_encoder: Path | None = None, seed: int = 0, device: str = "auto", dtype: str = "auto"
) -> Learner:
    """Open SDXL-inpainting or an ObjectClear, ready to be trained.

    Args:
        files: `base` is SDXL-inpainting's folder, whose fusion module begins with random weights, or an ObjectClear's,
            published or trained here. `prompts` are embeddings of `PROMPT`.
        image_encoder: folder of CLIP ViT-L/14, whole or its image encoder alone, for a base without one.
        seed: of the random weights.

    Raises:
        MissingWeights: a file is missing, or is of another network.
        WrongLora: `files.lora` cannot be read.
    """
    from rasura.networks.inpainting.fusion_module import ObjectUNet, create_fusion_module

    encoder_folder, has_fusion = find_image_encoder(files.base, image_encoder), (files.base / FUSION).is_dir()
    learner = sdxl.open_learner(files, device, dtype, PROMPT)
    vision = objectclear.open_image_encoder(encoder_folder).to(learner.device)
    width, token = vision.config.projection_dim, learner.tokens.shape[-1]
    if has_fusion:
        fusion, start = objectclear.open_fusion(files.base, width, token), str(files.base / FUSION)
    else:
        fusion, start = create_fusion_module(width, token, seed), f"fresh {seed}"
    learner.network = ObjectUNet(learner.unet, fusion.to(learner.device).requires_grad_(True), OBJECT_TOKEN)
    learner.embed = partial(embed_objects, vision)
    learner.save = partial(save, files, encoder_folder)
    learner.about = {
        **learner.about,
        "fusion": start,
        "image_encoder": str(encoder_folder),
        "object_background": BACKGROUND,
        **(describe_licence(files.base) if has_fusion else {"licence": LICENCE, "non_commercial": False}),
    }
    return learner


def find_image_encoder(base: Path, image_encoder: Path | None) -> Path:
    """Return the folder of the image encoder that a base is trained with: its own, or another one for SDXL-inpainting.

    Raises:
        MissingWeights: there is none, or there are two.
    """
    if image_encoder and (base / FUSION).is_dir():
        raise MissingWeights(
            f"{base} has a fusion module, which was learned with its own {IMAGE_ENCODER}: leave out the other image "
            f"encoder, {image_encoder}"
        )
    folder = image_encoder or base / IMAGE_ENCODER
    if not folder.is_dir():
        raise MissingWeights(
            f"no image encoder at {folder} for {base}: name the folder of CLIP ViT-L/14 (`image_encoder`, "
            "--image-encoder)"
        )
    list_diffusers_files(folder)
    return folder


def describe_licence(base: Path) -> dict[str, Any]:
    """Return the licence of an ObjectClear, which what is trained from it keeps."""
    capability = objectclear.describe_capability(objectclear.read_record(base))
    return {"licence": capability.licence, "non_commercial": capability.non_commercial}


def embed_objects(vision: Any, crops: Sequence[Triplet]) -> dict[str, "torch.Tensor"]:
    """Return CLIP's embeddings of what the masks cover, (n, e) float32, as `objects`."""
    import torch

    from rasura.removers.diffusion.loop import to_tensor

    pixels = to_tensor([crop.source for crop in crops], vision.device, torch.float32)
    masks = torch.from_numpy(np.stack([crop.mask for crop in crops])[:, None]).to(pixels)
    with torch.no_grad():
        inputs = objectclear.crop_object(pixels, masks, vision.config.image_size, BACKGROUND)
        return {"objects": vision(inputs).image_embeds}


def save(
    files: Files,
    encoder_folder: Path,
    learner: Learner,
    out: Path,
    tensors: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Write ObjectClear's folder: the parts that did not learn are copied, `training.json` is last.

    With a LoRA there is no UNet in it: it is run with the base's UNet and `lora.safetensors`.
    """
    from safetensors.torch import save_file

    for name, path in list_frozen_files(files, encoder_folder).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)
    (out / FUSION).mkdir(exist_ok=True)
    fusion = learner.network.fusion.state_dict()
    save_file({name: value.cpu().contiguous() for name, value in fusion.items()}, out / FUSION / FUSION_FILE)
    learned = {name: value for name, value in tensors.items() if not name.startswith("fusion.")}
    sdxl.save(learner, out, learned, about)


def list_frozen_files(files: Files, encoder_folder: Path) -> dict[str, Path]:
    """Return the files of the parts that do not learn, by their names in ObjectClear's folder.

    Raises:
        MissingWeights
    """
    vae = list_diffusers_files(files.vae or files.base / "vae")
    encoder = list_diffusers_files(encoder_folder)
    return {
        "scheduler/scheduler_config.json": files.base / "scheduler" / "scheduler_config.json",
        **{f"vae/{name}": path for name, path in vae.items()},
        **{f"{IMAGE_ENCODER}/{name}": path for name, path in encoder.items()},
        **({} if files.prompts else conditioning.encoder_files(files.base)),
    }
