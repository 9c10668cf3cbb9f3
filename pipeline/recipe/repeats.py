"""Flows whose rows would have the same ids, as far as that is known before anything runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rasura.manifests.run_layout import CORRECTIONS
from rasura.pipeline.recipe.specs import FlowPlan, StageSpec

KEEPING = frozenset(
    {"pair", "effects", "segment", "audit", "shadow", "matte", "capture", "ground", "masks", "score", "measure"}
    | {"inspect", "repair", "quality", "fingerprint", "licence", "embed", "classify", "people"}
)
"""Stages whose rows have the ids of their inputs."""
CHOOSING = frozenset({"select", "keep", "choose"})
"""Stages that take some rows by their values: two flows may take others."""
RENAMING = frozenset({"correct"})
"""Stages that change each id in the same way."""


class IdOrigin(NamedTuple):
    """Where the ids of a flow's rows come from.

    Attributes:
        root: the flow that makes them.
        renamed: stages that change them, in order.
        is_chosen: some rows are taken by their values.
    """

    root: str
    renamed: tuple[str, ...]
    is_chosen: bool


def _takes_all(source: StageSpec) -> bool:
    """Return whether a source takes the rows of one flow, and no others, by a rule that two flows share."""
    if source.name == "corrections":
        return source.params.get("file") == CORRECTIONS
    return source.name == "flow" and source.params.get("cap") is None


def find_origin(plans: Mapping[str, FlowPlan], name: str) -> IdOrigin | None:
    """Find where the ids of a flow's rows come from; None where a stage makes ids of its own, or may do so."""
    if name not in plans:
        return None
    source, *stages = plans[name].stages
    if any(stage.name not in KEEPING | CHOOSING | RENAMING for stage in stages):
        return None
    renamed = tuple(stage.name for stage in stages if stage.name in RENAMING)
    is_chosen = any(stage.name in CHOOSING for stage in stages)
    if not _takes_all(source):
        return IdOrigin(name, renamed, is_chosen)
    above = find_origin(plans, plans[name].upstream[0])
    if above is None:
        return IdOrigin(plans[name].upstream[0], renamed, is_chosen)
    return IdOrigin(above.root, above.renamed + renamed, above.is_chosen or is_chosen)


def find_repeat(plans: Mapping[str, FlowPlan], name: str, others: Sequence[str]) -> str | None:
    """Find the first of other flows whose rows have the ids of a flow's rows; None where that is not known of any."""
    origin = find_origin(plans, name)
    for other in others:
        found = find_origin(plans, other)
        if origin and found and origin[:2] == found[:2] and not (origin.is_chosen and found.is_chosen):
            return other
    return None
