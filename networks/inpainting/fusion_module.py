"""ObjectClear's fusion module: it maps CLIP's embedding of an object to a word of the prompt.

Source: arXiv 2505.22636 and its release; names and shapes of the tensors are those of the published file.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasura.networks.pretrained import MissingWeights, fill_module
from rasura.networks.weights import read_tensors


class Perceptron(nn.Module):
    """A norm and two dense layers with a GELU between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(inputs)
        self.fc1 = nn.Linear(inputs, outputs)
        self.fc2 = nn.Linear(outputs, outputs)

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs)."""
        result: Tensor = self.fc2(F.gelu(self.fc1(self.layernorm(values))))
        return result


class FusionModule(nn.Module):
    """Two perceptrons, the second with a shortcut, and a norm.

    Args:
        embedding: width of CLIP's embeddings; 768 as published.
        token: width of the text encoders' tokens; 2048 as published.
    """

    def __init__(self, embedding: int, token: int) -> None:
        super().__init__()
        self.mlp1 = Perceptron(embedding, token)
        self.mlp2 = Perceptron(token, token)
        self.layer_norm = nn.LayerNorm(token)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map CLIP embeddings (n, e) to text tokens (n, d)."""
        first = self.mlp1(embeddings)
        tokens: Tensor = self.layer_norm(self.mlp2(first) + first)
        return tokens


class ObjectUNet(nn.Module):
    """A UNet, and the fusion module that makes one word of its prompt: what is learned together.

    Args:
        position: of that word's token, counted from the start token.
    """

    def __init__(self, unet: nn.Module, fusion: FusionModule, position: int) -> None:
        super().__init__()
        self.unet, self.fusion, self.position = unet, fusion, position

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, objects: Tensor, **arguments: Any
    ) -> Any:
        """Run the UNet on the prompt (n, 77, d) with the tokens of `objects` (n, e) in it."""
        prompts = insert_token(encoder_hidden_states, self.fusion(objects), self.position)
        return self.unet(sample, timestep, encoder_hidden_states=prompts, **arguments)


def insert_token(prompts: Tensor, tokens: Tensor, position: int) -> Tensor:
    """Return prompts (n, 77, d) with one token of each replaced.

    Args:
        prompts: (n, 77, d), or (1, 77, d) for all.
        tokens: (n, d).
    """
    fused = prompts.expand(len(tokens), -1, -1).clone()
    fused[:, position] = tokens.to(fused.dtype)
    return fused


def create_fusion_module(embedding: int, token: int, seed: int) -> FusionModule:
    """Create a fusion module with random weights, which follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FusionModule(embedding, token)


def open_fusion_module(path: Path, embedding: int, token: int) -> FusionModule:
    """Open a fusion module from its file, in float32 on the CPU.

    Args:
        embedding, token: width of the embeddings that it gets and of the tokens that it has to make.

    Raises:
        MissingWeights: the file holds something else, or a module of other widths.
    """
    with torch.device("meta"):
        module = FusionModule(embedding, token)
    tensors = read_tensors(path)
    if tensors.keys() != module.state_dict().keys():
        raise MissingWeights(f"{path} is no fusion module: it holds {', '.join(sorted(tensors)[:4])}, …")
    widths = len(tensors["mlp1.layernorm.weight"]), len(tensors["layer_norm.weight"])
    if widths != (embedding, token):
        raise MissingWeights(
            f"{path} maps embeddings of {widths[0]} to tokens of {widths[1]}; the image encoder makes {embedding}, the "
            f"text encoders {token}"
        )
    opened: FusionModule = fill_module(module, tensors, path, torch.float32)
    return opened
