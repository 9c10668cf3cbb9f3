"""A judge in a folder, and a judge that scores.

judge.json           configuration, codec, what it was trained on
weights.safetensors  LoRA and head, or the whole network where there is no published base (preset `tiny`)
prompt.safetensors   embeddings of the empty prompt: no text encoder is needed
codec.safetensors    the linear codec, where it is not SDXL's VAE
calibration.json     how scores become probabilities, and above which ones are kept (`calibration.py`)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.discriminator import network
from rasura.discriminator.crops import View, looks, view
from rasura.discriminator.network import HEAD, Config, WrongJudge
from rasura.networks.pca_codec import Codec, Pca, Vae
from rasura.networks.weights import device_and_type

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

FORMAT = 1
NAMES = ("judge.json", "weights.safetensors", "prompt.safetensors", "codec.safetensors", "calibration.json")


@dataclass
class Judge:
    """A judge that is loaded. Text encoders are no part of it."""

    config: Config
    network: Any
    codec: Codec
    tokens: "torch.Tensor"
    pooled: "torch.Tensor"
    device: Any
    dtype: Any
    batch: int | None = None
    about: Mapping[str, Any] | None = None

    def see(self, source: Array, target: Array, mask: Array) -> View:
        """A candidate at this judge's size."""
        return view(source, target, mask, self.config.size, self.config.view, self.config.context)

    def feed(self, views: Sequence[View]) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        """Latents of the edited picture, the mask at their size (nearest), latents of the source."""
        import torch
        import torch.nn.functional as F

        def pixels(pictures: list[Array]) -> "torch.Tensor":
            stacked = torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
            return (stacked.to(self.device).float() / 127.5 - 1).to(self.dtype)

        # one call of the codec for both: the same kernels, so that equal pictures have equal latents
        both = self.codec.encode(pixels([one.target for one in views] + [one.source for one in views]))
        edited, source = both.chunk(2)
        masks = torch.from_numpy(np.stack([one.mask for one in views])[:, None]).to(self.device, self.dtype)
        return edited, F.interpolate(masks, size=edited.shape[2:]), source

    def logits(self, views: Sequence[View]) -> Array:
        """(n,) float64; of several looks (`Config.looks`) their mean.

        `batch` at a time; not given, one on a CPU, where the last bits depend on the place in a batch, and 32 on a
        GPU. Short batches are filled up, because rounding depends on a batch's size too.
        """
        import torch

        count = self.config.looks
        seen = [look for one in views for look in looks(one, count)]
        found: list[float] = []
        with torch.inference_mode():
            size = self.batch or (1 if self.device.type == "cpu" else 32)
            for start in range(0, len(seen), size):
                here = seen[start : start + size]
                full = here + here[-1:] * (size - len(here))
                edited, mask, source = self.feed(full)
                out = self.network(edited, mask, source, self.tokens, self.pooled)
                found += out[: len(here)].float().cpu().tolist()
        return np.asarray(np.array(found).reshape(-1, count).mean(axis=1))

    def scores(self, sources: Sequence[Array], targets: Sequence[Array], masks: Sequence[Array]) -> Array:
        """Uncalibrated scores (n,) of candidates of any size, the same every time."""
        import torch

        views = [self.see(*one) for one in zip(sources, targets, masks, strict=True)]
        logits = torch.from_numpy(self.logits(views))
        return np.asarray(network.score(logits, self.config.link).numpy())


