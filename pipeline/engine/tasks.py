"""What a single task of the cluster holds, such as a training: a whole card for each worker, or CPUs and memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rasura.networks.memory import NetworkMemory
from rasura.pipeline.engine.nodes import CannotPlace, Node, NotEnoughResources
from rasura.pipeline.engine.placement import choose_demands
from rasura.pipeline.recipe.describe import format_gigabytes
from rasura.pipeline.recipe.specs import Demand, Group
from rasura.stages.stage import Resources


@dataclass(frozen=True)
class TaskPlacement:
    """Where the workers of a task run.

    Attributes:
        gpus: cards of each worker, 1 or 0.
        cpus: cores of each worker.
        memory: bytes of main memory to reserve for each.
        node: Ray's name of the node, where not all nodes would do; else None.
        line: the placement in words.
    """

    gpus: float
    cpus: float
    memory: int
    node: str | None
    line: str

    @property
    def resources(self) -> Resources:
        """What a worker holds, as stages have it."""
        return Resources(cpus=self.cpus, gpus=self.gpus)

    def make_options(self) -> dict[str, Any]:
        """Return Ray's options of a task or an actor."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory or None}
        if self.node is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=self.node, soft=False)
        return options


def place_task(name: str, memory: NetworkMemory, nodes: Sequence[Node], workers: int = 1) -> TaskPlacement:
    """Decide what each worker of a task holds: a card of its own where there are cards, else a core and its memory.

    Args:
        name: of the task, for the text.
        memory: what a worker's networks need (`networks.memory.estimate_training`).
        nodes: the cluster (`survey.Survey`).
        workers: how many work at once.

    Raises:
        CannotPlace: the cluster has no room for them.

    Examples:
        >>> node = Node("a", cpus=16, gpus=8, card_bytes=80 * 10**9)
        >>> place_task("training", NetworkMemory(15_200_000_000, 40 * 10**9), [node], workers=2).line
        'training: 2 workers, 1 of 8 GPUs each, 15.2 GB'
        >>> place_task("training", NetworkMemory(15_200_000_000, 40 * 10**9), [Node("a", cpus=16, memory=64e9)]).line
        'training: 1 worker, 1 CPU, 40.0 GB of memory'
    """
    demand = Demand(memory=memory, key=name)
    try:
        (group,) = choose_demands([Group(demand, ())], nodes, workers)
    except NotEnoughResources as error:
        raise CannotPlace(f"{name}: {error}") from None
    count, each = f"{workers} worker{'s' if workers > 1 else ''}", " each" if workers > 1 else ""
    is_on_card = group.demand.memory is not None and group.demand.memory.device != "cpu"
    fitting = [node for node in nodes if (node.can_run(demand) if is_on_card else node.memory >= memory.cpu_bytes)]
    if is_on_card:
        room, total = sum(math.floor(node.gpus) for node in fitting), sum(math.floor(node.gpus) for node in nodes)
        gpus = f"1 of {total} GPUs" if total > 1 else "the GPU"
        line = f"{name}: {count}, {gpus}{each}, {format_gigabytes(memory.gpu_bytes)}"
    else:
        room = sum(_count_room(node, memory.cpu_bytes) for node in fitting)
        line = f"{name}: {count}, 1 CPU{each}, {format_gigabytes(memory.cpu_bytes)} of memory"
    if room < workers:
        raise CannotPlace(f"{name}: {workers} workers are asked for, and the cluster has room for {room}: {line}")
    unfit = len(fitting) < sum(node.gpus >= 1 if is_on_card else True for node in nodes)
    node = fitting[0].id if unfit and workers == 1 else None
    reserved = 0 if is_on_card or not math.isfinite(fitting[0].memory) else memory.cpu_bytes
    return TaskPlacement(float(is_on_card), 1.0, reserved, node, line)


def _count_room(node: Node, cpu_bytes: int) -> int:
    cores = math.floor(node.cpus)
    return cores if not math.isfinite(node.memory) else min(cores, math.floor(node.memory / cpu_bytes))
