"""Where workers run: how many of each pool, on which nodes, with which share of a GPU. Arithmetic alone, without Ray.

A recipe's own `resources` are obeyed. The workers of networks are placed by the memory that the networks need: one
worker of each pool on every card, as many pools on a card as its memory holds; where that is not all of them, the
cards are divided between the pools. Shares of a node's cards are equal or whole, so that whatever Ray puts on a card
fits into it. Without usable cards a network runs on CPUs, in as many workers as the memory holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rasura.pipeline.engine.nodes import (
    GPU,
    CannotPlace,
    Node,
    NotEnoughResources,
    Slot,
    describe_cpu_networks,
    describe_lack,
    describe_pool,
    list_scarce,
)
from rasura.pipeline.recipe.describe import format_gigabytes
from rasura.pipeline.recipe.specs import Demand, FlowPlan, Group, merge_groups
from rasura.stages.stage import Resources

STEPS = 10_000
"""Steps of a GPU in Ray's accounting."""


@dataclass
class _Free:
    """What is left of a node: its cards as free shares, its cores and its custom resources."""

    node: Node
    cards: list[float]
    cpus: float
    custom: dict[str, float]

    def has(self, resources: Resources) -> bool:
        has_cards = resources.gpus == 0 or self._find_cards(resources.gpus) is not None
        has_custom = all(self.custom.get(name, 0) >= amount - 1e-9 for name, amount in resources.custom.items())
        return has_cards and has_custom and self.cpus >= resources.cpus - 1e-9

    def _find_cards(self, gpus: float) -> list[int] | None:
        """Find the cards that Ray gives: whole ones, or the fullest that still has the share."""
        if gpus >= 1:
            whole = [index for index, free in enumerate(self.cards) if free == 1.0][: math.ceil(gpus)]
            return whole if len(whole) == math.ceil(gpus) else None
        fitting = [index for index, free in enumerate(self.cards) if free >= gpus - 1e-9]
        return [min(fitting, key=lambda index: self.cards[index])] if fitting else None

    def take(self, resources: Resources) -> None:
        for index in self._find_cards(resources.gpus) or [] if resources.gpus else []:
            self.cards[index] = round(max(0.0, self.cards[index] - min(1.0, resources.gpus)), 6)
        for name, amount in resources.custom.items():
            self.custom[name] -= amount
        self.cpus -= resources.cpus


def share_cards(needs: Sequence[int], card_bytes: int | None, is_single: bool) -> list[list[tuple[int, float]]]:
    """Decide which pools may share a card of a node, and how.

    Args:
        needs: bytes that a worker of each pool needs.
        card_bytes: memory of each card; None where unknown: then all pools share every card equally.
        is_single: the node has one card, so that shares may be of any size.

    Returns:
        The kinds of cards that the node's are to be divided between: for each the positions of its pools, with the
        share that a worker holds. Pools that no card of the node can hold are in none.

    Examples:
        All on every card, equally; the large one alone and the others together; the shares that fit one card.

        >>> share_cards([10, 5], 24, is_single=False)
        [[(0, 0.5), (1, 0.5)]]
        >>> share_cards([14, 5, 4], 24, is_single=False)
        [[(0, 1.0)], [(1, 0.5), (2, 0.5)]]
        >>> share_cards([14, 5, 4], 24, is_single=True)
        [[(0, 0.6086), (1, 0.2173), (2, 0.1739)]]
        >>> share_cards([30], 24, is_single=True)
        []
    """
    order = sorted(range(len(needs)), key=lambda pool: -needs[pool])
    if card_bytes is not None:
        order = [pool for pool in order if needs[pool] <= card_bytes]
        total = sum(needs[pool] for pool in order)
        if is_single and total <= card_bytes and order and needs[order[0]] * len(order) > card_bytes:
            return [[(pool, math.floor(STEPS * needs[pool] / total) / STEPS) for pool in order]]
    alone = 0
    while card_bytes is not None and alone < len(order) and needs[order[alone]] * (len(order) - alone) > card_bytes:
        alone += 1
    together = order[alone:]
    share = math.floor(STEPS / len(together)) / STEPS if together else 0.0
    return [[(pool, 1.0)] for pool in order[:alone]] + ([[(pool, share) for pool in together]] if together else [])