def tiny(codec: Pca, config: Config = network.TINY, seed: int = 0, batch: int | None = None) -> Judge:
    """A judge at tiny size with random weights: the same classes, on a linear code, trained from scratch."""
    import torch

    if codec.channels != config.channels:
        raise WrongJudge(f"the codec has {codec.channels} channels, the network is for {config.channels}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network.build(config)
        tokens = torch.randn(1, 8, config.unet["cross_attention_dim"])
        times = 6 * config.unet["addition_time_embed_dim"]
        pooled = torch.randn(1, config.unet["projection_class_embeddings_input_dim"] - times)
    return Judge(config, made, codec, tokens, pooled, torch.device("cpu"), torch.float32, batch)


def on_base(
    config: Config,
    base: Path,
    prompt: Mapping[str, "torch.Tensor"],
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
    seed: int = 0,
) -> Judge:
    """A judge on SDXL-inpainting's weights, its head still random. `base`: folder with `unet` and `vae`.

    Raises:
        WrongJudge: the folder lacks tensors, or has others.
    """
    import torch

    where, kind = device_and_type(device, dtype)
    made = network.build(config, "meta")
    found = read_base(base / "unet", {name for name in made.state_dict() if not name.startswith(HEAD)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = network.make_head(config)
    found |= {f"{HEAD}.{name}": value for name, value in head.state_dict().items()}
    _load(made, {name: value.to(kind) for name, value in found.items()}, base)
    codec = Vae.load(base / "vae", kind).to(where, kind)
    tokens, pooled = prompt["tokens"].to(where, kind), prompt["pooled"].to(where, kind)
    return Judge(config, _placed(made, where), codec, tokens, pooled, where, kind, batch)


def read_base(folder: Path, wanted: set[str]) -> dict[str, "torch.Tensor"]:
    """The tensors of these names from a UNet's folder; the others are not read at all.

    Raises:
        WrongJudge: some are not there.
    """
    from safetensors import safe_open

    paths = sorted(folder.glob("*.safetensors"))
    paths = [path for path in paths if ".fp16." in path.name] or paths
    found: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name in wanted}  # noqa: SIM118
    if missing := sorted(wanted - set(found)):
        raise WrongJudge(f"{folder} lacks {len(missing)} of {len(wanted)} tensors of the UNet, {missing[0]} for one")
    return found


def save(
    judge: Judge, folder: Path, tensors: Mapping[str, "torch.Tensor"], about: Mapping[str, Any], whole: bool
) -> None:
    """Writes a judge's folder, `judge.json` last: a folder without it is no judge.

    Args:
        tensors: the whole network's (`network.plain_state`), or what was trained on a base (`network.trained`).
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, folder / "weights.safetensors")
    prompt = {"tokens": judge.tokens.float().cpu().contiguous(), "pooled": judge.pooled.float().cpu().contiguous()}
    save_file(prompt, folder / "prompt.safetensors")
    if isinstance(judge.codec, Pca):
        judge.codec.save(folder / "codec.safetensors")
    record = {"format": FORMAT, "config": judge.config.to_json(), "whole": whole, "about": dict(about)}
    (folder / "judge.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def files(folder: Path, base: Path | None = None) -> dict[str, Path]:
    """The files that loading reads, for their hashes.

    Raises:
        WrongJudge: it is no judge's folder, or it needs a base.
    """
    if not (folder / "judge.json").is_file():
        raise WrongJudge(f"no judge in {folder}: it has no judge.json")
    found = {name: folder / name for name in NAMES if (folder / name).is_file()}
    record = json.loads((folder / "judge.json").read_text())
    if not record.get("whole"):
        if base is None:
            raise WrongJudge(f"the judge in {folder} is a LoRA: name the folder of SDXL-inpainting it is for (`base`)")
        for part in ("unet", "vae"):
            found |= {f"base/{part}/{path.name}": path for path in sorted((base / part).glob("*.safetensors"))}
    return found


def load(
    folder: Path,
    base: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
    train: bool = False,
) -> Judge:
    """A judge from its folder. Its LoRA is folded into the weights, or, to be trained further, stands beside them.

    Raises:
        WrongJudge
    """
    from safetensors.torch import load_file

    files(folder, base)
    record = json.loads((folder / "judge.json").read_text())
    if record.get("format") != FORMAT:
        raise WrongJudge(f"{folder} has format {record.get('format')}, this program reads {FORMAT}")
    config = Config.from_json(record["config"])
    tensors = load_file(folder / "weights.safetensors")
    prompt = {name: value.clone() for name, value in load_file(folder / "prompt.safetensors").items()}
    if record["whole"]:
        where, kind = device_and_type(device, dtype)
        made = network.build(config, "meta")
        _load(made, {name: value.to(kind) for name, value in tensors.items()}, folder)
        codec: Codec = (
            Pca.load(folder / "codec.safetensors")
            if (folder / "codec.safetensors").is_file()
            else Vae.load(_needed(base, folder) / "vae", kind)
        )
        tokens, pooled = prompt["tokens"].to(where, kind), prompt["pooled"].to(where, kind)
        judge = Judge(config, _placed(made, where), codec.to(where, kind), tokens, pooled, where, kind, batch)
    else:
        judge = on_base(config, _needed(base, folder), prompt, device, dtype, batch)
        if train:
            network.add_lora(judge.network)
            network.put_trained(judge.network, network.trained(judge.network) | tensors)
        else:
            network.fold_lora(judge.network, {name: value for name, value in tensors.items() if ".lora_" in name})
            head = {name: value.to(judge.dtype) for name, value in tensors.items() if name.startswith(f"{HEAD}.")}
            _load(judge.network, judge.network.state_dict() | head, folder)
        judge.network.to(judge.device)
    judge.about = record["about"]
    return judge


def _needed(base: Path | None, folder: Path) -> Path:
    if base is None:
        raise WrongJudge(f"the judge in {folder} needs the folder of SDXL-inpainting it is for (`base`)")
    return base


def _load(made: Any, tensors: Mapping[str, "torch.Tensor"], folder: Path) -> None:
    """Puts tensors into a network, all of them and no others.

    Raises:
        WrongJudge
    """
    own = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if odd := sorted(set(own) ^ set(given)) or sorted(name for name in own if own[name] != given[name]):
        name = odd[0]
        raise WrongJudge(
            f"{folder} does not fit: '{name}' is {given.get(name, 'missing')} there and {own.get(name, 'unknown')} here"
        )
    # copies: a file's mapped memory is not aligned as torch's own is, and other kernels round otherwise
    made.load_state_dict({name: value.clone() for name, value in tensors.items()}, assign=True)
    made.requires_grad_(False)


def _placed(made: Any, device: Any) -> Any:
    """The network where it runs. On a GPU with channels last, as convolutions in tensor cores want them."""
    import torch

    made = made.to(device).eval()
    return made.to(memory_format=torch.channels_last) if device.type == "cuda" else made
