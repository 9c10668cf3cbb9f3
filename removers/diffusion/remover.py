"""A latent inpainting network behind the protocol of removers: its files, how they are opened, and its batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from rasura.networks import lora
from rasura.networks.batches import run_in_batches
from rasura.networks.memory import DECODE_ELEMENTS, UNET_ELEMENTS, NetworkMemory, count_parameters, estimate_memory
from rasura.networks.pca_codec import open_vae
from rasura.networks.pretrained import (
    MissingWeights,
    list_diffusers_files,
    open_unet,
    prefer_half,
    read_config,
    read_settings,
    refuse_others,
)
from rasura.networks.single_file import TEXT_PREFIXES, UNET, describe_part, read_part_config
from rasura.networks.weights import pick_device_and_dtype
from rasura.removers.base import Capability, Filled
from rasura.removers.diffusion import conditioning, loop
from rasura.removers.diffusion.conditioning import Conditioning
from rasura.removers.diffusion.loop import HOLE_AND_SOURCE, Options, Parts

Array = npt.NDArray[Any]

Family = Literal["SDXL", "Stable Diffusion 1.5"]

FUSION = "postfuse_module"
"""Folder of ObjectClear's fusion module, which no other model has."""


@dataclass(frozen=True)
class Files:
    """The files of a model of the family.

    base: folder in diffusers' layout (unet, vae, scheduler, text encoders, tokenizers), or a whole model in one file.
    unet: folder, or file of tensors with the base's shapes, in place of the base's. vae: folder in place of it.
    lora: file fused into the UNet.
    prompts: file of embeddings (`conditioning.save`) that takes the place of the text encoders.
    brushnet: folder or file of a BrushNet. text_encoder: folder or file of PowerPaint's text encoder.
    tokenizer: folder of CLIP's tokenizer, which a base in one file lacks.
    semantic_inpainter: folder or file of CATDiffusion's. image_encoder: folder of CLIP's vision model.
    """

    base: Path
    unet: Path | None = None
    vae: Path | None = None
    lora: Path | None = None
    prompts: Path | None = None
    brushnet: Path | None = None
    text_encoder: Path | None = None
    tokenizer: Path | None = None
    semantic_inpainter: Path | None = None
    image_encoder: Path | None = None


def list_part(path: Path, name: str) -> dict[str, Path]:
    """List the files of a network: those of a folder in diffusers' layout, or the one file itself.

    Raises:
        MissingWeights: the folder lacks something.
    """
    if path.is_file():
        return {name: path}
    return {f"{name}/{file}": place for file, place in list_diffusers_files(path).items()}


def refuse_objectclear(name: str, base: Path, unet: Path | None = None) -> None:
    """Check that a model's folder, and the one that its UNet is in, is not ObjectClear's.

    Its UNet has the shapes of SDXL-inpainting's, but was trained with a token of the object; and its licence, which is
    non-commercial, holds for whatever it makes, by whichever kind it is run.

    Raises:
        MissingWeights
    """
    around = [] if unet is None else list(unet.parents)[: 1 + unet.is_file()]
    for folder in (base, *around):
        if (folder / FUSION).is_dir():
            raise MissingWeights(
                f"{name}: '{folder}' is an ObjectClear (it has {FUSION}), under a licence of its own: name it as "
                "`base` of a remover of the kind `objectclear`"
            )


def make_scheduler(kind: str, config: Mapping[str, Any], path: Path) -> Any:
    """Make a scheduler of diffusers.

    Args:
        kind: its class. config: its settings. path: of the settings, for the error.

    Raises:
        MissingWeights: diffusers has no such scheduler, or the settings are not one's.
    """
    import diffusers

    cls = getattr(diffusers, kind, None)
    if not isinstance(cls, type) or not hasattr(cls, "add_noise"):
        raise MissingWeights(f"'{path}': diffusers {diffusers.__version__} has no scheduler '{kind}'")
    with refuse_others(path, f"the settings of a {kind}"):
        create: Any = cls
        return create.from_config(dict(config))