def choose_demands(groups: Sequence[Group], nodes: Sequence[Node], workers: int | None) -> tuple[Group, ...]:
    """Decide which groups with networks run on GPUs and which on CPUs; those beside others on CPUs join them.

    On CPUs all networks of a flow are in each worker where the memory holds that for every core; else each has a pool
    of its own, with as many workers as the memory holds.

    Args:
        groups: of a flow.
        nodes: the cluster.
        workers: most CPU workers; None for as many as fit.

    Raises:
        NotEnoughResources: a network needs a GPU, or more memory than there is.
    """
    on_cpu = [group for group in groups if group.demand.memory is not None and not _is_on_gpu(group, nodes)]
    total = sum(group.demand.memory.cpu_bytes for group in on_cpu if group.demand.memory)
    fits_everywhere = all(
        total * min(math.floor(node.cpus), workers or math.floor(node.cpus)) <= node.memory for node in nodes
    )
    chosen = []
    for group in groups:
        demand = group.demand
        if group in on_cpu and demand.memory is not None:
            if max((node.memory for node in nodes), default=0) < demand.memory.cpu_bytes:
                need = format_gigabytes(demand.memory.cpu_bytes)
                largest = format_gigabytes(int(max((node.memory for node in nodes), default=0)))
                text = f"its network needs {need} of memory; the largest machine has {largest}"
                raise NotEnoughResources(demand, text)
            memory = None if fits_everywhere else replace(demand.memory, device="cpu")
            demand = replace(demand, memory=memory, key=demand.key if memory else "")
        chosen.append(replace(group, demand=demand))
    return merge_groups(chosen)


def _is_on_gpu(group: Group, nodes: Sequence[Node]) -> bool:
    """Return True where a group's networks run on GPUs, False where they run on CPUs.

    Raises:
        NotEnoughResources: they need a GPU, and no card can hold them; or `device` says that they shall have one.
    """
    demand, memory = group.demand, group.demand.memory
    if memory is None or memory.device == "cpu":
        return False
    if any(node.can_run(demand) for node in nodes):
        return True
    cards = [node for node in nodes if node.gpus >= 1]
    usable = [node for node in cards if node.libraries is None or memory.libraries <= node.libraries]
    if usable:
        largest = max(node.card_bytes or 0 for node in usable)
        raise NotEnoughResources(
            demand,
            f"its network needs {format_gigabytes(memory.gpu_bytes)} of a GPU; the largest has "
            f"{format_gigabytes(largest)}. Lower `batch`, or set `device: cpu`",
        )
    if memory.device == "cuda":
        why = f"{' and '.join(sorted(memory.libraries))} cannot use its GPUs" if cards else "the cluster has none"
        raise NotEnoughResources(demand, f"it asks for a GPU (`device: cuda`); {why}")
    return False


def place_workers(demands: Sequence[Demand], nodes: Sequence[Node], workers: int | None) -> list[list[Slot]]:
    """Decide how many workers each pool gets, and where.

    Pools that ask for GPUs or custom resources share those evenly and take their CPUs; then come the networks on the
    cards that are left; the others share the remaining cores.

    Args:
        demands: what a worker of each pool asks for; see `choose_demands`.
        nodes: the cluster.
        workers: most CPU workers; None for as many as fit.

    Returns:
        The slots of each pool, with at least one worker.

    Raises:
        NotEnoughResources: there is no room for one worker of each pool.

    Examples:
        >>> plain, half = place_workers([Demand(), Demand(Resources(gpus=0.5))], [Node("a", cpus=8, gpus=1)], None)
        >>> half
        [Slot(count=2, cpus=1.0, gpus=0.5, memory=0, node='a', custom=())]
        >>> [slot.count for slot in plain]
        [6]
    """
    free = [_Free(node, [1.0] * math.floor(node.gpus), node.cpus, dict(node.custom)) for node in nodes]
    slots: list[list[Slot]] = [[] for _ in demands]
    networks = [k for k, demand in enumerate(demands) if demand.memory is not None and demand.memory.device != "cpu"]
    special = [k for k, demand in enumerate(demands) if k not in networks and list_scarce(demand.resources)]
    plain = [k for k in range(len(demands)) if k not in networks and k not in special]
    for position, index in enumerate(special):
        others = [demands[other].resources for other in special[position:]]
        slots[index] = _place_special(demands[index], others, free, bool(networks), bool(plain), nodes)
    if networks:
        for index, placed in zip(networks, _place_networks([demands[k] for k in networks], free), strict=True):
            slots[index] = placed
    plain.sort(key=lambda index: demands[index].memory is None)  # what memory bounds first: it leaves cores to the rest
    for position, index in enumerate(plain):
        rest = plain[position:]
        bounded = sum(demands[other].memory is not None for other in rest)
        slots[index] = _place_plain(demands[index], free, len(rest), bounded, workers, nodes)
    return slots


