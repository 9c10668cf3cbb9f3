"""Removers by the name that a recipe gives them.

A name is one of `REMOVERS`, one under a recipe's `models`, or `package.module:Class` for a remover of one's own.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rasura.manifests.errors import RecipeError, UnknownNameError
from rasura.manifests.spelling import suggest
from rasura.networks.weights import Reference, Revision, resolve
from rasura.removers import objectclear, opencv, rorem
from rasura.removers.base import Remover
from rasura.removers.sdxl import Files, Options

REMOVERS: Mapping[str, Callable[[], Remover]] = {"telea": opencv.telea, "ns": opencv.ns}
"""Removers that need no weights."""


def _open_tiny(name: str, files: Files, options: Options) -> Remover:
    from rasura.removers.tiny import TinyRemover

    return TinyRemover(name, files.base, options.batch)


class Network(NamedTuple):
    """A kind of remover that needs weights: its constructor, and the options that its authors use."""

    construct: Callable[[str, Files, Options], Remover]
    defaults: Options


NETWORKS: Mapping[str, Network] = {
    "sdxl-inpaint": Network(rorem.sdxl_inpaint, rorem.SDXL_OPTIONS),
    "rorem": Network(rorem.rorem, rorem.ROREM_OPTIONS),
    "rorem-lcm": Network(rorem.rorem_lcm, rorem.LCM_OPTIONS),
    "objectclear": Network(objectclear.objectclear, objectclear.OPTIONS),
    "tiny": Network(_open_tiny, Options(size=64, steps=1)),
}

HUB_FILES = ("*.json", "*.txt", "*.fp16.safetensors")


class UnknownRemover(UnknownNameError, RecipeError):
    """A recipe's name of no remover, or a class of one's own that cannot be imported."""


class ModelParams(BaseModel):
    """Place and options of a network; options that are not set are those of its authors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["sdxl-inpaint", "rorem", "rorem-lcm", "objectclear", "tiny"] | None = Field(
        None, description="Kind of network, where its name here is another. objectclear is for non-commercial use."
    )
    base: Reference = Field(description="Folder in diffusers' layout, or with `revision` a model of the hub.")
    revision: Revision | None = Field(None, description="Commit of `base` on the hub.")
    unet: Reference | None = Field(None, description="Folder of a UNet in place of the base's: RORem's, or one's own.")
    unet_revision: Revision | None = Field(None, description="Commit of `unet` on the hub.")
    vae: Reference | None = Field(None, description="Folder of a VAE in place of the base's.")
    lora: Reference | None = Field(None, description="File of a LoRA that is folded into the UNet.")
    prompts: Reference | None = Field(None, description="File of prompt embeddings in place of the text encoders.")
    size: int | None = Field(None, ge=64, le=4096, multiple_of=16, description="Side at which the network works, px.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps, all of which are run.")
    guidance: float | None = Field(None, ge=0, le=30, description="Classifier-free guidance; 1 is none.")
    prompt: str | None = Field(None, description="Text that the picture should show.")
    negative: str | None = Field(None, description="Text that it should not show; needs guidance above 1.")
    start: Literal["noise", "prefill"] | None = Field(None, description="Pure noise, or a hole filled from its rim.")
    source: Literal["masked", "whole"] | None = Field(None, description="Whether the network sees the object.")
    batch: int | None = Field(None, ge=1, le=256, description="Pictures in one run of the network.")
    device: str | None = Field(None, pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = Field(None, description="Precision.")
    compile: bool | None = Field(None, description="Let torch compile the UNet.")

    def resolve_files(self) -> Files:
        """Return the network's files on this machine; those of the hub are fetched into its cache.

        Raises:
            BadWeights: a file is missing, or the hub does not have it.
        """
        base = resolve(self.base, self.revision, HUB_FILES)
        unet = resolve(self.unet, self.unet_revision, HUB_FILES) if self.unet else None
        vae, lora, prompts = (resolve(name) if name else None for name in (self.vae, self.lora, self.prompts))
        return Files(base, unet, vae, lora, prompts)

    def override_options(self, defaults: Options) -> Options:
        """Return the defaults with the options that are set here.

        Examples:
            >>> ModelParams(base="sdxl", steps=20).override_options(Options(size=512, steps=50)).steps
            20
        """
        names = Options.__dataclass_fields__.keys() & ModelParams.model_fields.keys()
        return replace(defaults, **{name: value for name in names if (value := getattr(self, name)) is not None})


def check_removers(names: Sequence[str], models: Mapping[str, ModelParams]) -> None:
    """Check that a recipe's names can be opened, without opening them.

    Raises:
        ValueError: a name is unknown, is there twice, or has no model where it needs one.

    Examples:
        >>> check_removers(["telea", "my_package.mine:Mine"], {})
        >>> check_removers(["magic"], {})
        Traceback (most recent call last):
        ValueError: no remover called magic; there are ns, telea, and under `models` objectclear, rorem, rorem-lcm, \
sdxl-inpaint, tiny; one of your own is named module:Class
    """
    unknown = sorted(name for name in set(names) - set(REMOVERS) - set(models) if ":" not in name)
    networks = ", ".join(sorted(NETWORKS))
    for name in unknown:
        if name in NETWORKS:
            raise ValueError(f"'{name}' needs weights: add `models: {name}:` with its `base`")
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
        network = NETWORKS[kind]
        return network.construct(name, model.resolve_files(), model.override_options(network.defaults))
    if ":" not in name:
        if name in NETWORKS:
            raise UnknownRemover(f"remover '{name}' needs weights: its `base`, under the recipe's `models`")
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


def _list_missing(remover: object) -> list[str]:
    return [name for name in ("name", "capability", "weights", "setup", "fill") if not hasattr(remover, name)]
