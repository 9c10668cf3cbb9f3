"""MI-GAN's generator: a small network of separable convolutions that fills a square of 256 or 512 px.

Sargsyan et al., "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices" (ICCV 2023), in its form for
inference (5.97 M parameters at 512 px). The tensors have the released names, so that published files fit.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS_AT_FULL_SIZE = 32768
"""Channels times side of a feature map, as in StyleGAN; at most `MOST_CHANNELS` channels."""
MOST_CHANNELS = 512


def activate(x: "Tensor") -> "Tensor":
    """Return a leaky ReLU that keeps the variance, within 256 (StyleGAN 2)."""
    return (F.leaky_relu(x, 0.2) * math.sqrt(2)).clamp(-256, 256)


def count_channels(side: int, most: int = MOST_CHANNELS) -> int:
    """Return the channels of a feature map of that side in px.

    Examples:
        >>> [count_channels(side) for side in (512, 64, 4)]
        [64, 512, 512]
    """
    return min(CHANNELS_AT_FULL_SIZE // side, most)


class Downsample(nn.Module):
    """A blur by [1, 3, 3, 1] and half the size; the filter is stored with the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, 4, 2, padding=1, bias=False, groups=channels)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return (n, c, h / 2, w / 2) of (n, c, h, w)."""
        return cast("Tensor", self.filter(x))


class Upsample(nn.Module):
    """Twice the size: zeros between the pixels, then the stored filter."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.filter_const: Tensor
        self.register_buffer("filter_const", torch.tensor([[1.0, 0], [0, 0]]).repeat(1, 1, side // 2, side // 2))
        self.filter = nn.Conv2d(channels, channels, 4, bias=False, groups=channels)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return (n, c, side, side) of (n, c, side / 2, side / 2)."""
        x = F.interpolate(x, scale_factor=2.0) * self.filter_const
        return cast("Tensor", self.filter(F.pad(x, (2, 1, 2, 1))))


class SeparableConvolution(nn.Module):
    """A convolution of each channel, one across channels, and between them a change of size.

    Args:
        side: of the output, where it is enlarged or gets noise.
    """

    def __init__(
        self, channels: int, out_channels: int, side: int | None = None, halve: bool = False, double: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.conv2 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.downsample = Downsample(channels) if halve else None
        self.upsample = Upsample(out_channels, side) if double and side else None
        self.noise_strength = nn.Parameter(torch.zeros([])) if side else None
        self.noise_const: Tensor
        if side:
            self.register_buffer("noise_const", torch.zeros(side, side))

    def forward(self, x: "Tensor") -> "Tensor":
        """Return the activated features of (n, channels, h, w)."""
        x = activate(self.conv1(x))
        if self.downsample is not None:
            x = self.downsample(x)
        x = self.conv2(x)
        if self.upsample is not None:
            x = self.upsample(x)
        if self.noise_strength is not None:
            x = x + self.noise_const * self.noise_strength
        return activate(x)


class EncoderBlock(nn.Module):
    """Two convolutions, the second of which halves the size; the first one's features go to the decoder."""

    def __init__(self, channels: int, out_channels: int, reads_picture: bool, halve: bool) -> None:
        super().__init__()
        self.fromrgb = nn.Conv2d(4, channels, 1) if reads_picture else None
        self.conv1 = SeparableConvolution(channels, channels)
        self.conv2 = SeparableConvolution(channels, out_channels, halve=halve)

    def forward(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the next block's input, and the features at this size."""
        if self.fromrgb is not None:
            x = activate(self.fromrgb(x))
        features = self.conv1(x)
        return self.conv2(features), features


class DecoderBlock(nn.Module):
    """Doubles the size, adds the encoder's features, and adds a finer layer to the picture."""

    def __init__(self, channels: int, out_channels: int, side: int, is_first: bool) -> None:
        super().__init__()
        self.conv1 = SeparableConvolution(channels, out_channels, None if is_first else side, double=not is_first)
        self.conv2 = SeparableConvolution(out_channels, out_channels, None if is_first else side)
        self.torgb = nn.Conv2d(out_channels, 3, 1)
        self.upsample = None if is_first else Upsample(3, side)

    def forward(self, x: "Tensor", features: "Tensor", picture: "Tensor | None") -> "tuple[Tensor, Tensor]":
        """Return the features and the picture at this size."""
        x = self.conv2(self.conv1(x) + features)
        layer = self.torgb(x)
        return x, layer if self.upsample is None else self.upsample(picture) + layer


class Encoder(nn.Module):
    """Blocks `b512` … `b4`."""

    def __init__(self, side: int, most: int) -> None:
        super().__init__()
        self.sides = [2**k for k in range(int(math.log2(side)), 1, -1)]
        for current, following in zip(self.sides, [*self.sides[1:], 4], strict=True):
            block = EncoderBlock(
                count_channels(current, most), count_channels(following, most), current == side, current > 4
            )
            self.add_module(f"b{current}", block)

    def forward(self, x: "Tensor") -> "tuple[Tensor, dict[int, Tensor]]":
        """Return the innermost features, and those of each side in px."""
        features = {}
        for side in self.sides:
            x, features[side] = self.get_submodule(f"b{side}")(x)
        return x, features


class Synthesis(nn.Module):
    """Blocks `b4` … `b512`."""

    def __init__(self, side: int, most: int) -> None:
        super().__init__()
        self.sides = [2**k for k in range(2, int(math.log2(side)) + 1)]
        for previous, current in zip([4, *self.sides], self.sides, strict=False):
            block = DecoderBlock(count_channels(previous, most), count_channels(current, most), current, current == 4)
            self.add_module(f"b{current}", block)

    def forward(self, x: "Tensor", features: "Mapping[int, Tensor]") -> "Tensor":
        """Return the picture (n, 3, side, side)."""
        picture: Any = None
        for side in self.sides:
            x, picture = self.get_submodule(f"b{side}")(x, features[side], picture)
        return cast("Tensor", picture)


class MiganGenerator(nn.Module):
    """The generator.

    Args:
        side: of the picture in px, a power of two.
        most: channels of a layer at most; the released networks have 512.

    Examples:
        >>> tuple(MiganGenerator(16, most=8).eval()(torch.zeros(1, 4, 16, 16)).shape)
        (1, 3, 16, 16)
    """

    def __init__(self, side: int = 512, most: int = MOST_CHANNELS) -> None:
        super().__init__()
        self.synthesis = Synthesis(side, most)
        self.encoder = Encoder(side, most)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return the picture (n, 3, side, side), in [-1, 1] but for overshoots.

        Args:
            x: (n, 4, side, side): 0.5 where the picture is known and -0.5 in the hole; the picture in [-1, 1] with its
                hole 0.
        """
        picture: Tensor = self.synthesis(*self.encoder(x))
        return picture


def infer_migan_shape(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the arguments of `MiganGenerator` for a table of its tensors.

    Raises:
        KeyError: it is of another network.

    Examples:
        >>> infer_migan_shape(MiganGenerator(32, most=16).state_dict())
        {'side': 32, 'most': 16}
    """
    sides = [int(name.split(".")[1][1:]) for name in state if name.startswith("synthesis.b")]
    most = int(state["encoder.b4.conv1.conv1.weight"].shape[0])
    return {"side": max(sides, default=0), "most": most}
