"""Folders of models in diffusers' layout: which files of them are read, and what is said when they are not there."""

import json
from pathlib import Path
from typing import Any


class MissingWeights(ValueError):
    """A model's folder or file that is not there, or not what it was taken for."""


def model_files(folder: Path) -> dict[str, Path]:
    """The files that are read of one model's folder: `config.json` and its safetensors, by file name.

    Where the folder holds the same weights in full and in half precision, the half ones are read.

    Raises:
        MissingWeights: no folder, no config, or no safetensors (pickles are not read).
    """
    config = folder / "config.json"
    if not config.is_file():
        raise MissingWeights(f"no model in {folder}: it has no config.json")
    found = sorted(folder.glob("*.safetensors"))
    if half := [path for path in found if ".fp16." in path.name]:
        found = half
    if not found:
        pickles = ", ".join(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt")])
        raise MissingWeights(
            f"no .safetensors in {folder}" + (f"; {pickles} are pickles and not read: convert them" if pickles else "")
        )
    return {path.name: path for path in [config, *found]}


def variant(folder: Path) -> str | None:
    """`fp16` where a model's folder has weights in half precision, as `from_pretrained` wants it."""
    return "fp16" if any(".fp16." in name for name in model_files(folder)) else None


def config_of(folder: Path) -> dict[str, Any]:
    """A model's configuration."""
    found: dict[str, Any] = json.loads(model_files(folder)["config.json"].read_text())
    return found


def open_model(kind: str, folder: Path, dtype: Any) -> Any:
    """A diffusers model of that class from its folder, in evaluation mode, nothing looked up anywhere.

    Raises:
        MissingWeights: the files are not of that class, or tensors are missing.
    """
    import diffusers

    model_files(folder)
    try:
        model, report = getattr(diffusers, kind).from_pretrained(
            folder, variant=variant(folder), torch_dtype=dtype, use_safetensors=True, local_files_only=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise MissingWeights(f"{folder} is no {kind}: {str(error).strip().splitlines()[0]}") from error
    if report["missing_keys"]:
        raise MissingWeights(f"{folder} lacks tensors of a {kind}, {report['missing_keys'][0]} for one")
    return model.eval().requires_grad_(False)
