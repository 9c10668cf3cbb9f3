"""Tensors of a torch archive that holds more than tensors, read without running or importing anything.

Checkpoints of a training keep callbacks and settings beside the tensors, and TorchScript keeps a program. Here every
object of an archive that is no tensor or plain value becomes an inert record: its class is never looked up.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks.weights import BadWeights, shorten

if TYPE_CHECKING:
    from torch import Tensor

DEPTH_LIMIT = 64
"""Levels of objects in an archive; modules nest less deeply."""
MAX_PICKLE = 2**20
"""Bytes of a pickle outside an archive that are looked at."""
TENSOR_MODULES = ("torch", "collections", "__torch__", "numpy")
"""Modules of tensors, of the tables that they are in, and of TorchScript's own programs."""
STORAGE_TYPES: Mapping[str, str] = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class InertObject:
    """An object of an archive whose class is not looked up; `state` is what the archive keeps of it."""

    def __init__(self, *values: Any) -> None:
        self.state: Any = values

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, name: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Accept an item, as an archived list does."""

    def extend(self, values: Sequence[Any]) -> None:
        """Accept items, as an archived list does."""


def describe_code(path: Path) -> str:
    """Return what a pickle, or the pickle in an archive of torch, would import beside tensors; nothing of it is run.

    Returns:
        The end of a sentence about the file, such as `; it holds code (posix.system), which was not run`; or "".
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    except (OSError, zipfile.BadZipFile):
        with path.open("rb") as file:
            data = file.read(MAX_PICKLE)
    names: list[str] = []
    words: list[str] = []
    try:
        for operation, value, _ in pickletools.genops(data):
            if operation.name == "GLOBAL":
                names.append(str(value).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL":
                names.append(".".join(words[-2:]))
            elif isinstance(value, str):
                words.append(value)
    except ValueError:
        pass  # no pickle, or one that was cut off
    code = [name for name in dict.fromkeys(names) if name.split(".")[0] not in TENSOR_MODULES]
    return f"; it holds code ({', '.join(code[:3])}), which was not run" if code else ""


class _ArchiveReader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str, entry: str) -> None:
        super().__init__(io.BytesIO(archive.read(entry)))
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGE_TYPES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        return type("ArchivedObject", (InertObject,), {"__doc__": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        import torch

        _, storage_type, key, *_ = pid
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
            dtype = getattr(torch, STORAGE_TYPES[storage_type])
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _rebuild_tensor(storage: "Tensor", offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> "Tensor":
    import torch

    return torch.as_strided(storage, tuple(shape), tuple(strides), offset)  # refuses what lies outside the storage


def read_archive(path: Path) -> dict[str, "Tensor"]:
    """Read names to tensors from an archive of `torch.save` or of TorchScript, on the CPU.

    Args:
        path: the archive. Of a dictionary, the names are its keys, joined by dots; of a TorchScript program, those of
            its modules and parameters.

    Raises:
        BadWeights: it is no such archive, is damaged, or holds no tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(entries) != 1:
                raise BadWeights(f"'{path}' is no archive of torch: it has {len(entries)} entries 'data.pkl', not one")
            folder = entries[0].partition("/")[0]
            read = [entry for entry in archive.infolist() if entry.filename.startswith((entries[0], f"{folder}/data/"))]
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in read):
                raise BadWeights(f"'{path}': its tensors are compressed, as torch never writes them")
            root = _ArchiveReader(archive, folder, entries[0]).load()
    except (OSError, zipfile.BadZipFile) as error:
        raise BadWeights(f"'{path}' is no archive of torch: {shorten(error)}{describe_code(path)}") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, EOFError, AttributeError) as error:
        raise BadWeights(f"'{path}' cannot be read as an archive of torch: {shorten(error)}") from error
    tensors: dict[str, Tensor] = {}
    _collect_tensors(root, "", tensors, DEPTH_LIMIT)
    if not tensors:
        raise BadWeights(f"'{path}' holds no tensors{describe_code(path)}")
    return tensors


def _collect_tensors(value: Any, name: str, tensors: dict[str, "Tensor"], depth: int) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name] = value.clone()
        return
    children = value.state if isinstance(value, InertObject) else value
    if isinstance(children, Mapping) and depth:
        for key, child in children.items():
            if isinstance(key, str):
                _collect_tensors(child, f"{name}.{key}" if name else key, tensors, depth - 1)
