"""The Python API for trainings: `rasura.torch_dataset`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rasura._checks import check_type, explain_missing_packages, read_place
from rasura._runs import NoColumn, Run
from rasura.manifests.errors import InputError
from rasura.manifests.formats.filters import rows as filters
from rasura.manifests.formats.filters.crops import PLACES, parse_size
from rasura.manifests.formats.filters.expressions import parse_condition
from rasura.manifests.run_layout import DATASET_MANIFEST, LOOP, PLAN, read_plan
from rasura.manifests.schemas import Schema
from rasura.manifests.spelling import format_count, suggest
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.export import choose_flows
from rasura.pipeline.run.review import read_review_verdicts
from rasura.stages.sources.listing import describe_counts

if TYPE_CHECKING:
    from rasura._triplets import Rows, Sample, TripletDataset


def torch_dataset(
    run_or_dataset: "str | Path | Run",
    size: int | str | tuple[int, int] | None = None,
    *,
    split: str | None = "train",
    flows: str | Sequence[str] = (),
    columns: str | Sequence[str] = (),
    crop: str = "object",
    where: str = "",
    verdict: str | None = None,
    min_score: float | None = None,
    language: str = "en",
    transform: "Callable[[Sample], Sample] | None" = None,
) -> "TripletDataset":
    """Open the triplets of a run, a loop or a dataset for a training with torch.

    The result is a map-style dataset; its `loader` gives shuffled batches in an order that can be resumed, its `stream`
    is an iterable dataset.

    Args:
        run_or_dataset: a run, a loop's folder, or a dataset that a run or `rasura export` wrote.
        size: of the pictures, px: one number for squares, or width and height. Smaller pictures are enlarged. None
            leaves each as it is: then only batches of one size can be collated.
        split: whose rows; all where None.
        flows: of the run, in place of the dataset's; of a loop `triplets` or `votes`.
        columns: that a sample has beside its own: measurements, or masks such as `foreground_mask`.
        crop: object (as much as possible, with the object in its middle), center, or none: whole pictures that fit in
            the size.
        where: a condition on columns, as of `rasura export --where`.
        verdict: only rows with this verdict, the column's or that of the run's reviewers.
        min_score: only rows with at least this score.
        language: of `prompt`.
        transform: applied to each sample.

    Raises:
        InputError: an argument is wrong, no row is left, or a column is null in some row.
        StorageError: there is no such run or dataset.
        MissingPackage: torch is not installed.
    """
    place = run_or_dataset.uri if isinstance(run_or_dataset, Run) else read_place(run_or_dataset, "torch_dataset(…)")
    check_type(crop, str, "torch_dataset(crop)", f"one of {', '.join(PLACES)}")
    if crop not in PLACES:
        raise InputError(f"torch_dataset(crop) is '{crop}'; give one of {', '.join(PLACES)}")
    cut = None if size is None else parse_size("x".join(map(str, size)) if isinstance(size, tuple) else str(size), crop)
    with explain_missing_packages():
        from rasura._triplets import TripletDataset
    rows = _open_rows(Store(place), [flows] if isinstance(flows, str) else list(flows), verdict is not None)
    columns = [columns] if isinstance(columns, str) else list(columns)
    for name in columns:
        if name not in rows.schema:
            raise NoColumn(f"'{place}' has no column '{name}'; {suggest(str(name), rows.schema)}")
    checks = _list_checks(rows.schema, split, where, verdict, min_score)
    dataset = TripletDataset(rows, checks, cut, columns, language, transform)
    if not len(dataset):
        conditions = {"split": split, "where": where or None, "verdict": verdict, "min_score": min_score}
        raise InputError(f"'{place}': {_explain_nothing(rows, checks, conditions)}")
    return dataset


def _explain_nothing(rows: "Rows", checks: Sequence[filters.Check], conditions: Mapping[str, object]) -> str:
    """Explain why no row is left: what was asked for, why rows are left out, and which splits there are."""
    asked = ", ".join(f"{name}={value!r}" for name, value in conditions.items() if value is not None)
    columns = list(dict.fromkeys(["split", *(name for check in checks for name in check.columns)]))
    splits, reasons = Counter[str](), Counter[str]()
    for row in rows.read_many(columns):
        splits[row.get("split") or "without one"] += 1
        reasons[filters.explain_first(checks, row) or ""] += 1
    if not splits:
        return "it has no rows"
    return (
        f"none of {format_count(len(rows), 'row')} fits {asked} ({describe_counts(reasons)}); "
        f"its splits: {describe_counts(splits)}"
    )


def _open_rows(store: Store, flows: Sequence[str], is_judged: bool) -> "Rows":
    """Open the rows of a run, a loop or a dataset.

    Args:
        store: the folder.
        flows: of a run, in place of its own choice.
        is_judged: only rows with a verdict are asked for.

    Raises:
        NoRun: it is none of them.
    """
    from rasura._triplets import FileRows, TableRows

    if store.exists(DATASET_MANIFEST) and not store.exists(PLAN):
        return FileRows(store.location)
    if store.exists(LOOP):
        return TableRows(partial(_open_loop, store.location, *flows))
    plan, verdicts = read_plan(store), read_review_verdicts(store)
    names = choose_flows(store, plan, flows, verdicts if is_judged else {})
    return TableRows(partial(_open_tables, store.location), names, verdicts)


def _open_tables(location: str) -> Tables:
    return Tables(Store(location))


def _open_loop(location: str, flow: str = "triplets") -> Tables:
    from rasura.pipeline.loop.export import open_flow
    from rasura.pipeline.loop.state import Loop

    return open_flow(Loop.open(Store(location)), flow)


def _list_checks(
    schema: Schema, split: str | None, where: str, verdict: str | None, min_score: float | None
) -> list[filters.Check]:
    checks = []
    if split is not None:
        checks.append(filters.Check(["split"], lambda row: None if row.get("split") == split else "another split"))
    if verdict is not None:
        checks.append(filters.check_verdict(verdict))
    if min_score is not None:
        checks.append(filters.check_score(min_score))
    if where:
        checks.append(filters.check_condition(parse_condition(where, schema)))
    return checks
