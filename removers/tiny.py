"""A remover small enough to be trained on a CPU in a minute: SDXL-inpainting's classes at tiny width on a linear code.

It predicts the picture itself in one step from pure noise, with its hole filled from the rim as the condition: a
regressor, until it learns textures by the energy score too (`Settings.objective`). Its folder: `unet/` in diffusers'
layout, `codec.safetensors`, `prompt.safetensors`, `remover.json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.json_lines import parse_json
from rasura.networks.pca_codec import Autoencoder, Pca
from rasura.networks.pretrained import MissingWeights, list_diffusers_files, open_diffusers
from rasura.networks.unet_config import make_tiny_config
from rasura.networks.weights import read_tensors
from rasura.removers.base import Capability
from rasura.removers.training.train import Learner, Settings, predict, prepare_source, write_unet

Array = npt.NDArray[Any]

FORMAT = 1
RECORD, CODEC, PROMPT = "remover.json", "codec.safetensors", "prompt.safetensors"
TIMES = 1000

CAPABILITY = Capability(
    "remover", 64, needs_prompt=False, licence="of its triplets", name="tiny", steps=1, needs_weights=True
)

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
"""Settings that learn at this size; noise prediction does not in an hour."""


def compute_zero_snr_alphas() -> Any:
    """Return SDXL's schedule (T,) with no signal left at its last timestep (arXiv 2305.08891, algorithm 1)."""
    import torch

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMES, dtype=torch.float64) ** 2
    roots = (1 - betas).cumprod(0).sqrt()
    return (((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2).float()


def create_learner(codec: Autoencoder, size: int = 64, seed: int = 0) -> Learner:
    """Create a tiny remover with random weights, ready to be trained."""
    import torch
    from diffusers import UNet2DConditionModel

    config = make_tiny_config(codec.channels, size // codec.factor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = UNet2DConditionModel(**config)  # type: ignore[no-untyped-call]
        tokens, pooled = torch.randn(1, 8, 64), torch.randn(1, 32)
    about = {"fresh": seed, "size": size}
    cpu = torch.device("cpu")
    return Learner(unet.eval(), codec, compute_zero_snr_alphas(), tokens, pooled, cpu, torch.float32, save, about)


def load_learner(folder: Path) -> Learner:
    """Load a tiny remover from its folder, to be run or trained further.

    Raises:
        MissingWeights: a file is missing or is of something else.
    """
    import torch

    record = read_record(folder)
    unet = open_diffusers("UNet2DConditionModel", folder / "unet", torch.float32)
    prompt = {name: value.clone() for name, value in read_tensors(folder / PROMPT).items()}
    if not {"tokens", "pooled"} <= prompt.keys():
        raise MissingWeights(f"'{folder / PROMPT}' is not the prompt of a tiny remover: it holds {sorted(prompt)}")
    about = {"from": record["weights"], "size": record["size"]}
    cpu, alphas = torch.device("cpu"), compute_zero_snr_alphas()
    codec = Pca.load(folder / CODEC)
    return Learner(unet, codec, alphas, prompt["tokens"], prompt["pooled"], cpu, torch.float32, save, about)


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are read, by name.

    Raises:
        MissingWeights: one of them is missing.
    """
    files = {f"unet/{name}": path for name, path in list_diffusers_files(folder / "unet").items()}
    files |= {name: folder / name for name in (CODEC, PROMPT, RECORD)}
    for name, path in files.items():
        if not path.is_file():
            raise MissingWeights(f"no tiny remover in {folder}: it has no {name}")
    return files


def read_record(folder: Path) -> dict[str, Any]:
    """Read a folder's `remover.json`.

    Raises:
        MissingWeights: a file is missing, or the folder has another format.
    """
    list_files(folder)
    record: dict[str, Any] = parse_json((folder / RECORD).read_text(), folder)
    if record.get("format") != FORMAT:
        raise MissingWeights(f"{folder} has format {record.get('format')}, this program reads {FORMAT}")
    return record


def save(learner: Learner, out: Path, tensors: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write the folder, `remover.json` last: a folder without it is no remover."""
    from safetensors.torch import save_file

    from rasura.manifests.ids import compute_file_content_id

    codec: Any = learner.codec
    (out / RECORD).unlink(missing_ok=True)
    write_unet(learner.unet, out / "unet")
    codec.save(out / CODEC)
    save_file({"tokens": learner.tokens.contiguous(), "pooled": learner.pooled.contiguous()}, out / PROMPT)
    weights = {path.name: compute_file_content_id(path) for path in sorted((out / "unet").glob("*.safetensors"))}
    record = {"format": FORMAT, "size": about["settings"]["size"], "source": about["settings"]["source"]}
    record |= {"weights": weights, "about": dict(about)}
    (out / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


class TinyRemover:
    """A trained tiny remover behind the protocol.

    batch: pictures in one run of the network; 1 by default, because on a CPU the last bits depend on the place in one.
    """

    def __init__(self, name: str, folder: Path, batch: int = 1) -> None:
        self.name, self.folder, self.batch = name, folder, batch
        self.capability = CAPABILITY
        self.learner: Learner | None = None

    def weights(self) -> Mapping[str, Path]:
        return list_files(self.folder)

    def setup(self) -> None:
        record = read_record(self.folder)
        self.capability = replace(self.capability, native_size=int(record["size"]))
        self.source = str(record["source"])
        self.learner = load_learner(self.folder)

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does. A short batch repeats its last picture: rounding depends on a batch's size."""
        if self.learner is None:
            raise RuntimeError(f"remover '{self.name}' was not set up")
        results: list[Array] = []
        for start in range(0, len(pictures), self.batch):
            batch = list(range(start, min(start + self.batch, len(pictures))))
            full = batch + batch[-1:] * (self.batch - len(batch))
            parts = [pictures[k] for k in full], [holes[k] for k in full], [seeds[k] for k in full]
            results += fill_in_one_step(self.learner, *parts, self.source)[: len(batch)]
        return results


def fill_in_one_step(
    learner: Learner, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], source: str
) -> list[Array]:
    """Fill pictures of one size, (h, w, 3) uint8, from pure noise in one step.

    Args:
        source: see `Settings.source`.
    """
    import torch

    from rasura.removers.diffusion.loop import draw_noise, resize_hole, to_pictures

    with torch.inference_mode():
        masks = torch.from_numpy(np.stack(holes)[:, None]).to(learner.device, learner.dtype)
        latents = learner.codec.encode(prepare_source(pictures, masks, source, learner.device, learner.dtype))
        noise, _ = draw_noise(seeds, latents.shape[1:])
        condition = torch.cat([resize_hole(masks, latents.shape[2:]), latents], dim=1)
        times = torch.full((len(noise),), TIMES - 1)
        predicted = predict(learner.unet, learner, pictures[0].shape[0], noise, condition, times)
        return to_pictures(learner.codec.decode(predicted))
