"""BrushNet: a copy of a UNet that reads a picture and its mask, and adds to every hidden state of the UNet itself.

Source: arXiv 2403.06976 and its release; PowerPaint's second version keeps the attentions that BrushNet drops (arXiv
2312.03594). Names and shapes of the tensors are those of the published files.

An addition is a hidden state of the copy after a convolution of 1 × 1. There is one after the first convolution, after
every pair of resnet and attention, and after every change of size: 12 on the way down, one in the middle and 15 on the
way up of Stable Diffusion 1.5; 9, one and 11 of SDXL.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rasura.networks.pretrained import fill_module
from rasura.networks.weights import BadWeights, find_single, read_tensors

CONDITION = 5
"""Channels beside the noisy latents: the latents of the picture without its hole (4), and where it is kept (1)."""


def run_blocks(
    network: Any, hidden: Tensor, embedded: Tensor, text: Tensor | None, visit: Callable[[Tensor], Tensor]
) -> Tensor:
    """Run the blocks of a UNet or of a BrushNet, from the first convolution's output to the last block's.

    Args:
        network: with `down_blocks`, `mid_block` and `up_blocks` of diffusers, with or without attentions.
        hidden: (n, c, h, w), the first convolution's output.
        embedded: (n, e), the embedded time.
        text: (n, t, d), what the attentions see; None where there are none.
        visit: called with each hidden state in turn, it returns the state to go on with. Its result is the skip too,
            but for the first state, whose skip is `hidden` as it is: as in the release.
    """

    def attend(block: Any, index: int, hidden: Tensor) -> Tensor:
        attentions = getattr(block, "attentions", None)
        if attentions is None:
            return hidden
        output: Tensor = attentions[index](hidden, encoder_hidden_states=text, return_dict=False)[0]
        return output

    skips = [hidden]
    hidden = visit(hidden)
    for block in network.down_blocks:
        for index, resnet in enumerate(block.resnets):
            hidden = visit(attend(block, index, resnet(hidden, embedded)))
            skips.append(hidden)
        for downsampler in block.downsamplers or ():
            hidden = visit(downsampler(hidden))
            skips.append(hidden)
    hidden = network.mid_block.resnets[0](hidden, embedded)
    for index, resnet in enumerate(network.mid_block.resnets[1:]):
        hidden = resnet(attend(network.mid_block, index, hidden), embedded)
    hidden = visit(hidden)
    for block in network.up_blocks:
        for index, resnet in enumerate(block.resnets):
            hidden = torch.cat([hidden, skips.pop()], dim=1)
            hidden = visit(attend(block, index, resnet(hidden, embedded)))
        for upsampler in block.upsamplers or ():
            hidden = visit(upsampler(hidden, skips[-1].shape[2:]))
    return hidden


def embed_time(network: Any, inputs: Tensor, time: Tensor, added: Mapping[str, Tensor] | None) -> Tensor:
    """Return the embedded time (n, e) of a UNet or a BrushNet, with SDXL's pooled text and sizes.

    Args:
        inputs: (n, …), of which the number and the dtype are taken.
        time: (), the timestep.
        added: `text_embeds` (n, p) and `time_ids` (n, 6), of SDXL; None of Stable Diffusion 1.5.
    """
    times = torch.as_tensor(time, device=inputs.device).reshape(1).expand(len(inputs))
    embedded: Tensor = network.time_embedding(network.time_proj(times).to(inputs.dtype))
    if added is None:
        return embedded
    sizes = network.add_time_proj(added["time_ids"].flatten()).reshape(len(inputs), -1)
    extra: Tensor = network.add_embedding(torch.cat([added["text_embeds"], sizes], dim=1).to(inputs.dtype))
    return embedded + extra


class BrushNet(nn.Module):
    """The copy, with a first convolution of its own and a convolution of 1 × 1 for each addition."""

    def __init__(self, config: Mapping[str, Any], has_attention: bool = False) -> None:
        """Create a network with random weights; on the meta device where torch's default device is that.

        Args:
            config: of the UNet, arguments of diffusers' `UNet2DConditionModel`.
            has_attention: keep the UNet's attentions, as PowerPaint's second version does.
        """
        from diffusers import UNet2DConditionModel

        super().__init__()
        create: Any = UNet2DConditionModel.from_config
        unet = create({**config, "in_channels": 4})
        self.has_attention = has_attention
        for block in () if has_attention else (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            if hasattr(block, "attentions"):
                del block.attentions
        self.conv_in_condition = nn.Conv2d(4 + CONDITION, unet.conv_in.out_channels, 3, padding=1)
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        if (add_embedding := getattr(unet, "add_embedding", None)) is not None:
            self.add_time_proj, self.add_embedding = unet.add_time_proj, add_embedding
        self.down_blocks, self.mid_block, self.up_blocks = unet.down_blocks, unet.mid_block, unet.up_blocks
        down, middle, up = self.list_widths()
        self.brushnet_down_blocks = nn.ModuleList([nn.Conv2d(width, width, 1) for width in down])
        self.brushnet_mid_block = nn.Conv2d(middle, middle, 1)
        self.brushnet_up_blocks = nn.ModuleList([nn.Conv2d(width, width, 1) for width in up])

    def list_widths(self) -> tuple[list[int], int, list[int]]:
        """Return the channels of the hidden states on the way down, in the middle, and on the way up."""
        blocks: Any = (self.down_blocks, self.mid_block, self.up_blocks)
        down = [self.conv_in_condition.out_channels]
        for block in blocks[0]:
            down += [block.resnets[0].out_channels] * (len(block.resnets) + len(block.downsamplers or ()))
        up = []
        for block in blocks[2]:
            up += [block.resnets[0].out_channels] * (len(block.resnets) + len(block.upsamplers or ()))
        return down, blocks[1].resnets[0].out_channels, up

    def forward(
        self, inputs: Tensor, time: Tensor, text: Tensor | None, added: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Return the additions, in the order of the UNet's hidden states.

        Args:
            inputs: (n, 9, h, w): noisy latents, latents of the picture without its hole, and 1 where it is kept.
            text: (n, t, d) for the attentions, where there are some.
            time, added: see `embed_time`.
        """
        convolutions = iter([*self.brushnet_down_blocks, self.brushnet_mid_block, *self.brushnet_up_blocks])
        additions = []

        def collect(hidden: Tensor) -> Tensor:
            additions.append(next(convolutions)(hidden))
            return hidden

        run_blocks(self, self.conv_in_condition(inputs), embed_time(self, inputs, time, added), text, collect)
        return additions


