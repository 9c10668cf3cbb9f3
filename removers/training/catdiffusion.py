"""Training of CATDiffusion: four trainings, one after the other, each on what the last one left.

Stage 1 teaches the semantic inpainter to predict what CLIP sees in the whole picture, and the UNet with its reference
adapter to paint by what CLIP sees there. Stage 2 joins the two by the loss of the noise: first the semantic inpainter
alone learns, then everything. A picture of a triplet is its source, with the object, and its text is the object's
label: what is learned is to insert. Source: arXiv 2409.08260 and its release.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rasura.manifests.boxes import compute_bounds
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.pca_codec import Vae, open_vae
from rasura.networks.pretrained import MissingWeights, read_config
from rasura.networks.trainer import OnProgress
from rasura.networks.weights import pick_device_and_dtype
from rasura.removers.diffusion import catdiffusion, conditioning, loop
from rasura.removers.diffusion.remover import Files
from rasura.removers.training import sdxl
from rasura.removers.training.catdiffusion_settings import INPAINTER, PARTS, UNET, CatSettings, Stage
from rasura.removers.training.train import (
    Item,
    Learner,
    Triplet,
    add_noise,
    create_generators,
    draw_batch,
    draw_noise,
    fit,
    sort_items,
    write_unet,
)

if TYPE_CHECKING:
    import torch

    from rasura.networks.inpainting.catdiffusion import CatDiffusion, Features, SemanticInpainter

INPAINTER_FILE, CONFIG = "model.safetensors", "config.json"


def train(
    files: Files,
    items: Sequence[Item],
    settings: CatSettings,
    start: Path | None,
    out: Path,
    on_progress: OnProgress | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> dict[str, Any]:
    """Carry out one of the four trainings and write its networks to `out`. Called again on the same folder it goes on.

    Args:
        files: `base` is Stable Diffusion 1.5 inpainting, `image_encoder` CLIP ViT-L/14's folder.
        items: pictures with an object, each with the object's label.
        start: folder that the training before wrote; None for the first.

    Returns:
        A summary of the training.

    Raises:
        TrainingFailed: a picture without a label, a network of stage 1 that is missing, or as `train.train`.
        MissingWeights: a file is missing, or is of another network.
    """
    items = sort_items(items)
    if unlabelled := [item.id for item in items if not item.label]:
        raise TrainingFailed(
            f"{len(unlabelled)} of {len(items)} pictures have no label, '{unlabelled[0]}' for one: an inserter learns "
            "to paint what the label says, so that every row needs a `label`"
        )
    learner, vision = open_learner(files, settings, start, device, dtype)
    encode_label = create_label_encoder(files, learner.device, learner.dtype)

    def compute_loss(network: Any, step: int, rank: int, world: int) -> "torch.Tensor":
        crops, positions = draw_batch(items, settings, step, rank, world)
        crops = [draw_box(crop, settings, position) for crop, position in zip(crops, positions, strict=True)]
        text = encode_labels(encode_label, [crop.label for crop in crops])
        if settings.stage == "1-inpainter":
            return compute_feature_loss(network, vision, learner, crops, text)
        return compute_noise_loss(network, vision, learner, crops, text, settings, positions)

    with conditioning.keep_encoders():
        return fit(learner, items, settings, out, compute_loss, on_progress)


def open_learner(
    files: Files, settings: CatSettings, start: Path | None = None, device: str = "auto", dtype: str = "auto"
) -> tuple[Learner, Any]:
    """Open the networks that a training runs, and CLIP's vision model. Those that it does not run stay files.

    Raises:
        TrainingFailed: stage 2 without both networks of stage 1.
        MissingWeights: a file is missing, or is of another network.
    """
    import torch

    from rasura.networks.inpainting.catdiffusion import CatDiffusion, open_adapted_unet, open_inpainter

    torch_device, torch_dtype = pick_device_and_dtype(device, dtype)
    if files.image_encoder is None:
        raise MissingWeights("CATDiffusion is trained with CLIP ViT-L/14: name its folder (`image_encoder`)")
    places = {name: start / name if start and (start / name).is_dir() else None for name in (UNET, INPAINTER)}
    needed = PARTS[settings.stage]
    if start and not any(places.values()):
        raise MissingWeights(f"no training of CATDiffusion in '{start}': it has neither {UNET} nor {INPAINTER}")
    if settings.stage.startswith("2") and (missing := [name for name in needed if places[name] is None]):
        raise TrainingFailed(
            f"stage {settings.stage} goes on from both trainings of stage 1, and '{start}' has no "
            f"{' and no '.join(missing)}: train 1-inpainter, then 1-adapter from its folder, then this from that one's"
        )
    config = read_config(files.base / "unet")
    if (channels := config.get("in_channels")) != loop.HOLE_AND_SOURCE or conditioning.describe_family(
        config
    ) == "SDXL":
        raise MissingWeights(
            f"the UNet in {files.base} takes {channels} channels or is SDXL's: CATDiffusion is trained from Stable "
            f"Diffusion 1.5 inpainting, which takes {loop.HOLE_AND_SOURCE}"
        )
    text, codec, unet, inpainter = int(config["cross_attention_dim"]), None, None, None
    vision = catdiffusion.open_vision(files.image_encoder, torch_device, torch_dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if UNET in needed:
            place = places[UNET] or files.base / "unet"
            unet = open_adapted_unet(place, config, torch_dtype, vision.config.hidden_size)
            codec = Vae(open_vae(files.base / "vae", torch_dtype).to(torch_device))
        if INPAINTER in needed:
            trained = places[INPAINTER]
            inpainter = open_inpainter(trained, torch_dtype) if trained else create_inpainter(vision, text, torch_dtype)
    catdiffusion.check_fit("catdiffusion", inpainter, vision, text, unet)
    network = CatDiffusion(unet, inpainter).to(torch_device)
    select_parameters(network, settings.stage)
    about = {name: str(place) if place else f"fresh {settings.seed}" for name, place in places.items()}
    about |= {"base": str(files.base), "image_encoder": str(files.image_encoder)}
    empty = torch.empty(0)  # the texts are the labels
    alphas = sdxl.open_scheduler(files.base).alphas_cumprod
    coder: Any = codec
    learner = Learner(network, coder, alphas, empty, empty, torch_device, torch_dtype, partial(save, places), about)
    learner.scale_rate = partial(scale_rate, settings)
    return learner, vision


def create_inpainter(vision: Any, label: int, dtype: Any) -> "SemanticInpainter":
    """Create a semantic inpainter with random weights, of the size of CLIP's vision model: 24 layers of ViT-L/14.

    Args:
        label: width of CLIP's text.
    """
    from rasura.networks.inpainting.catdiffusion import SemanticInpainter

    config = vision.config
    inpainter = SemanticInpainter(
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        hidden=config.intermediate_size,
        places=catdiffusion.count_patches(vision)[1] ** 2,
        label=label,
        label_hidden=4 * label,
    )
    return inpainter.to(dtype).eval()


def select_parameters(network: "CatDiffusion", stage: Stage) -> None:
    """Let those parameters learn that a training is for. The pooled prediction is of no use to the noise."""
    network.requires_grad_(False)
    if network.inpainter is not None and stage != "1-adapter":
        network.inpainter.requires_grad_(True)
        network.inpainter.post_layernorm.requires_grad_(stage == "1-inpainter")
    if network.unet is not None and stage != "2-inpainter":
        network.unet.requires_grad_(True)


def scale_rate(settings: CatSettings, name: str) -> float:
    """Return the factor of a parameter's learning rate.

    Examples:
        >>> [scale_rate(CatSettings(), name) for name in ("inpainter.post_layernorm.bias", "unet.conv_in.bias")]
        [1.0, 0.1]
    """
    from rasura.networks.inpainting.catdiffusion import is_adapter

    return settings.unet_rate / settings.rate if name.startswith("unet.") and not is_adapter(name) else 1.0


def create_label_encoder(files: Files, device: Any, dtype: Any) -> "Callable[[str], torch.Tensor]":
    """Return a function from a label to its text (1, 78, d): 77 tokens and the pooled one."""

    @lru_cache(maxsize=1024)
    def encode(label: str) -> "torch.Tensor":
        text = catdiffusion.encode_text(files, label, None, device, dtype)
        return text.tokens.to(device, dtype)

    return encode


def encode_labels(encode: "Callable[[str], torch.Tensor]", labels: Sequence[str]) -> "torch.Tensor":
    """Return the texts (n, 78, d) of labels, and after them that of the empty one: (n + 1, 78, d)."""
    import torch

    return torch.cat([encode(label) for label in (*labels, "")])


def draw_box(crop: Triplet, settings: CatSettings, position: int) -> Triplet:
    """Return a triplet whose mask is its box, with the chance that the settings say."""
    rng = np.random.default_rng([settings.seed, 3, position])
    if rng.random() >= settings.box or not crop.mask.any():
        return crop
    x0, y0, x1, y1 = compute_bounds(crop.mask)
    box = np.zeros_like(crop.mask)
    box[y0:y1, x0:x1] = True
    return crop._replace(mask=box)


def look(vision: Any, learner: Learner, crops: Sequence[Triplet], whole: bool = False) -> "Features":
    """Return what CLIP sees in the sources of triplets, their holes hidden unless `whole`."""
    pictures, holes = [crop.source for crop in crops], [crop.mask for crop in crops]
    return catdiffusion.look(vision, pictures, holes, learner.device, learner.dtype, whole)


def compute_feature_loss(
    network: Any, vision: Any, learner: Learner, crops: Sequence[Triplet], text: "torch.Tensor"
) -> "torch.Tensor":
    """Return the loss of stage 1's semantic inpainter.

    The squared error of all tokens, summed, over the number of those in the hole, and that of the pooled token: as in
    the release, whose loss is not limited to the hole.

    Args:
        text: of `encode_labels`.
    """
    hidden, whole = look(vision, learner, crops), look(vision, learner, crops, whole=True)
    tokens, pooled = network(hidden, text[:-1, catdiffusion.TOKENS :])
    squared = (tokens.float() - whole.tokens.float()).square().mean(-1).sum()
    loss: torch.Tensor = squared / (hidden.cells.sum() + 1) + (pooled.float() - whole.pooled.float()).square().mean()
    return loss


def compute_noise_loss(
    network: Any,
    vision: Any,
    learner: Learner,
    crops: Sequence[Triplet],
    text: "torch.Tensor",
    settings: CatSettings,
    positions: Sequence[int],
) -> "torch.Tensor":
    """Return the squared error of the predicted noise, at timesteps and with noise that follow from the positions."""
    import torch

    generators = create_generators(settings, positions)
    shape = (len(crops), learner.codec.channels, *(side // learner.codec.factor for side in crops[0].mask.shape))
    noise = draw_noise(generators, torch.empty(shape))
    times = torch.stack([torch.randint(len(learner.alphas), (), generator=generator) for generator in generators])
    keep = torch.stack([torch.rand((), generator=generator) for generator in generators]) >= settings.drop
    return compare_noise(network, vision, learner, crops, text, settings.stage, noise, times, keep)


def compare_noise(
    network: Any,
    vision: Any,
    learner: Learner,
    crops: Sequence[Triplet],
    text: "torch.Tensor",
    stage: Stage,
    noise: "torch.Tensor",
    times: "torch.Tensor",
    keep: "torch.Tensor",
) -> "torch.Tensor":
    """Return the squared error of the noise that a network predicts.

    Args:
        text: of `encode_labels`.
        noise: (n, 4, h, w). times: (n,), timesteps. keep: (n,) bool, pictures whose text and reference are shown.
    """
    import torch

    device, dtype = learner.device, learner.dtype
    noise, times, keep = noise.to(device), times.to(device), keep.to(device)
    pixels = loop.to_tensor([crop.source for crop in crops], device, dtype)
    masks = torch.from_numpy(np.stack([crop.mask for crop in crops])[:, None]).to(device, dtype)
    with torch.no_grad():
        clean = learner.codec.encode(pixels)
        source = learner.codec.encode(loop.hide_hole(pixels, masks, pixels, "black"))
    hole = catdiffusion.shrink_holes(masks, clean.shape[2:], above=0.0)
    noisy = add_noise(clean, noise, learner.alphas.to(device)[times])
    inputs = torch.cat([noisy.to(dtype), hole.to(dtype), source.to(dtype)], dim=1)
    knows = stage == "1-adapter"
    features = look(vision, learner, crops, whole=knows)
    tokens = torch.where(keep[:, None, None], text[:-1, : catdiffusion.TOKENS], text[-1:, : catdiffusion.TOKENS])
    label = text[:-1, catdiffusion.TOKENS :]
    predicted = network(features, label, (inputs, times, tokens), keep, knows)
    loss: torch.Tensor = (predicted.float() - noise.float()).square().mean()
    return loss


def save(
    places: Mapping[str, Path | None], learner: Learner, out: Path, tensors: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write `unet` and `semantic_inpainter`, those that did not run as copies of the start's; `training.json` last."""
    from safetensors.torch import save_file

    network: CatDiffusion = learner.unet
    for value in network.parameters():
        value.data = value.data.to(learner.dtype)
    for name, part in ((UNET, network.unet), (INPAINTER, network.inpainter)):
        place = places[name]
        if part is None and place is not None:
            shutil.copytree(place, out / name, dirs_exist_ok=True)
    if network.unet is not None:
        write_unet(network.unet, out / UNET)
    if network.inpainter is not None:
        (out / INPAINTER).mkdir(exist_ok=True)
        state = {name: value.cpu().contiguous() for name, value in network.inpainter.state_dict().items()}
        save_file(state, out / INPAINTER / INPAINTER_FILE)
        (out / INPAINTER / CONFIG).write_text(json.dumps({"heads": network.inpainter.heads}) + "\n")
    (out / sdxl.RECORD).write_text(json.dumps({**about, **learner.about}, indent=2, sort_keys=True) + "\n")


def describe_next(out: Path, files: Files) -> str:
    """Return how to go on after a training: the entry of a recipe that runs it, or the training that is missing."""
    if missing := [name for name in (UNET, INPAINTER) if not (out / name).is_dir()]:
        stage = "1-adapter" if UNET in missing else "1-inpainter"
        return f"next: the same command with --from {out} --set stage={stage} and another --out"
    parts = ", ".join(f"{name}: {out / name}" for name in (UNET, INPAINTER))
    return f"to run it:\n  {{kind: catdiffusion, base: {files.base}, {parts}, image_encoder: {files.image_encoder}}}"
