"""Every file in a folder is an input, or is passed over with a reason."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from rasura.manifests.storage import Store
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.listing import MissingInput, find_files
from rasura.stages.sources.pairs import Endings, group_by_ending, match_partners
from rasura.stages.sources.photos import Photos

NAMES = ("a.jpg", "b.JPG", "notes.txt", ".DS_Store", "._a.jpg", ".ipynb_checkpoints/a.jpg", "deep/c.jpeg", "deep/d.jpg")


def make_folder(root: Path) -> Path:
    """Files, hidden ones, links to files and folders, back and to nothing, and a pipe."""
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "e.jpg").write_bytes(b"e")
    (root / "linked").symlink_to(root.parent / "elsewhere")
    (root / "f.jpg").symlink_to(root.parent / "elsewhere" / "e.jpg")
    (root / "deep" / "back").symlink_to(root)
    (root / "gone.jpg").symlink_to(root / "nothing")
    (root / "itself.jpg").symlink_to(root / "itself.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


def list_names(path: str, root: Path, pattern: str = "*") -> tuple[set[str], Counter[str]]:
    passed: Counter[str] = Counter()
    return {file.path.removeprefix(f"{root}/") for file in find_files(path, pattern, passed)}, passed


def test_every_file_is_listed_or_counted(tmp_path: Path) -> None:
    """Links are followed, loops end, and what is passed over adds up to all that lies there."""
    root = make_folder(tmp_path / "photos")
    names, passed = list_names(str(root), root, "*.jpg")
    assert names == {"a.jpg", "b.JPG", "deep/d.jpg", "linked/e.jpg", "f.jpg"}
    assert passed == {
        "hidden": 3,
        "name does not match '*.jpg'": 2,
        "link to a folder above it": 1,
        "link to nothing": 2,
        "no regular file": 1,
    }
    assert passed.total() + len(names) == len(NAMES) + 6


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.jpg", {"a.jpg", "b.JPG", "f.jpg"}),
        ("**/*.JPG", {"a.jpg", "b.JPG", "f.jpg", "deep/d.jpg", "linked/e.jpg"}),
        ("d*/?.jp*g", {"deep/c.jpeg", "deep/d.jpg"}),
        ("*/*", {"deep/c.jpeg", "deep/d.jpg", "linked/e.jpg"}),
    ],
)
def test_globs_are_the_same_on_every_store(tmp_path: Path, glob: str, expected: set[str]) -> None:
    """A glob ignores case, leaves out hidden files, and gives on an object store what it gives on a disk."""
    root = make_folder(tmp_path / "photos")
    names, _ = list_names(f"{root}/{glob}", root)
    assert names == expected
    memory = fsspec.filesystem("memory")
    bucket = f"memory://{tmp_path.name}/photos"
    for name in (*NAMES, "f.jpg", "linked/e.jpg"):
        memory.pipe_file(f"/{tmp_path.name}/photos/{name}", name.encode())
    remote = {file.path.removeprefix(f"{bucket}/") for file in find_files(f"{bucket}/{glob}")}
    assert remote == expected
    passed: Counter[str] = Counter()
    find_files(bucket, "*", passed)
    assert passed == {"hidden": 3}


def test_the_home_folder_and_brackets_in_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home folder, `file://` a path, and a folder with brackets in its name is that folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "set[1]").mkdir()
    (tmp_path / "set[1]" / "a.png").write_bytes(b"a")
    expected = [f"{tmp_path}/set[1]/a.png"]
    for path in ("~/set[1]", f"file://{tmp_path}/set[1]", f"{tmp_path}/set[1]", "~/set*"):
        assert [file.path for file in find_files(path if path != "~/set*" else "~/set*/*")] == expected
    with pytest.raises(MissingInput, match=r"passed over: 1 name does not match '\*\.jpg'"):
        find_files("~/set[1]", "*.jpg")


def test_what_a_source_passed_over_is_written_for_status(tmp_path: Path) -> None:
    """The counts are in the run, and are those of the last listing."""
    from rasura.pipeline.run.accounting import read_passed_over

    root = make_folder(tmp_path / "photos")
    run = Store(tmp_path / "run")
    for pattern in ("*.jpeg", "*.jpg"):
        context = RunContext(run, "photos")
        Photos(Photos.Params(path=str(root), pattern=pattern)).items(context)
        context.write_passed_over()
    counts = read_passed_over(run, "photos")
    assert counts["name does not match '*.jpg'"] == 2
    assert counts["hidden"] == 3


def test_partners_are_found_across_file_systems() -> None:
    """Names that differ in the case or the composition of their letters are partners, unless two could be meant."""
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    files = {
        "input": {composed: "i1", "B": "i2", "x": "i3"},
        "gt": {apart: "g1", "b": "g2", "X": "g3", "x": "g4"},
        "mask": {},
    }
    pairs = match_partners(files)
    assert {(pair["input"], pair["gt"]) for pair in pairs} == {("i1", "g1"), ("i2", "g2"), ("i3", "g4"), (None, "g3")}


def test_endings_ignore_case(tmp_path: Path) -> None:
    """`001_INPUT.png` ends in `_input`; what has none of the endings is counted."""
    for name in ("1_INPUT.png", "1_clean.PNG", "1_depth.png"):
        (tmp_path / name).write_bytes(b"x")
    passed: Counter[str] = Counter()
    groups = group_by_ending(find_files(str(tmp_path)), str(tmp_path), Endings(input="_input", gt="_clean"), passed)
    assert match_partners(groups) == [
        {"input": f"{tmp_path}/1_INPUT.png", "gt": f"{tmp_path}/1_clean.PNG", "mask": None}
    ]
    assert passed == {"name has none of the endings _input, _clean": 1}
