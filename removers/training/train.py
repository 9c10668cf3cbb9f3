"""Training of a remover on triplets: one file that reads from top to bottom.

The network is the 9-channel UNet (2 C + 1 for a codec of C channels): [noisy latents of the target, hole, latents of
the source], all of it or a LoRA. Defaults are RORem's: noise prediction, masked source, constant rate. A step's
triplets and noise follow from the seed and the step's number alone, so a training that was killed goes on to the same
weights, bit for bit (same machine type, same threads, as many workers).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.ids import hash_json
from rasura.networks import lora
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.pca_codec import Autoencoder
from rasura.networks.setting_types import Batch, Count, Number, PositiveNumber, Precision, Seed, Side, WholeNumber
from rasura.networks.tracking import Tracker, list_effective
from rasura.networks.trainer import ComputeLoss, OnProgress, Trainer
from rasura.removers.base import compute_crop_window, dilate, resize
from rasura.removers.training import attention_loss, augment, energy_loss

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class Triplet(NamedTuple):
    """A picture with the object and one without it, (h, w, 3) uint8, its mask (h, w) bool, M_fg and a label if any."""

    source: Array
    target: Array
    mask: Array
    foreground: Array | None = None
    label: str = ""


@dataclass(frozen=True)
class Item:
    """A triplet to learn from; its pictures are read again each time."""

    id: str
    read: Callable[[], Triplet]
    label: str = ""


@dataclass(frozen=True)
class Settings:
    """Settings of a training.

    objective: `epsilon` predicts the noise at any timestep; `x0` the picture itself in one step from pure noise (the
        last timestep of a schedule with no signal left there), which a small network learns in minutes; `energy` the
        same by the energy score (`energy_loss.py`), twice the work a triplet, textures in place of their mean.
    learn: everything, or a LoRA of that rank on the attentions. source: the picture in the last channels: the source
        with a grey hole, the whole source, or the source with its hole filled from the rim.
    crop: the hole with `context` hole sizes around it, as a remover is run later; the whole picture, resized; or, as
        ObjectClear is trained, a random square of at least `size` px that has the mask's centre in it.
    dilate: px (at `size`) by which masks grow at most; drawn again each time. widen: side of a square, px (at `size`),
        by which all masks are dilated; RORem's release dilates by 20. vary_mask, vary_colours: ObjectClear's random
        dilation and erosion, and its random brightness, contrast, saturation and hue (`augment.py`).
    large: side of the pictures of every other step, as RORem's mixed training has 512 and 1024; 0: all are of `size`.
    inside, outside: weight of the loss in the hole and around it. tracker: where it is shown beside `log.jsonl`.
    mask_loss: weight of ObjectClear's loss on the attention to the prompt's `token` (`attention_loss.py`); 0.01 there.
    """

    steps: Count = 50_000
    batch: Batch = 16
    rate: PositiveNumber = 5e-5
    warm_up: WholeNumber = 500
    decay: bool | Literal["cosine"] = False
    weight_decay: Number = 1e-2
    clip: PositiveNumber = 1.0
    objective: Literal["epsilon", "x0", "energy"] = "epsilon"
    learn: Literal["all", "lora"] = "all"
    rank: Count = 64
    source: Literal["masked", "whole", "prefilled"] = "masked"
    size: Side = 512
    large: WholeNumber = 0
    crop: Literal["hole", "whole", "square"] = "hole"
    context: Number = 0.75
    flip: bool = True
    dilate: WholeNumber = 0
    widen: WholeNumber = 0
    vary_mask: bool = False
    vary_colours: bool = False
    inside: Number = 1.0
    outside: Number = 1.0
    mask_loss: Number = 0.0
    token: WholeNumber = 5
    log_every: WholeNumber = 50
    checkpoint_every: Count = 5000
    precision: Precision = "no"
    save_memory: bool = False
    seed: Seed = 4
    tracker: Tracker = "none"


ADDED_LATER = ("large", "widen", "vary_mask", "vary_colours")
"""Settings that stored trainings do not have: at their defaults they are left out of a training's identity."""


