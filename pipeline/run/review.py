"""A run's review in the run's accounting: rows that people have judged, are judging, and still have to; verdicts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rasura.manifests.errors import ReviewError
from rasura.manifests.run_layout import CORRECTIONS, PUBLISHED_VERDICTS, REVIEW_DATABASE
from rasura.manifests.storage import Store
from rasura.stages.correction.source import BadCorrections, read_corrections

if TYPE_CHECKING:
    from rasura.annotator.exchange.summary import ReviewSummary
    from rasura.annotator.exchange.verdicts import RowVerdict
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


def read_review_verdicts(run: Store, database: str | None = None) -> dict[tuple[str, str], str]:
    """Read what the reviewers of a run said of its rows: flow and id of a row -> verdict; a tie is unsure.

    Args:
        run: the run.
        database: URL or file of the review; where None, the one in the run, or what its server has published there.

    Raises:
        ReviewError: it cannot be read.
    """
    return {(row.flow, id): row.verdict or "unsure" for id, row in read_row_verdicts(run, database).items()}


def read_row_verdicts(run: Store, database: str | None = None) -> "dict[str, RowVerdict]":
    """Read people's verdicts on the rows of a run by row id; none where it has no review.

    Args:
        run: the run.
        database: as of `read_review_verdicts`.

    Raises:
        ReviewError: it cannot be read.
    """
    if database is None:
        place = run.find(REVIEW_DATABASE)
        if not (place is not None and place.is_file()) and not run.exists(PUBLISHED_VERDICTS):
            return {}
    try:
        from rasura.annotator.exchange.verdicts import read_verdicts
    except ImportError as error:
        raise ReviewError(f"the run's review cannot be read without {error.name}: install rasura[review]") from None
    return read_verdicts(run, database)


def summarize_review(run: Store, verdicts: "Mapping[str, RowVerdict]") -> "ReviewSummary | None":
    """Summarize people's verdicts on the rows of a run, and the corrected masks; None where there are none.

    Args:
        run: the run.
        verdicts: on its rows (`read_row_verdicts`).

    Raises:
        ReviewError: what its server has published of the masks cannot be read.
    """
    try:
        corrected = {row["row_id"] for row in read_corrections(run)} if run.exists(CORRECTIONS) else set[str]()
    except BadCorrections as error:
        raise ReviewError(str(error)) from None
    if not verdicts and not corrected:
        return None
    from rasura.annotator.exchange.summary import summarize_verdicts

    return summarize_verdicts(verdicts, len(corrected))
