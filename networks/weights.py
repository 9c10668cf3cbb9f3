"""Files of networks: finding them, checking their content, and opening them without running code that they hold.

A reference is a local file or folder, or, with a revision, a model of the hugging-face hub: `org/name`, or one file of
it, `org/name/path.ext`. The revision is a commit, so that a name always means the same bytes. Accepted are safetensors,
ONNX, and pickles that `torch.load(weights_only=True)` takes: files that hold more than tensors are refused.
"""

import pickle
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from rasura.manifests.errors import StorageError, WeightsError
from rasura.manifests.remote_files import fetch
from rasura.manifests.safety.text import make_text
from rasura.manifests.storage import is_remote

PATTERNS = ("*.safetensors", "*.json", "*.txt")
"""Files that are fetched of a model on the hub."""
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
FILE_SUFFIXES = (".onnx", ".safetensors", ".json", ".txt", ".yaml", ".py", *PICKLES)
"""Endings by which `folder/file` is distinguished from a model of the hub, whose name may have a dot in it too."""

COMPUTED = ("position_ids",)
"""Ends of names of tensors that older files hold, and that are computed and not learned."""

CHANNELS = {"input_data_format": "channels_last"}
"""For transformers' processors, which else take a picture three pixels high for one with its channels first."""

Reference = Annotated[str, BeforeValidator(lambda value: _write_reference(value))]
"""A parameter that names weights: a path, written as paths write themselves, or a URI."""

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A commit of a model on the hub. A branch or tag would move."""


def _write_reference(value: Any) -> Any:
    if not isinstance(value, str | Path) or is_remote(str(value)):
        return value
    return str(Path(value))


class BadWeights(WeightsError):
    """Weights that are missing, of another network than is needed, or not safe to open."""


def resolve(reference: str | Path, revision: str | None = None, patterns: Sequence[str] = PATTERNS) -> Path:
    """Return the file or folder of a reference; a model of the hub is fetched into the hub's own cache, once.

    Args:
        reference: a path, or the URI of a file or folder, which is fetched into a cache; with a revision `org/name` (a
            folder of the files that match `patterns`) or `org/name/path.ext` (that file alone).
        revision: commit of a model on the hub, 40 hex digits; None for files on this machine.

    Raises:
        BadWeights
    """
    name = str(reference)
    if revision is None and is_remote(name):
        try:
            return fetch(name)
        except StorageError as error:
            raise BadWeights(str(error)) from error
    if revision is None:
        path = Path(reference)
        if path.exists():
            return path
        hint = "; if it is a model of the hub, give its commit too (`revision`, 40 hex digits)"
        hint = hint if _looks_like_hub_id(path) else ""
        raise BadWeights(f"there is no file or folder '{name}'{hint}")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise BadWeights(f"revision '{revision}' of '{name}' is no commit (40 hex digits); branches and tags move")
    parts = name.split("/")
    if len(parts) < 2 or not all(parts):
        raise BadWeights(f"'{name}' is no model of the hub; they are named org/name, or org/name/file for one file")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    folder = _fetch(repository, revision, [file] if file else list(patterns))
    if file and not (folder / file).is_file():
        raise BadWeights(f"{repository} has no file '{file}' at {revision}")
    return folder / file


def _looks_like_hub_id(path: Path) -> bool:
    return len(path.parts) == 2 and path.parts[0] not in ("/", "..", "~") and path.suffix not in FILE_SUFFIXES


def _fetch(repository: str, revision: str, patterns: Sequence[str]) -> Path:
    """Return the snapshot of a hub's model from the cache or the hub (HF_HUB_OFFLINE, HF_HOME and HF_TOKEN count)."""
    import huggingface_hub
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    utils: Any = huggingface_hub.utils  # it does not say what it exports
    where = f"{repository} at {revision}"
    had_bars = not utils.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub says: {shorten(error.__cause__)}"
        fetch = f"hf download {repository} --revision {revision}"
        raise BadWeights(f"{where} is not in the local cache and {why}; `{fetch}` fetches it") from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise BadWeights(f"{where} cannot be fetched: {type(error).__name__}: {shorten(error)}") from error
    finally:
        if had_bars:
            utils.enable_progress_bars()


def shorten(error: BaseException | None, most: int = 300) -> str:
    """Return the text of an error on one line, at most that many characters.

    Examples:
        >>> shorten(ValueError("two\\n  lines"))
        'two lines'
    """
    return make_text(error)[:most]


def list_files(
    name: str, reference: str | Path, revision: str | None = None, patterns: Sequence[str] = PATTERNS
) -> dict[str, Path]:
    """Return the files of a network as `Stage.weights` does: `name` of one file, `name/file` of each of a folder.

    So a row records the sha256 of the files themselves, as the hub shows them. A local path that is missing is listed
    as it is: the planner reports it with its place in the recipe.

    Raises:
        BadWeights
    """
    path = Path(reference)
    if revision is None and not path.exists() and not _looks_like_hub_id(path):
        return {name: path}
    path = resolve(reference, revision, patterns)
    return {f"{name}/{file.name}": file for file in list_model_files(path, patterns)} if path.is_dir() else {name: path}


