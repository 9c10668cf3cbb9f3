"""Networks' files: where they are, what may be in them, and how they are opened without running anything they bring.

A reference is a local file or folder, or, with a revision, a model of the hugging-face hub: `org/name`, or one file of
it, `org/name/path.ext`. The revision is a commit, so that a name always means the same bytes. What holds more than
tensors is refused: safetensors, ONNX, or a pickle that `torch.load(weights_only=True)` takes.
"""

import pickle
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

PATTERNS = ("*.safetensors", "*.json", "*.txt")  # what is fetched of a model on the hub
PICKLES = (".pth", ".pt", ".bin", ".ckpt")

CHANNELS = {"input_data_format": "channels_last"}
"""For transformers' processors, which else take a picture three pixels high for one with its channels first."""

Reference = Annotated[str, BeforeValidator(lambda value: str(Path(value)) if isinstance(value, str | Path) else value)]
"""A parameter that names weights. Written as a path writes itself, so that equal places are equal texts."""

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A commit of a model on the hub. A branch or tag would move."""


class BadWeights(ValueError):
    """Weights that are not there, not what the stage needs, or not safe to open. Says what to do."""


def resolve(reference: str | Path, revision: str | None = None, patterns: Sequence[str] = PATTERNS) -> Path:
    """The file or folder of a reference; a model of the hub is fetched into the hub's own cache, once.

    Args:
        reference: a path; with a revision `org/name` (a folder of the files that match `patterns`) or
            `org/name/path.ext` (that file alone).
        revision: commit of a model on the hub, 40 hex digits; None for what is on this machine.

    Raises:
        BadWeights
    """
    name = str(reference)
    if revision is None:
        path = Path(reference)
        if path.exists():
            return path
        hint = "; if it is a model of the hub, give its commit too (`revision`, 40 hex digits)"
        hint = hint if _may_be_of_hub(path) else ""
        raise BadWeights(f"there is no file or folder '{name}'{hint}")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise BadWeights(f"revision '{revision}' of '{name}' is no commit (40 hex digits); branches and tags move")
    parts = name.split("/")
    if len(parts) < 2 or not all(parts):
        raise BadWeights(f"'{name}' is no model of the hub; they are named org/name, or org/name/file for one file")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    folder = _fetched(repository, revision, [file] if file else list(patterns))
    if file and not (folder / file).is_file():
        raise BadWeights(f"{repository} has no file '{file}' at {revision}")
    return folder / file


def _may_be_of_hub(path: Path) -> bool:
    return len(path.parts) == 2 and path.parts[0] not in ("/", "..", "~") and not path.suffix


def _fetched(repository: str, revision: str, patterns: Sequence[str]) -> Path:
    """The snapshot of a hub's model, from the cache or from the hub (HF_HUB_OFFLINE, HF_HOME and HF_TOKEN count)."""
    import huggingface_hub
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    utils: Any = huggingface_hub.utils  # it does not say what it exports
    where = f"{repository} at {revision}"
    shown = not utils.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub says: {_line(error.__cause__)}"
        fetch = f"hf download {repository} --revision {revision}"
        raise BadWeights(f"{where} is not in the local cache and {why}; `{fetch}` fetches it") from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise BadWeights(f"{where} cannot be fetched: {type(error).__name__}: {_line(error)}") from error
    finally:
        if shown:
            utils.enable_progress_bars()


def _line(error: BaseException | None, most: int = 300) -> str:
    return " ".join(str(error).split())[:most]


def listed(
    name: str, reference: str | Path, revision: str | None = None, patterns: Sequence[str] = PATTERNS
) -> dict[str, Path]:
    """The files of a network as `Stage.weights` gives them: `name` of one file, `name/file` of each of a folder.

    So what a row records are the sha256 of the files themselves, as the hub shows them. A local path that is not there
    is listed as it is: the planner says so with its place in the recipe.

    Raises:
        BadWeights
    """
    path = Path(reference)
    if revision is None and not path.exists() and not _may_be_of_hub(path):
        return {name: path}
    path = resolve(reference, revision, patterns)
    return {f"{name}/{file.name}": file for file in model_files(path, patterns)} if path.is_dir() else {name: path}


