"""What a review writes into its run: verdicts and corrections, for stages and reports that open no database.

A run in a bucket also gets the votes and what else people did, so that a review can go on from another machine: each
database has files of its own there, and reads those of the others.
"""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import func, select

from rasura.annotator.exchange.corrections_file import export_corrections
from rasura.annotator.exchange.drawings_file import export_drawings
from rasura.annotator.exchange.shared_work import CheckDrawing, fetch_work, share_work
from rasura.annotator.exchange.vote_rows import tabulate_verdicts, tabulate_votes
from rasura.annotator.exchange.votes_file import ImportResult, append_votes, compute_verdicts, list_votes, read_votes
from rasura.annotator.store.database import Database, log
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.team.tables import drawings, rankings
from rasura.manifests.parquet import encode_parquet
from rasura.manifests.run_layout import PUBLISHED_VERDICTS, REVIEW_DATABASE
from rasura.manifests.storage import Store

FOLDER = PUBLISHED_VERDICTS.partition("/")[0]
VOTES = f"{FOLDER}/votes"
_WRITTEN_BY = b"review"
"""Key of the id of a review in the metadata of its published verdicts."""


def count_entries(database: Database) -> int:
    """Return the number of entries of the log, of drawings and of rankings, which changes with each."""
    tables = (log, drawings, rankings)
    with database.read() as connection:
        return sum(int(connection.execute(select(func.max(table.c.seq))).scalar() or 0) for table in tables)


def has_own_review(run: Store, database: Database) -> bool:
    """Return True where a review other than a database's is in the folder of the run."""
    place = run.find(REVIEW_DATABASE)
    return place is not None and place.is_file() and not (database.file and place.samefile(database.file))


def find_other_review(run: Store, database: Database) -> str | None:
    """Find a review whose verdicts count for a run in place of a database's own, and say so; None where there is none.

    That is the review in the folder of the run, or one that has published there before.
    """
    bring = "`rasura votes export` and `import` bring votes from one into the other"
    if has_own_review(run, database):
        return (
            f"the run has a review of its own, {run.find(REVIEW_DATABASE)}: status, report and exports read that one, "
            f"and nothing of this one is written into the run. {bring}; `rasura export --database` takes this one"
        )
    if run.local is None or not run.exists(PUBLISHED_VERDICTS):
        return None
    try:
        with run.open(PUBLISHED_VERDICTS) as source:
            written_by = (pq.read_schema(source).metadata or {}).get(_WRITTEN_BY)
    except (pa.ArrowException, OSError):
        return None
    if written_by in (None, database.review_id.encode()):
        return None
    return (
        f"{run.uri}/{PUBLISHED_VERDICTS} has the verdicts of another review of this run: this one writes its own in "
        f"their place with the next vote. {bring}"
    )


def publish_review(run: Store, database: Database, share: bool = False) -> None:
    """Write verdicts and corrections into the run, and all work where reviews on other machines are to get it.

    Raises:
        StoreError: the run cannot be written.
    """
    with database.read() as connection:
        verdicts = tabulate_verdicts(compute_verdicts(connection))
        named = verdicts.replace_schema_metadata({_WRITTEN_BY: database.review_id})
        run.write(PUBLISHED_VERDICTS, encode_parquet(named))
        export_corrections(connection, run.sub(FOLDER))
        export_drawings(connection, run.sub(FOLDER))
        votes = list_votes(connection) if share else []
        if share:
            share_work(connection, run.sub(FOLDER), database.review_id)
    if votes:
        run.write(f"{VOTES}/{database.review_id}.parquet", encode_parquet(tabulate_votes(votes)))


def fetch_reviews(run: Store, database: Database, policy: Policy, check_drawing: CheckDrawing | None) -> None:
    """Add the votes, corrected masks, rankings and drawings that reviews of the same run on other machines wrote there.

    Args:
        check_drawing: as of `annotator.exchange.shared_work.fetch_work`.

    Raises:
        StoreError: the run cannot be read.
        BadVotes: a file is damaged.
    """
    fetch_votes(run, database, policy)
    fetch_work(run.sub(FOLDER), database, check_drawing)


def fetch_votes(run: Store, database: Database, policy: Policy) -> ImportResult:
    """Add the votes that reviews of the same run on other machines have written into it; each is added once.

    Raises:
        StoreError: the run cannot be read.
        BadVotes: a file of votes is damaged.
    """
    own, total = f"{database.review_id}.parquet", ImportResult(0, 0, 0)
    folder = run.sub(VOTES)
    with tempfile.TemporaryDirectory() as place:
        for name in sorted(name for name in folder.files() if name.endswith(".parquet") and name != own):
            file = Path(place) / "votes.parquet"
            file.write_bytes(folder.read(name))
            result = append_votes(database, policy, read_votes(file))
            total = ImportResult(
                total.added + result.added, total.duplicates + result.duplicates, total.unknown + result.unknown
            )
    return total
