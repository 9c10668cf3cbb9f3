"""Runs, datasets and files of others: their links are not followed, their names are no paths, their depth is told."""

import os
import stat
from pathlib import Path

import pytest
from support.dataset_runs import WIDE, make_finished_run, make_noise, make_row

from rasura.manifests.errors import RasuraError
from rasura.manifests.formats.coco import NotCoco, parse_coco
from rasura.manifests.formats.rorem import NotRorem, parse_entries
from rasura.manifests.json_lines import NestedTooDeep, parse_json
from rasura.manifests.run_layout import DATASET_MANIFEST, PLAN, REPORT, REVIEW_DATABASE
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store, StoreError
from rasura.pipeline.cli.review import open_database
from rasura.pipeline.report.run_page import write
from rasura.pipeline.run.accounting import compute_accounting
from rasura.pipeline.run.lineage import describe_row
from rasura.pipeline.run.review import read_review_accounting
from rasura.pipeline.run.verify import verify, verify_dataset
from rasura.pipeline.training.folders import open_folder
from rasura.pipeline.training.votes import read_votes_folder

DEEP = b"[" * 200_000


def test_links_of_a_run_lead_nowhere(tmp_path: Path) -> None:
    """A run whose review, votes, trainings and shards are links to elsewhere: nothing there is read, written or made;
    the report takes the place of a link by its name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "votes.jsonl").write_text('{"mine": 1}\n')
    (outside / "page").write_text("mine")
    run = make_finished_run(tmp_path / "run", [make_row(number) for number in range(3)])
    shard = next((tmp_path / "run" / "tables" / "made" / "shards").iterdir())
    shard.rename(outside / shard.name)
    shard.symlink_to(outside / shard.name)
    for name in ("review", "votes", "training"):
        (tmp_path / "run" / name).symlink_to(outside)
    (tmp_path / "run" / REPORT).symlink_to(outside / "page")
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    with pytest.raises(StoreError, match="leads out of"), open_database(run.uri, None, True):
        pass
    with pytest.raises(StoreError, match="leads out of"):
        read_review_accounting(run)
    with pytest.raises(StoreError, match="leads out of"):
        read_votes_folder(run.sub("votes"), "people")
    with pytest.raises(StoreError, match="leads out of"), open_folder(run, "training/remover"):
        pass
    with pytest.raises(StoreError, match="leads out of"):
        verify(run, lambda rows: None)
    shard.unlink()
    (outside / shard.name).rename(shard)
    before.pop(shard.name)
    write(run)
    assert (tmp_path / "run" / REPORT).read_text().startswith("<!doctype html>")
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert not (tmp_path / "run" / REPORT).is_symlink()
    assert REVIEW_DATABASE.startswith("review/")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path: Path, kind: str) -> None:
    """A pipe, a folder or a device in the place of a file of a run: one sentence, at once."""
    run = make_finished_run(tmp_path / "run", [make_row(number) for number in range(3)])
    shard = next((tmp_path / "run" / "tables" / "made" / "shards").iterdir())
    for place, read in ((shard, verify), (tmp_path / "run" / PLAN, compute_accounting)):
        place.unlink()
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        elif os.getuid():
            pytest.skip("only root makes devices")
        else:
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which has no end
        with pytest.raises(StoreError, match="where a file belongs; move it away"):
            read(run)


def test_names_of_columns_are_no_paths(tmp_path: Path) -> None:
    """The pictures of a row are written into the folder that the user names, whatever its columns are called."""
    rows = [make_row(0) | {"../../evil": make_noise(1), "/tmp/evil": make_noise(2)}]
    columns = {**WIDE, "../../evil": Kind.RGB, "/tmp/evil": Kind.RGB}
    run = make_finished_run(tmp_path / "run", rows, columns=columns)
    before = set(tmp_path.iterdir())
    describe_row([run], rows[0]["id"], tmp_path / "a" / "b" / "pictures")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "a"}
    names = {path.name for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {"______evil.png", "_tmp_evil.png", "source.png"} <= names


def test_deep_json_is_one_sentence(tmp_path: Path) -> None:
    """200,000 lists within each other, which would end the parser, in every file of others that is JSON."""
    with pytest.raises(NestedTooDeep, match=r"^a\.json: lists or objects in it are nested too deeply$"):
        parse_json(DEEP, "a.json")
    with pytest.raises(NotRorem, match="nested too deeply"):
        parse_entries(DEEP, "meta.json", True)
    with pytest.raises(NotCoco, match="nested too deeply"):
        parse_coco(b'{"images": ' + DEEP, "masks.json")
    run = Store(tmp_path / "run")
    run.write(PLAN, DEEP)
    with pytest.raises(RasuraError, match="nested too deeply"):
        compute_accounting(run)
    run.write(DATASET_MANIFEST, DEEP)
    assert [fault for fault in verify_dataset(run) if "damaged" in fault]
