"""Any inpainting pipeline of diffusers, by its name: FLUX.1 Fill, Stable Diffusion 3, Qwen-Image and what will come.

The pipeline's own call does everything; here it only gets its folder, a picture, a mask that is white in the hole, and
a generator for each picture. Pictures are run one by one, so that a result depends on nothing beside it.

Pipelines treat what is in the hole in their own ways: some cover it in grey, some start from its latents when their
`strength` is below 1, some show it to the network as a reference. Therefore the object is taken out before: the hole is
filled from its rim, unless `source` says otherwise.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.errors import InputError
from rasura.networks.finite import to_uint8
from rasura.networks.memory import DECODE_ELEMENTS, NetworkMemory, count_parameters, estimate_memory
from rasura.networks.pipeline_folder import (
    check_library,
    find_pipeline,
    get_system,
    list_component_files,
    list_components,
    open_pipeline,
    quiet_diffusers,
    read_index,
)
from rasura.networks.pretrained import MissingWeights
from rasura.networks.weights import pick_device_and_dtype
from rasura.removers.base import Capability, resize
from rasura.removers.diffusion.loop import HoleColour, prefill
from rasura.removers.diffusion.remover import refuse_objectclear

Array = npt.NDArray[Any]

CAPABILITY = Capability("inserter", 1024, False, "that of its model", name="pipeline of diffusers", needs_weights=True)

LICENCES: Mapping[str, tuple[str, bool]] = {
    "Flux": ("FLUX.1 [dev] Non-Commercial License", True),
    "StableDiffusion3": ("Stability AI Community License", False),
    "QwenImage": ("Apache-2.0", False),
}
"""Licences of the published weights by the beginning of a pipeline's name, and whether they are non-commercial; those
of FLUX.1 [schnell] are not (Apache-2.0), which only a recipe can say."""

OWN = ("image", "mask_image", "generator", "prompt", "negative_prompt", "height", "width", "strength", "output_type")
OWN_STEPS = ("num_inference_steps", "num_images_per_prompt", "return_dict", "padding_mask_crop", "latents")
"""Arguments that `arguments` may not set: they have keys of their own, or the wrapper does their work."""
NEEDED = ("transformer", "unet", "vae", "scheduler", "text_encoder", "tokenizer")
"""Components that no pipeline does without, though its folder says so; the second and third text encoders may be."""
GREY, BLACK = 127, 0


@dataclass(frozen=True)
class PipelineOptions:
    """Options of running a pipeline; None leaves the pipeline's own default.

    pipeline: name of the class in diffusers. size: side in px of the square around the hole that it works on.
    steps, guidance: its `num_inference_steps`, and `guidance_scale` or `true_cfg_scale`.
    strength: share of the steps that are run. 1 starts from pure noise.
    source: hole of the picture that it gets: filled from its rim, grey (`masked`), black, or not hidden (`whole`).
    arguments: others of its call, by their names there.
    licence, non_commercial: of the weights, where they are others than are known for pipelines of that name.
    """

    pipeline: str = ""
    size: int = 1024
    steps: int | None = None
    guidance: float | None = None
    strength: float = 1.0
    prompt: str = ""
    negative: str | None = None
    source: HoleColour = "filled"
    arguments: Mapping[str, Any] | None = None
    licence: str | None = None
    non_commercial: bool | None = None
    device: str = "auto"
    dtype: str = "auto"


class BlackedOut(InputError):
    """A result that the pipeline's safety checker replaced by a black picture. It costs its row."""


