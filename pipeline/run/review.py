"""A run's review in the run's own account: what people have judged, are judging, and still have to judge."""

from typing import TYPE_CHECKING

from rasura.manifests.storage import Store

if TYPE_CHECKING:
    from rasura.annotator.stats.accounting import ReviewAccount

DATABASE = "review/review.sqlite"


def review_of(run: Store) -> "tuple[ReviewAccount, list[str]] | None":
    """The account of a run's review and what in it does not add up; None where the run has none on this machine.

    A review that is kept elsewhere (`--database`) is told of by `rasura review check`.
    """
    if run.local is None or not (run.local / DATABASE).is_file():
        return None
    from rasura.annotator.stats.accounting import account, faults
    from rasura.annotator.store.database import Database

    database = Database(str(run.local / DATABASE), create=False)
    try:
        with database.read() as connection:
            return account(connection), faults(connection)
    finally:
        database.close()
