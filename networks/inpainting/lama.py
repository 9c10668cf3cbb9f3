"""LaMa's generator: a residual network whose blocks see the whole picture through a Fourier transform.

Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (WACV 2022, arXiv 2109.07161), §2.2,
with the layers of the released "big-lama" (18 blocks, 50.98 M parameters) and "lama-fourier" (9 blocks, 27.05 M). The
tensors have the released names, so that published files fit.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

GLOBAL_SHARE = 0.75
"""Share of a block's channels that pass the Fourier transform."""
DOWNSAMPLINGS = 3
FIRST_BLOCK = 2 + DOWNSAMPLINGS
"""Number of the first residual block among the released layers, which count paddings and activations too."""


class FourierUnit(nn.Module):
    """A 1x1 convolution of a picture's spectrum, real and imaginary parts as channels (§2.2, figure 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return (n, c, h, w) of (n, c, h, w)."""
        count, channels, height, width = x.shape
        spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))  # (n, c, h, w // 2 + 1, 2)
        parts = spectrum.permute(0, 1, 4, 2, 3).reshape(count, 2 * channels, height, -1)
        parts = F.relu(self.bn(self.conv_layer(parts)))
        mixed = parts.reshape(count, channels, 2, height, -1).permute(0, 1, 3, 4, 2).contiguous()
        picture: Tensor = torch.fft.irfft2(torch.view_as_complex(mixed), s=(height, width), norm="ortho")
        return picture


class SpectralTransform(nn.Module):
    """The global path of a Fourier convolution: a residual Fourier unit between two 1x1 convolutions."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.fu = FourierUnit(half)
        self.conv2 = nn.Conv2d(half, out_channels, 1, bias=False)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return (n, out_channels, h, w) of (n, channels, h, w)."""
        x = self.conv1(x)
        return cast("Tensor", self.conv2(x + self.fu(x)))


