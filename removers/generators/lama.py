"""LaMa: fills large holes in one run, repeating the picture's textures.

Suvorov et al., WACV 2022 (arXiv 2109.07161). Blurred where a hole is much larger than 512 px, so that the network works
on a square around the hole at 512 px; its authors run whole pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.networks.finite import check_finite, to_uint8
from rasura.networks.weights import BadWeights
from rasura.removers.base import Capability
from rasura.removers.generators.generator import (
    GeneratorOptions,
    add_symmetric_border,
    estimate_generator_memory,
    list_weights,
    open_generator,
    read_generator,
)

Array = npt.NDArray[Any]

MULTIPLE = 8
"""The network halves a picture three times."""
PREFIXES = ("generator.", "state_dict.generator.", "model.generator.")
"""Before the names of tensors: in a trainer's module, in its checkpoint, in the released TorchScript."""
SCALE_TOLERANCE = 0.02
CAPABILITY = Capability(
    "remover", None, False, "Apache-2.0", name="LaMa", steps=1, needs_weights=True, parameters=50_975_875
)


class Lama:
    """LaMa from its safetensors, checkpoint, TorchScript or ONNX file."""

    def __init__(self, name: str, path: Path, options: GeneratorOptions) -> None:
        self.name, self.path, self.options = name, path, options
        self.capability = replace(CAPABILITY, native_size=options.size, memory=estimate_generator_memory(path, options))
        self.net: Any = None

    def weights(self) -> Mapping[str, Path]:
        return list_weights(self.name, "lama", self.path)

    def setup(self) -> None:
        """Load the network.

        Raises:
            BadWeights: the file is no LaMa generator.
        """
        if self.path.suffix == ".onnx":
            self.net = OnnxLama(self.path)
            return
        from rasura.networks.inpainting.lama import LamaGenerator, infer_lama_shape

        state = read_generator(self.path, "model.1.ffc.convl2l.weight", PREFIXES)
        run = open_generator(self.path, LamaGenerator, infer_lama_shape, state, self.options.device)
        self.net = lambda masked, hole: run(np.concatenate([masked, hole[None]])[None])

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does; deterministic, the seeds are not used."""
        return [fill_picture(self.net, picture, hole) for picture, hole in zip(pictures, holes, strict=True)]


def fill_picture(net: Any, picture: Array, hole: Array) -> Array:
    """Return a picture with its hole filled.

    Args:
        net: takes a picture (3, h, w) in [0, 1] with a black hole and the hole (h, w) as 0 and 1, both float32 with
            sides that are multiples of 8, and returns a picture (3, h, w) in [0, 1].
        picture: (h, w, 3) uint8. hole: (h, w) bool.
    """
    height, width = hole.shape
    mask = add_symmetric_border(hole, MULTIPLE)
    masked = np.where(mask[..., None], 0, add_symmetric_border(picture, MULTIPLE)).astype(np.float32) / 255
    filled = net(np.ascontiguousarray(masked.transpose(2, 0, 1)), mask.astype(np.float32))
    result = to_uint8(filled).transpose(1, 2, 0)[:height, :width]
    return np.asarray(np.where(hole[..., None], result, picture))


class OnnxLama:
    """A LaMa in ONNX form: either one input of four channels, or a picture and a mask.

    Published files return values up to 1 or up to 255; which, is decided by the known pixels, which the network with
    two inputs returns as they were.
    """

    def __init__(self, path: Path) -> None:
        from rasura.networks.onnx import open_session

        self.path, self.session = path, open_session(path)
        inputs = self.session.get_inputs()
        channels = [(entry.shape[1] if len(entry.shape) == 4 else None) for entry in inputs]
        self.names = [entry.name for entry in inputs]
        if channels == [3, 1]:
            self.joined = False
        elif channels == [4]:
            self.joined = True
        else:
            shapes = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs)
            raise BadWeights(
                f"'{path}' is no LaMa: its inputs are {shapes}, not a picture (1, 3, h, w) and a mask (1, 1, h, w), "
                "or both as (1, 4, h, w)"
            )
        sides = [side for side in inputs[0].shape[2:] if isinstance(side, int)]
        self.side = sides[0] if sides else None

    def __call__(self, masked: Array, hole: Array) -> Array:
        """Return the picture (3, h, w) in [0, 1].

        Raises:
            BadWeights: the network takes another size, or returns values in an unknown range.
            NotFinite: it returns values that are none.
        """
        if self.side is not None and hole.shape != (self.side, self.side):
            raise BadWeights(f"'{self.path}' works on {self.side} px, not on {hole.shape}: set `size: {self.side}`")
        if self.joined:
            feeds = {self.names[0]: np.concatenate([masked, hole[None]])[None]}
            return np.asarray(self.session.run(None, feeds)[0][0])
        result = np.asarray(
            self.session.run(None, {self.names[0]: masked[None], self.names[1]: hole[None, None]})[0][0]
        )
        check_finite(result, "its picture")
        known = np.broadcast_to(hole == 0, masked.shape)
        for scale in (1.0, 255.0):
            if np.abs(result[known] / scale - masked[known]).mean() < SCALE_TOLERANCE:
                return result / scale
        raise BadWeights(
            f"'{self.path}' is no LaMa: its known pixels are in neither [0, 1] nor [0, 255]; "
            f"they are up to {result.max():.4g}"
        )


def lama(name: str, path: Path, options: GeneratorOptions) -> Lama:
    """Create the remover `lama`."""
    return Lama(name, path, options)