class BranchedUnet(nn.Module):
    """A UNet of four channels with a BrushNet beside it, called as a UNet of nine channels is."""

    def __init__(self, unet: Any, brushnet: BrushNet, scale: float = 1.0) -> None:
        """Join the two.

        Args:
            scale: factor of the additions.
        """
        super().__init__()
        self.unet, self.brushnet, self.scale = unet, brushnet, scale

    def forward(
        self,
        inputs: Tensor,
        time: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return the predicted noise (n, 4, h, w).

        Args:
            inputs: (n, 9, h, w): noisy latents, hole (1 = hole), and latents of the picture without its hole. Here the
                polarity is turned: a BrushNet sees what is kept.
            encoder_hidden_states: (n, t, d); where the BrushNet has attentions (n, 2 t, d), the UNet's text and then
                the BrushNet's.
            time, added_cond_kwargs: see `embed_time`.
        """
        noisy, hole, source = inputs[:, :4], inputs[:, 4:5], inputs[:, 5:]
        text = branch_text = encoder_hidden_states
        if self.brushnet.has_attention:
            text, branch_text = encoder_hidden_states.chunk(2, dim=1)
        condition = torch.cat([noisy, source, 1 - hole], dim=1)
        additions: Iterator[Tensor] = iter(self.brushnet(condition, time, branch_text, added_cond_kwargs))

        def add(hidden: Tensor) -> Tensor:
            return hidden + next(additions) * self.scale

        embedded = embed_time(self.unet, noisy, time, added_cond_kwargs)
        unet: Any = self.unet
        hidden = run_blocks(unet, unet.conv_in(noisy), embedded, text, add)
        return (unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))),)


def find_file(path: Path) -> Path:
    """Return a BrushNet's file of tensors: the file itself, or the one of its folder that is named as diffusers does.

    Raises:
        BadWeights: there is none.
    """
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"):
        if (path / name).is_file():
            return path / name
    return find_single(path, (".safetensors",))


def open_brushnet(path: Path, config: Mapping[str, Any], has_attention: bool, dtype: Any) -> BrushNet:
    """Open a BrushNet from its folder or file, in evaluation mode, without gradients, on the CPU.

    Args:
        config: of the UNet that it stands beside.
        has_attention: it is that of PowerPaint's second version.

    Raises:
        BadWeights: the file is missing, or is the BrushNet of another UNet, or none at all.
    """
    file = find_file(path)
    tensors = read_tensors(file)
    if not any(name.startswith("brushnet_") for name in tensors):
        raise BadWeights(
            f"'{file}' is no BrushNet: it has no tensors named brushnet_…, but {min(tensors, default='none')}"
        )
    if any(".attentions." in name for name in tensors) != has_attention:
        raise BadWeights(
            f"'{file}' is a BrushNet {'without' if has_attention else 'with'} attentions: "
            + ("BrushNet's own, not that of PowerPaint's second version" if has_attention else "PowerPaint's")
        )
    with torch.device("meta"):
        brushnet = BrushNet(config, has_attention)
    opened: BrushNet = fill_module(brushnet, tensors, file, dtype)
    return opened
