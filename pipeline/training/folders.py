"""The folder of a training below a store: the folder itself, or a copy on this machine that is kept in step with it."""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from rasura.manifests.ids import hash_json
from rasura.manifests.remote_files import find_cache
from rasura.manifests.storage import Store

WATCH_EVERY_S = 2.0
POINTER = "checkpoint.json"
LAST = (POINTER, "training.json", "remover.json", "judge.json", "calibration.json")
"""Files that are written after all others: what has them is whole."""


@contextlib.contextmanager
def open_folder(store: Store, path: str, writes: bool = True) -> Iterator[Path]:
    """Open a training's folder for the time of a context.

    Of a remote store it is a copy: what the store has is fetched first, and every checkpoint and in the end all files
    are put there, so that a training that is killed goes on from its last checkpoint on any machine.

    Args:
        path: of the folder in the store.
        writes: this process writes to the folder; of several that train together only one does.

    Raises:
        StoreError: the store cannot be reached.
    """
    if (place := store.find(path)) is not None:
        yield place
        return
    remote = store.sub(path)
    folder = find_cache().parent / "trainings" / hash_json([store.location, path, writes])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _fetch(remote, folder)
    if not writes:
        yield folder
        return
    is_over = threading.Event()
    thread = threading.Thread(target=_watch, args=(remote, folder, is_over), daemon=True)
    thread.start()
    try:
        yield folder
        is_over.set()
        thread.join()
        _put_all(remote, folder)
    finally:
        is_over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(remote: Store, folder: Path, below: str = "") -> None:
    """Fetch all files of a store below a folder; what is fetched last is what makes it whole."""
    for name in sorted(remote.files(below), key=lambda name: name in LAST):
        place = f"{below}/{name}" if below else name
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        with remote.open(place) as source, (folder / place).open("wb") as out:
            shutil.copyfileobj(source, out)
    for name in remote.folders(below):
        _fetch(remote, folder, f"{below}/{name}" if below else name)


def _watch(remote: Store, folder: Path, is_over: threading.Event) -> None:
    last = _read_pointer(folder)
    while not is_over.wait(WATCH_EVERY_S):
        pointer = _read_pointer(folder)
        if pointer != last:
            with contextlib.suppress(FileNotFoundError):  # a later checkpoint has taken its place
                _put_checkpoint(remote, folder, pointer)
                last = pointer


def _read_pointer(folder: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (folder / POINTER).read_text()
    return ""


def _put_checkpoint(remote: Store, folder: Path, pointer: str) -> None:
    """Put a checkpoint into the store: its files, then the file that names it, and take away older ones."""
    name = json.loads(pointer)["folder"]
    for path in sorted((folder / name).iterdir()):
        remote.write(f"{name}/{path.name}", path.read_bytes())
    if not (folder / name).is_dir():
        raise FileNotFoundError(name)
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name not in LAST):
        remote.write(path.name, path.read_bytes())
    remote.write(POINTER, pointer.encode())
    _delete_checkpoints(remote, name)


def _delete_checkpoints(remote: Store, keep: str | None) -> None:
    for other in remote.folders():
        if other.startswith("checkpoint-") and other != keep:
            for file in remote.files(other):
                remote.delete(f"{other}/{file}")


def _put_all(remote: Store, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name in LAST):
        remote.write(path.relative_to(folder).as_posix(), path.read_bytes())
    pointer = _read_pointer(folder)
    _delete_checkpoints(remote, json.loads(pointer)["folder"] if pointer else None)