class PipelineRemover:
    """A remover that is a pipeline of diffusers, from its local folder."""

    def __init__(self, name: str, folder: Path, options: PipelineOptions) -> None:
        self.name, self.folder, self.options = name, folder, options
        licence, closed = describe_licence(options)
        self.capability = replace(
            CAPABILITY,
            name=options.pipeline,
            native_size=options.size,
            steps=options.steps,
            licence=licence,
            non_commercial=closed,
            memory=self._estimate_memory(),
        )
        self.pipe: Any = None
        self.arguments: dict[str, Any] = {}
        self.sides: set[str] = set()
        self.is_numeric = True  # it returns values, where it is asked to

    def _estimate_memory(self) -> NetworkMemory:
        """Estimate the memory of all components, text encoders included: the pipeline keeps them."""
        files: list[Path] = []
        for place in sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []:
            tensors = sorted(place.glob("*.safetensors"))
            files += [path for path in tensors if ".fp16." in path.name] or tensors
        elements = self.options.size**2 * DECODE_ELEMENTS
        return estimate_memory(count_parameters(files), elements, self.options.dtype, self.options.device)

    def weights(self) -> Mapping[str, Path]:
        """Return the files that `setup` reads.

        Raises:
            MissingWeights: diffusers or the pipeline is unknown, the folder holds another system or lacks a component.
            ValueError: the pipeline takes no such option.
        """
        refuse_objectclear(self.name, self.folder)
        cls, index = find_pipeline(self.options.pipeline), read_index(self.folder)
        if get_system(index["_class_name"]) != get_system(self.options.pipeline):
            raise MissingWeights(
                f"{self.name}: '{self.folder}' holds a {index['_class_name']}, which is not of the system of "
                f"{self.options.pipeline}"
            )
        components = list_components(index)
        optional = set(getattr(cls, "_optional_components", ()))
        for name in cls._get_signature_keys(cls)[0]:
            is_absent = name not in components or (name in NEEDED and components[name] is None)
            if name not in optional and is_absent:
                raise MissingWeights(f"{self.name}: '{self.folder}' lacks the component '{name}' of {cls.__name__}")
        self.arguments = make_arguments(cls, self.options, self.name)
        parameters = inspect.signature(cls.__call__).parameters
        self.sides = {"height", "width"} & parameters.keys()
        self.is_numeric = "output_type" in parameters
        files = {"model_index.json": self.folder / "model_index.json"}
        for name, entry in components.items():
            if entry is not None:
                check_library(self.folder, name, *entry)
                files |= list_component_files(self.folder, name, entry[1])
        return files

    def setup(self) -> None:
        """Load the pipeline.

        Raises:
            MissingWeights: as of `weights`; a component lacks tensors, or is of another class.
        """
        self.weights()
        cls = find_pipeline(self.options.pipeline)
        device, dtype = pick_device_and_dtype(self.options.device, self.options.dtype)
        self.pipe = open_pipeline(cls, self.folder, dtype).to(device)

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does, one picture after the other.

        Raises:
            NotFinite: the pipeline computed no numbers.
            BlackedOut: the folder's safety checker replaced a result.
            ValueError: the pipeline returned a picture of other proportions.
        """
        if self.pipe is None:
            raise RuntimeError(f"remover '{self.name}' was not set up")
        with quiet_diffusers():
            return [self._fill(*values) for values in zip(pictures, holes, seeds, strict=True)]

    def set_texts(self, texts: Sequence[str]) -> None:
        """Announce texts as `Inserter.set_texts` does; the pipeline encodes each when it comes."""

    def paint(
        self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], texts: Sequence[str]
    ) -> list[Array]:
        """Paint as `Inserter.paint` does.

        Raises:
            ValueError: the pipeline takes no text; and what `fill` raises.
        """
        if self.pipe is None:
            raise RuntimeError(f"inserter '{self.name}' was not set up")
        if "prompt" not in self.arguments:
            raise ValueError(f"'{self.name}' paints nothing by a text: {self.options.pipeline} takes no `prompt`")
        with quiet_diffusers():
            return [self._fill(*values) for values in zip(pictures, holes, seeds, texts, strict=True)]

    def _fill(self, picture: Array, hole: Array, seed: int, text: str | None = None) -> Array:
        import torch
        from PIL import Image

        height, width = hole.shape
        result = self.pipe(
            image=Image.fromarray(hide_object(picture, hole, self.options.source)),
            mask_image=Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)),
            generator=torch.Generator("cpu").manual_seed(seed),
            **self.arguments,
            **({} if text is None else {"prompt": text}),
            **({"output_type": "np"} if self.is_numeric else {}),
            **{side: value for side, value in (("height", height), ("width", width)) if side in self.sides},
        )
        if any(getattr(result, "nsfw_content_detected", None) or []):
            raise BlackedOut(
                f"remover '{self.name}': the safety checker in '{self.folder}' blacked the result out; write "
                '`"safety_checker": [null, null]` in its model_index.json to go without'
            )
        image = result.images[0]  # as values, since a picture would be black where they are not finite
        fill = to_uint8(np.asarray(image)) if self.is_numeric else np.asarray(image.convert("RGB"))
        if abs(fill.shape[1] / fill.shape[0] - width / height) > 0.02:
            raise ValueError(
                f"remover '{self.name}' returned {fill.shape[1]} x {fill.shape[0]} px, not {width} x {height}"
            )
        return resize(fill, hole.shape)


def describe_licence(options: PipelineOptions) -> tuple[str, bool]:
    """Return the licence of a pipeline's weights, and whether it is non-commercial.

    Examples:
        >>> describe_licence(PipelineOptions("FluxFillPipeline"))
        ('FLUX.1 [dev] Non-Commercial License', True)
        >>> describe_licence(PipelineOptions("FluxInpaintPipeline", licence="Apache-2.0"))
        ('Apache-2.0', False)
    """
    beginnings = [name for name in LICENCES if options.pipeline.startswith(name)]
    licence, closed = LICENCES[max(beginnings, key=len)] if beginnings else (CAPABILITY.licence, False)
    if options.licence is not None:
        licence, closed = options.licence, False
    return licence, closed if options.non_commercial is None else options.non_commercial


def hide_object(picture: Array, hole: Array, colour: HoleColour) -> Array:
    """Return a picture (h, w, 3) uint8 as the pipeline gets it; `hole` (h, w) bool.

    Examples:
        >>> picture, hole = np.full((3, 3, 3), 200, np.uint8), np.eye(3, dtype=bool)
        >>> hide_object(picture, hole, "masked")[:, :, 0].tolist()
        [[127, 200, 200], [200, 127, 200], [200, 200, 127]]
    """
    if colour == "whole":
        return picture
    if colour == "filled":
        return prefill([picture], [hole])[0]
    return np.where(hole[..., None], GREY if colour == "masked" else BLACK, picture).astype(np.uint8)


def make_arguments(cls: Any, options: PipelineOptions, name: str) -> dict[str, Any]:
    """Return the arguments of a pipeline's call that are the same for every picture.

    Args:
        name: of the remover, for the error.

    Raises:
        ValueError: an option is set that the pipeline does not have, or that would do nothing.
    """
    parameters = inspect.signature(cls.__call__).parameters
    # of a network with guidance distilled into it, guidance_scale is its input; where it is None, the other one guides
    distilled = "guidance_scale" in parameters and parameters["guidance_scale"].default is not None
    guidance = "guidance_scale" if distilled or "true_cfg_scale" not in parameters else "true_cfg_scale"
    named = {
        "steps": ("num_inference_steps", options.steps),
        "guidance": (guidance, options.guidance),
        "negative": ("negative_prompt", options.negative),
        "prompt": ("prompt", options.prompt or None),
        "strength": ("strength", None if options.strength == 1 else options.strength),
    }
    for key, (argument, value) in named.items():
        if value is not None and argument not in parameters:
            raise ValueError(f"remover '{name}': {cls.__name__} takes no `{argument}`; leave `{key}` out")
    arguments = {argument: value for argument, value in named.values() if value is not None}
    arguments |= {
        key: value for key, value in (("prompt", options.prompt), ("strength", options.strength)) if key in parameters
    }
    for key, value in (options.arguments or {}).items():
        if key not in parameters or key in (*OWN, *OWN_STEPS) or key.startswith("callback"):
            why = "has a key of its own, or is set here" if key in parameters else f"is none of {cls.__name__}'s"
            raise ValueError(f"remover '{name}': `arguments: {key}` {why}")
        arguments[key] = value
    if "true_cfg_scale" in parameters and "negative_prompt" in parameters:
        is_guided = arguments.get("true_cfg_scale", parameters["true_cfg_scale"].default) > 1
        if options.negative is not None and not is_guided:
            raise ValueError(f"remover '{name}': `negative` does nothing unless `arguments: true_cfg_scale` is above 1")
        if is_guided:  # without a negative prompt these pipelines do not guide at all
            arguments.setdefault("negative_prompt", " ")
    return arguments


def any_pipeline(name: str, folder: Path, options: PipelineOptions) -> PipelineRemover:
    """Create a remover that is a pipeline of diffusers."""
    return PipelineRemover(name, folder, options)
