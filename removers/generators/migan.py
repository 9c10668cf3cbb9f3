"""MI-GAN: a network of 6 M parameters that fills a square of 512 (or 256) px in one run, on a CPU in a second.

Sargsyan et al., ICCV 2023. Its mask is 1 where the picture is *known*; the released ONNX pipeline takes 255 there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.finite import to_uint8
from rasura.networks.pretrained import refuse_others
from rasura.networks.weights import BadWeights
from rasura.removers.base import Capability
from rasura.removers.generators.generator import (
    GeneratorOptions,
    estimate_generator_memory,
    list_weights,
    open_generator,
    read_generator,
)

Array = npt.NDArray[Any]

CAPABILITY = Capability("remover", None, False, "MIT", name="MI-GAN", steps=1, needs_weights=True, parameters=5_973_366)
PIPELINE_RIM = 3
"""px: the released pipeline mixes the picture back in so far inside its hole (a 3x3 maximum, then a 5x5 blur)."""


class Migan:
    """MI-GAN from its torch, TorchScript or safetensors file, or its ONNX network or pipeline."""

    def __init__(self, name: str, path: Path, options: GeneratorOptions) -> None:
        self.name, self.path, self.options = name, path, options
        self.capability = replace(CAPABILITY, native_size=options.size, memory=estimate_generator_memory(path, options))
        self.net: Any = None
        self.is_pipeline = False

    def weights(self) -> Mapping[str, Path]:
        return list_weights(self.name, "migan", self.path)

    def setup(self) -> None:
        """Load the network.

        Raises:
            BadWeights: the file is no MI-GAN, or one of another size than `size`.
        """
        if self.path.suffix == ".onnx":
            self._open_onnx()
            return
        from rasura.networks.inpainting.migan import MiganGenerator, infer_migan_shape

        state = read_generator(self.path, "encoder.b4.conv1.conv1.weight", ("model.",))
        with refuse_others(self.path, "a MI-GAN"):
            side = infer_migan_shape(state)["side"]
        self._check_size(side)
        self.net = open_generator(self.path, MiganGenerator, infer_migan_shape, state, self.options.device)

    def _open_onnx(self) -> None:
        from rasura.networks.onnx import open_session

        session = open_session(self.path)
        shapes = [tuple(entry.shape) for entry in session.get_inputs()]
        if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] == 4:
            if isinstance(shapes[0][2], int):
                self._check_size(shapes[0][2])
            self.net = _OnnxMigan(session)
        elif [shape[1] for shape in shapes if len(shape) == 4] == [3, 1] and all(
            entry.type == "tensor(uint8)" for entry in session.get_inputs()
        ):
            self.net, self.is_pipeline = _OnnxMigan(session), True
        else:
            raise BadWeights(
                f"'{self.path}' is no MI-GAN: its inputs are {shapes}, not (1, 4, side, side), or a picture "
                "(1, 3, h, w) and then a mask (1, 1, h, w) of uint8"
            )

    def _check_size(self, side: int) -> None:
        if side != self.options.size:
            raise BadWeights(f"'{self.path}' is of a network of {side} px, not {self.options.size}: set `size: {side}`")

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does; deterministic, the seeds are not used."""
        fill = self._fill_by_pipeline if self.is_pipeline else self._fill
        return [fill(picture, hole) for picture, hole in zip(pictures, holes, strict=True)]

    def _fill(self, picture: Array, hole: Array) -> Array:
        known = (~hole).astype(np.float32)
        scaled = (picture.astype(np.float32) / 127.5 - 1) * known[..., None]
        joined = np.concatenate([known[None] - 0.5, scaled.transpose(2, 0, 1)])[None]
        filled = to_uint8(self.net(np.ascontiguousarray(joined)) / 2 + 0.5)
        return np.asarray(np.where(hole[..., None], filled.transpose(1, 2, 0), picture))

    def _fill_by_pipeline(self, picture: Array, hole: Array) -> Array:
        """Fill with a hole wider by the rim in which the pipeline mixes the picture back in: nothing of it shows."""
        square = np.ones((2 * PIPELINE_RIM + 1, 2 * PIPELINE_RIM + 1), np.uint8)
        known = np.asarray(255 * (1 - cv2.dilate(hole.astype(np.uint8), square)), np.uint8)
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))[None]
        filled = self.net(planes, known[None, None]).transpose(1, 2, 0)
        return np.asarray(np.where(hole[..., None], filled, picture))


class _OnnxMigan:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.names = [entry.name for entry in session.get_inputs()]

    def __call__(self, *inputs: Array) -> Array:
        return np.asarray(self.session.run(None, dict(zip(self.names, inputs, strict=True)))[0][0])


def migan(name: str, path: Path, options: GeneratorOptions) -> Migan:
    """Create the remover `migan`."""
    return Migan(name, path, options)