def _round_down(amount: float) -> int:
    return math.floor(amount + 1e-9)


def _place_special(
    demand: Demand,
    rest: Sequence[Resources],
    free: Sequence[_Free],
    shares_with_networks: bool,
    leaves_core: bool,
    nodes: Sequence[Node],
) -> list[Slot]:
    """Place the workers of a pool whose resources the recipe has set: an even part of what there is.

    Args:
        demand: of the pool.
        rest: the resources of this pool and those after it.
        free: what is left of each node; changed.
        shares_with_networks: networks need a part of the GPUs too.
        leaves_core: a core is left to the pools that need nothing else.
        nodes: the cluster, for the error.
    """
    resources, counts = demand.resources, []
    for name, amount in list_scarce(resources).items():
        left = sum(sum(node.cards) if name == GPU else node.custom.get(name, 0) for node in free)
        sharers = sum(name in list_scarce(other) for other in rest) + (name == GPU and shares_with_networks)
        part = left / sharers
        if name == GPU and shares_with_networks and part > 1:
            part = math.floor(part)  # the others get whole cards
        counts.append(max(_round_down(part / amount), min(1, _round_down(left / amount))))
    if resources.cpus > 0:
        counts.append(_round_down((sum(node.cpus for node in free) - leaves_core) / resources.cpus))
    placed: dict[str, int] = {}
    for _ in range(max(0, min(counts))):
        node = next((node for node in free if node.has(resources)), None)
        if node is None:
            break
        node.take(resources)
        placed[node.node.id] = placed.get(node.node.id, 0) + 1
    if not placed:
        raise NotEnoughResources(demand, describe_lack(resources, nodes))
    custom = tuple(sorted(resources.custom.items()))
    return [Slot(count, resources.cpus, resources.gpus, node=node, custom=custom) for node, count in placed.items()]


def _place_networks(demands: Sequence[Demand], free: Sequence[_Free]) -> list[list[Slot]]:
    """Place the workers of networks on the cards that are left, dividing cards between pools that do not fit together.

    Raises:
        NotEnoughResources: a pool got no card.
    """
    counts = [0] * len(demands)
    placed: list[dict[tuple[str, float], int]] = [{} for _ in demands]
    for node in free:
        whole = sum(card == 1.0 for card in node.cards)
        rest = max(node.cards, default=0.0) if len(node.cards) == 1 else 0.0
        count, part = (whole, 1.0) if whole else (int(rest > 0), rest)
        card_bytes = None if node.node.card_bytes is None else int(node.node.card_bytes * part)
        pools = [k for k, demand in enumerate(demands) if node.node.can_run(demand)]
        needs = [memory.gpu_bytes for k in pools if (memory := demands[k].memory)]
        kinds = share_cards(needs, card_bytes, len(node.cards) == 1) if count else []
        for _ in range(count if kinds else 0):
            kind = min(kinds, key=lambda kind: min(counts[pools[pool]] for pool, _ in kind))
            for pool, share in kind:
                key = (node.node.id, math.floor(share * part * STEPS + 1e-6) / STEPS)
                placed[pools[pool]][key] = placed[pools[pool]].get(key, 0) + 1
                counts[pools[pool]] += 1
    if 0 in counts:
        demand = demands[counts.index(0)]
        needs_text = " and ".join(format_gigabytes(d.memory.gpu_bytes) for d in demands if d.memory)
        sizes = [node.node.card_bytes for node in free if node.node.card_bytes]
        card = f" of {format_gigabytes(max(sizes))}" if sizes else ""
        raise NotEnoughResources(
            demand,
            f"its network finds no room beside the others of the flow ({needs_text}) on the GPUs{card} that are left. "
            "Lower `batch`, or divide the flow into two, which run one after the other",
        )
    cores = _take_cores(free, placed)
    return [[Slot(count, cores[node], share, node=node) for (node, share), count in pool.items()] for pool in placed]


