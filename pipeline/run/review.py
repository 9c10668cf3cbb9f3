"""A run's review in the run's accounting: candidates that people have judged, are judging, and still have to judge."""

from typing import TYPE_CHECKING

from rasura.manifests.run_layout import REVIEW_DATABASE
from rasura.manifests.storage import Store

if TYPE_CHECKING:
    from rasura.annotator.stats.accounting import ReviewAccounting


def read_review_accounting(run: Store) -> "tuple[ReviewAccounting, list[str]] | None":
    """Read the accounting of a run's review, and its faults; None where the run has none that was opened here.

    A review that is kept elsewhere (`--database`) is checked by `rasura review check`.

    Raises:
        ReviewError: its database cannot be read.
    """
    if (place := run.find(REVIEW_DATABASE)) is None or not place.is_file():
        return None
    from rasura.annotator.stats.accounting import find_faults, read_accounting
    from rasura.annotator.store.database import read_file
    from rasura.annotator.store.items import NeverOpened, check_opened

    try:
        with read_file(place) as connection:
            check_opened(connection, run.uri)
            return read_accounting(connection), find_faults(connection)
    except NeverOpened:
        return None