class FourierConvolution(nn.Module):
    """A convolution of local and global channels, which exchange at every layer.

    Args:
        channels: local and global ones of the input; the same of the output. No path leads from or to none.
    """

    def __init__(
        self, channels: tuple[int, int], out_channels: tuple[int, int], side: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        (local, overall), (out_local, out_overall) = channels, out_channels

        def convolve(inputs: int, outputs: int) -> nn.Conv2d | None:
            if not inputs or not outputs:
                return None
            return nn.Conv2d(inputs, outputs, side, stride, padding, bias=False, padding_mode="reflect")

        self.convl2l = nn.Conv2d(local, out_local, side, stride, padding, bias=False, padding_mode="reflect")
        self.convl2g = convolve(local, out_overall)
        self.convg2l = convolve(overall, out_local)
        self.convg2g = SpectralTransform(overall, out_overall) if overall and out_overall else None

    def forward(self, local: "Tensor", overall: "Tensor | None") -> "tuple[Tensor, Tensor | None]":
        """Return local and global channels; the global ones are None where there are none."""
        out_local = self.convl2l(local) if self.convg2l is None else self.convl2l(local) + self.convg2l(overall)
        if self.convl2g is None:
            return out_local, None
        out_overall = self.convl2g(local)
        return out_local, out_overall if self.convg2g is None else out_overall + self.convg2g(overall)


class NormalizedConvolution(nn.Module):
    """A Fourier convolution, normalisation and ReLU."""

    def __init__(
        self, channels: tuple[int, int], out_channels: tuple[int, int], side: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.ffc = FourierConvolution(channels, out_channels, side, stride, padding)
        self.bn_l = nn.BatchNorm2d(out_channels[0])
        self.bn_g = nn.BatchNorm2d(out_channels[1]) if out_channels[1] else None

    def forward(self, local: "Tensor", overall: "Tensor | None" = None) -> "tuple[Tensor, Tensor | None]":
        """Return local and global channels as `FourierConvolution.forward` does."""
        local, overall = self.ffc(local, overall)
        return F.relu(self.bn_l(local)), None if self.bn_g is None else F.relu(self.bn_g(overall))


class ResidualBlock(nn.Module):
    """Two Fourier convolutions, added to their input."""

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = NormalizedConvolution(channels, channels, 3, padding=1)
        self.conv2 = NormalizedConvolution(channels, channels, 3, padding=1)

    def forward(self, local: "Tensor", overall: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return local and global channels of the same shapes."""
        more_local, more_overall = self.conv2(*self.conv1(local, overall))
        return local + more_local, overall + more_overall


class LamaGenerator(nn.Module):
    """The generator: three halvings, residual blocks, three doublings.

    Args:
        blocks: residual blocks: 18 in big-lama.
        features: channels after the first convolution.

    Examples:
        >>> net = LamaGenerator(blocks=1, features=4).eval()
        >>> tuple(net(torch.zeros(1, 4, 32, 24)).shape)
        (1, 3, 32, 24)
    """

    def __init__(self, blocks: int = 18, features: int = 64) -> None:
        super().__init__()
        inner = features * 2**DOWNSAMPLINGS
        overall = int(inner * GLOBAL_SHARE)
        split = (inner - overall, overall)
        layers: dict[int, nn.Module] = {1: NormalizedConvolution((4, 0), (features, 0), 7)}
        for k in range(DOWNSAMPLINGS):
            outputs = split if k == DOWNSAMPLINGS - 1 else (features * 2 ** (k + 1), 0)
            layers[2 + k] = NormalizedConvolution((features * 2**k, 0), outputs, 3, stride=2, padding=1)
        for k in range(blocks):
            layers[FIRST_BLOCK + k] = ResidualBlock(split)
        last = FIRST_BLOCK + blocks  # the released layer there joins local and global channels
        for k in range(DOWNSAMPLINGS):
            channels = inner // 2**k
            layers[last + 1 + 3 * k] = nn.ConvTranspose2d(channels, channels // 2, 3, 2, padding=1, output_padding=1)
            layers[last + 2 + 3 * k] = nn.BatchNorm2d(channels // 2)
        layers[last + 2 + 3 * DOWNSAMPLINGS] = nn.Conv2d(features, 3, 7)
        self.blocks = blocks
        self.model = nn.ModuleDict({str(number): layer for number, layer in layers.items()})

    def forward(self, x: "Tensor") -> "Tensor":
        """Return the picture (n, 3, h, w) in [0, 1].

        Args:
            x: (n, 4, h, w), the picture in [0, 1] with its hole black, and the hole as 1. h and w are multiples of 8.
        """
        layers = self.model
        local: Tensor = F.pad(x, (3, 3, 3, 3), mode="reflect")
        overall: Any = None  # the first layers have local channels alone
        for number in range(1, FIRST_BLOCK + self.blocks):
            local, overall = layers[str(number)](local, overall)
        joined = torch.cat([local, overall], 1)
        last = FIRST_BLOCK + self.blocks
        for number in range(last + 1, last + 1 + 3 * DOWNSAMPLINGS, 3):
            joined = F.relu(layers[str(number + 1)](layers[str(number)](joined)))
        joined = layers[str(last + 2 + 3 * DOWNSAMPLINGS)](F.pad(joined, (3, 3, 3, 3), mode="reflect"))
        return torch.sigmoid(joined)


def infer_lama_shape(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the arguments of `LamaGenerator` for a table of its tensors.

    Raises:
        KeyError: it is of another network.

    Examples:
        >>> infer_lama_shape(LamaGenerator(blocks=2, features=8).state_dict())
        {'blocks': 2, 'features': 8}
    """
    numbers = {int(match[1]) for name in state if (match := re.match(r"model\.(\d+)\.conv1\.ffc\.", name))}
    return {"blocks": len(numbers), "features": int(state["model.1.ffc.convl2l.weight"].shape[0])}
