"""Several databases that judge one run: their work meets in it, and none silently takes another's place."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, select
from support.annotator.queue import ONE, check_queue, lease, vote
from support.annotator.runs import CANDIDATES, Run, people, row

from rasura.annotator.exchange.publish import fetch_reviews, find_other_review, publish_review
from rasura.annotator.exchange.vote_rows import BadVotes
from rasura.annotator.server.review import Review
from rasura.annotator.server.team.publisher import Publisher
from rasura.annotator.store.database import Database
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team import corrections, drawings, rankings
from rasura.annotator.store.team.tables import TEAM_TABLES
from rasura.annotator.store.vote_log import Submission
from rasura.manifests.images import decode_mask, encode_mask
from rasura.manifests.parquet import encode_parquet, read_parquet
from rasura.manifests.run_layout import REVIEW_DATABASE
from rasura.pipeline.cli.review_tools import check_drawing
from rasura.pipeline.run.review import read_row_verdicts
from rasura.stages.correction.source import read_corrections

FLOOR = {"version": 1, "width": 48, "height": 32, "floor": [[[0, 32], [48, 32], [24, 16]]]}
SIZE = (32, 48)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with two candidates of one scene."""
    run = Run(tmp_path / "run")
    run.flow("candidates", [row(0, "edited", 32, id=f"e{n}", remover=n) for n in ("telea", "lama")], CANDIDATES)
    return run


@pytest.fixture
def databases(run: Run, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """The databases of two machines."""
    opened = Database(tmp_path / "one.sqlite"), Database(tmp_path / "two.sqlite")
    for database in opened:
        load_queue(run.store, database, ONE)
    yield opened
    for database in opened:
        database.close()


def correct(database: Database, who: Reviewer, item: str, columns: int) -> None:
    """Correct the mask of an item: so many columns from the left."""
    mask = np.zeros(SIZE, bool)
    mask[:, :columns] = True
    corrected = corrections.CorrectedMask("mask", 48, 32, encode_mask(mask), 1)
    entry = Submission(item, f"correct-{columns}", remark="mask")
    database.write(lambda connection: corrections.add_correction(connection, who, entry, corrected, time.time()))


def count_rows(database: Database) -> list[int]:
    with database.read() as connection:
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TEAM_TABLES]


def test_masks_rankings_and_drawings_meet(run: Run, databases: tuple[Database, Database]) -> None:
    """What people corrected, ranked and drew in one database is in the other, each piece once; the later of two masks
    counts on both sides and in the run, whichever is exchanged last; a damaged file is named."""
    first, second = databases
    (ann,), (bob,) = people(first, ["Ann"]), people(second, ["Bob"])
    (item,) = lease(first, ONE, ann)
    correct(first, ann, item, 8)
    scene = first.write(lambda connection: rankings.lease_scene(connection, ONE, ann, time.time()))
    assert scene is not None
    order = [[item] for item in scene["items"]]
    first.write(
        lambda connection: rankings.add_ranking(connection, ONE, ann, scene["scene"], order, 1, "rank-ann", time.time())
    )
    first.write(lambda connection: drawings.save_drawing(connection, ann, "/a/room.jpg", FLOOR, 0, time.time()))

    def meet(database: Database) -> None:
        fetch_reviews(run.store, database, ONE, check_drawing)
        check_queue(database)
        publish_review(run.store, database, share=True)

    def count_columns() -> list[int]:
        return [int(decode_mask(one["mask"])[0].sum()) for one in read_corrections(run.store)]

    meet(first)
    meet(second)
    assert count_columns() == [8]
    for read in (lambda c: [(s, groups) for s, _, groups in rankings.list_rankings(c)], drawings.read_drawings):
        with first.read() as one, second.read() as two:
            assert read(one) == read(two) != []
    lease(second, ONE, bob, 2)
    correct(second, bob, item, 16)
    before = count_rows(first)
    for database in (second, first, second, first):
        meet(database)
        assert count_columns() == [16]
    assert sum(count_rows(first)) == sum(before) + 1
    assert count_rows(first) == count_rows(second)
    with first.read() as connection:
        assert [one.version for one in corrections.list_versions(connection, item)] == [2, 1]
    file = f"review/rankings/{second.review_id}.parquet"
    shared = read_parquet(run.store.local / file).to_pylist()[0]  # type: ignore[operator]
    wrong = [{name: value} for name in ("shown", "ranking") for value in ("5", "null", '"ab"', '["ab", 5]')]
    damaged = [encode_parquet(pa.Table.from_pylist([shared | {"nonce": "new"} | one])) for one in wrong]
    for data in (b"no file", *damaged):
        run.store.write(file, data)
        with pytest.raises(BadVotes, match=rf"{file}' cannot be read"):
            meet(first)


def test_a_review_says_whose_verdicts_count(run: Run, databases: tuple[Database, Database]) -> None:
    """A review that is kept elsewhere reaches the run by what it writes there; one that would take another's place, or
    that the run does not read, says so."""
    for number, (database, verdict) in enumerate(zip(databases, ("yes", "no"), strict=True)):
        said = find_other_review(run.store, database)
        assert (said is None) == (number == 0)
        (ann,) = people(database, ["Ann"])
        (item,) = lease(database, ONE, ann)
        vote(database, ONE, ann, item, verdict)
        publish_review(run.store, database)
        assert [one.verdict for one in read_row_verdicts(run.store).values()] == [verdict]
    assert said is not None
    assert "verdicts of another review" in said
    inside = Database(run.store.local / REVIEW_DATABASE)  # type: ignore[operator]
    load_queue(run.store, inside, ONE)
    assert find_other_review(run.store, inside) is not None  # what was published before, of another one
    publish_review(run.store, inside)
    assert find_other_review(run.store, inside) is None
    assert "has a review of its own" in str(find_other_review(run.store, databases[0]))
    Publisher(Review(run.store, databases[0], ONE)).publish()
    assert find_other_review(run.store, inside) is None  # nothing was written in its place
    inside.close()
