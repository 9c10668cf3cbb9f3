"""Names and shapes of the published UNets and BrushNets, written down from their structure, not from the code."""

from collections.abc import Sequence

Shapes = dict[str, tuple[int, ...]]


class UnetShapes:
    """Names and shapes of a UNet's parameters, collected block by block.

    Args:
        widths: channels of the levels. depths: transformer blocks of each level; 0 where it has no attention.
        text: width of the text that the attentions see.
        linear: the attentions' projections are linear layers, as SDXL's; else convolutions of 1 × 1.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], text: int, linear: bool) -> None:
        self.widths, self.depths, self.text, self.linear = widths, depths, text, linear
        self.time = 4 * widths[0]
        self.shapes: Shapes = {}
        self.down: list[int] = []
        self.up: list[int] = []

    def layer(self, name: str, *shape: int) -> None:
        self.shapes[f"{name}.weight"], self.shapes[f"{name}.bias"] = shape, shape[:1]

    def norm(self, name: str, width: int) -> None:
        self.shapes[f"{name}.weight"] = self.shapes[f"{name}.bias"] = (width,)

    def resnet(self, name: str, channels: int, out: int) -> None:
        self.norm(f"{name}.norm1", channels)
        self.layer(f"{name}.conv1", out, channels, 3, 3)
        self.layer(f"{name}.time_emb_proj", out, self.time)
        self.norm(f"{name}.norm2", out)
        self.layer(f"{name}.conv2", out, out, 3, 3)
        if channels != out:
            self.layer(f"{name}.conv_shortcut", out, channels, 1, 1)

    def attention(self, name: str, width: int, depth: int) -> None:
        if not depth:
            return
        kernel = () if self.linear else (1, 1)
        self.norm(f"{name}.norm", width)
        self.layer(f"{name}.proj_in", width, width, *kernel)
        self.layer(f"{name}.proj_out", width, width, *kernel)
        for k in range(depth):
            block = f"{name}.transformer_blocks.{k}"
            for part, channels in (("attn1", width), ("attn2", self.text)):
                self.shapes[f"{block}.{part}.to_q.weight"] = (width, width)
                for key in ("to_k", "to_v"):
                    self.shapes[f"{block}.{part}.{key}.weight"] = (width, channels)
                self.layer(f"{block}.{part}.to_out.0", width, width)
            for k2 in (1, 2, 3):
                self.norm(f"{block}.norm{k2}", width)
            self.layer(f"{block}.ff.net.0.proj", 8 * width, width)
            self.layer(f"{block}.ff.net.2", width, 4 * width)

    def embeddings(self, pooled: int) -> None:
        """Collect the embedded time, and with `pooled` channels what SDXL adds to it."""
        self.layer("time_embedding.linear_1", self.time, self.widths[0])
        self.layer("time_embedding.linear_2", self.time, self.time)
        if pooled:
            self.layer("add_embedding.linear_1", self.time, pooled)
            self.layer("add_embedding.linear_2", self.time, self.time)

    def blocks(self, middle: int) -> None:
        """Collect the blocks, and in `down` and `up` the channels after each of their layers.

        Args:
            middle: transformer blocks in the middle.
        """
        channels, last = self.widths[0], len(self.widths) - 1
        skips = [channels]
        for level, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for k in range(2):
                self.resnet(f"down_blocks.{level}.resnets.{k}", channels, width)
                self.attention(f"down_blocks.{level}.attentions.{k}", width, depth)
                channels = width
                skips.append(width)
            if level < last:
                self.layer(f"down_blocks.{level}.downsamplers.0.conv", width, width, 3, 3)
                skips.append(width)
        self.down = list(skips)
        for k in range(2):
            self.resnet(f"mid_block.resnets.{k}", channels, channels)
        self.attention("mid_block.attentions.0", channels, middle)
        for level, (width, depth) in enumerate(zip(self.widths[::-1], self.depths[::-1], strict=True)):
            for k in range(3):
                self.resnet(f"up_blocks.{level}.resnets.{k}", channels + skips.pop(), width)
                self.attention(f"up_blocks.{level}.attentions.{k}", width, depth)
                channels = width
                self.up.append(width)
            if level < last:
                self.layer(f"up_blocks.{level}.upsamplers.0.conv", width, width, 3, 3)
                self.up.append(width)

    def unet(self, channels: int, middle: int, pooled: int = 0) -> Shapes:
        """Return the shapes of a UNet that takes so many channels."""
        self.layer("conv_in", self.widths[0], channels, 3, 3)
        self.embeddings(pooled)
        self.blocks(middle)
        self.norm("conv_norm_out", self.widths[0])
        self.layer("conv_out", 4, self.widths[0], 3, 3)
        return self.shapes

    def brushnet(self, middle: int, pooled: int = 0) -> Shapes:
        """Return the shapes of a BrushNet."""
        self.layer("conv_in_condition", self.widths[0], 9, 3, 3)
        self.embeddings(pooled)
        self.blocks(middle)
        for k, width in enumerate(self.down):
            self.layer(f"brushnet_down_blocks.{k}", width, width, 1, 1)
        self.layer("brushnet_mid_block", self.widths[-1], self.widths[-1], 1, 1)
        for k, width in enumerate(self.up):
            self.layer(f"brushnet_up_blocks.{k}", width, width, 1, 1)
        return self.shapes


SDXL = ((320, 640, 1280), (0, 2, 10), 2048, True)
SD15 = ((320, 640, 1280, 1280), (1, 1, 1, 0), 768, False)
"""Arguments of `UnetShapes` at full size."""


def list_clip_shapes() -> Shapes:
    """Return the text model of CLIP ViT-L/14, without its vocabulary."""
    shapes: Shapes = {"embeddings.position_embedding.weight": (77, 768)}
    for k in range(12):
        layer = f"encoder.layers.{k}"
        for name, out, channels in (
            *((f"self_attn.{part}_proj", 768, 768) for part in ("q", "k", "v", "out")),
            ("mlp.fc1", 3072, 768),
            ("mlp.fc2", 768, 3072),
        ):
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = (out, channels), (out,)
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (768,)
    shapes["final_layer_norm.weight"] = shapes["final_layer_norm.bias"] = (768,)
    return shapes