def list_model_files(folder: Path, patterns: Sequence[str] = PATTERNS) -> list[Path]:
    """List the files of a model's folder that are opened, by name: tensors, configuration, vocabulary.

    Raises:
        BadWeights: nothing fits `patterns`, or they ask for safetensors and there are none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    matching = [path for path in files if any(fnmatch(path.name, pattern) for pattern in patterns)]
    safe = any(path.suffix == ".safetensors" for path in matching)
    if not matching or ("*.safetensors" in patterns and not safe):
        pickled = [path.name for path in files if path.suffix in PICKLES]
        has = f"only pickles ({', '.join(pickled)}): convert them where you trust them" if pickled else "none"
        raise BadWeights(f"'{folder}' should hold {', '.join(patterns[:1])} and config.json, and has {has}")
    return matching


def find_single(path: Path, suffixes: Sequence[str] = (".safetensors", *PICKLES)) -> Path:
    """Return the one file of tensors in a folder, or the file itself.

    Raises:
        BadWeights: there is none, or more than one.
    """
    if path.is_file():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes) if path.is_dir() else []
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise BadWeights(f"'{path}' should hold one file of weights ({', '.join(suffixes)}), and has {names}")
    return files[0]


def read_tensors(path: Path) -> dict[str, Any]:
    """Read names to torch tensors, on the CPU, from a .safetensors file or a pickle that holds nothing but tensors.

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
            raise BadWeights(f"'{path}' is no safetensors file: {describe_content(path) or error}") from error
    state = read_pickle(path)
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    import torch

    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadWeights(f"'{path}' holds no table of tensors but a {type(state).__name__}")
    return dict(state)


def describe_content(path: Path) -> str:
    """Return what a file holds instead of weights, where a download went wrong; else "".

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> file.write_text("version https://git-lfs.github.com/spec/v1")
        42
        >>> describe_content(file)
        'it is a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`'
    """
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(200).lstrip()
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`"
    if start[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page and no file of weights: the download was answered with it"
    return ""


def read_pickle(path: Path) -> Any:
    """Read a pickle, opened so that it can hold only tensors and plain values.

    Raises:
        BadWeights: it holds more, which could run code.
    """
    import torch

    if fault := describe_content(path):
        raise BadWeights(f"'{path}' cannot be opened as weights: {fault}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle's age
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise BadWeights(
                f"'{path}' is a pickle that holds more than tensors ({match.group(1)}), which could run code: "
                "save its state_dict as safetensors where you trust it"
            ) from error
        reason = str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0]
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error) or type(error).__name__
    raise BadWeights(f"'{path}' cannot be opened as weights: {' '.join(reason.split())[:150]}")


def convert_pickle(source: Path, target: Path) -> int:
    """Write the tensors of a pickle as a safetensors file, whole or not at all; return how many there are.

    Raises:
        BadWeights: the pickle holds more than tensors, or the target is no new `.safetensors` file.
    """
    from safetensors.torch import save_file

    if target.suffix != ".safetensors" or target.exists():
        fault = "is there already" if target.exists() else "should end in .safetensors"
        raise BadWeights(f"'{target}' {fault}: name a new file, such as {source.with_suffix('.safetensors').name}")
    if not source.is_file():
        raise BadWeights(f"there is no file '{source}'")
    tensors = {name: value.contiguous().clone() for name, value in read_tensors(source).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    save_file(tensors, part)
    part.replace(target)
    return len(tensors)


def load_state(model: Any, state: Mapping[str, Any], path: Path, spare: Sequence[str] = ()) -> Any:
    """Fill a torch module with all its tensors from `state`, and return it in evaluation mode, on the device.

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
    check_names(path, type(model).__name__, fault.missing_keys, fault.unexpected_keys, spare)
    check_values(path, model)
    return model.eval().to(pick_device())


def check_names(
    path: Path, what: str, missing: Sequence[str], unexpected: Sequence[str], spare: Sequence[str] = ()
) -> None:
    """Check that no tensors are missing or left over, but for those whose names begin with `spare`.

    What is computed anew in every version of the libraries (`COMPUTED`) is neither.

    Args:
        what: the network's class, for the error.

    Raises:
        BadWeights
    """
    faults = []
    for noun, names in (("lacks", missing), ("has, unused,", unexpected)):
        real = sorted(name for name in names if not name.startswith(tuple(spare)) and not name.endswith(COMPUTED))
        if real:
            more = f" and {len(real) - 1} more" if len(real) > 1 else ""
            faults.append(f"{noun} '{real[0]}'{more}")
    if faults:
        raise BadWeights(f"'{path}' is not a {what}: it {' and '.join(faults)}")


def check_values(path: Path, model: Any) -> None:
    """Check that all parameters of a torch module are numbers: what it computes would be none either.

    Args:
        path: of its weights, for the error.

    Raises:
        BadWeights: a parameter is not finite, by itself or in the precision in which it is run.
    """
    import torch

    for name, value in model.named_parameters():
        if value.is_meta or not value.numel():
            continue
        if not torch.isfinite(torch.stack(torch.aminmax(value.detach()))).all():
            raise BadWeights(
                f"'{path}' holds values that are not finite (NaN or infinite), in '{name}' as {value.dtype}: the file "
                "is damaged, or its values are too large for that precision (`dtype`)"
            )


def pick_device() -> str:
    """Return the device of torch networks: the GPU, where this worker has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_device_and_dtype(device: str, dtype: str) -> tuple[Any, Any]:
    """Return torch's device and dtype; `auto` is CUDA in bfloat16 where there is a GPU, else the CPU in float32."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return torch.device(device), getattr(torch, dtype)
