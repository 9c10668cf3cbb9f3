"""The paths inside a run, and the description of its flows in `plan.json`.

A run is a folder or a bucket prefix (`manifests.storage.Store`). Everything that reads or writes one takes the names of
its files from here:

    recipe.yaml                     the recipe with every default filled in
    plan.json                       the flows, as `RunPlan`
    run_id                          a random id of this folder, by which workers know that they see the same one
    .lock, lock.json                by which one driver owns the run: a lock, or a lease where there are no locks
    tables/<flow>/manifest.parquet  the table: the commit records of its shards, in order
    tables/<flow>/work.json         while the flow is being made: the shards of its present inputs
    tables/<flow>/lines/<shard>.json       commit record of a shard
    tables/<flow>/compacted/<hash>.parquet  while the flow is being made: many commit records in one file
    tables/<flow>/shards/<shard>.parquet   kept rows
    tables/<flow>/dropped/<shard>.parquet  rejected and failed inputs
    dataset/                        the dataset that the run exports, with a manifest.json of its own
    export.json                     what the dataset was exported from
    listings/<flow>.json            content ids of input files
    listings/<flow>/index.json      the flow's inputs, cut into shards, and what they were listed from
    listings/<flow>/<hash>.parquet  the inputs themselves, a row a shard
    listings/<flow>.scenes.parquet  scenes of its clean pictures, by their fingerprints
    passed_over/<flow>.json         counts of the files that lie beside them and are no inputs, by the reason
    log/<attempt>-<part>.jsonl      times, hosts, dead workers
    review/review.sqlite            the review database
    review/verdicts.parquet         people's verdicts, which the review's server writes
    review/corrections.parquet      masks that people corrected, likewise
    report.html                     the report
    report_files/                   its pictures, where they are many
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.errors import RunError, StorageError
from rasura.manifests.storage import Store, StoreError

# in the run
RECIPE = "recipe.yaml"
PLAN = "plan.json"
RUN_ID = "run_id"
TABLES = "tables"
DATASET = "dataset"
EXPORT = "export.json"
LISTINGS = "listings"
PASSED_OVER = "passed_over"
LOG = "log"
REVIEW_DATABASE = "review/review.sqlite"
PUBLISHED_VERDICTS = "review/verdicts.parquet"
CORRECTIONS = "review/corrections.parquet"
REPORT = "report.html"
REPORT_FILES = "report_files"

# in the folder of a loop, which is no run but has one for each round
LOOP = "loop.json"

# in the folder of a table
MANIFEST = "manifest.parquet"
WORK = "work.json"
COMMITS = "lines"
COMPACTED = "compacted"
SHARDS = "shards"
REJECTED = "dropped"

# in the folder of a dataset
DATASET_MANIFEST = "manifest.json"
DATASET_CARD = "README.md"


class RunPlace(NamedTuple):
    """Where a run is: the path or URI of its folder, and the random id that is in it."""

    uri: str
    id: str


def table_path(flow: str) -> str:
    """Folder of a flow's table, from the run.

    Examples:
        >>> table_path("photos")
        'tables/photos'
    """
    return f"{TABLES}/{flow}"


def manifest_path(flow: str) -> str:
    """Manifest of a flow's table, from the run. It exists when the table is complete."""
    return f"{table_path(flow)}/{MANIFEST}"


def shard_path(shard: str) -> str:
    """Kept rows of a shard, from the folder of its table.

    Examples:
        >>> f"{table_path('photos')}/{shard_path('3f')}"
        'tables/photos/shards/3f.parquet'
    """
    return f"{SHARDS}/{shard}.parquet"


def rejected_path(shard: str) -> str:
    """Rejected and failed inputs of a shard, from the folder of its table."""
    return f"{REJECTED}/{shard}.parquet"


def commit_path(shard: str) -> str:
    """Commit record of a shard, from the folder of its table."""
    return f"{COMMITS}/{shard}.json"


def passed_over_path(flow: str) -> str:
    """Counts of the files that a flow's source passed over, from the run."""
    return f"{PASSED_OVER}/{flow}.json"


def scenes_path(flow: str) -> str:
    """Scenes of the clean pictures of a flow's inputs, by their fingerprints, from the run."""
    return f"{LISTINGS}/{flow}.scenes.parquet"


class NoRun(StorageError):
    """A folder or prefix that no run has been written into."""


class FolderInUse(RunError):
    """A folder or prefix that has a loop, or the run of another recipe."""