def model_files(folder: Path, patterns: Sequence[str] = PATTERNS) -> list[Path]:
    """The files of a model's folder that are opened, by name: tensors, configuration, vocabulary.

    Raises:
        BadWeights: nothing fits `patterns`, or they ask for safetensors and there are none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    wanted = [path for path in files if any(fnmatch(path.name, pattern) for pattern in patterns)]
    safe = any(path.suffix == ".safetensors" for path in wanted)
    if not wanted or ("*.safetensors" in patterns and not safe):
        pickled = [path.name for path in files if path.suffix in PICKLES]
        has = f"only pickles ({', '.join(pickled)}): convert them where you trust them" if pickled else "none"
        raise BadWeights(f"'{folder}' should hold {', '.join(patterns[:1])} and config.json, and has {has}")
    return wanted


def single(path: Path, suffixes: Sequence[str] = (".safetensors", *PICKLES)) -> Path:
    """The one file of tensors in a folder, or the file itself.

    Raises:
        BadWeights: there is none, or more than one.
    """
    if path.is_file():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes) if path.is_dir() else []
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise BadWeights(f"'{path}' should hold one file of weights ({', '.join(suffixes)}), and has {found}")
    return files[0]


def tensors(path: Path) -> dict[str, Any]:
    """Names to torch tensors, on the CPU, of a .safetensors file or a pickle that holds nothing but tensors.

    A checkpoint that keeps them under `model` or `state_dict` is opened at that key.

    Raises:
        BadWeights
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise BadWeights(f"'{path}' is no safetensors file: {error}") from error
    found = unpickled(path)
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    import torch

    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BadWeights(f"'{path}' holds no table of tensors but a {type(found).__name__}")
    return dict(found)


def unpickled(path: Path) -> Any:
    """What a pickle holds, opened so that it can hold only tensors and plain values.

    Raises:
        BadWeights: it holds more, which could run code.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle's age
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise BadWeights(
                f"'{path}' is a pickle that holds more than tensors ({asked.group(1)}), which could run code: "
                "save its state_dict as safetensors where you trust it"
            ) from error
        reason = str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0]
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error) or type(error).__name__
    raise BadWeights(f"'{path}' cannot be opened as weights: {' '.join(reason.split())[:150]}")


def filled(model: Any, state: Mapping[str, Any], path: Path, spare: Sequence[str] = ()) -> Any:
    """A torch module with all its tensors from `state`, ready to be used, on the device.

    Args:
        spare: beginnings of names that the module need not find (`missing`) or use (`unexpected`).

    Raises:
        BadWeights: names or shapes do not fit: another architecture.
    """
    try:
        fault = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[1:2] or [str(error)]
        raise BadWeights(f"'{path}' does not fit {type(model).__name__}: {line[0].strip()}") from error
    complain(path, type(model).__name__, fault.missing_keys, fault.unexpected_keys, spare)
    return model.eval().to(device())


def complain(
    path: Path, what: str, missing: Sequence[str], unexpected: Sequence[str], spare: Sequence[str] = ()
) -> None:
    """Raises BadWeights where tensors are missing or left over, but for those whose names begin with `spare`."""
    faults = []
    for noun, names in (("lacks", missing), ("has, unused,", unexpected)):
        real = sorted(name for name in names if not name.startswith(tuple(spare)))
        if real:
            more = f" and {len(real) - 1} more" if len(real) > 1 else ""
            faults.append(f"{noun} '{real[0]}'{more}")
    if faults:
        raise BadWeights(f"'{path}' is not a {what}: it {' and '.join(faults)}")


def pretrained(cls: Any, folder: Path, kinds: Sequence[str], spare: Sequence[str] = ()) -> Any:
    """A transformers model from a folder, in float32 and ready to be used, on the device.

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
    model_files(folder)
    kind = PretrainedConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type")
    if kind not in kinds:
        raise BadWeights(f"'{folder}' holds a '{kind}', {cls.__name__} needs a '{kinds[0]}'")
    try:
        with quiet():
            model, about = cls.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise BadWeights(f"'{folder}' cannot be opened as {cls.__name__}: {_line(error)}") from error
    names = [key[0] if isinstance(key, tuple) else key for key in about["mismatched_keys"]]
    complain(folder, cls.__name__, [*about["missing_keys"], *names], list(about["unexpected_keys"]), spare)
    return model.eval().to(device())


def processor(cls: Any, folder: Path) -> Any:
    """A transformers processor (pictures to tensors and back) from a model's folder.

    Raises:
        BadWeights
    """
    try:
        with quiet():
            return cls.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadWeights(f"'{folder}' has no files for {cls.__name__}: {_line(error)}") from error


def device() -> str:
    """Where torch networks run: the GPU, where this worker was given one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_and_type(device: str, dtype: str) -> tuple[Any, Any]:
    """torch's device and type for `auto`: CUDA in bfloat16 where there is one, else the CPU in float32."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return torch.device(device), getattr(torch, dtype)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without progress bars and advice, which would interleave with the run's own progress."""
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
