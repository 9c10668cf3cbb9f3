"""Stages `embed` and `classify`: a given network's vector of each picture, or its scores for classes such as safety.

The network is an ONNX file or a folder of transformers with safetensors; nothing is fetched but by `revision`, and no
code of a hub is run. An ONNX file does not say how its input is made: size, order and scale of the channels are
parameters. A folder of transformers has a processor that knows.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from rasura.manifests.images import RGB
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.memory import NetworkMemory, count_parameters, estimate_memory
from rasura.networks.weights import BadWeights, Reference, Revision, find_single, list_files, resolve
from rasura.stages.curation.measuring import check_picture_column
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage, get_picture_column

Vectors = npt.NDArray[np.float32]
LABEL = re.compile(r"[a-z0-9_]{1,40}")


class NetworkParams(Params):
    network: Reference = Field(description="An .onnx file, or a folder of transformers; with `revision` of the hub.")
    revision: Revision | None = Field(None, description="Commit of a model on the hub; without it, a local path.")
    size: int = Field(224, ge=16, le=2048, description="ONNX: px of the square input.")
    fit: Literal["stretch", "crop"] = Field("crop", description="ONNX: how a picture becomes a square.")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="ONNX: order of the channels.")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="ONNX: order of the axes.")
    mean: tuple[float, float, float] = Field(
        (123.675, 116.28, 103.53), description="ONNX: subtracted from levels 0 to 255, in the order of `channels`."
    )
    std: tuple[float, float, float] = Field((58.395, 57.12, 57.375), description="ONNX: by which they are divided.")
    output: str | None = Field(None, description="ONNX: name of the output; null: the first.")

    @field_validator("std")
    @classmethod
    def _check_std(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0:
            raise ValueError("expected three numbers above 0")
        return value


def prepare_square(picture: RGB, params: NetworkParams) -> Vectors:
    """Prepare a network's input, (1, 3, size, size) or (1, size, size, 3) float32.

    Examples:
        >>> params = NetworkParams(network="a.onnx", size=16, layout="nhwc", mean=(0, 0, 0), std=(255, 255, 255))
        >>> values = prepare_square(np.full((20, 30, 3), 255, np.uint8), params)
        >>> values.shape, float(values.max())
        ((1, 16, 16, 3), 1.0)
    """
    height, width = picture.shape[:2]
    if params.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        picture = picture[top : top + side, left : left + side]
    shrinks = min(picture.shape[:2]) > params.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    square = np.asarray(cv2.resize(picture, (params.size, params.size), interpolation=method), np.float32)
    square = square[..., ::-1] if params.channels == "bgr" else square
    values = (square - np.asarray(params.mean, np.float32)) / np.asarray(params.std, np.float32)
    return np.ascontiguousarray((values if params.layout == "nhwc" else values.transpose(2, 0, 1))[None], np.float32)


class OnnxPictures:
    """An ONNX network from pictures to vectors."""

    def __init__(self, path: Path, params: NetworkParams) -> None:
        from rasura.networks.onnx import open_session

        self.path, self.params = path, params
        self.session = open_session(path)
        inputs, outputs = self.session.get_inputs(), [entry.name for entry in self.session.get_outputs()]
        if len(inputs) != 1:
            raise BadWeights(f"'{path}' has {len(inputs)} inputs; a network of pictures has one")
        if params.output is not None and params.output not in outputs:
            raise BadWeights(f"'{path}' has no output '{params.output}'; it has {', '.join(outputs)}")
        self.input, self.output = inputs[0].name, params.output or outputs[0]

    def compute(self, picture: RGB) -> Vectors:
        """Compute the vector of one picture, (n,)."""
        try:
            (values,) = self.session.run([self.output], {self.input: prepare_square(picture, self.params)})
        except Exception as error:
            if type(error).__module__.startswith("onnxruntime"):
                line = " ".join(str(error).split())[:200]
                raise BadWeights(f"'{self.path}' does not take such an input; set size and layout: {line}") from error
            raise
        return np.asarray(values, np.float32).reshape(-1)


class TransformersPictures:
    """A network of transformers from pictures to vectors: embeddings, or the logits of classes."""

    def __init__(self, folder: Path, classes: bool) -> None:
        import transformers

        from rasura.networks import pretrained, weights

        cls: Any = transformers.AutoModelForImageClassification if classes else transformers.AutoModel
        kind = str(pretrained.read_settings(folder / "config.json").get("model_type"))
        self.model = pretrained.open_transformers(cls, folder, [kind])
        self.processor = pretrained.open_processor(transformers.AutoImageProcessor, folder)
        self.device, self.classes, self.options = weights.pick_device(), classes, weights.CHANNELS

    def compute(self, picture: RGB) -> Vectors:
        """Compute the vector of one picture, (n,)."""
        import torch

        inputs = self.processor(images=np.array(picture), return_tensors="pt", **self.options).to(self.device)
        with torch.inference_mode():
            if self.classes:
                values = self.model(**inputs).logits
            elif hasattr(self.model, "get_image_features"):
                values = self.model.get_image_features(**inputs)
                values = getattr(values, "pooler_output", values)
            else:
                answer = self.model(**inputs)
                pooled = getattr(answer, "pooler_output", None)
                values = answer.last_hidden_state.mean(dim=1) if pooled is None else pooled
        return np.asarray(values.float().cpu().numpy(), np.float32).reshape(-1)


class PictureNetworkStage(Stage):
    """A stage that computes a vector of each picture with a given network."""

    Params: ClassVar[type[NetworkParams]] = NetworkParams
    params: NetworkParams
    classes: ClassVar[bool] = False

    def schema(self, columns: Schema) -> Schema:
        check_picture_column(self.name, columns)
        return super().schema(columns)

    @property
    def _is_onnx(self) -> bool:
        return self.params.network.lower().endswith(".onnx")

    def weights(self) -> Mapping[str, Path]:
        return list_files(self.name, self.params.network, self.params.revision)

    def required_modules(self) -> Sequence[str]:
        return () if self._is_onnx else ("torch", "transformers")

    def network_memory(self, batch_size: int) -> NetworkMemory:
        parameters = count_parameters(self.weights().values())
        return estimate_memory(parameters, 20_000_000, "float32", library="onnx" if self._is_onnx else "torch")

    def setup(self) -> None:
        path = resolve(self.params.network, self.params.revision)
        if self._is_onnx:
            self.network: Any = OnnxPictures(find_single(path, [".onnx"]), self.params)
        else:
            self.network = TransformersPictures(path, self.classes)

    def compute(self, record: Record) -> Vectors:
        """Compute the vector of a record's picture.

        Raises:
            BadWeights: the network's answer is not finite.
        """
        vector: Vectors = self.network.compute(record[get_picture_column(record)])
        if not np.isfinite(vector).all():
            raise BadWeights(f"'{self.params.network}' answers with values that are not finite")
        return vector


class EmbedParams(NetworkParams):
    pass


class Embed(PictureNetworkStage):
    """Compute a given network's embedding of each picture, by which `distinct` finds near-duplicates.

    Examples:
        - embed: {network: models/dinov2.onnx, size: 224}
    """

    name = "embed"
    gives = {"embedding": Kind.FLOATS}
    Params = EmbedParams
    params: EmbedParams

    def process_one(self, record: Record) -> Outcome:
        vector = self.compute(record).astype(np.float64)
        length = float(np.linalg.norm(vector))
        return Kept([record | {"embedding": [float(v) for v in (vector / length if length > 0 else vector)]}])


class ClassifyParams(NetworkParams):
    name: str = Field("safety", pattern=r"^[a-z][a-z0-9_]{0,39}$", description="First part of the columns' names.")
    labels: tuple[str, ...] = Field(min_length=2, description="Names of the network's classes, in its order.")
    activation: Literal["none", "softmax", "sigmoid"] = Field(
        "none", description="What makes probabilities of its outputs; none where they are some already."
    )

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unfit := [label for label in value if not LABEL.fullmatch(label)]:
            raise ValueError(f"'{unfit[0]}' cannot be part of a column's name: small letters, digits and _")
        if len(set(value)) < len(value):
            raise ValueError("a label is there twice")
        return value


def compute_probabilities(values: Vectors, activation: str) -> Vectors:
    """Compute probabilities of a network's outputs, (n,).

    Examples:
        >>> compute_probabilities(np.zeros(4, np.float32), "softmax").tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    if activation == "softmax":
        powers = np.exp(values - values.max())
        return np.asarray(powers / powers.sum(), np.float32)
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), np.float32)
    return values


class Classify(PictureNetworkStage):
    """Store a given classifier's score of each class, one column each; `select` decides by them.

    Examples:
        - classify: {network: models/open_nsfw.onnx, labels: [sfw, nsfw], layout: nhwc, channels: bgr}
        - select: {keep: {safety_nsfw: {max: 0.2}, safety_sfw: {min: 0.5}}}
    """

    name = "classify"
    classes = True
    Params = ClassifyParams
    params: ClassifyParams

    def _columns(self) -> list[str]:
        return [f"{self.params.name}_{label}" for label in self.params.labels]

    def schema(self, columns: Schema) -> Schema:
        return {**super().schema(columns), **dict.fromkeys(self._columns(), Kind.FLOAT)}

    def process_one(self, record: Record) -> Outcome:
        scores = compute_probabilities(self.compute(record), self.params.activation)
        columns = self._columns()
        if len(scores) != len(columns):
            raise BadWeights(f"'{self.params.network}' has {len(scores)} classes, and `labels` names {len(columns)}")
        return Kept([record | {name: float(score) for name, score in zip(columns, scores, strict=True)}])