@dataclass(frozen=True)
class FlowDescription:
    """One flow of a run.

    Attributes:
        part: hash of the part of the recipe that makes the flow.
        upstream: the flows that it reads.
        stages: names of its source and its stages, in order.
        columns: column name -> kind (`manifests.schemas.Kind`).
    """

    part: str = ""
    upstream: Sequence[str] = ()
    stages: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the flow as it is written into `plan.json`."""
        return {
            "part": self.part,
            "upstream": list(self.upstream),
            "stages": list(self.stages),
            "columns": {name: str(kind) for name, kind in self.columns.items()},
        }


@dataclass(frozen=True)
class RunPlan:
    """The contents of `plan.json`.

    Attributes:
        name: of the recipe.
        recipe: hash of the recipe; empty where a round of a loop made the run.
        flows: in the order in which they are made; `<flow>.<stage>` is a flow up to a stage.
        dataset: the flows whose rows are exported into `dataset/`; None where there is no dataset.
    """

    name: str
    recipe: str
    flows: Mapping[str, FlowDescription]
    dataset: Sequence[str] | None = None

    @property
    def main_flows(self) -> list[str]:
        """Flows without those up to a stage whose complete flow is there, too."""
        return [name for name in self.flows if "." not in name or name.partition(".")[0] not in self.flows]

    def to_json(self) -> bytes:
        """Return the bytes of `plan.json`."""
        plan = {
            "name": self.name,
            "recipe": self.recipe,
            "flows": {name: flow.to_json() for name, flow in self.flows.items()},
            "dataset": None if self.dataset is None else list(self.dataset),
        }
        return (json.dumps(seal(plan), indent=1) + "\n").encode()

    @staticmethod
    def from_json(data: bytes | str) -> "RunPlan":
        """Parse the inverse of `to_json`. Flows that were added one by one (`rasura run --only`) are sorted, too.

        Raises:
            ValueError: the text is not JSON, lacks one of the keys, or is not what was written.
        """
        try:
            plan = parse_sealed(data)
            flows = {
                name: FlowDescription(flow["part"], flow["upstream"], flow["stages"], flow["columns"])
                for name, flow in plan["flows"].items()
            }
            return RunPlan(plan["name"], plan["recipe"], _sort_flows(flows), plan["dataset"])
        except KeyError as error:
            raise ValueError(f"it is no description of a run: it has no '{error.args[0]}'") from error
        except (TypeError, AttributeError) as error:
            raise ValueError("it is no description of a run") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"it is no JSON: {error}") from error


def _sort_flows(flows: Mapping[str, FlowDescription]) -> dict[str, FlowDescription]:
    """Sort flows so that each comes after those that it reads, and after its own partial ones."""
    result: dict[str, FlowDescription] = {}
    visited: set[str] = set()

    def add(name: str) -> None:
        if name in visited or name not in flows:
            return
        visited.add(name)
        for earlier in [*flows[name].upstream, *(other for other in flows if other.startswith(f"{name}."))]:
            add(earlier)
        result[name] = flows[name]

    for name in flows:
        add(name)
    return result


def read_plan(run: Store) -> RunPlan:
    """Read a run's `plan.json`.

    Raises:
        NoRun: there is none, or it is damaged.
        StoreError: the store cannot be read.
    """
    try:
        return RunPlan.from_json(run.read(PLAN))
    except (FileNotFoundError, NotADirectoryError):
        if run.exists(LOOP):
            message = f"is a loop and no run: use `rasura loop status {run.uri}` or `rasura report {run.uri}`, or give"
            raise NoRun(f"'{run.uri}' {message} the folder of one of its rounds, {run.uri}/rounds/01") from None
        raise NoRun(f"'{run.uri}' is no run: it has no {PLAN}; give the folder that `rasura run` wrote into") from None
    except ValueError as error:
        raise NoRun(f"'{run.uri}/{PLAN}' is damaged ({error}); run the recipe again, which writes it anew") from None


def check_folder(run: Store, name: str) -> None:
    """Check that a recipe can be run in a folder: that it has no loop, and no run of a recipe with another name.

    Raises:
        FolderInUse: it has.
        StoreError: the store cannot be read.
    """
    remedy = "choose another folder with --into"
    if run.exists(LOOP):
        raise FolderInUse(f"'{run.uri}' has a loop in it, where no run can be: {remedy}")
    try:
        before = read_plan(run).name
    except NoRun:  # or a damaged one, which is written anew
        return
    if before != name:
        raise FolderInUse(f"'{run.uri}' has the run of recipe '{before}', and this is recipe '{name}': {remedy}")


def read_place(run: Store) -> RunPlace:
    """Return where a run is; its folder gets an id where it has none."""
    if not run.exists(RUN_ID):
        run.create(RUN_ID, secrets.token_hex(16).encode())
    return RunPlace(run.location, run.read(RUN_ID).decode(errors="replace"))


def check_place(run: Store, place: RunPlace) -> None:
    """Check that this process sees the folder of a run that the driver sees.

    Raises:
        StoreError: it does not: the folder is gone, was replaced, or is on another node's disk.
    """
    try:
        if run.read(RUN_ID, is_small=True).decode(errors="replace") == place.id:
            return
        state = "is another folder here"
    except (FileNotFoundError, NotADirectoryError):
        state = "is not here"
    raise StoreError(
        f"the folder of the run, {place.uri}, {state}: it was deleted, replaced or unmounted, or is not shared with "
        "this node"
    )


def write_plan(run: Store, plan: RunPlan) -> None:
    """Write a run's `plan.json`.

    Raises:
        StoreError: the target cannot be written.
    """
    run.write(PLAN, plan.to_json())
