"""The machines of a cluster and the workers on them, as the engine counts and describes them. Without Ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rasura.manifests.errors import RunError
from rasura.pipeline.recipe.describe import describe_resources, format_gigabytes
from rasura.pipeline.recipe.specs import Demand, Group
from rasura.stages.stage import Resources

GPU = "GPU"


class NotEnoughResources(RunError):
    """A stage asks for more than there is.

    Args:
        demand: what a worker of the stage asks for.
        text: what is missing.
    """

    def __init__(self, demand: Demand, text: str) -> None:
        super().__init__(text)
        self.demand = demand


class CannotPlace(RunError):
    """A stage of a flow asks for more than there is; nothing was started."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster.

    Attributes:
        id: Ray's name of it.
        cpus, gpus, custom: what Ray may give to workers.
        memory: bytes of main memory for workers; infinite where unknown.
        card_bytes: memory of each of its GPUs that may be used; None where unknown.
        libraries: libraries that can use its GPUs; None where unknown.
        card: name of its GPUs.
    """

    id: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)
    memory: float = math.inf
    card_bytes: int | None = None
    libraries: frozenset[str] | None = None
    card: str = ""

    def can_run(self, demand: Demand) -> bool:
        """Return True where its GPUs can run a demand's networks, in memory and libraries."""
        memory = demand.memory
        if memory is None or memory.device == "cpu" or self.gpus < 1:
            return False
        fits = self.card_bytes is None or memory.gpu_bytes <= self.card_bytes
        return fits and (self.libraries is None or memory.libraries <= self.libraries)


PACKAGES = {"torch": "this torch, built for CPUs,", "onnx": "ONNX Runtime without `onnxruntime-gpu`"}
"""Why a library cannot use GPUs."""


@dataclass(frozen=True)
class Slot:
    """Workers of a pool that hold the same.

    Attributes:
        count: how many.
        cpus, gpus, memory, custom: what each holds; memory in bytes, 0 where it is not reserved; custom by name.
        node: where they run; None where Ray may choose.
    """

    count: int
    cpus: float
    gpus: float = 0.0
    memory: int = 0
    node: str | None = None
    custom: tuple[tuple[str, float], ...] = ()


def list_scarce(resources: Resources) -> dict[str, float]:
    """List what a worker asks for beside CPUs, in Ray's names."""
    return {name: amount for name, amount in {GPU: resources.gpus, **resources.custom}.items() if amount > 0}


def describe_lack(resources: Resources, nodes: Sequence[Node]) -> str:
    """Describe what a worker asks for beside what the cluster has."""
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in {"CPU": node.cpus, GPU: node.gpus, **node.custom}.items():
            total[name] = total.get(name, 0) + amount
    there = ", ".join(f"{amount:g} {name}" for name, amount in total.items() if amount) or "nothing"
    machines = f" on {len(nodes)} machines" if len(nodes) > 1 else ""
    return f"a stage asks for {describe_resources(resources)}; the cluster has {there}{machines}"


def describe_pool(name: str, demand: Demand, slots: Sequence[Slot], nodes: Sequence[Node]) -> str:
    """Describe the workers of a pool in a line.

    Examples:
        >>> from rasura.networks.memory import NetworkMemory
        >>> demand, node = Demand(memory=NetworkMemory(9_800_000_000, 0)), Node("a", cpus=64, gpus=8)
        >>> describe_pool("inpaint", demand, [Slot(8, 1.0, 1.0, node="a")], [node])
        'inpaint: 8 workers, 1 of 8 GPUs each, 9.8 GB'
        >>> describe_pool("inpaint", demand, [Slot(8, 1.0, 0.5, node="a")], [node])
        'inpaint: 8 workers, 0.5 of one of 8 GPUs each, 9.8 GB'
    """
    count, total = sum(slot.count for slot in slots), sum(math.floor(node.gpus) for node in nodes)
    parts = [f"{count} worker{'s' if count > 1 else ''}"]
    shares = sorted({slot.gpus for slot in slots}, reverse=True)
    each = " each" if count > 1 else ""
    if shares[0] > 0:
        parts.append(" or ".join(_describe_share(share, total) for share in shares) + each)
    elif demand.resources.custom:
        parts.append(describe_resources(demand.resources) + each)
    else:
        parts.append(f"{slots[0].cpus:g} CPU{'' if slots[0].cpus == 1 else 's'}{each}")
    if demand.memory is not None:
        need = demand.memory.gpu_bytes if shares[0] > 0 else demand.memory.cpu_bytes
        parts.append(format_gigabytes(need) + ("" if shares[0] > 0 else " of memory"))
    return f"{name}: {', '.join(parts)}"


def _describe_share(share: float, total: int) -> str:
    if total == 1:
        return "the GPU" if share == 1 else f"{share:g} of the GPU"
    return f"{share:g} of {total} GPUs" if share >= 1 else f"{share:g} of one of {total} GPUs"


def describe_cpu_networks(declared: Sequence[Group], placed: Sequence[Group], nodes: Sequence[Node]) -> list[str]:
    """Describe, a line each, the networks that run on CPUs though there are GPUs: no library can use these.

    Args:
        declared: the groups of a flow, as the recipe has them.
        placed: the same on this cluster.
        nodes: the cluster.
    """
    lines = []
    on_cards = {group.demand.key for group in placed if group.demand.memory and group.demand.memory.device != "cpu"}
    for group in declared:
        memory = group.demand.memory
        has_cards = any(node.gpus >= 1 for node in nodes)
        if memory and memory.device == "auto" and has_cards and group.demand.key not in on_cards:
            packages = [PACKAGES.get(name, name) for name in sorted(memory.libraries)]
            lines.append(f"warning: {group.name} runs on CPUs: {' or '.join(packages)} cannot use the cluster's GPUs")
    return lines