@dataclass
class Learner:
    """A network to be trained, and what it needs.

    alphas: (T,) share of the signal's power that is left at each timestep. tokens (1, n, d), pooled (1, p): the prompt.
    save: writes the learned parameters; called with the learner, the folder, the tensors by their names on disk, and
        a summary of the training. about: the start, for the record. lora: a LoRA that the UNet starts with, not yet
        in it.
    network: what is run and learned, where that is the UNet with something around it. embed: returns what the network
        gets of each triplet beside the UNet's own arguments, by name. scale_rate: see `Trainer`.
    """

    unet: Any
    codec: Autoencoder
    alphas: "torch.Tensor"
    tokens: "torch.Tensor"
    pooled: "torch.Tensor"
    device: Any
    dtype: Any
    save: Callable[["Learner", Path, Mapping[str, Any], Mapping[str, Any]], None]
    about: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, "torch.Tensor"] | None = None
    network: Any = None
    embed: Callable[[Sequence[Triplet]], Mapping[str, "torch.Tensor"]] | None = None
    scale_rate: Callable[[str], float] | None = None


def train(
    learner: Learner, items: Sequence[Item], settings: Settings, out: Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Train a remover and write it to `out`. Called again on the same folder it goes on.

    Returns:
        A summary of the training.

    Raises:
        TrainingFailed: nothing to learn from, a loss that is not a number, a folder of another training.
        WrongLora: it starts from a LoRA of another network or rank.
    """
    items = sort_items(items)

    # the parameters that learn
    if settings.learn == "lora":
        lora.add_lora(learner.unet, settings.rank, settings.seed)
        if learner.lora:
            lora.load_trainable(
                learner.unet, {name.removeprefix("unet."): value for name, value in learner.lora.items()}
            )
    else:
        if learner.lora:
            lora.fuse(learner.unet, learner.lora)
        learner.unet.requires_grad_(True)

    def compute_loss(network: Any, step: int, rank: int, world: int) -> "torch.Tensor":
        size = settings.large if settings.large and step % 2 else settings.size
        crops, positions = draw_batch(items, replace(settings, size=size), step, rank, world)
        noisy, condition, times, truth, weight = prepare_inputs(learner, settings, crops, positions)
        with attention_loss.record_attention(learner.unet, settings.token, settings.mask_loss > 0) as recorders:
            embedded = learner.embed(crops) if learner.embed else {}
            predicted = predict(network, learner, size, noisy, condition, times, embedded)
            loss: torch.Tensor
            if settings.objective == "energy":
                first, second = predicted.float().chunk(2)
                loss = energy_loss.compute_energy_score(first, second, truth.float(), weight)
            else:
                loss = (weight * (predicted.float() - truth.float()) ** 2).mean()
            if recorders:
                region = stack_foregrounds(crops, learner.device, len(predicted))
                loss = loss + settings.mask_loss * attention_loss.compute_mask_loss(recorders, region)
        return loss

    return fit(learner, items, settings, out, compute_loss, on_progress)


def fit(
    learner: Learner,
    items: Sequence[Item],
    settings: Settings,
    out: Path,
    compute_loss: ComputeLoss,
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    """Minimize a loss over the UNet's parameters that require gradients, write the remover, and return a summary.

    Args:
        items: in the order of `sort_items`.

    Raises:
        TrainingFailed: a loss that is not a number, a folder of another training.
    """
    if settings.save_memory:
        learner.unet.enable_gradient_checkpointing()
    values = list_effective(settings, ADDED_LATER)
    identity = {"settings": values, "triplets": hash_json([item.id for item in items]), "start": dict(learner.about)}
    options: dict[str, Any] = {name: getattr(learner, name) for name in ("device", "dtype", "scale_rate")}
    trainer = Trainer(learner.network or learner.unet, settings, out, identity, name="remover", **options)
    trainer.fit(compute_loss, log_every=settings.log_every, on_progress=on_progress)
    about = {"steps": settings.steps, "triplets": len(items), "settings": values}
    tensors = {get_disk_name(name): value.detach() for name, value in trainer.parameters.items()}
    trainer.write(lambda: learner.save(learner, out, tensors, about))
    return about


def sort_items(items: Sequence[Item]) -> list[Item]:
    """Sort triplets in an order that does not depend on where they were read.

    Raises:
        TrainingFailed: there are none.
    """
    if not items:
        raise TrainingFailed("there are no triplets to learn from")
    return sorted(items, key=lambda item: item.id)


def draw_batch(
    items: Sequence[Item], settings: Settings, step: int, rank: int = 0, world: int = 1
) -> tuple[list[Triplet], list[int]]:
    """Draw one process's share of one step.

    Returns:
        Triplets at the network's size, and their positions in the whole training.
    """
    crops, positions = [], []
    for place in range(rank, settings.batch, world):
        position = step * settings.batch + place
        epoch, index = divmod(position, len(items))
        order = np.random.default_rng([settings.seed, 1, epoch]).permutation(len(items))
        rng = np.random.default_rng([settings.seed, 2, position])
        item = items[int(order[index])]
        crops.append(crop_triplet(item.read(), settings, rng)._replace(label=item.label))
        positions.append(position)
    return crops, positions


def crop_triplet(triplet: Triplet, settings: Settings, rng: np.random.Generator) -> Triplet:
    """Return a triplet as the network gets it: a square, its mask grown, mirrored half of the time."""
    source, target, mask, foreground = triplet[:4]
    foreground = mask if foreground is None else foreground | mask
    if settings.vary_mask:
        mask, _ = augment.vary_mask(mask, rng, min(mask.shape) / augment.REFERENCE_SIDE)
    window = (0, 0, mask.shape[1], mask.shape[0])
    if settings.crop == "square":
        window = augment.draw_square(mask, settings.size, rng)
    elif settings.crop == "hole" and mask.any():
        window = compute_crop_window(mask, settings.context)
    x0, y0, x1, y1 = window
    source, target, mask, foreground = (part[y0:y1, x0:x1] for part in (source, target, mask, foreground))
    side = (settings.size, settings.size)
    inside, resized_foreground = (
        np.asarray(cv2.resize(part.astype(np.float32), side, interpolation=cv2.INTER_AREA)) > 0
        for part in (mask, foreground)
    )
    hole = augment.widen_mask(dilate(inside, int(rng.integers(0, settings.dilate + 1))), settings.widen)
    parts = [resize(source, side), resize(target, side), hole, resized_foreground]
    if settings.vary_colours:
        parts[:2] = augment.vary_colours((parts[0], parts[1]), rng)
    if settings.flip and rng.random() < 0.5:
        parts = [np.ascontiguousarray(part[:, ::-1]) for part in parts]
    return Triplet(parts[0], parts[1], parts[2], parts[3])


def encode_batch(
    learner: Learner, settings: Settings, crops: Sequence[Triplet]
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Return latents of the target (n, c, h, w), the hole (n, 1, h, w) and latents of the source (n, c, h, w)."""
    import torch

    from rasura.removers.diffusion.loop import resize_hole, to_tensor

    device, dtype = learner.device, learner.dtype
    holes = torch.from_numpy(np.stack([crop.mask for crop in crops])[:, None]).to(device, dtype)
    with torch.no_grad():
        clean = learner.codec.encode(to_tensor([crop.target for crop in crops], device, dtype)).to(dtype)
        pixels = prepare_source([crop.source for crop in crops], holes, settings.source, device, dtype)
        source = learner.codec.encode(pixels)
    return clean, resize_hole(holes, clean.shape[2:]), source.to(dtype)


def create_generators(settings: Settings, positions: Sequence[int]) -> list["torch.Generator"]:
    """Return a generator for each position of the training: its noise is drawn first, then the rest."""
    import torch

    # torch uses the lowest 32 bits: all seeds draw this noise, and trainings of earlier versions go on as begun
    return [torch.Generator("cpu").manual_seed(settings.seed * 2**32 + position) for position in positions]


def draw_noise(generators: Sequence["torch.Generator"], like: "torch.Tensor") -> "torch.Tensor":
    """Draw normal noise (n, c, h, w), each picture's from its own generator."""
    import torch

    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in generators]).to(like)


