"""A remover small enough to be trained on a CPU in a minute: SDXL-inpainting's classes at tiny width on a linear code.

It predicts the picture itself in one step from pure noise, with its hole filled from the rim as the condition: a
regressor, until it learns textures by the energy score too (`Settings.objective`). Its folder: `unet/` in diffusers'
layout, `codec.safetensors`, `prompt.safetensors`, `remover.json`.

The codec comes from outside (`networks.pca_codec.Pca`; its `load` opens the file), so that removers and judge share
one without either knowing the other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.networks.diffusers_files import MissingWeights, model_files, open_model
from rasura.removers.base import Capability
from rasura.removers.training.train import Codec, Learner, Settings, call, shown, write_unet

Array = npt.NDArray[Any]

FORMAT = 1
RECORD, CODEC, PROMPT = "remover.json", "codec.safetensors", "prompt.safetensors"
TIMES = 1000

TINY = Settings(
    steps=300,
    batch=16,
    rate=2e-3,
    warm_up=20,
    objective="x0",
    source="prefilled",
    size=64,
    crop="whole",
    dilate=2,
    inside=1.05,
    outside=0.05,
    checkpoint_every=100,
    seed=0,
)
"""What learns at this size; noise prediction does not in an hour."""


def unet_config(channels: int, size: int, factor: int) -> dict[str, Any]:
    """The UNet's: two levels of 32 and 64 channels."""
    return {
        "sample_size": size // factor,
        "in_channels": 2 * channels + 1,
        "out_channels": channels,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1),
        "attention_head_dim": (1, 2),
        "cross_attention_dim": 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
        "use_linear_projection": True,
        "norm_num_groups": 8,
    }


def zero_snr_alphas() -> Any:
    """SDXL's schedule with no signal left at its last timestep (arXiv 2305.08891, algorithm 1)."""
    import torch

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMES, dtype=torch.float64) ** 2
    roots = (1 - betas).cumprod(0).sqrt()
    return (((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2).float()


def fresh(codec: Codec, size: int = 64, seed: int = 0) -> Learner:
    """A tiny remover with random weights."""
    import torch
    from diffusers import UNet2DConditionModel

    config = unet_config(codec.channels, size, codec.factor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = UNet2DConditionModel(**config)  # type: ignore[no-untyped-call]
        tokens, pooled = torch.randn(1, 8, 64), torch.randn(1, 32)
    start = {"fresh": seed, "size": size}
    return Learner(
        unet.eval(), codec, zero_snr_alphas(), tokens, pooled, torch.device("cpu"), torch.float32, save, start
    )


def load(folder: Path, codec_of: Callable[[Path], Any]) -> Learner:
    """A tiny remover from its folder, to be run or trained further.

    Args:
        codec_of: opens the codec's file.

    Raises:
        MissingWeights: a file is missing or is of something else.
    """
    import torch
    from safetensors.torch import load_file

    record = read(folder)
    unet = open_model("UNet2DConditionModel", folder / "unet", torch.float32)
    prompt = {name: value.clone() for name, value in load_file(folder / PROMPT).items()}
    start = {"from": record["weights"], "size": record["size"]}
    cpu = torch.device("cpu")
    codec = codec_of(folder / CODEC)
    return Learner(unet, codec, zero_snr_alphas(), prompt["tokens"], prompt["pooled"], cpu, torch.float32, save, start)


def files(folder: Path) -> dict[str, Path]:
    """What is read of a folder.

    Raises:
        MissingWeights
    """
    found = {f"unet/{name}": path for name, path in model_files(folder / "unet").items()}
    found |= {name: folder / name for name in (CODEC, PROMPT, RECORD)}
    for name, path in found.items():
        if not path.is_file():
            raise MissingWeights(f"no tiny remover in {folder}: it has no {name}")
    return found


def read(folder: Path) -> dict[str, Any]:
    """What a folder says of itself.

    Raises:
        MissingWeights
    """
    files(folder)
    record: dict[str, Any] = json.loads((folder / RECORD).read_text())
    if record.get("format") != FORMAT:
        raise MissingWeights(f"{folder} has format {record.get('format')}, this program reads {FORMAT}")
    return record


def save(made: Learner, out: Path, tensors: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes the folder, `remover.json` last: a folder without it is no remover."""
    from safetensors.torch import save_file

    from rasura.manifests.ids import content_id_of_file

    codec: Any = made.codec
    (out / RECORD).unlink(missing_ok=True)
    write_unet(made.unet, out / "unet")
    codec.save(out / CODEC)
    save_file({"tokens": made.tokens.contiguous(), "pooled": made.pooled.contiguous()}, out / PROMPT)
    weights = {path.name: content_id_of_file(path) for path in sorted((out / "unet").glob("*.safetensors"))}
    record = {"format": FORMAT, "size": about["settings"]["size"], "source": about["settings"]["source"]}
    record |= {"weights": weights, "about": dict(about)}
    (out / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


class Tiny:
    """A trained tiny remover behind the protocol.

    batch: pictures in one run of the network; 1 by default, because on a CPU the last bits depend on the place in one.
    """

    def __init__(self, name: str, folder: Path, codec_of: Callable[[Path], Any], batch: int = 1) -> None:
        self.name, self.folder, self.codec_of, self.batch = name, folder, codec_of, batch
        self.capability = Capability(role="remover", native_size=64, needs_prompt=False, licence="of its triplets")
        self.learner: Learner | None = None

    def weights(self) -> Mapping[str, Path]:
        return files(self.folder)

    def setup(self) -> None:
        record = read(self.folder)
        self.capability = replace(self.capability, native_size=int(record["size"]))
        self.source = str(record["source"])
        self.learner = load(self.folder, self.codec_of)

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """As `Remover.fill`. A short batch repeats its last picture: rounding depends on a batch's size."""
        if self.learner is None:
            raise RuntimeError(f"remover '{self.name}' was not set up")
        made: list[Array] = []
        for start in range(0, len(pictures), self.batch):
            here = list(range(start, min(start + self.batch, len(pictures))))
            full = here + here[-1:] * (self.batch - len(here))
            found = one_step(
                self.learner, [pictures[k] for k in full], [holes[k] for k in full], [seeds[k] for k in full],
                self.source,
            )  # fmt: skip
            made += found[: len(here)]
        return made


def one_step(
    learner: Learner, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], source: str
) -> list[Array]:
    """Filled pictures (h, w, 3) uint8, from pure noise in one step."""
    import torch

    from rasura.removers.sdxl import latent_hole, noise_for, to_pictures

    with torch.inference_mode():
        masks = torch.from_numpy(np.stack(holes)[:, None]).to(learner.device, learner.dtype)
        known = learner.codec.encode(shown(pictures, masks, source, learner.device, learner.dtype))
        noise, _ = noise_for(seeds, known.shape[1:])
        given = torch.cat([latent_hole(masks, known.shape[2:]), known], dim=1)
        times = torch.full((len(noise),), TIMES - 1)
        predicted = call(learner.unet, learner, pictures[0].shape[0], noise, given, times)
        return to_pictures(learner.codec.decode(predicted))
