"""Removers by the name that a recipe gives them.

A name is one of `REMOVERS`, one under a recipe's `models`, or `package.module:Class` for a remover of one's own.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rasura.manifests.errors import RecipeError, UnknownNameError
from rasura.manifests.spelling import suggest
from rasura.networks.weights import Reference, Revision, resolve
from rasura.removers import opencv
from rasura.removers.base import Capability, Remover
from rasura.removers.diffusion import brushnet, objectclear, pixelhacker, powerpaint, rorem, sd15
from rasura.removers.diffusion.loop import HoleColour, Options, Task
from rasura.removers.diffusion.remover import Files
from rasura.removers.generators import lama, migan
from rasura.removers.generators.generator import GeneratorOptions
from rasura.removers.remote import comfyui, image_edits
from rasura.removers.remote.remote import RemoteOptions

REMOVERS: Mapping[str, Callable[[], Remover]] = {"telea": opencv.telea, "ns": opencv.ns}
"""Removers that need no weights."""


TINY = Capability("remover", 64, False, "of its triplets", name="tiny", steps=1, needs_weights=True)
"""What `rasura.removers.tiny` is, which is not imported for it: it needs torch."""
TINY_BATCH = 1

HUB_FILES = ("*.json", "*.txt", "*.fp16.safetensors")


class UnknownRemover(UnknownNameError, RecipeError):
    """A recipe's name of no remover, or a class of one's own that cannot be imported."""


Kind = Literal[
    "sdxl-inpaint",
    "rorem",
    "rorem-lcm",
    "objectclear",
    "sd15",
    "powerpaint",
    "powerpaint-v2",
    "brushnet",
    "brushnet-xl",
    "pixelhacker",
    "lama",
    "migan",
    "tiny",
    "image-edits",
    "comfyui",
]


class ModelParams(BaseModel):
    """Place and options of a network; options that are not set are those of its authors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind | None = Field(
        None, description="Kind of network, where its name here is another; `rasura removers` lists them."
    )
    base: Reference | None = Field(
        None,
        description="Folder in diffusers' layout, or the file of LaMa or MI-GAN; with `revision` a model of the hub.",
    )
    revision: Revision | None = Field(None, description="Commit of `base` on the hub.")
    unet: Reference | None = Field(
        None, description="Folder of a UNet in place of the base's, or a file of its tensors: RORem's, or one's own."
    )
    unet_revision: Revision | None = Field(None, description="Commit of `unet` on the hub.")
    vae: Reference | None = Field(None, description="Folder of a VAE in place of the base's.")
    lora: Reference | None = Field(None, description="File of a LoRA that is folded into the UNet.")
    prompts: Reference | None = Field(None, description="File of prompt embeddings in place of the text encoders.")
    brushnet: Reference | None = Field(None, description="Folder or file of a BrushNet beside the base's UNet.")
    text_encoder: Reference | None = Field(
        None, description="Folder or file of PowerPaint's text encoder, which has its learned words."
    )
    size: int | None = Field(None, ge=64, le=4096, multiple_of=16, description="Side at which the network works, px.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps, all of which are run.")
    guidance: float | None = Field(None, ge=0, le=30, description="Classifier-free guidance; 1 is none.")
    prompt: str | None = Field(None, description="Text that the picture should show.")
    negative: str | None = Field(None, description="Text that it should not show; needs guidance above 1.")
    start: Literal["noise", "prefill"] | None = Field(None, description="Pure noise, or a hole filled from its rim.")
    source: HoleColour | None = Field(
        None, description="Hole of the picture that the network sees: grey, black, filled from its rim, or not hidden."
    )
    task: Task | None = Field(None, description="What PowerPaint does with the hole.")
    fitting: float | None = Field(
        None, ge=0, le=1, description="How closely a shape-guided object fits the mask: 0.5 loosely, 0.95 tightly."
    )
    brushnet_scale: float | None = Field(None, ge=0, le=2, description="Factor of what the BrushNet adds.")
    url: str | None = Field(None, description="Address of the server that runs the model, http://… or https://….")
    model: str | None = Field(None, description="Name of the server's model, where it has several.")
    workflow: Reference | None = Field(None, description="File of ComfyUI's workflow, exported in its API format.")
    key_variable: str | None = Field(
        None, pattern=r"^\w+$", description="Environment variable of the workers that holds the server's key."
    )
    timeout_s: float | None = Field(None, gt=0, le=86400, description="Seconds until a picture has to be there.")
    attempts: int | None = Field(None, ge=1, le=100, description="Attempts of each request while a server is busy.")
    batch: int | None = Field(None, ge=1, le=256, description="Pictures in one run of the network.")
    device: str | None = Field(None, pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = Field(None, description="Precision.")
    compile: bool | None = Field(None, description="Let torch compile the UNet.")

    def resolve_files(self) -> Files:
        """Return the network's files on this machine; those of the hub are fetched into its cache.

        Raises:
            BadWeights: a file is missing, or the hub does not have it.
        """
        base = resolve(self.base or "", self.revision, HUB_FILES)
        unet = resolve(self.unet, self.unet_revision, HUB_FILES) if self.unet else None
        others = {
            name: resolve(reference)
            for name in ("vae", "lora", "prompts", "brushnet", "text_encoder")
            if (reference := getattr(self, name)) is not None
        }
        return Files(base, unet, **others)

    def list_keys(self) -> list[str]:
        """Return the keys that are set, but for the kind.

        Examples:
            >>> ModelParams(kind="rorem", base="sdxl", steps=20).list_keys()
            ['base', 'steps']
        """
        return [name for name in ModelParams.model_fields if name != "kind" and getattr(self, name) is not None]

    def override_options(self, defaults: Options) -> Options:
        """Return the defaults with the options that are set here.

        Examples:
            >>> ModelParams(base="sdxl", steps=20).override_options(Options(size=512, steps=50)).steps
            20
        """
        names = Options.__dataclass_fields__.keys() & ModelParams.model_fields.keys()
        return replace(defaults, **{name: value for name in names if (value := getattr(self, name)) is not None})


DIFFUSION_KEYS = (
    *("base", "revision", "unet", "unet_revision", "vae", "lora", "prompts", "size", "steps", "guidance", "prompt"),
    *("negative", "start", "source", "batch", "device", "dtype", "compile"),
)
"""Keys that every network of the denoising loop has."""


class Network(NamedTuple):
    """A kind of remover that needs weights.

    open: creates it by its name and its entry under `models`.
    keys: those of `ModelParams` that it takes. needs: those without which it cannot run.
    defaults: values of keys that are not set, those of its authors.
    """

    capability: Capability
    open: Callable[[str, ModelParams], Remover]
    keys: tuple[str, ...]
    needs: tuple[str, ...]
    defaults: Mapping[str, Any]


def _describe_diffusion(
    capability: Capability,
    construct: Callable[[str, Files, Options], Remover],
    defaults: Options,
    keys: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
) -> Network:
    """Describe a network of the denoising loop, with the keys that it has beside those of all of them."""

    def open_network(name: str, model: ModelParams) -> Remover:
        return construct(name, model.resolve_files(), model.override_options(defaults))

    capability = replace(capability, native_size=defaults.size, steps=defaults.steps)
    return Network(capability, open_network, DIFFUSION_KEYS + keys, ("base", *needs), vars(defaults))


def _describe_generator(capability: Capability, construct: Callable[[str, Path, GeneratorOptions], Remover]) -> Network:
    """Describe a network that fills a hole in one run, from one file."""
    defaults = GeneratorOptions()

    def open_network(name: str, model: ModelParams) -> Remover:
        set_here = {key: value for key in vars(defaults) if (value := getattr(model, key)) is not None}
        return construct(name, resolve(model.base or "", model.revision), replace(defaults, **set_here))

    capability = replace(capability, native_size=defaults.size)
    return Network(capability, open_network, ("base", "revision", *vars(defaults)), ("base",), vars(defaults))


def _open_tiny(name: str, model: ModelParams) -> Remover:
    from rasura.removers.tiny import TinyRemover

    return TinyRemover(name, resolve(model.base or ""), model.batch or TINY_BATCH)


def _describe_remote(
    capability: Capability, construct: Callable[[str, RemoteOptions], Remover], keys: tuple[str, ...]
) -> Network:
    """Describe a remover behind HTTP."""
    defaults = RemoteOptions()
    keys = ("url", *keys, "prompt", "size", "key_variable", "timeout_s", "attempts")

    def open_network(name: str, model: ModelParams) -> Remover:
        set_here = {key: value for key in keys if (value := getattr(model, key)) is not None}
        return construct(name, replace(defaults, **set_here))

    needs = ("url", "workflow") if "workflow" in keys else ("url",)
    return Network(replace(capability, native_size=defaults.size), open_network, keys, needs, vars(defaults))


_TASK = ("text_encoder", "task", "fitting")
_BRANCH = ("brushnet", "brushnet_scale")

NETWORKS: Mapping[str, Network] = {
    "sdxl-inpaint": _describe_diffusion(rorem.SDXL_INPAINT, rorem.sdxl_inpaint, rorem.SDXL_OPTIONS),
    "rorem": _describe_diffusion(rorem.ROREM, rorem.rorem, rorem.ROREM_OPTIONS, needs=("unet",)),
    "rorem-lcm": _describe_diffusion(rorem.ROREM, rorem.rorem_lcm, rorem.LCM_OPTIONS, needs=("unet", "lora")),
    "objectclear": _describe_diffusion(objectclear.CAPABILITY, objectclear.objectclear, objectclear.OPTIONS),
    "sd15": _describe_diffusion(sd15.CAPABILITY, sd15.sd15, sd15.OPTIONS),
    "powerpaint": _describe_diffusion(powerpaint.CAPABILITY, powerpaint.powerpaint, powerpaint.OPTIONS, _TASK),
    "powerpaint-v2": _describe_diffusion(
        powerpaint.SECOND_CAPABILITY,
        powerpaint.powerpaint_v2,
        powerpaint.SECOND_OPTIONS,
        _TASK + _BRANCH,
        ("brushnet", "text_encoder"),
    ),
    "brushnet": _describe_diffusion(
        brushnet.CAPABILITY, brushnet.brushnet, brushnet.OPTIONS, _BRANCH, needs=("brushnet",)
    ),
    "brushnet-xl": _describe_diffusion(
        brushnet.XL_CAPABILITY, brushnet.brushnet_xl, brushnet.XL_OPTIONS, _BRANCH, needs=("brushnet",)
    ),
    "pixelhacker": _describe_diffusion(pixelhacker.CAPABILITY, pixelhacker.pixelhacker, pixelhacker.OPTIONS),
    "lama": _describe_generator(lama.CAPABILITY, lama.lama),
    "migan": _describe_generator(migan.CAPABILITY, migan.migan),
    "tiny": Network(TINY, _open_tiny, ("base", "batch"), ("base",), {"batch": TINY_BATCH}),
    "image-edits": _describe_remote(image_edits.CAPABILITY, image_edits.image_edits, ("model",)),
    "comfyui": _describe_remote(comfyui.CAPABILITY, comfyui.comfyui, ("workflow",)),
}
"""Removers that need weights, by the kind that a recipe gives them."""


def check_keys(name: str, kind: str, model: ModelParams) -> None:
    """Check that a kind of network has the keys that are set for it, and that those that it needs are.

    Raises:
        ValueError: a key is not one of its, or is missing.

    Examples:
        >>> check_keys("mine", "rorem", ModelParams(base="sdxl", task="object-removal"))
        Traceback (most recent call last):
        ValueError: `models: mine`: rorem has no `task`; that is a key of powerpaint, powerpaint-v2
    """
    for key in model.list_keys():
        if key not in NETWORKS[kind].keys:
            others = [other for other, network in NETWORKS.items() if key in network.keys]
            raise ValueError(f"`models: {name}`: {kind} has no `{key}`; that is a key of {', '.join(others)}")
    for key in NETWORKS[kind].needs:
        if getattr(model, key) is None:
            raise ValueError(f"`models: {name}`: {kind} needs `{key}`: {ModelParams.model_fields[key].description}")


def check_removers(names: Sequence[str], models: Mapping[str, ModelParams]) -> None:
    """Check that a recipe's names can be opened, without opening them.

    Raises:
        ValueError: a name is unknown, is there twice, or has no model where it needs one.

    Examples:
        >>> check_removers(["telea", "my_package.mine:Mine"], {})
        >>> check_removers(["magic"], {})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no remover called magic; there are ns, telea, and under `models` brushnet, ...
    """
    unknown = sorted(name for name in set(names) - set(REMOVERS) - set(models) if ":" not in name)
    networks = ", ".join(sorted(NETWORKS))
    for name in unknown:
        if name in NETWORKS:
            raise ValueError(f"'{name}' {_describe_needs(name)}")
    if unknown:
        raise ValueError(
            f"no remover called {', '.join(unknown)}; there are {', '.join(sorted(REMOVERS))}, and under `models` "
            f"{networks}; one of your own is named module:Class"
        )
    if len(set(names)) < len(names):
        raise ValueError("a remover is named twice: its candidates would have one id")
    for name, model in models.items():
        if name not in names:
            raise ValueError(f"`models` has '{name}', which is not among `removers`")
        if (model.kind or name) not in NETWORKS or name in REMOVERS:
            raise ValueError(f"`models: {name}` needs a `kind`: {networks}")
        check_keys(name, model.kind or name, model)


def open_remover(name: str, models: Mapping[str, ModelParams]) -> Remover:
    """Open a remover by name. It is not set up yet: call its `weights` and `setup`.

    Args:
        name: a name of `REMOVERS` or of `models`, or `package.module:Class`; the class is called without arguments.
        models: networks of the recipe, by the names that it gives them.

    Raises:
        UnknownRemover: nothing has that name, or the class cannot be imported.
        BadWeights: files of the network are missing.
        ValueError: the network cannot be used with these options.

    Examples:
        >>> open_remover("telea", {}).name
        'telea'
    """
    if name in REMOVERS:
        return REMOVERS[name]()
    if name in models:
        model = models[name]
        if (kind := model.kind or name) not in NETWORKS:
            raise UnknownRemover(f"`models: {name}` needs a `kind`: {', '.join(sorted(NETWORKS))}")
        check_keys(name, kind, model)
        return NETWORKS[kind].open(name, model)
    if ":" not in name:
        if name in NETWORKS:
            raise UnknownRemover(f"remover '{name}' {_describe_needs(name)}")
        raise UnknownRemover(f"no remover called '{name}'; {suggest(name, [*REMOVERS, *models, *NETWORKS])}")
    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownRemover(f"remover '{name}' cannot be imported: {error}") from error
    if not callable(cls):
        raise UnknownRemover(f"remover '{name}': it is a {type(cls).__name__}, and not a class of a remover")
    try:
        remover = cls()
    except (TypeError, ValueError) as error:
        raise UnknownRemover(f"remover '{name}' cannot be imported: {error}") from error
    if not isinstance(remover, Remover):
        raise UnknownRemover(f"'{name}' is no remover: it lacks {', '.join(_list_missing(remover))}")
    return remover


def _describe_needs(kind: str) -> str:
    what = "weights" if NETWORKS[kind].capability.needs_weights else "a server"
    return f"needs {what}: add `models: {kind}:` with {' and '.join(f'`{key}`' for key in NETWORKS[kind].needs)}"


def _list_missing(remover: object) -> list[str]:
    return [name for name in ("name", "capability", "weights", "setup", "fill") if not hasattr(remover, name)]
