"""What a recipe can say of a network under `models`: its files and its options."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rasura.networks.weights import Reference, Revision, resolve
from rasura.removers.diffusion.loop import HoleColour, Options, Task
from rasura.removers.diffusion.remover import Files

HUB_FILES = ("*.json", "*.txt", "*.fp16.safetensors")

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
    "catdiffusion",
    "pixelhacker",
    "moebius",
    "lama",
    "migan",
    "tiny",
    "diffusers",
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
        description="Folder in diffusers' layout, one .safetensors with a whole model, or the file of LaMa or MI-GAN; "
        "with `revision` a model of the hub.",
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
    pipeline: str | None = Field(
        None, pattern=r"^\w+$", description="Class of diffusers that inpaints with `base`, such as FluxFillPipeline."
    )
    tokenizer: Reference | None = Field(
        None, description="Folder of CLIP's tokenizer, for a prompt where `base` is one file, which has none."
    )
    semantic_inpainter: Reference | None = Field(None, description="Folder or file of a trained semantic inpainter.")
    image_encoder: Reference | None = Field(None, description="Folder of CLIP ViT-L/14, or of its vision model.")
    size: int | None = Field(None, ge=64, le=4096, multiple_of=16, description="Side at which the network works, px.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps, all of which are run.")
    guidance: float | None = Field(None, ge=0, le=30, description="Classifier-free guidance; 1 is none.")
    prompt: str | None = Field(None, description="Text that the picture should show.")
    negative: str | None = Field(None, description="Text that it should not show; needs guidance above 1.")
    strength: float | None = Field(
        None, gt=0, le=1, description="Share of the steps that a pipeline runs; 1 starts from pure noise."
    )
    arguments: Mapping[str, bool | int | float | str] | None = Field(
        None, description="Other arguments of a pipeline's call, by their names there."
    )
    licence: str | None = Field(
        None, description="Licence of the weights, as candidates made with non-commercial ones name it."
    )
    non_commercial: bool | None = Field(None, description="Whether that licence excludes commercial use.")
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
            for name in Files.__dataclass_fields__
            if name not in ("base", "unet") and (reference := getattr(self, name)) is not None
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
