"""What a review writes into its run: verdicts and corrections, for stages and reports that open no database.

A run in a bucket also gets the votes, so that a review can go on from another machine: each database has a file of its
own there, and reads those of the others.
"""

import tempfile
from pathlib import Path

import pyarrow as pa
from sqlalchemy import func, select

from rasura.annotator.exchange.corrections_file import export_corrections
from rasura.annotator.exchange.drawings_file import export_drawings
from rasura.annotator.exchange.vote_rows import choose_schema, choose_verdicts_schema
from rasura.annotator.exchange.votes_file import ImportResult, append_votes, compute_verdicts, list_votes, read_votes
from rasura.annotator.store.database import Database, log
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.team.tables import drawings
from rasura.manifests.parquet import encode_parquet
from rasura.manifests.run_layout import PUBLISHED_VERDICTS
from rasura.manifests.storage import Store

FOLDER = PUBLISHED_VERDICTS.partition("/")[0]
VOTES = f"{FOLDER}/votes"


def count_entries(database: Database) -> int:
    """Return the number of entries of the log and of drawings, which changes with each."""
    with database.read() as connection:
        return sum(int(connection.execute(select(func.max(table.c.seq))).scalar() or 0) for table in (log, drawings))


def publish_review(run: Store, database: Database, share_votes: bool = False) -> None:
    """Write verdicts and corrections into the run, and the votes where reviews on other machines are to get them.

    Raises:
        StoreError: the run cannot be written.
    """
    with database.read() as connection:
        verdicts = compute_verdicts(connection)
        run.write(PUBLISHED_VERDICTS, encode_parquet(pa.Table.from_pylist(verdicts, choose_verdicts_schema(verdicts))))
        export_corrections(connection, run.sub(FOLDER))
        export_drawings(connection, run.sub(FOLDER))
        votes = list_votes(connection) if share_votes else []
    if votes:
        data = encode_parquet(pa.Table.from_pylist(votes, choose_schema(votes)))
        run.write(f"{VOTES}/{database.review_id}.parquet", data)


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
