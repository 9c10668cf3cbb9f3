"""Training of a remover on triplets: one file that reads from top to bottom.

The network is the 9-channel UNet (2 C + 1 for a codec of C channels): [noisy latents of the target, hole, latents of
the source], all of it or a LoRA. Defaults are RORem's: noise prediction, masked source, constant rate. What a step
sees follows from the seed and the step's number alone, so a killed training goes on to the same weights, bit for bit
(same machine type, same threads, as many workers).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.ids import stable_hash
from rasura.networks import lora
from rasura.networks.checkpoint import TrainingFailed
from rasura.removers.base import crop_window, dilated, resized
from rasura.removers.training import attention_loss as train_gaze
from rasura.removers.training import energy_loss as train_energy
from rasura.removers.training.train_loop import descend

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class Triplet(NamedTuple):
    """(h, w, 3) uint8 twice and (h, w) bool: with the object, without it, where it is; and M_fg where it is known."""

    source: Array
    target: Array
    mask: Array
    foreground: Array | None = None


@dataclass(frozen=True)
class Item:
    """A triplet to learn from; its pictures are read anew each time."""

    id: str
    read: Callable[[], Triplet]


class Codec(Protocol):
    """Pixels (n, 3, h, w) in [-1, 1] to scaled latents (n, channels, h / factor, w / factor), and back."""

    channels: int
    factor: int

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor": ...

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor": ...


@dataclass(frozen=True)
class Settings:
    """How it is trained.

    objective: `epsilon` predicts the noise at any timestep; `x0` the picture itself in one step from pure noise (the
        last timestep of a schedule with no signal left there), which a small network learns in minutes; `energy` the
        same by the energy score (`train_energy.py`), twice the work a triplet, textures in place of their mean.
    learn: everything, or a LoRA of that rank on the attentions. source: what the last channels show: the source with
        a grey hole, the whole source, or the source with its hole filled from the rim.
    crop: the hole with `context` hole sizes around it, as a remover is run later; or the whole picture, squeezed.
    dilate: px (at `size`) by which masks grow at most; each time another draw.
    inside, outside: weight of the loss in the hole and around it.
    mask_loss: weight of ObjectClear's loss on what is looked at for the prompt's `token` (`train_gaze.py`); 0.01 there.
    """

    steps: int = 50_000
    batch: int = 16
    rate: float = 5e-5
    warm_up: int = 500
    decay: bool = False
    weight_decay: float = 1e-2
    clip: float = 1.0
    objective: Literal["epsilon", "x0", "energy"] = "epsilon"
    learn: Literal["all", "lora"] = "all"
    rank: int = 64
    source: Literal["masked", "whole", "prefilled"] = "masked"
    size: int = 512
    crop: Literal["hole", "whole"] = "hole"
    context: float = 0.75
    flip: bool = True
    dilate: int = 0
    inside: float = 1.0
    outside: float = 1.0
    mask_loss: float = 0.0
    token: int = 5
    log_every: int = 50
    checkpoint_every: int = 5000
    precision: str = "no"
    save_memory: bool = False
    seed: int = 4


@dataclass
class Learner:
    """What is trained, and what it needs.

    alphas: (T,) share of the signal's power that is left at each timestep. tokens (1, n, d), pooled (1, p): the prompt.
    save: writes what was learned; called with the learner, the tensors that changed by their stored names, and how the
        training went. about: what it starts from. lora: a LoRA that the UNet is to start with, not yet in it.
    """

    unet: Any
    codec: Codec
    alphas: "torch.Tensor"
    tokens: "torch.Tensor"
    pooled: "torch.Tensor"
    device: Any
    dtype: Any
    save: Callable[["Learner", Path, Mapping[str, Any], Mapping[str, Any]], None]
    about: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, "torch.Tensor"] | None = None


def train(learner: Learner, given: Sequence[Item], settings: Settings, out: Path) -> dict[str, Any]:
    """Trains a remover, writes it to `out`, and says how it went. Called again on the same folder it goes on.

    Raises:
        TrainingFailed: nothing to learn from, a loss that is not a number, a folder of another training.
        WrongLora: what it starts from is a LoRA of another network or rank.
    """
    ordered = in_order(given)

    # what learns
    if settings.learn == "lora":
        add_lora(learner.unet, settings.rank, settings.seed)
        if learner.lora:
            put_lora(learner.unet, learner.lora)
    else:
        if learner.lora:
            lora.fuse(learner.unet, learner.lora)
        learner.unet.requires_grad_(True)

    def loss_of(model: Any, step: int, rank: int, world: int) -> "torch.Tensor":
        views, places = batch(ordered, settings, step, rank, world)
        noisy, given_channels, times, wanted, weight = feed(learner, settings, views, places)
        with train_gaze.gazes(learner.unet, settings.token, settings.mask_loss > 0) as gazes:
            predicted = call(model, learner, settings.size, noisy, given_channels, times)
            loss: torch.Tensor
            if settings.objective == "energy":
                first, second = predicted.float().chunk(2)
                loss = train_energy.score(first, second, wanted.float(), weight)
            else:
                loss = (weight * (predicted.float() - wanted.float()) ** 2).mean()
            if gazes:
                loss = loss + settings.mask_loss * train_gaze.loss(
                    gazes, foregrounds(views, learner.device, len(predicted))
                )
        return loss

    about = {"steps": settings.steps, "triplets": len(ordered), "settings": asdict(settings)}
    descend(
        learner.unet, learner.device, learner.dtype, settings, out, made_with(learner, ordered, settings), loss_of,
        lambda tensors: learner.save(learner, out, stored(tensors), about),
    )  # fmt: skip
    return about


def in_order(given: Sequence[Item]) -> list[Item]:
    """What is learned from, in an order that does not depend on where it was read.

    Raises:
        TrainingFailed: there is nothing.
    """
    if not given:
        raise TrainingFailed("there are no triplets to learn from")
    return sorted(given, key=lambda one: one.id)


def made_with(learner: Learner, ordered: Sequence[Item], settings: Settings) -> dict[str, Any]:
    """What makes this training another one than any other."""
    triplets = stable_hash([one.id for one in ordered])
    return {"settings": asdict(settings), "triplets": triplets, "start": dict(learner.about)}


def batch(
    given: Sequence[Item], settings: Settings, step: int, rank: int = 0, world: int = 1
) -> tuple[list[Triplet], list[int]]:
    """One process's share of one step: triplets at the network's size, and their places in the whole training."""
    views, places = [], []
    for place in range(rank, settings.batch, world):
        position = step * settings.batch + place
        epoch, at = divmod(position, len(given))
        order = np.random.default_rng([settings.seed, 1, epoch]).permutation(len(given))
        rng = np.random.default_rng([settings.seed, 2, position])
        views.append(view(given[int(order[at])].read(), settings, rng))
        places.append(position)
    return views, places


def view(one: Triplet, settings: Settings, rng: np.random.Generator) -> Triplet:
    """A triplet as the network sees it: cut or squeezed to its square, the mask wider, mirrored half of the time."""
    source, target, mask, foreground = one
    foreground = mask if foreground is None else foreground | mask
    if settings.crop == "hole" and mask.any():
        x0, y0, x1, y1 = crop_window(mask, settings.context)
        source, target, mask, foreground = (part[y0:y1, x0:x1] for part in (source, target, mask, foreground))
    side = (settings.size, settings.size)
    inside, shown_area = (
        np.asarray(cv2.resize(part.astype(np.float32), side, interpolation=cv2.INTER_AREA)) > 0
        for part in (mask, foreground)
    )
    hole = dilated(inside, int(rng.integers(0, settings.dilate + 1)))
    parts = [resized(source, side), resized(target, side), hole, shown_area]
    if settings.flip and rng.random() < 0.5:
        parts = [np.ascontiguousarray(part[:, ::-1]) for part in parts]
    return Triplet(*parts)


def latents(
    learner: Learner, settings: Settings, views: Sequence[Triplet]
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Of a batch of n: the target (n, c, h, w), the hole (n, 1, h, w), and what the last channels show (n, c, h, w)."""
    import torch

    from rasura.removers.sdxl import latent_hole, to_tensor

    device, dtype = learner.device, learner.dtype
    holes = torch.from_numpy(np.stack([one.mask for one in views])[:, None]).to(device, dtype)
    with torch.no_grad():
        clean = learner.codec.encode(to_tensor([one.target for one in views], device, dtype)).to(dtype)
        known = learner.codec.encode(shown([one.source for one in views], holes, settings.source, device, dtype))
    return clean, latent_hole(holes, clean.shape[2:]), known.to(dtype)


