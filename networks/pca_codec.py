"""From pixels to the latents that the judge sees: SDXL's VAE, or a linear code that needs no training.

A codec has `channels`, `factor` (pixels a cell stands for, along a side), and `encode`: (n, 3, h, w) in [-1, 1] to
(n, channels, h / factor, w / factor), the same for the same pixels every time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class Codec(Protocol):
    """What every codec is."""

    channels: int
    factor: int

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor": ...

    def to(self, device: Any, dtype: Any) -> "Codec": ...


class Pca:
    """Blocks of factor x factor pixels on their principal components, each scaled to unit variance; closed form.

    Of the 48 numbers of a 4 x 4 block, 16 components keep photographs at 36 dB, which a small VAE does not reach in
    an hour of training on a CPU. All 48 lose nothing, and the last ones, scaled like the first, are what tells a fill's
    texture from a photograph's.
    """

    FLOOR = 1 / 127.5
    """Least deviation, one grey level: below it a component is rounding, which scaling must not blow up."""

    def __init__(self, mean: "torch.Tensor", components: "torch.Tensor", deviation: "torch.Tensor") -> None:
        """`mean` (3 f^2,), `components` (c, 3 f^2) with orthonormal rows, `deviation` (c,)."""
        self.mean, self.components, self.deviation = mean, components, deviation
        self.channels = len(components)
        self.factor = round((components.shape[1] / 3) ** 0.5)

    @classmethod
    def fit(cls, pictures: Sequence[Array], channels: int = 16, factor: int = 4) -> "Pca":
        """From uint8 pictures (h, w, 3), sides multiples of the factor. The same pictures give the same code."""
        import torch

        blocks = torch.cat([_blocks(_pixels([one]), factor) for one in pictures]).double()
        mean = blocks.mean(0)
        values, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        order = values.argsort(descending=True)[:channels]
        components = vectors[:, order].T
        # an eigenvector's sign is the solver's whim: its largest entry is made positive
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        deviation = values[order].clamp(min=cls.FLOOR**2).sqrt()
        return cls(mean.float(), components.float().contiguous(), deviation.float())

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor":
        count, _, height, width = pixels.shape
        codes = (_blocks(pixels, self.factor) - self.mean) @ self.components.T / self.deviation
        grid = codes.view(count, height // self.factor, width // self.factor, self.channels)
        return grid.permute(0, 3, 1, 2).contiguous()

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Pixels (n, 3, h, w) of latents; what the left-out components held is lost."""
        import torch.nn.functional as F

        rows = latents.permute(0, 2, 3, 1) * self.deviation
        blocks = rows @ self.components + self.mean
        return F.pixel_shuffle(blocks.permute(0, 3, 1, 2), self.factor)

    def to(self, device: Any, dtype: Any) -> "Pca":
        return Pca(*(one.to(device, dtype) for one in (self.mean, self.components, self.deviation)))

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file({"mean": self.mean, "components": self.components, "deviation": self.deviation}, path)

    @classmethod
    def load(cls, path: Path) -> "Pca":
        from safetensors.torch import load_file

        return cls(**{name: value.clone() for name, value in load_file(path).items()})


class Vae:
    """SDXL's autoencoder; the mode of its distribution, not a sample of it.

    It works on a few pictures at a time: at 512 px it needs more memory for them than the judge for a whole batch.
    """

    def __init__(self, network: Any, at_once: int = 4) -> None:
        self.network = network
        self.at_once = at_once
        self.channels = int(network.config.latent_channels)
        self.factor = 2 ** (len(network.config.block_out_channels) - 1)

    @classmethod
    def load(cls, folder: Path, dtype: Any) -> "Vae":
        """From its folder. In half precision a VAE that overflows there (its config says so) is opened in float32."""
        import torch
        from diffusers import AutoencoderKL

        half = "fp16" if list(folder.glob("*.fp16.safetensors")) else None
        kind: Any = AutoencoderKL
        network = kind.from_pretrained(
            folder, variant=half, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
        network.decoder = torch.nn.Identity()  # never used here
        return cls(network.float() if dtype == torch.float16 and network.config.force_upcast else network)

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor":
        import torch

        split: Any = torch.split(pixels.to(self.network.dtype), self.at_once)
        parts = [self.network.encode(part).latent_dist.mode() for part in split]
        scaled: torch.Tensor = torch.cat(parts) * self.network.config.scaling_factor
        return scaled.to(pixels.dtype)

    def to(self, device: Any, dtype: Any) -> "Vae":
        self.network = self.network.to(device).eval().requires_grad_(False)
        return self


def _pixels(pictures: Sequence[Array]) -> "torch.Tensor":
    """(n, 3, h, w) in [-1, 1] of uint8 pictures of one size."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))).float() / 127.5 - 1


def _blocks(pixels: "torch.Tensor", factor: int) -> "torch.Tensor":
    """Rows (n * h / f * w / f, 3 f^2)."""
    import torch.nn.functional as F

    return F.pixel_unshuffle(pixels, factor).permute(0, 2, 3, 1).flatten(0, 2)
