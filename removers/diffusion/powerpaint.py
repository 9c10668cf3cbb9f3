"""PowerPaint: Stable Diffusion 1.5 inpainting that is told by learned words what to do with the hole.

Source: arXiv 2312.03594 and its release (code MIT). The first version is the inpainting network fine-tuned, with a text
encoder that knows the learned words; the second is a BrushNet with attentions, which reads them by a text encoder of
its own, beside any network of Stable Diffusion 1.5.

Removal is the difference between two words: guided towards `P_ctxt` and away from `P_obj`. It needs strong guidance:
the authors advise 10 or more. A distilled (LCM) LoRA has its guidance built in and runs at 1 to 2, where `P_obj` does
nothing; therefore none is accepted.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasura.networks.pretrained import MissingWeights, list_diffusers_files
from rasura.removers.base import Capability
from rasura.removers.diffusion import conditioning, task_tokens
from rasura.removers.diffusion.brushnet import BranchedRemover
from rasura.removers.diffusion.conditioning import Conditioning
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import Files
from rasura.removers.diffusion.sd15 import UNET_PARAMETERS, VAE_PARAMETERS, Sd15

CAPABILITY = Capability(
    "remover",
    None,
    False,
    "none stated (code MIT; its base CreativeML Open RAIL-M)",
    name="PowerPaint",
    needs_weights=True,
    parameters=UNET_PARAMETERS + VAE_PARAMETERS,
)
SECOND_CAPABILITY = replace(
    CAPABILITY,
    name="PowerPaint v2",
    licence="Apache-2.0 (its base CreativeML Open RAIL-M)",
    parameters=UNET_PARAMETERS - 5 * 9 * 320 + 886_069_440 + VAE_PARAMETERS,
)
OPTIONS = Options(size=640, steps=45, guidance=10.0, start="noise")
SECOND_OPTIONS = replace(OPTIONS, source="black", scheduler="UniPCMultistepScheduler")

REMOVING = ("object-removal", "image-outpainting")
"""Tasks that continue what surrounds the hole; the others paint something into it."""
BASE_PROMPTS = {"object-removal": " empty scene blur", "image-outpainting": " empty scene"}
"""What the second version adds to the prompt that its base sees."""


def check_options(name: str, files: Files, options: Options) -> None:
    """Check that PowerPaint can do its task with these options.

    Raises:
        ValueError: a LoRA is named, or guidance is off in a task that works by it.
    """
    if files.lora is not None:
        raise ValueError(
            f"remover '{name}' takes no `lora`: a distilled (LCM) LoRA has guidance built in and runs at 1 to 2, where "
            "the word that removal is guided away from, P_obj, does nothing"
        )
    if options.task in REMOVING and options.guidance <= 1:
        raise ValueError(
            f"remover '{name}': at guidance {options.guidance:g} nothing is guided away from objects (P_obj); "
            f"{options.task} needs 10 or more"
        )


def describe_capability(capability: Capability, options: Options) -> Capability:
    """Return the capability with the role that the task has."""
    return capability if options.task in REMOVING else replace(capability, role="inserter")


def list_task_encoder_files(files: Files) -> dict[str, Path]:
    """Return the files of the tokenizer and of PowerPaint's text encoder, by name.

    Raises:
        MissingWeights
    """
    is_whole = files.base.is_file()
    if is_whole and files.tokenizer is None:
        raise MissingWeights(
            f"'{files.base}' is one file and has no tokenizer: name CLIP's (`tokenizer`, a folder with vocab.json and "
            "merges.txt, as in every folder of Stable Diffusion)"
        )
    tokenizer = conditioning.list_tokenizer_files(files.tokenizer or files.base / "tokenizer")
    path = files.text_encoder or files.base / "text_encoder"
    if path.is_dir():
        encoder = {f"text_encoder/{name}": file for name, file in list_diffusers_files(path).items()}
    elif path.is_file():
        config = files.base if is_whole else list_diffusers_files(files.base / "text_encoder")["config.json"]
        encoder = {"text_encoder/config.json": config, f"text_encoder/{path.name}": path}
    else:
        raise MissingWeights(f"there is no text encoder at {path}")
    return {f"tokenizer/{file.name}": file for file in tokenizer} | encoder


class PowerPaint(Sd15):
    """The first version. `files.base` is Stable Diffusion 1.5 inpainting; `files.unet` and `files.text_encoder` are
    PowerPaint's own, where `base` is not a folder that has them in their places."""

    def __init__(self, name: str, files: Files, options: Options = OPTIONS) -> None:
        check_options(name, files, options)
        super().__init__(name, describe_capability(CAPABILITY, options), files, options)

    def list_encoder_files(self) -> Mapping[str, Path]:
        return list_task_encoder_files(self.files)

    def encode_prompts(self, device: Any, dtype: Any) -> Conditioning:
        options, files = self.options, self.files
        prompts = task_tokens.write_prompts(options.task, options.prompt, options.negative or "")
        path = files.text_encoder or files.base / "text_encoder"
        return task_tokens.encode_tasks(path, files.base, files.tokenizer, prompts, options.fitting, device, dtype)


class PowerPaintV2(BranchedRemover):
    """The second version. `files.base` is any network of Stable Diffusion 1.5, `files.brushnet` PowerPaint's BrushNet
    and `files.text_encoder` the text encoder of that."""

    family = "Stable Diffusion 1.5"
    has_attention = True

    def __init__(self, name: str, files: Files, options: Options = SECOND_OPTIONS) -> None:
        check_options(name, files, options)
        if files.text_encoder is None and files.prompts is None:
            raise ValueError(f"remover '{name}' needs the text encoder of PowerPaint's BrushNet (`text_encoder:`)")
        super().__init__(name, describe_capability(SECOND_CAPABILITY, options), files, options)

    def count_texts(self) -> int:
        return 2

    def list_encoder_files(self) -> Mapping[str, Path]:
        own = list_task_encoder_files(self.files)
        return {**super().list_encoder_files(), **{f"brushnet/{name}": path for name, path in own.items()}}

    def encode_prompts(self, device: Any, dtype: Any) -> Conditioning:
        """Encode the base's texts and the BrushNet's, side by side: (1, 2 · 77, 768)."""
        import torch

        options, files = self.options, self.files
        assert files.text_encoder is not None
        prompt = options.prompt + BASE_PROMPTS.get(options.task, "")
        base, tokenizer = files.base, files.tokenizer
        text = conditioning.encode(base, prompt, options.negative, device, dtype, tokenizer)
        prompts = task_tokens.write_branch_prompts(options.task)
        path, fitting = files.text_encoder, options.fitting
        branch = task_tokens.encode_tasks(path, base, tokenizer, prompts, fitting, device, dtype)
        tokens = torch.cat([text.tokens, branch.tokens], dim=1)
        return Conditioning(tokens, None, torch.cat([text.negative_tokens, branch.negative_tokens], dim=1), None)


def powerpaint(name: str, files: Files, options: Options = OPTIONS) -> PowerPaint:
    """Create PowerPaint's first version.

    Raises:
        ValueError: the options do not suit the task.
    """
    return PowerPaint(name, files, options)


def powerpaint_v2(name: str, files: Files, options: Options = SECOND_OPTIONS) -> PowerPaintV2:
    """Create PowerPaint's second version.

    Raises:
        ValueError: the options do not suit the task, or the BrushNet or its text encoder is not named.
    """
    return PowerPaintV2(name, files, options)
