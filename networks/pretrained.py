"""Pretrained models of transformers and diffusers, opened from local folders; nothing is looked up anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rasura.manifests.errors import RasuraError
from rasura.manifests.json_lines import parse_json
from rasura.networks.batches import is_out_of_memory
from rasura.networks.weights import (
    BadWeights,
    check_names,
    check_values,
    describe_content,
    list_model_files,
    pick_device,
    read_tensors,
    shorten,
)

OPENING_ERRORS = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What libraries raise of files that are not the model's; a `MemoryError` is not among it."""

TEXT_SPARE = ("text_projection.", "logit_scale", "vision_model.", "visual_projection.")
"""Beginnings of names of a whole CLIP's tensors that are not its text encoder's."""


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
    """Return the configuration of a diffusers or transformers model.

    Raises:
        MissingWeights: the folder has none, or one that is no JSON object.
    """
    return read_settings(list_diffusers_files(folder)["config.json"])


def read_settings(path: Path) -> dict[str, Any]:
    """Return the JSON object of a model's file of settings.

    Raises:
        MissingWeights: it is missing, or no JSON object.
    """
    try:
        settings = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingWeights(f"'{path}' cannot be read as a model's settings: {shorten(error)}") from error
    if not isinstance(settings, dict):
        raise MissingWeights(f"'{path}' holds no settings of a model, but a {type(settings).__name__}")
    return settings


@contextmanager
def refuse_others(path: Path, what: str) -> Iterator[None]:
    """Report errors of libraries while a model's files are opened as what they mean: it is not that model.

    Args:
        path: the folder or file. what: the model, with its article.

    Raises:
        MissingWeights

    Examples:
        >>> with refuse_others(Path("models/sd15"), "a UNet"):
        ...     4 // 0
        Traceback (most recent call last):
        rasura.networks.pretrained.MissingWeights: 'models/sd15' is not a UNet: integer division or modulo by zero
    """
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        raise MissingWeights(f"'{path}' cannot be opened as {what}: {shorten(error)}") from error
    except (*OPENING_ERRORS, SafetensorError) as error:
        if isinstance(error, RasuraError) or is_out_of_memory(error):
            raise
        name = f"no {error}" if isinstance(error, KeyError) else shorten(error) or type(error).__name__
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        contents = [f"{file.name}: {content}" for file in files if (content := describe_content(file))]
        raise MissingWeights(f"'{path}' is not {what}: {'; '.join(contents) or name}") from error


def open_checked(cls: Any, folder: Path, spare: Sequence[str] = (), **options: Any) -> Any:
    """Open a model by `from_pretrained`, all of whose tensors have to be in its files, and all of theirs in use.

    Both libraries fill gaps with random values and leave out what they do not know. It is in evaluation mode, without
    gradients, on the CPU.

    Args:
        cls: a model's class of diffusers or transformers.
        spare: beginnings of names of tensors that the files may have beside the model's.
        options: of `from_pretrained`.

    Raises:
        BadWeights: the files are not of that class: tensors are missing, left over, of another shape or not finite.
    """
    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True, **options}
    with refuse_others(folder, f"a {cls.__name__}"), quiet():
        model, report = cls.from_pretrained(folder, **options)
    mismatched = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    learned = {name for name, _ in model.named_parameters()}  # what the model needs is never spare
    missing = [name for name in report["missing_keys"] if name in learned or not name.startswith(tuple(spare))]
    unexpected = [name for name in report["unexpected_keys"] if not name.startswith(tuple(spare))]
    check_names(folder, cls.__name__, [*missing, *mismatched], unexpected)
    check_values(folder, model)
    return model.eval().requires_grad_(False)


def open_diffusers(kind: str, folder: Path, dtype: Any) -> Any:
    """Open a diffusers model from its folder; see `open_checked`.

    Args:
        kind: name of the class, e.g. `UNet2DConditionModel`.

    Raises:
        BadWeights: the files are not of that class.
    """
    import diffusers

    read_config(folder)
    return open_checked(getattr(diffusers, kind), folder, variant=get_variant(folder), torch_dtype=dtype)


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
        BadWeights: a tensor is missing, left over, of another shape, or not finite.
    """
    name = type(module).__name__
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    check_names(path, name, sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys()), spare)
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise MissingWeights(f"'{path}' is not this {name}: '{key}' is {tuple(tensors[key].shape)}, not {shape}")
    module.load_state_dict({key: tensors[key].to(dtype) for key in shapes}, strict=True, assign=True)
    check_values(path, module)
    return module.eval().requires_grad_(False)


def open_transformers(
    cls: Any,
    folder: Path,
    kinds: Sequence[str],
    spare: Sequence[str] = (),
    dtype: Any = None,
    device: Any = None,
    variant: str | None = None,
) -> Any:
    """Open a transformers model from its folder; see `open_checked`.

    Args:
        cls: a model class. kinds: the `model_type` that the folder's config.json may have.
        spare: beginnings of names of tensors that the file may have beside the model's.
        dtype: float32 where it is None. device: that of `pick_device` where it is None.
        variant: of the file names, see `get_variant`.

    Raises:
        BadWeights: the folder holds another model, lacks tensors, or holds a pickle.
    """
    import torch

    if not (folder / "config.json").is_file():
        raise BadWeights(f"'{folder}' has no config.json: it is no folder of a transformers model")
    list_model_files(folder)
    kind = read_settings(folder / "config.json").get("model_type")
    if kind not in kinds:
        raise BadWeights(f"'{folder}' holds a '{kind}', {cls.__name__} needs a '{kinds[0]}'")
    model = open_checked(cls, folder, spare, dtype=dtype or torch.float32, variant=variant)
    return model.to(device or pick_device())


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
