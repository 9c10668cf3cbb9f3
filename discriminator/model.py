"""A discriminator in a folder, and in memory.

judge.json           configuration, codec, summary of its training
weights.safetensors  LoRA and head, or the whole network where there is no published base (preset `tiny`)
prompt.safetensors   embeddings of the empty prompt: no text encoder is needed
codec.safetensors    the linear codec, where it is not SDXL's VAE
calibration.json     the mapping from logits to probabilities, and the thresholds (`calibration.py`)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.discriminator import network
from rasura.discriminator.crops import Crop, cut_crop, list_looks
from rasura.discriminator.network import HEAD, Config, WrongDiscriminator
from rasura.manifests.json_lines import parse_json
from rasura.networks import lora, memory
from rasura.networks.batches import run_in_batches
from rasura.networks.pca_codec import Codec, Pca, Vae
from rasura.networks.pretrained import prefer_half
from rasura.networks.trainer import OnProgress
from rasura.networks.weights import check_values, pick_device_and_dtype

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

FORMAT = 1
NAMES = ("judge.json", "weights.safetensors", "prompt.safetensors", "codec.safetensors", "calibration.json")


@dataclass
class Discriminator:
    """A discriminator in memory, without text encoders.

    batch: candidates in one run of the network; None is one on a CPU, where the last bits depend on the place in a
    batch, and 32 on a GPU.
    """

    config: Config
    network: Any
    codec: Codec
    tokens: "torch.Tensor"
    pooled: "torch.Tensor"
    device: Any
    dtype: Any
    batch: int | None = None
    about: Mapping[str, Any] | None = None

    def preprocess(self, source: Array, target: Array, mask: Array) -> Crop:
        """Return a candidate at this discriminator's size."""
        return cut_crop(source, target, mask, self.config.size, self.config.view, self.config.context)

    def encode(self, crops: Sequence[Crop]) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        """Return latents of the edited picture, the mask at their size (nearest), and latents of the source."""
        import torch
        import torch.nn.functional as F

        def to_tensor(pictures: list[Array]) -> "torch.Tensor":
            stacked = torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
            return (stacked.to(self.device).float() / 127.5 - 1).to(self.dtype)

        # one call of the codec for both: the same kernels, so that equal pictures have equal latents
        latents = self.codec.encode(to_tensor([crop.target for crop in crops] + [crop.source for crop in crops]))
        edited, source = latents.chunk(2)
        masks = torch.from_numpy(np.stack([crop.mask for crop in crops])[:, None]).to(self.device, self.dtype)
        return edited, F.interpolate(masks, size=edited.shape[2:]), source

    def compute_logits(self, crops: Sequence[Crop], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) float64 of crops; the mean of several looks (`Config.looks`).

        Short batches are filled up, because rounding depends on a batch's size.

        Args:
            on_progress: called after each batch with crops done, crops in all and an empty note.
        """
        import torch

        count = self.config.looks
        looks = [look for crop in crops for look in list_looks(crop, count)]
        done = 0

        def run(batch: list[Crop]) -> list[float]:
            nonlocal done
            edited, mask, source = self.encode(batch)
            output: list[float] = self.network(edited, mask, source, self.tokens, self.pooled).float().cpu().tolist()
            done = min(done + len(batch), len(looks))
            if on_progress:
                on_progress(done // count, len(crops), "")
            return output

        size = self.batch or (1 if self.device.type == "cpu" else 32)
        with torch.inference_mode():
            logits, fitting = run_in_batches(run, looks, size)
        if fitting < size:  # the card's memory ended
            self.batch = fitting
        return np.asarray(np.array(logits).reshape(-1, count).mean(axis=1))

    def compute_scores(self, sources: Sequence[Array], targets: Sequence[Array], masks: Sequence[Array]) -> Array:
        """Return uncalibrated scores (n,) of candidates of any size, the same every time.

        Args:
            sources, targets: (h, w, 3) uint8 each.
            masks: (h, w) bool each.
        """
        import torch

        crops = [self.preprocess(*candidate) for candidate in zip(sources, targets, masks, strict=True)]
        logits = torch.from_numpy(self.compute_logits(crops))
        return np.asarray(network.compute_score(logits, self.config.link).numpy())


def create_tiny(codec: Pca, config: Config = network.TINY, seed: int = 0, batch: int | None = None) -> Discriminator:
    """Create a discriminator of tiny size with random weights: the same classes, on a linear code.

    Raises:
        WrongDiscriminator: the codec has another number of channels than the network.
    """
    import torch

    if codec.channels != config.channels:
        raise WrongDiscriminator(f"the codec has {codec.channels} channels, the network is for {config.channels}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network.build(config)
        tokens = torch.randn(1, 8, config.unet["cross_attention_dim"])
        times = 6 * config.unet["addition_time_embed_dim"]
        pooled = torch.randn(1, config.unet["projection_class_embeddings_input_dim"] - times)
    return Discriminator(config, module, codec, tokens, pooled, torch.device("cpu"), torch.float32, batch)


def create_on_base(
    config: Config,
    base: Path,
    prompt: Mapping[str, "torch.Tensor"],
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
    seed: int = 0,
) -> Discriminator:
    """Create a discriminator on SDXL-inpainting's weights, with a random head.

    Args:
        base: folder with `unet` and `vae`.
        prompt: `tokens` and `pooled` of the empty prompt.

    Raises:
        WrongDiscriminator: the folder lacks tensors, or has others.
    """
    import torch

    torch_device, torch_dtype = pick_device_and_dtype(device, dtype)
    module = network.build(config, "meta")
    names = {name for name in module.state_dict() if not name.startswith(HEAD)}
    tensors = read_base_tensors(base / "unet", names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = network.make_head(config)
    tensors |= {f"{HEAD}.{name}": value for name, value in head.state_dict().items()}
    load_tensors(module, {name: value.to(torch_dtype) for name, value in tensors.items()}, base)
    codec = Vae.load(base / "vae", torch_dtype).to(torch_device, torch_dtype)
    tokens, pooled = (prompt[name].to(torch_device, torch_dtype) for name in ("tokens", "pooled"))
    return Discriminator(config, place(module, torch_device), codec, tokens, pooled, torch_device, torch_dtype, batch)


def read_base_tensors(folder: Path, names: set[str]) -> dict[str, "torch.Tensor"]:
    """Read the tensors of these names from a UNet's folder; the others are not read at all.

    Raises:
        WrongDiscriminator: some are missing.
    """
    from safetensors import safe_open

    paths = prefer_half(sorted(folder.glob("*.safetensors")))
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
    if missing := sorted(names - set(tensors)):
        raise WrongDiscriminator(
            f"{folder} lacks {len(missing)} of {len(names)} tensors of the UNet, {missing[0]} for one"
        )
    return tensors


def save(
    discriminator: Discriminator,
    folder: Path,
    tensors: Mapping[str, "torch.Tensor"],
    about: Mapping[str, Any],
    is_complete: bool,
) -> None:
    """Write a discriminator's folder, `judge.json` last: a folder without it is no discriminator.

    Args:
        tensors: the whole network's (`lora.compute_plain_state`), or those that a training on a base changes
            (`lora.collect_trainable`).
        about: summary of its training.
        is_complete: `tensors` are the whole network's.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, folder / "weights.safetensors")
    embeddings = {"tokens": discriminator.tokens, "pooled": discriminator.pooled}
    prompt = {name: value.float().cpu().contiguous() for name, value in embeddings.items()}
    save_file(prompt, folder / "prompt.safetensors")
    if isinstance(discriminator.codec, Pca):
        discriminator.codec.save(folder / "codec.safetensors")
    record = {"format": FORMAT, "config": discriminator.config.to_json(), "whole": is_complete, "about": dict(about)}
    (folder / "judge.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def list_files(folder: Path, base: Path | None = None) -> dict[str, Path]:
    """Return the files that loading reads, by name, for their hashes.

    Raises:
        WrongDiscriminator: it is no discriminator's folder, or it needs a base.
    """
    if not (folder / "judge.json").is_file():
        raise WrongDiscriminator(f"no discriminator in {folder}: it has no judge.json")
    files = {name: folder / name for name in NAMES if (folder / name).is_file()}
    record = parse_json((folder / "judge.json").read_text(), folder)
    if not record.get("whole"):
        if base is None:
            raise WrongDiscriminator(
                f"the discriminator in {folder} is a LoRA: name the folder of SDXL-inpainting that it is for (`base`)"
            )
        for part in ("unet", "vae"):
            files |= {f"base/{part}/{path.name}": path for path in sorted((base / part).glob("*.safetensors"))}
    return files


def estimate_memory(
    folder: Path, base: Path | None = None, device: str = "auto", dtype: str = "auto", batch: int | None = None
) -> memory.NetworkMemory:
    """Estimate the memory of a discriminator with its codec: half a UNet, and the encoder of the VAE.

    Args:
        batch: candidates in one run; None as in `Discriminator`.

    Raises:
        WrongDiscriminator: it is no discriminator's folder, or it needs a base.
    """
    files = list_files(folder, base)
    parameters = memory.count_parameters(files.values(), without=("up_blocks.", "conv_out.", "decoder."))
    config = Config.from_json(parse_json((folder / "judge.json").read_text(), folder)["config"])
    pixels = 2 * config.size**2 * (memory.ENCODE_ELEMENTS if config.preset == "sdxl" else memory.UNET_ELEMENTS)
    return memory.estimate_memory(parameters, pixels * (batch or 32), dtype, device, cpu_elements=pixels * (batch or 1))


def load(
    folder: Path,
    base: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
    train: bool = False,
) -> Discriminator:
    """Load a discriminator from its folder.

    Args:
        base: folder of SDXL-inpainting, for one that was trained on it.
        train: keep its LoRA beside the weights, to be trained further; else it is fused.

    Raises:
        WrongDiscriminator: no discriminator, one of another format or base, or tensors that do not fit.
    """
    from safetensors.torch import load_file

    list_files(folder, base)
    record = parse_json((folder / "judge.json").read_text(), folder)
    if record.get("format") != FORMAT:
        raise WrongDiscriminator(f"{folder} has format {record.get('format')}, this program reads {FORMAT}")
    config = Config.from_json(record["config"])
    tensors = load_file(folder / "weights.safetensors")
    prompt = {name: value.clone() for name, value in load_file(folder / "prompt.safetensors").items()}
    if record["whole"]:
        discriminator = load_complete(folder, base, config, tensors, prompt, device, dtype, batch)
    else:
        discriminator = create_on_base(config, require_base(base, folder), prompt, device, dtype, batch)
        apply_training(discriminator, folder, tensors, train)
    discriminator.about = record["about"]
    return discriminator


def load_complete(
    folder: Path,
    base: Path | None,
    config: Config,
    tensors: Mapping[str, "torch.Tensor"],
    prompt: Mapping[str, "torch.Tensor"],
    device: str,
    dtype: str,
    batch: int | None,
) -> Discriminator:
    """Load a discriminator whose folder holds the whole network; see `load`."""
    torch_device, torch_dtype = pick_device_and_dtype(device, dtype)
    module = network.build(config, "meta")
    load_tensors(module, {name: value.to(torch_dtype) for name, value in tensors.items()}, folder)
    path = folder / "codec.safetensors"
    codec: Codec = Pca.load(path) if path.is_file() else Vae.load(require_base(base, folder) / "vae", torch_dtype)
    codec = codec.to(torch_device, torch_dtype)
    tokens, pooled = (prompt[name].to(torch_device, torch_dtype) for name in ("tokens", "pooled"))
    return Discriminator(config, place(module, torch_device), codec, tokens, pooled, torch_device, torch_dtype, batch)


def apply_training(
    discriminator: Discriminator, folder: Path, tensors: Mapping[str, "torch.Tensor"], train: bool
) -> None:
    """Add the trained LoRA and head to a discriminator on its base; see `load`.

    Raises:
        WrongDiscriminator: they are for another base.
    """
    module = discriminator.network
    try:
        if train:
            network.add_lora(module)
            lora.load_trainable(module, {**lora.collect_trainable(module), **tensors})
        else:
            lora.fuse(module, {name: value for name, value in tensors.items() if ".lora_" in name})
            head = {
                name: value.to(discriminator.dtype) for name, value in tensors.items() if name.startswith(f"{HEAD}.")
            }
            load_tensors(module, module.state_dict() | head, folder)
    except lora.WrongLora as error:
        raise WrongDiscriminator(f"{folder} does not fit its base: {error}") from error
    module.to(discriminator.device)


def require_base(base: Path | None, folder: Path) -> Path:
    """Return the base.

    Raises:
        WrongDiscriminator: there is none.
    """
    if base is None:
        raise WrongDiscriminator(
            f"the discriminator in {folder} needs the folder of SDXL-inpainting that it is for (`base`)"
        )
    return base


def load_tensors(module: Any, tensors: Mapping[str, "torch.Tensor"], folder: Path) -> None:
    """Put tensors into a network, all of them and no others.

    Raises:
        WrongDiscriminator: other names or shapes.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    differing = sorted(set(expected) ^ set(shapes)) or sorted(n for n in expected if expected[n] != shapes[n])
    if differing:
        name = differing[0]
        raise WrongDiscriminator(
            f"{folder} does not fit: '{name}' is {shapes.get(name, 'missing')} in the file and "
            f"{expected.get(name, 'unknown')} in the network"
        )
    # copies: a file's mapped memory is not aligned as torch's own is, and other kernels round otherwise
    module.load_state_dict({name: value.clone() for name, value in tensors.items()}, assign=True)
    check_values(folder, module)
    module.requires_grad_(False)


def place(module: Any, device: Any) -> Any:
    """Move a network to its device. On a GPU with channels last, which is faster in tensor cores."""
    import torch

    module = module.to(device).eval()
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module
