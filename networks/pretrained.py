"""Pretrained models of transformers and diffusers, opened from local folders; nothing is looked up anywhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rasura.networks.weights import BadWeights, check_names, list_model_files, pick_device, read_tensors, shorten


class MissingWeights(BadWeights):
    """A model's folder or file that is missing, or is of another model."""


def prefer_half(paths: Sequence[Path]) -> list[Path]:
    """Return the files in half precision where there are some, else all: a folder may hold the same weights twice.

    Examples:
        >>> [path.name for path in prefer_half([Path("m.fp16.safetensors"), Path("m.safetensors")])]
        ['m.fp16.safetensors']
    """
    return [path for path in paths if ".fp16." in path.name] or list(paths)


def list_diffusers_files(folder: Path) -> dict[str, Path]:
    """Return the files of a diffusers model that are read, by name: `config.json` and its safetensors.

    Raises:
        MissingWeights: no folder, no config, or no safetensors (pickles are not read).
    """
    config = folder / "config.json"
    if not config.is_file():
        raise MissingWeights(f"no model in {folder}: it has no config.json")
    paths = prefer_half(sorted(folder.glob("*.safetensors")))
    if not paths:
        pickles = ", ".join(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt")])
        raise MissingWeights(
            f"no .safetensors in {folder}" + (f"; {pickles} are pickles and not read: convert them" if pickles else "")
        )
    return {path.name: path for path in [config, *paths]}


def get_variant(folder: Path) -> str | None:
    """Return `fp16` where a folder has weights in half precision, as `from_pretrained` expects it, else None."""
    return "fp16" if any(".fp16." in name for name in list_diffusers_files(folder)) else None


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a diffusers model.

    Raises:
        MissingWeights
    """
    config: dict[str, Any] = json.loads(list_diffusers_files(folder)["config.json"].read_text())
    return config


def open_diffusers(kind: str, folder: Path, dtype: Any) -> Any:
    """Open a diffusers model from its folder, in evaluation mode, without gradients, on the CPU.

    Args:
        kind: name of the class, e.g. `UNet2DConditionModel`.

    Raises:
        MissingWeights: the files are not of that class, or tensors are missing.
    """
    import diffusers

    variant = get_variant(folder)
    cls = getattr(diffusers, kind)
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        model, report = cls.from_pretrained(folder, variant=variant, torch_dtype=dtype, **options)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise MissingWeights(f"{folder} is no {kind}: {str(error).strip().splitlines()[0]}") from error
    if report["missing_keys"]:
        raise MissingWeights(f"{folder} lacks tensors of a {kind}, {report['missing_keys'][0]} for one")
    return model.eval().requires_grad_(False)


def open_unet(path: Path, config: Mapping[str, Any], dtype: Any) -> Any:
    """Open a UNet from its folder, or from a file of tensors with the configuration of another.

    Args:
        path: a folder in diffusers' layout; or a file of tensors, named as diffusers or as the CompVis checkpoints of
            Stable Diffusion do (`model.diffusion_model.…`).
        config: what a file of tensors lacks.

    Raises:
        MissingWeights: missing, or of another network.
    """
    if not path.is_file():
        return open_diffusers("UNet2DConditionModel", path, dtype)
    import torch
    from diffusers import UNet2DConditionModel

    cls: Any = UNet2DConditionModel
    with torch.device("meta"):
        unet = cls.from_config(config)
    return fill_module(unet, read_unet_tensors(path, config), path, dtype)


def read_unet_tensors(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the tensors of a UNet by diffusers' names.

    Args:
        path: see `open_unet`.
        config: of the UNet.

    Raises:
        MissingWeights: there is no such file or folder.
        BadWeights: the file cannot be read.
    """
    files = [path] if path.is_file() else list(list_diffusers_files(path).values())[1:]
    tensors = {name: value for file in files for name, value in read_tensors(file).items()}
    if any(name.startswith("model.diffusion_model.") for name in tensors):
        from diffusers.loaders import single_file_utils

        convert: Any = single_file_utils.convert_ldm_unet_checkpoint
        tensors = convert(tensors, {"layers_per_block": 2, **config})
    return tensors


def fill_module(module: Any, tensors: Mapping[str, Any], path: Path, dtype: Any, spare: Sequence[str] = ()) -> Any:
    """Fill a torch module, which may be on the meta device, with all its tensors; in evaluation mode, on the CPU.

    Args:
        path: of the tensors, for the error.
        spare: beginnings of names that the module need not use.

    Raises:
        MissingWeights: a tensor is missing, left over, or of another shape.
    """
    name = type(module).__name__
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    check_names(path, name, sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys()), spare)
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise MissingWeights(f"'{path}' is not this {name}: '{key}' is {tuple(tensors[key].shape)}, not {shape}")
    module.load_state_dict({key: tensors[key].to(dtype) for key in shapes}, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def open_transformers(cls: Any, folder: Path, kinds: Sequence[str], spare: Sequence[str] = ()) -> Any:
    """Open a transformers model from its folder, in float32 and evaluation mode, on the device of `pick_device`.

    Args:
        cls: a model class. kinds: the `model_type` that the folder's config.json may have.
        spare: beginnings of names of tensors that the file may have beside the model's.

    Raises:
        BadWeights: the folder holds another model, lacks tensors, or holds a pickle.
    """
    import torch
    from transformers import PretrainedConfig

    if not (folder / "config.json").is_file():
        raise BadWeights(f"'{folder}' has no config.json: it is no folder of a transformers model")
    list_model_files(folder)
    kind = PretrainedConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type")
    if kind not in kinds:
        raise BadWeights(f"'{folder}' holds a '{kind}', {cls.__name__} needs a '{kinds[0]}'")
    try:
        with quiet():
            model, about = cls.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise BadWeights(f"'{folder}' cannot be opened as {cls.__name__}: {shorten(error)}") from error
    names = [key[0] if isinstance(key, tuple) else key for key in about["mismatched_keys"]]
    check_names(folder, cls.__name__, [*about["missing_keys"], *names], list(about["unexpected_keys"]), spare)
    return model.eval().to(pick_device())


def open_processor(cls: Any, folder: Path) -> Any:
    """Open a transformers processor (pictures to tensors and back) from a model's folder.

    Raises:
        BadWeights
    """
    try:
        with quiet():
            return cls.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadWeights(f"'{folder}' has no files for {cls.__name__}: {shorten(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and advice, which would interleave with the run's own progress."""
    from transformers import utils

    logging: Any = utils.logging  # it has no types
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