class DiffusionRemover:
    """A remover that runs the denoising loop. Loaded in `setup`, run in batches of equal size."""

    family: ClassVar[Family] = "SDXL"
    channels: ClassVar[int] = HOLE_AND_SOURCE
    """Channels that the UNet takes."""
    is_objectclear: ClassVar[bool] = False

    def __init__(self, name: str, capability: Capability, files: Files, options: Options) -> None:
        self.name = name
        self.files = files
        self.options = options
        self.batch = options.batch  # less where a card's memory ended
        self.capability = replace(
            capability, native_size=options.size, steps=options.steps, memory=self._estimate_memory(capability.effects)
        )
        self.parts: Parts | None = None
        self.texts: tuple[str, ...] = (options.prompt,)
        self.conditionings: dict[str, Conditioning] = {}

    def set_texts(self, texts: Sequence[str]) -> None:
        """Announce the texts that `paint` will get, before `setup`.

        Raises:
            ValueError: the prompt is read from a file, which holds one.
        """
        if self.files.prompts:
            raise ValueError(f"'{self.name}' paints by texts of its own: leave out `prompts`, a file of one text")
        self.texts = tuple(dict.fromkeys([*texts]))

    def folder(self, part: str) -> Path:
        """Return the folder of a part, or the file that has it."""
        base = self.files.base
        return {"unet": self.files.unet, "vae": self.files.vae}.get(part) or (base if base.is_file() else base / part)

    def _estimate_memory(self, effects: bool) -> NetworkMemory:
        """Estimate the memory of the networks of each step; the text encoders are gone when they are loaded."""
        options, files = self.options, list[Path]()
        beside = (self.files.brushnet, self.files.semantic_inpainter, self.files.image_encoder)
        for place in {self.folder("unet"), self.folder("vae"), *beside}:
            if place is not None:
                tensors = prefer_half(sorted(place.glob("*.safetensors"))) or sorted(place.glob("*.bin"))
                files += [place] if place.is_file() else tensors
        pixels = options.batch * options.size**2 * (1.5 if effects else 1)  # of effects the whole picture is worked on
        elements = int(pixels * max(DECODE_ELEMENTS, UNET_ELEMENTS * (2 if options.guidance > 1 else 1)))
        unused = TEXT_PREFIXES if self.files.unet is None else (*TEXT_PREFIXES, UNET)
        own = self.files.base
        parameters = count_parameters(path for path in files if path != own) + count_parameters([own], unused)
        return estimate_memory(parameters, elements, options.dtype, options.device)

    def read_unet_config(self) -> dict[str, Any]:
        """Return the UNet's configuration: its folder's own, or the base's where it is a file alone.

        Raises:
            MissingWeights
        """
        folder = self.folder("unet")
        return read_part_config(self.files.base, "unet") if folder.is_file() else read_config(folder)

    def weights(self) -> Mapping[str, Path]:
        """Return the files that `setup` reads.

        Raises:
            MissingWeights: a file is missing, or the UNet is of another family or takes another number of channels.
        """
        if not self.is_objectclear:
            refuse_objectclear(self.name, self.files.base, self.folder("unet"))
        files = list_part(self.folder("unet"), "unet")
        config = self.read_unet_config()
        family = conditioning.describe_family(config)
        if family != self.family:
            raise MissingWeights(f"{self.name}: the UNet in {self.folder('unet')} is of {family}, not of {self.family}")
        if (channels := config.get("in_channels")) != self.channels:
            raise MissingWeights(
                f"{self.name}: the UNet in {self.folder('unet')} takes {channels} channels, not {self.channels}"
            )
        if self.folder("unet").is_file() and self.files.base.is_dir():
            files["unet/config.json"] = list_diffusers_files(self.files.base / "unet")["config.json"]
        files |= list_part(self.folder("vae"), "vae")
        if not self.files.base.is_file():
            files["scheduler"] = self.files.base / "scheduler" / "scheduler_config.json"
        files.update({"prompts": self.files.prompts} if self.files.prompts else self.list_encoder_files())
        if self.files.lora:
            files["lora"] = self.files.lora
        for name, path in files.items():
            if not path.is_file():
                raise MissingWeights(f"{self.name}: no {name} at {path}")
        return files

    def list_encoder_files(self) -> Mapping[str, Path]:
        """Return the files of the text encoders, by name.

        Raises:
            MissingWeights
        """
        texts = [self.options.prompt, self.options.negative or "", *self.texts]
        return conditioning.encoder_files(self.files.base, self.family == "SDXL", self.files.tokenizer, texts)

    def setup(self) -> None:
        """Load the networks.

        Raises:
            BadWeights: a file is damaged, lacks tensors, or is of another model.
        """
        with refuse_others(self.files.base, f"the base of a {self.capability.name}"):
            self.open_parts()

    def open_parts(self) -> None:
        """Open the networks, the text encoders first; they are gone when the others come."""
        import torch

        device, dtype = pick_device_and_dtype(self.options.device, self.options.dtype)
        for text, embeddings in self._encode_texts(device, dtype).items():
            conditioning.check_width(embeddings, self.read_unet_config(), self.name, self.count_texts())
            self.conditionings[text] = embeddings.to(device, dtype)
        unet = self.open_unet(dtype)
        vae = open_vae(self.folder("vae"), dtype)
        if device.type == "cuda":  # convolutions in tensor cores are faster with channels last; on a CPU it only costs
            unet, vae = unet.to(memory_format=torch.channels_last), vae.to(memory_format=torch.channels_last)
        unet = unet.to(device)
        if self.options.compile:
            unet.compile()
        first = self.conditionings[self.texts[0]]
        self.parts = Parts(unet, vae.to(device), self.scheduler(), first, device, dtype)

    def _encode_texts(self, device: Any, dtype: Any) -> dict[str, Conditioning]:
        """Encode each text, or read the embeddings of the only one from its file."""
        if self.files.prompts:
            return {self.options.prompt: conditioning.load(self.files.prompts)}
        options, encoded = self.options, {}
        try:
            with conditioning.keep_encoders():
                for text in self.texts:
                    self.options = replace(options, prompt=text)
                    encoded[text] = self.encode_prompts(device, dtype)
        finally:
            self.options = options
        return encoded

    def encode_prompts(self, device: Any, dtype: Any) -> Conditioning:
        """Encode the prompts by the text encoders, which are loaded for this and released.

        Raises:
            MissingWeights
        """
        options, files = self.options, self.files
        return conditioning.encode(files.base, options.prompt, options.negative, device, dtype, files.tokenizer)

    def count_texts(self) -> int:
        """Return how many texts of 77 tokens stand side by side: 2 where a branch has its own beside the UNet's."""
        return 1

    def open_unet(self, dtype: Any) -> Any:
        """Open the network that each step runs, its LoRA fused, on the CPU.

        Raises:
            MissingWeights, WrongLora
        """
        unet = open_unet(self.folder("unet"), self.read_unet_config(), dtype)
        if self.files.lora:
            lora.fuse_file(unet, self.files.lora)
        return unet

    def scheduler(self) -> Any:
        """Return the base's scheduler, or the one that the options name with the base's settings.

        Raises:
            MissingWeights: the base's settings are not those of a scheduler of diffusers.
        """
        base, kind = self.files.base, self.options.scheduler
        path = base if base.is_file() else base / "scheduler" / "scheduler_config.json"
        config = describe_part(base, "scheduler") if base.is_file() else read_settings(path)
        # UniPC stops at the schedule's least noise, as when it was chosen; today's default goes on to none
        last = {"final_sigmas_type": "sigma_min"} if kind == "UniPCMultistepScheduler" else {}
        return make_scheduler(str(kind or config.get("_class_name")), {**config, **last}, path)

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """Fill one full batch of pictures of one size."""
        return loop.fill(parts, self.options, pictures, holes, seeds)

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> Sequence[Array | Filled]:
        """Fill as `Remover.fill` does. A short batch repeats its last picture: rounding depends on a batch's size."""
        return self.paint(pictures, holes, seeds, [self.texts[0]] * len(pictures))

    def paint(
        self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], texts: Sequence[str]
    ) -> Sequence[Array | Filled]:
        """Paint as `Inserter.paint` does: a batch has one text and one size, and is as long as `fill`'s."""
        if self.parts is None:
            raise RuntimeError(f"remover '{self.name}' was not set up")
        parts, results = self.parts, dict[int, Array | Filled]()
        groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            groups.setdefault((text, picture.shape), []).append(index)

        def run(batch: list[int]) -> Sequence[Array | Filled]:
            own = replace(parts, conditioning=self.conditionings[texts[batch[0]]])
            return self.run(own, [pictures[k] for k in batch], [holes[k] for k in batch], [seeds[k] for k in batch])

        for indices in groups.values():
            fills, self.batch = run_in_batches(run, indices, self.batch)
            results |= dict(zip(indices, fills, strict=True))
        return [results[index] for index in range(len(pictures))]
