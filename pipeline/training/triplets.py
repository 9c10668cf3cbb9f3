"""Triplets whose target is true, for what needs no votes: the battery of a judge, and anchors of a training."""

from collections.abc import Sequence

from rasura.discriminator.judges.battery import TrueTriplet
from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_seed
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

TRUE_KINDS = ("captured", "simulated")


def read_true_triplets(run: Store, flows: Sequence[str], limit: int, seed: int = 0) -> list[TrueTriplet]:
    """Read triplets with a true target, one of each scene; which ones depends on their ids and the seed alone.

    Args:
        flows: of the run; all where none is named.

    Raises:
        InputError: there is none.
        NothingToReview: there is no such flow, or no run.
    """
    from rasura.annotator.store.rows import list_rows

    rows = sorted(
        (row for row in list_rows(run, flows) if row.kind in TRUE_KINDS),
        key=lambda row: compute_seed(seed, "true triplets", row.id),
    )
    first = {row.scene: row for row in reversed(rows)}
    chosen = [row for row in rows if first[row.scene] is row][:limit]
    if not chosen:
        raise InputError(f"{run.uri} has no triplet with a true target (kind {' or '.join(TRUE_KINDS)})")
    tables, triplets = Tables(run), []
    for row in chosen:
        pictures = tables.row(*row.place, ("source", "target", "mask"))
        triplets.append(TrueTriplet(pictures["source"], pictures["target"], pictures["mask"], row.id))
    return triplets
