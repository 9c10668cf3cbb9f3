"""Codecs from pixels to latents and back: SDXL's VAE, or a linear code that needs no training.

Pixels are (n, 3, h, w) in [-1, 1], latents (n, channels, h / factor, w / factor); the same pixels give the same latents
every time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rasura.networks.pretrained import MissingWeights, open_diffusers, read_config, refuse_others
from rasura.networks.single_file import open_vae_part
from rasura.networks.weights import read_tensors

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

VAE_BATCH = 4
"""Pictures that a VAE takes at once."""


class Codec(Protocol):
    """An encoder. channels: of its latents. factor: pixels along the side of one cell."""

    channels: int
    factor: int

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor": ...

    def to(self, device: Any, dtype: Any) -> "Codec": ...


class Autoencoder(Codec, Protocol):
    """A codec that decodes too."""

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor": ...


class Pca:
    """Blocks of factor x factor pixels on their principal components, each scaled to unit variance; closed form.

    Of the 48 values of a 4 x 4 block, 16 components keep photographs at 36 dB, which a small VAE does not reach in
    an hour of training on a CPU. All 48 lose nothing, and the last ones, scaled like the first, distinguish a fill's
    texture from a photograph's.
    """

    LEAST_DEVIATION = 1 / 127.5
    """One grey level: below it a component is rounding, which scaling must not amplify."""

    def __init__(self, mean: "torch.Tensor", components: "torch.Tensor", deviation: "torch.Tensor") -> None:
        """`mean` (3 f^2,), `components` (c, 3 f^2) with orthonormal rows, `deviation` (c,)."""
        self.mean, self.components, self.deviation = mean, components, deviation
        self.channels = len(components)
        self.factor = round((components.shape[1] / 3) ** 0.5)

    @classmethod
    def fit(cls, pictures: Sequence[Array], channels: int = 16, factor: int = 4) -> "Pca":
        """Fit the code on uint8 pictures (h, w, 3), sides multiples of the factor. Equal pictures give equal codes."""
        import torch

        blocks = torch.cat([_blocks(_pixels([picture]), factor) for picture in pictures]).double()
        mean = blocks.mean(0)
        values, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        order = values.argsort(descending=True)[:channels]
        components = vectors[:, order].T
        # an eigenvector's sign is the solver's whim: its largest entry is made positive
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        deviation = values[order].clamp(min=cls.LEAST_DEVIATION**2).sqrt()
        return cls(mean.float(), components.float().contiguous(), deviation.float())

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor":
        count, _, height, width = pixels.shape
        codes = (_blocks(pixels, self.factor) - self.mean) @ self.components.T / self.deviation
        grid = codes.view(count, height // self.factor, width // self.factor, self.channels)
        return grid.permute(0, 3, 1, 2).contiguous()

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Return pixels (n, 3, h, w); the content of components that were left out is lost."""
        import torch.nn.functional as F

        rows = latents.permute(0, 2, 3, 1) * self.deviation
        blocks = rows @ self.components + self.mean
        return F.pixel_shuffle(blocks.permute(0, 3, 1, 2), self.factor)

    def to(self, device: Any, dtype: Any) -> "Pca":
        return Pca(*(part.to(device, dtype) for part in (self.mean, self.components, self.deviation)))

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file({"mean": self.mean, "components": self.components, "deviation": self.deviation}, path)

    @classmethod
    def load(cls, path: Path) -> "Pca":
        """Read a code from its file.

        Raises:
            BadWeights: it is none.
        """
        with refuse_others(path, "a linear code"):
            return cls(**{name: value.clone() for name, value in read_tensors(path).items()})


class Vae:
    """SDXL's autoencoder; the mode of its distribution, because a sample would add noise.

    It works on a few pictures at a time: its memory grows faster than a UNet's.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.channels = int(network.config.latent_channels)
        self.factor = 2 ** (len(network.config.block_out_channels) - 1)

    @classmethod
    def load(cls, folder: Path, dtype: Any) -> "Vae":
        """Open an encoder from its folder.

        Raises:
            MissingWeights: no such model in the folder.
        """
        import torch

        network = open_vae(folder, dtype)
        network.decoder = torch.nn.Identity()  # never used here
        return cls(network)

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Return scaled latents in the dtype of the pixels."""
        return encode_pixels(self.network, pixels).to(pixels.dtype)

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Return pixels (n, 3, h, w) of scaled latents."""
        return decode_latents(self.network, latents)

    def to(self, device: Any, dtype: Any) -> "Vae":
        self.network = self.network.to(device).eval().requires_grad_(False)
        return self


def overflows_in_half(folder: Path, dtype: Any) -> bool:
    """Return whether a VAE overflows in that dtype: SDXL's own does in float16, as its config says."""
    import torch

    return dtype == torch.float16 and bool(read_config(folder).get("force_upcast", True))


def open_vae(folder: Path, dtype: Any) -> Any:
    """Open diffusers' `AutoencoderKL` from its folder or a whole model's file, in float32 where it would overflow.

    Raises:
        MissingWeights: no such model in the folder or file, or one whose configuration does not say how it is scaled.
    """
    import torch

    if folder.is_file():
        return open_vae_part(folder, torch.float32 if dtype == torch.float16 else dtype)
    if not isinstance(factor := read_config(folder).get("scaling_factor", 1.0), int | float) or not factor > 0:
        raise MissingWeights(f"'{folder / 'config.json'}' has `scaling_factor` {factor!r}, not a number above 0")
    return open_diffusers("AutoencoderKL", folder, torch.float32 if overflows_in_half(folder, dtype) else dtype)


def encode_pixels(vae: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    """Return the scaled latents of pixels by diffusers' `AutoencoderKL`, in its own dtype."""
    import torch

    parts = [vae.encode(pixels[k : k + VAE_BATCH].to(vae.dtype)) for k in range(0, len(pixels), VAE_BATCH)]
    latents: torch.Tensor = torch.cat([part.latent_dist.mode() for part in parts]) * vae.config.scaling_factor
    return latents


def decode_latents(vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
    """Return the pixels (n, 3, h, w) of scaled latents by diffusers' `AutoencoderKL`, in its own dtype."""
    import torch

    codes = (latents / vae.config.scaling_factor).to(vae.dtype)
    parts = [vae.decode(codes[k : k + VAE_BATCH], return_dict=False)[0] for k in range(0, len(codes), VAE_BATCH)]
    return torch.cat(parts)


def _pixels(pictures: Sequence[Array]) -> "torch.Tensor":
    """(n, 3, h, w) in [-1, 1] of uint8 pictures of one size."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))).float() / 127.5 - 1


def _blocks(pixels: "torch.Tensor", factor: int) -> "torch.Tensor":
    """Rows (n * h / f * w / f, 3 f^2)."""
    import torch.nn.functional as F

    return F.pixel_unshuffle(pixels, factor).permute(0, 2, 3, 1).flatten(0, 2)
