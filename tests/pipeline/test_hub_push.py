"""Pushes to the Hugging Face Hub, against a server that answers as it does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import environment, rasura
from support.dataset_runs import make_finished_run, make_row
from support.hub_server import TOKEN, Hub, serve_hub

from rasura.manifests.storage import Store, StoreError
from rasura.pipeline.export import export_run
from rasura.pipeline.hub import parse_hub_uri


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


def push(hub: Hub, run: Store, place: str, *options: object, token: str = TOKEN) -> tuple[int, str]:
    """Push as a user does; returns the exit status and all that was printed."""
    env = environment() | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HOME": f"{run.local}/../home",
        "HF_HUB_OFFLINE": "0",
    }
    done = rasura("export", run.uri, "--out", place, *options, check=False, env=env)
    return done.returncode, done.stdout + done.stderr


def test_an_export_is_pushed_as_one_commit(hub: Hub, tmp_path: Path) -> None:
    """What arrives is the export, to the byte, in a private repository; a second push replaces it, deletes what only
    the first one had, and touches no file beside it; the token is in no address and nothing that is printed."""
    run = make_finished_run(tmp_path / "run", [make_row(n, score=None, verdict=None) for n in range(4)])
    status, text = push(hub, run, "hf://datasets/ann/rooms/demo", "--format", "kohya")
    assert status == 0, text
    assert "4 rows in 2 files" in text
    export_run(run, Store(tmp_path / "out"), "kohya")
    local = {f"demo/{path.relative_to(tmp_path / 'out')}": path for path in (tmp_path / "out").rglob("*")}
    files = {name: path.read_bytes() for name, path in local.items() if path.is_file()}
    remote = dict(hub.repos["ann/rooms"])
    assert remote.pop(".gitattributes")
    assert remote == files
    assert hub.private == {"ann/rooms"}
    hub.repos["ann/rooms"]["notes.md"] = b"ours"
    status, second = push(hub, run, "hf://datasets/ann/rooms/demo")
    assert status == 0, second
    assert len(hub.commits) == 2
    names = {name for name in hub.repos["ann/rooms"] if name.startswith("demo/")}
    data = {f"demo/data/{split}-00000-of-00001.parquet" for split in ("test", "train")}
    assert names == {"demo/README.md", "demo/manifest.json", "demo/croissant.json", *data}
    assert hub.repos["ann/rooms"]["notes.md"] == b"ours"
    assert TOKEN not in "".join((*hub.requests, text, second))


def test_what_the_hub_refuses_is_said(hub: Hub, tmp_path: Path) -> None:
    """A wrong token, and a repository of something else, end with a sentence, and without a commit."""
    run = make_finished_run(tmp_path / "run", [make_row(n) for n in range(2)])
    status, text = push(hub, run, "hf://datasets/ann/rooms", token="hf_wrongwrongwrongwrongwrongwrongwrongwr")
    assert status == 1
    assert "cannot push to 'hf://datasets/ann/rooms'" in text
    assert "HF_TOKEN" in text
    assert "hf_wrong" not in text
    hub.repos["ann/photos"] = {"data/theirs.csv": b"1", "README.md": b"# theirs"}
    status, text = push(hub, run, "hf://datasets/ann/photos")
    assert status == 1
    assert "files of something else" in " ".join(text.split())
    assert "Traceback" not in text
    assert hub.commits == []


@pytest.mark.parametrize(
    "uri",
    [
        "hf://ann:hf_secret@datasets/x",
        "hf://datasets/x",
        "hf://datasets/a/b/../c",
        "hf://models/a/b",
        "hf://",
        "hf://datasets/a/b?x",
    ],
)
def test_wrong_addresses_are_not_repeated(uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        parse_hub_uri(uri)
    assert "hf_secret" not in str(caught.value)