def makers(settings: Settings, places: Sequence[int]) -> list["torch.Generator"]:
    """A generator for each place of the training: its noise first, then what else is drawn for it."""
    import torch

    return [torch.Generator("cpu").manual_seed(settings.seed * 2**32 + place) for place in places]


def noised(clean: "torch.Tensor", noise: "torch.Tensor", signal: "torch.Tensor") -> "torch.Tensor":
    """sqrt(a) x0 + sqrt(1 - a) eps, in float32; `signal` (n,) is a, the share of the signal's power."""
    share = signal.float().view(-1, 1, 1, 1)
    return share.sqrt() * clean.float() + (1 - share).sqrt() * noise.float()


def feed(
    learner: Learner, settings: Settings, views: Sequence[Triplet], places: Sequence[int]
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Noisy latents, hole and source channels, timesteps, what is to be predicted, and the loss's weights.

    With the energy score the first three are there twice, one after the other, with another noise the second time.
    """
    import torch

    clean, hole, known = latents(learner, settings, views)
    drawn = makers(settings, places)
    noise = torch.stack([torch.randn(clean.shape[1:], generator=one) for one in drawn]).to(clean)
    final = len(learner.alphas) - 1
    times = torch.stack(
        [
            torch.randint(0, final + 1, (), generator=one) if settings.objective == "epsilon" else torch.tensor(final)
            for one in drawn
        ]
    ).to(learner.device)
    noisy = noised(clean, noise, learner.alphas.to(learner.device)[times]).to(learner.dtype)
    weight = settings.outside + (settings.inside - settings.outside) * hole.float()
    wanted = noise if settings.objective == "epsilon" else clean
    given = torch.cat([hole, known], dim=1)
    if settings.objective == "energy":
        other = torch.stack([torch.randn(clean.shape[1:], generator=one) for one in drawn]).to(clean)
        again = noised(clean, other, learner.alphas.to(learner.device)[times]).to(learner.dtype)
        noisy, given, times = torch.cat([noisy, again]), given.repeat(2, 1, 1, 1), times.repeat(2)
    return noisy, given, times, wanted, weight


def foregrounds(views: Sequence[Triplet], device: Any, count: int) -> "torch.Tensor":
    """M_fg (count, 1, h, w) float, again from the first one on if that is more; the mask where it is not known."""
    import torch

    found = [one.mask if one.foreground is None else one.foreground for one in views]
    return torch.from_numpy(np.stack([found[k % len(found)] for k in range(count)])[:, None]).to(device).float()


def shown(sources: Sequence[Array], holes: "torch.Tensor", how: str, device: Any, dtype: Any) -> "torch.Tensor":
    """Pixels (n, 3, h, w) of what the last channels are made from; see `Settings.source`."""
    from rasura.removers.sdxl import prefilled, to_tensor

    if how == "prefilled":
        masks = [one[0].cpu().numpy() > 0 for one in holes.float()]
        return to_tensor(prefilled(sources, masks), device, dtype)
    pixels = to_tensor(sources, device, dtype)
    return pixels * (1 - holes) if how == "masked" else pixels


def call(
    unet: Any, learner: Learner, size: int, noisy: "torch.Tensor", given: "torch.Tensor", times: "torch.Tensor"
) -> "torch.Tensor":
    """The network's prediction, (n, c, h, w)."""
    import torch

    count, dtype = len(noisy), learner.dtype
    ids = torch.tensor([[size, size, 0, 0, size, size]], device=noisy.device, dtype=dtype).expand(count, -1)
    answer: torch.Tensor = unet(
        torch.cat([noisy, given], dim=1),
        times,
        encoder_hidden_states=learner.tokens.to(dtype).expand(count, -1, -1),
        added_cond_kwargs={"text_embeds": learner.pooled.to(dtype).expand(count, -1), "time_ids": ids},
        return_dict=False,
    )[0]
    return answer


ATTENTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def add_lora(unet: Any, rank: int, seed: int, targets: Sequence[str] = ATTENTIONS) -> None:
    """Freezes the network but for a LoRA (alpha = rank) on the layers whose names end in `targets`."""
    import warnings

    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        inject_adapter_in_model(config, unet)


def put_lora(unet: Any, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """A LoRA that was trained before, into the one that was just added.

    Raises:
        WrongLora: other layers, or another rank.
    """
    added = {stored_name(name): value for name, value in unet.named_parameters() if ".lora_" in name}
    if odd := sorted(added.keys() ^ tensors.keys()):
        raise lora.WrongLora(f"the LoRA to go on from is of another base: '{odd[0]}' is in one of the two alone")
    for name, value in added.items():
        if value.shape != tensors[name].shape:
            raise lora.WrongLora(
                f"the LoRA to go on from has {tuple(tensors[name].shape)} for '{name}', this training "
                f"{tuple(value.shape)}: give it the same `rank`, or it is of another base"
            )
        value.data.copy_(tensors[name])


def stored(tensors: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Learned tensors by their names on disk."""
    return {stored_name(name): value for name, value in tensors.items()}


def stored_name(name: str) -> str:
    """Name of a parameter on disk: without what peft puts into it; a LoRA's as `rasura.networks.lora` reads it."""
    plain = name.replace(".default.weight", ".weight").replace(".base_layer.", ".")
    return f"unet.{plain}" if ".lora_" in plain else plain


def write_unet(unet: Any, folder: Path) -> None:
    """The network in diffusers' layout. The same weights give the same files, wherever they came from."""
    unet.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # the folder it was opened from
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
