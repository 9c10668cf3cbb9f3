"""What a report reads of each flow of a run before it shows anything."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import RunPlan, table_path
from rasura.manifests.schemas import Kind
from rasura.manifests.shards import CommitRecord
from rasura.manifests.storage import Store
from rasura.pipeline.report import thumbnails
from rasura.pipeline.report.limits import Limit, read_limits
from rasura.pipeline.report.survey import Survey, survey_table
from rasura.pipeline.report.thumbnails import UNREADABLE, Roles
from rasura.pipeline.run.accounting import FlowAccounting, RunAccounting, list_commits


@dataclass
class ReportFlow:
    """Everything that the page shows of one flow.

    columns: of the table itself. full_columns: with those of the table that it refers to.
    limits: of its `select` stages, by column.
    """

    name: str
    anchor: str
    accounting: FlowAccounting
    commits: Sequence[CommitRecord]
    columns: dict[str, Kind]
    full_columns: dict[str, Kind]
    upstream: Sequence[str]
    survey: Survey
    roles: Roles
    limits: Mapping[str, Limit]

    @property
    def has_triplets(self) -> bool:
        """True where its rows are triplets."""
        return {"source", "target", "mask"} <= set(self.full_columns)

    @property
    def adds_up(self) -> bool:
        """True where each stage of each shard accounts for its inputs, and the next has what the one before gave."""
        for record in self.commits:
            inputs = record.inputs
            for count in record.stages:
                if count.inputs != inputs or not count.balances():
                    return False
                inputs = count.out
            if inputs != (record.data.rows if record.data else 0):
                return False
        return True


def read_flows(run: Store, plan: RunPlan, accounting: RunAccounting) -> list[ReportFlow]:
    """Read the flows of a run, each after those that it reads."""
    accountings = {flow.flow: flow for flow in accounting.flows}
    limits = read_limits(run)
    flows: dict[str, ReportFlow] = {}
    for index, name in enumerate(plan.main_flows):
        description = plan.flows[name]
        commits, _ = list_commits(run, name, description.part)
        columns = {column: Kind(kind) for column, kind in description.columns.items()}
        full_columns = dict(columns)
        if "ref_table" in columns:  # the pictures of a selection are in the flow that it chose from
            full_columns = next((flows[up].full_columns for up in description.upstream if up in flows), {}) | columns
        flows[name] = ReportFlow(
            name=name,
            anchor=f"flow-{index}",
            accounting=accountings[name],
            commits=commits,
            columns=columns,
            full_columns=full_columns,
            upstream=description.upstream,
            survey=survey_table(run, name, commits),
            roles=thumbnails.assign_roles(full_columns),
            limits={column: limit for column, limit in limits.get(name, {}).items() if column in columns},
        )
    return list(flows.values())


def choose_dataset_flows(plan: RunPlan, flows: Sequence[ReportFlow]) -> list[ReportFlow]:
    """Return the dataset's flows; where there is no dataset, the triplets that no other triplets were made from."""
    if plan.dataset is not None:
        return [flow for flow in flows if flow.name in plan.dataset]
    triplets = [flow for flow in flows if flow.has_triplets]
    used = {upstream for flow in triplets for upstream in flow.upstream}
    return [flow for flow in triplets if flow.name not in used]


def iterate_rejections(run: Store, flow: ReportFlow) -> Iterator[Mapping[str, Any]]:
    """Yield the rejected and failed inputs of a flow; those of a file that cannot be read are left out."""
    for record in flow.commits:
        if record.rejected is None:
            continue
        try:
            with run.open(f"{table_path(flow.name)}/{record.rejected.name}") as source:
                rows = read_parquet(source).to_pylist()
        except UNREADABLE:
            continue  # the counts are in the manifest; only the row is missing
        yield from rows


def iterate_light(
    run: Store, flow: str, commits: Sequence[CommitRecord], columns: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Yield each shard's id and some columns of its rows, where it has them.

    A shard that cannot be read is left out: the survey has its fault.
    """
    for record in commits:
        if record.data is None:
            continue
        try:
            with (
                run.open(f"{table_path(flow)}/{record.data.name}") as source,
                pq.ParquetFile(source, pre_buffer=False) as file,
            ):
                names = [name for name in columns if name in file.schema_arrow.names]
                table = file.read(columns=names, use_threads=False)
        except UNREADABLE:
            continue
        yield record.shard, table