def _take_cores(free: Sequence[_Free], placed: Sequence[Mapping[tuple[str, float], int]]) -> dict[str, float]:
    """Take each network's worker a core, or less where one must be left for other pools; return it for each node."""
    cores = {}
    for node in free:
        workers = sum(count for pool in placed for (id, _), count in pool.items() if id == node.node.id)
        if workers:
            cores[node.node.id] = math.floor(100 * min(1.0, max(0.0, node.cpus - 1) / workers)) / 100
            node.cpus -= cores[node.node.id] * workers
    return cores


def _place_plain(
    demand: Demand, free: Sequence[_Free], sharers: int, bounded: int, workers: int | None, nodes: Sequence[Node]
) -> list[Slot]:
    """Place the workers of a pool that needs CPUs, and perhaps memory: an even part of the cores that are left.

    Args:
        demand: of the pool.
        free: what is left of each node; changed.
        sharers: pools, this one included, that share the cores.
        bounded: those of them that share the memory.
        workers: most workers; None for as many as fit.
        nodes: the cluster.
    """
    cpus, left = demand.resources.cpus, max(0.0, sum(node.cpus for node in free))
    if cpus > 0:
        count = max(_round_down(left / sharers / cpus), min(1, _round_down(left / cpus)))
    else:
        count = _round_down(max(left / sharers, 1))
    memory = demand.memory.cpu_bytes if demand.memory else 0
    if memory:
        room = sum(_round_down(node.memory / memory) for node in nodes if math.isfinite(node.memory))
        room = room if all(math.isfinite(node.memory) for node in nodes) else count
        count = min(count, max(1, room // bounded))
    count = min(count, workers or count)
    if count < 1 or all(node.cpus < cpus for node in nodes):
        raise NotEnoughResources(demand, describe_lack(demand.resources, nodes))
    taken = count * cpus
    for node in free:
        part = min(max(0.0, node.cpus), taken)
        node.cpus, taken = node.cpus - part, taken - part
    return [Slot(count, cpus, memory=memory)]


@dataclass(frozen=True)
class FlowPlacement:
    """A flow's groups as they are carried out, and the workers of their pools.

    Attributes:
        groups: the flow's, with what each asks for on this cluster; the last one has no GPU, so that a GPU does not
            wait while pictures are encoded and written.
        pools: what a worker of each pool asks for, and its slots.
        lines: the workers in words, a line for each pool.
    """

    groups: tuple[Group, ...]
    pools: Mapping[Demand, Sequence[Slot]]
    lines: Sequence[str]

    def list_workers(self) -> dict[str, tuple[int, float]]:
        """List the number of workers, and the GPUs of each, by the names of the stages that they run."""
        workers: dict[str, tuple[int, float]] = {}
        for group in self.groups:
            slots = self.pools[group.demand]
            count = sum(slot.count for slot in slots)
            gpus = sum(slot.count * slot.gpus for slot in slots) / max(1, count)
            workers |= {spec.name: (count, gpus) for spec in group.stages}
        return workers


def place_flow(flow: FlowPlan, nodes: Sequence[Node], workers: int | None) -> FlowPlacement:
    """Decide where the stages of a flow run.

    Args:
        flow: the flow.
        nodes: the cluster.
        workers: most CPU workers; None for as many as fit.

    Raises:
        CannotPlace: a stage asks for more than there is; the text names its place in the recipe.
    """
    try:
        groups = choose_demands(flow.groups, nodes, workers)
        if is_scarce(groups[-1].demand):
            groups = (*groups, Group(Demand(), ()))
        demands = list(dict.fromkeys(group.demand for group in groups))
        slots = place_workers(demands, nodes, workers)
    except NotEnoughResources as error:
        group = next(
            (
                group
                for group in flow.groups
                if group.demand.key == error.demand.key and group.demand.resources == error.demand.resources
            ),
            flow.groups[0],
        )
        raise CannotPlace(f"{group.stages[0].place}: flow '{flow.name}', {group.name}: {error}") from None
    lines = [
        describe_pool(", ".join(group.name for group in groups if group.demand == demand), demand, pool, nodes)
        for demand, pool in zip(demands, slots, strict=True)
    ]
    lines += describe_cpu_networks(flow.groups, groups, nodes)
    return FlowPlacement(groups, dict(zip(demands, slots, strict=True)), lines)


def is_scarce(demand: Demand) -> bool:
    """Return True where a demand's workers hold GPUs or custom resources."""
    on_card = demand.memory is not None and demand.memory.device != "cpu"
    return on_card or bool(list_scarce(demand.resources))