def add_noise(clean: "torch.Tensor", noise: "torch.Tensor", signal: "torch.Tensor") -> "torch.Tensor":
    """Return sqrt(a) x0 + sqrt(1 - a) eps in float32; `signal` (n,) is a, the share of the signal's power."""
    share = signal.float().view(-1, 1, 1, 1)
    return share.sqrt() * clean.float() + (1 - share).sqrt() * noise.float()


def prepare_inputs(
    learner: Learner, settings: Settings, crops: Sequence[Triplet], positions: Sequence[int]
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Return noisy latents, hole and source channels, timesteps, the truth to be predicted, and the loss's weights.

    With the energy score the first three are there twice, one after the other, with another noise the second time.
    """
    import torch

    clean, hole, source = encode_batch(learner, settings, crops)
    generators = create_generators(settings, positions)
    noise = draw_noise(generators, clean)
    final = len(learner.alphas) - 1
    predicts_noise = settings.objective == "epsilon"
    times = torch.stack(
        [
            torch.randint(0, final + 1, (), generator=generator) if predicts_noise else torch.tensor(final)
            for generator in generators
        ]
    ).to(learner.device)
    noisy = add_noise(clean, noise, learner.alphas.to(learner.device)[times]).to(learner.dtype)
    weight = settings.outside + (settings.inside - settings.outside) * hole.float()
    truth = noise if predicts_noise else clean
    condition = torch.cat([hole, source], dim=1)
    if settings.objective == "energy":
        other = draw_noise(generators, clean)
        again = add_noise(clean, other, learner.alphas.to(learner.device)[times]).to(learner.dtype)
        noisy, condition, times = torch.cat([noisy, again]), condition.repeat(2, 1, 1, 1), times.repeat(2)
    return noisy, condition, times, truth, weight


def stack_foregrounds(crops: Sequence[Triplet], device: Any, count: int) -> "torch.Tensor":
    """Return M_fg (count, 1, h, w) float, repeated from the first one where `count` is more; the mask without one."""
    import torch

    masks = [crop.mask if crop.foreground is None else crop.foreground for crop in crops]
    return torch.from_numpy(np.stack([masks[k % len(masks)] for k in range(count)])[:, None]).to(device).float()


def prepare_source(
    sources: Sequence[Array], holes: "torch.Tensor", how: str, device: Any, dtype: Any
) -> "torch.Tensor":
    """Return the pixels (n, 3, h, w) that the last channels are encoded from; see `Settings.source`."""
    from rasura.removers.diffusion.loop import prefill, to_tensor

    if how == "prefilled":
        masks = [hole[0].cpu().numpy() > 0 for hole in holes.float()]
        return to_tensor(prefill(sources, masks), device, dtype)
    pixels = to_tensor(sources, device, dtype)
    return pixels * (1 - holes) if how == "masked" else pixels


def predict(
    network: Any,
    learner: Learner,
    size: int,
    noisy: "torch.Tensor",
    condition: "torch.Tensor",
    times: "torch.Tensor",
    embedded: Mapping[str, "torch.Tensor"] | None = None,
) -> "torch.Tensor":
    """Return the network's prediction, (n, c, h, w).

    Args:
        embedded: of `Learner.embed`.
    """
    import torch

    count, dtype = len(noisy), learner.dtype
    ids = torch.tensor([[size, size, 0, 0, size, size]], device=noisy.device, dtype=dtype).expand(count, -1)
    predicted: torch.Tensor = network(
        torch.cat([noisy, condition], dim=1),
        times,
        encoder_hidden_states=learner.tokens.to(dtype).expand(count, -1, -1),
        added_cond_kwargs={"text_embeds": learner.pooled.to(dtype).expand(count, -1), "time_ids": ids},
        return_dict=False,
        **(embedded or {}),
    )[0]
    return predicted


def get_disk_name(name: str) -> str:
    """Return a parameter's name on disk; a LoRA's has `unet.` in front, as diffusers writes it."""
    plain = lora.strip_peft(name).removeprefix("unet.")
    return f"unet.{plain}" if ".lora_" in name else plain


def write_unet(unet: Any, folder: Path) -> None:
    """Write the network in diffusers' layout. The same weights give the same files, wherever they came from."""
    unet.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # the folder it was opened from
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
