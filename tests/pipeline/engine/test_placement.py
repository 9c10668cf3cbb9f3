"""Which workers get which share of which card: arithmetic alone, without Ray."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.networks.memory import NetworkMemory
from rasura.pipeline.engine.measured import apply_figures, read_figures, write_figures
from rasura.pipeline.engine.nodes import Node, NotEnoughResources, Slot, describe_pool
from rasura.pipeline.engine.placement import STEPS, choose_demands, place_workers
from rasura.pipeline.recipe.schema import StageResources
from rasura.pipeline.recipe.specs import Demand, Group, StageSpec
from rasura.stages.stage import Resources

GB = 10**9


def network(gigabytes: float, name: str = "net", device: str = "auto", cpu: float = 1.0) -> Demand:
    memory = NetworkMemory(int(gigabytes * GB), int(cpu * GB), device, frozenset({"torch"}))  # type: ignore[arg-type]
    return Demand(Resources(), memory, name)


def node(id: str = "a", gpus: int = 0, gigabytes: float = 80, cpus: float = 64, **more: object) -> Node:
    return Node(id, cpus=cpus, gpus=gpus, card_bytes=int(gigabytes * GB), memory=256 * GB, **more)  # type: ignore[arg-type]


def group(demand: Demand, name: str = "stage") -> Group:
    return Group(demand, (StageSpec(name, {}, 0, "1", 1, 1.0, demand.resources, {}, memory=demand.memory),))


def count(slots: Sequence[Slot]) -> int:
    return sum(slot.count for slot in slots)


def workers(demands: Sequence[Demand], *nodes: Node, most: int | None = None) -> list[int]:
    return [count(slots) for slots in place_workers(demands, nodes, most)]


def test_written_resources_are_obeyed() -> None:
    """Pools that say what they hold take what the cards allow and their CPUs; the others share the rest."""
    cpu, gpu, half = Demand(), Demand(Resources(gpus=1)), Demand(Resources(cpus=0, gpus=0.5))
    assert workers([cpu], node(cpus=2)) == [2]
    assert workers([cpu], node(cpus=8), most=3) == [3]
    assert workers([cpu, gpu], node(cpus=8, gpus=2)) == [6, 2]
    assert workers([cpu, half], node(cpus=2, gpus=1)) == [2, 2]
    assert workers([cpu, Demand(Resources(cpus=2))], node(cpus=6)) == [3, 1]
    assert workers([half, Demand(Resources(cpus=2, gpus=0.5))], node(cpus=8, gpus=1)) == [1, 1]
    assert workers([cpu, Demand(Resources(cpus=0, custom={"device": 1}))], node(cpus=2, custom={"device": 1})) == [2, 1]
    assert workers([half, network(9)], node(gpus=2)) == [2, 1]  # written shares first, a whole card for the network
    assert workers([half, network(9), network(8, "other")], node(gpus=3, gigabytes=10)) == [2, 1, 1]


@pytest.mark.parametrize(
    ("demands", "text"),
    [
        ([Demand(Resources(gpus=1))], "asks for 1 CPU, 1 GPU; the cluster has 2 CPU"),
        ([Demand(Resources(gpus=100))], "asks for 1 CPU, 100 GPU; the cluster has 2 CPU"),
        ([Demand(Resources(cpus=4))], "asks for 4 CPU; the cluster has 2 CPU"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_what_there_is(demands: list[Demand], text: str) -> None:
    """One sentence says what was asked for and what the cluster has."""
    with pytest.raises(NotEnoughResources, match=text):
        place_workers(demands, [node(cpus=2)], None)


def test_cards_of_two_machines_are_no_card_of_one() -> None:
    """A worker that wants four cards does not get two on each of two machines."""
    wants_four = Demand(Resources(gpus=4))
    assert workers([wants_four], node("a", gpus=4), node("b", gpus=2)) == [1]
    with pytest.raises(NotEnoughResources, match="on 2 machines"):
        place_workers([wants_four], [node("a", gpus=2), node("b", gpus=2)], None)


def test_a_network_gets_every_card_and_several_share_them() -> None:
    """One network has a worker on each card, whole; two that fit together are both on every card, with half of it;
    the line says so."""
    large, small = network(9.8), network(4)
    cards = node(gpus=8)
    (alone,) = place_workers([large], [cards], None)
    assert alone == [Slot(8, 1.0, 1.0, node="a")]
    assert describe_pool("inpaint", large, alone, [cards]) == "inpaint: 8 workers, 1 of 8 GPUs each, 9.8 GB"
    both = place_workers([large, small], [cards], None)
    assert [slots[0].gpus for slots in both] == [0.5, 0.5]
    assert workers([large, small], cards) == [8, 8]


def test_networks_that_do_not_fit_together_divide_the_cards() -> None:
    """A network that leaves no room for others gets cards of its own; where there is one card only, that is refused."""
    large, middle, small = network(20, "l"), network(9, "m"), network(4, "s")
    assert workers([large, middle, small], node(gpus=4, gigabytes=24)) == [2, 2, 2]
    with pytest.raises(NotEnoughResources, match="finds no room beside the others"):
        place_workers([large, middle], [node(gpus=1, gigabytes=24)], None)
    one = place_workers([network(14, "l"), middle], [node(gpus=1, gigabytes=24)], None)
    assert [slots[0].gpus for slots in one] == [0.6086, 0.3913]


def test_mixed_nodes_take_what_fits_them() -> None:
    """Small cards get the networks that fit; machines without a card, or without a torch that can use it, get none."""
    large, small = network(40, "l"), network(4, "s")
    nodes = [node("cpu"), node("small", gpus=2, gigabytes=12), node("big", gpus=2)]
    placed = place_workers([Demand(), large, small], nodes, None)
    assert {slot.node for slot in placed[1]} == {"big"}
    assert {slot.node for slot in placed[2]} == {"small", "big"}
    unusable = node("old", gpus=4, libraries=frozenset({"onnx"}))
    assert {slot.node for slot in place_workers([large], [unusable, *nodes], None)[0]} == {"big"}


def test_cards_too_small_or_missing_are_refused_where_one_is_needed() -> None:
    """A network that no card can hold, and one that shall have a card where there is none, end with one sentence."""
    with pytest.raises(NotEnoughResources, match=r"needs 40\.0 GB of a GPU; the largest has 12\.0 GB"):
        choose_demands([group(network(40))], [node(gpus=1, gigabytes=12)], None)
    with pytest.raises(NotEnoughResources, match=r"asks for a GPU .*; the cluster has none"):
        choose_demands([group(network(4, device="cuda"))], [node()], None)
    with pytest.raises(NotEnoughResources, match="torch cannot use its GPUs"):
        choose_demands([group(network(4, device="cuda"))], [node(gpus=1, libraries=frozenset())], None)


def test_without_cards_networks_join_the_others_as_far_as_memory_goes() -> None:
    """On CPUs a network is in every worker beside the other stages where memory allows it; else it has a pool of its
    own, as large as memory allows; and one that no machine can hold is refused."""
    plain = group(Demand(), "photos")
    small, large = group(network(4, cpu=1), "detect"), group(network(9, cpu=20), "inpaint")
    fused = choose_demands([plain, small, plain], [node(cpus=64)], None)
    assert [entry.name for entry in fused] == ["photos, detect, photos"]
    bounded = choose_demands([plain, large], [node(cpus=64)], None)
    assert [entry.name for entry in bounded] == ["photos", "inpaint"]
    photos, inpaint = place_workers([entry.demand for entry in bounded], [node(cpus=64)], None)
    assert inpaint == [Slot(12, 1.0, memory=20 * GB)]  # of 256 GB
    assert count(photos) == 52
    with pytest.raises(NotEnoughResources, match=r"needs 300\.0 GB of memory; the largest machine has 256\.0 GB"):
        choose_demands([group(network(9, cpu=300))], [node()], None)
    on_cpu = choose_demands([group(network(9, device="cpu"))], [node(gpus=8)], None)
    assert on_cpu[0].demand == Demand()  # although there are cards


needs = st.lists(st.integers(1, 30), min_size=1, max_size=4)
machines = st.lists(st.tuples(st.integers(0, 4), st.integers(8, 90), st.integers(1, 9)), min_size=1, max_size=4)


@given(needs, machines)
def test_no_card_and_no_machine_is_given_more_than_it_has(
    needs: list[int], machines: list[tuple[int, int, int]]
) -> None:
    """However Ray packs the shares of a node onto its cards, what is on a card fits into its memory; cores suffice;
    shares of a node can be packed."""
    demands = [Demand(), *(network(need, f"n{k}") for k, need in enumerate(needs))]
    nodes = [node(f"m{k}", gpus, size, cpus) for k, (gpus, size, cpus) in enumerate(machines)]
    try:
        placed = place_workers(demands, nodes, None)
    except NotEnoughResources:
        return
    assert all(count(slots) >= 1 for slots in placed)
    for machine in nodes:
        here = [
            (slot, need)
            for slots, need in zip(placed[1:], needs, strict=True)
            for slot in slots
            if slot.node == machine.id
        ]
        assert sum(slot.cpus * slot.count for slot, _ in here) <= machine.cpus
        assert sum(slot.gpus * slot.count for slot, _ in here) <= machine.gpus + 1e-6
        for slot, need in here:
            assert machine.card_bytes
            # a share holds its part of the card: any set of shares that fill a card fits into it
            assert need * GB <= (slot.gpus + 1 / STEPS) * machine.card_bytes * 1.001 + 1  # Ray's shares have steps
        shares = {slot.gpus for slot, _ in here} - {1.0}
        assert machine.gpus == 1 or len(shares) <= 1  # equal shares pack without gaps


def test_what_a_card_took_is_remembered(tmp_path: pytest.TempPathFactory) -> None:
    """The figure of a card replaces the estimate on clusters of such cards alone; a damaged file is as good as none."""
    path = tmp_path / "cache" / "gpu_memory.json"  # type: ignore[operator]
    write_figures(path, {"net": {"H100": 10 * GB}})
    write_figures(path, {"net": {"H100": 8 * GB, "L4": 9 * GB}})
    figures = read_figures(path)
    assert figures == {"net": {"H100": 10 * GB, "L4": 9 * GB}}
    declared = group(network(30))

    def apply(**cards: int | None) -> float:
        memory = apply_figures(declared, figures, cards).demand.memory
        assert memory
        return memory.gpu_bytes / GB

    assert apply(H100=80 * GB) == pytest.approx(12.1)  # with a margin and what CUDA itself takes
    assert apply(H100=80 * GB, A100=80 * GB) == 30
    assert apply(L4=10 * GB) == 10  # it ran into the end of that card, and went on with smaller batches
    path.write_text("{")
    assert read_figures(path) == {}


def test_resources_in_a_recipe_are_those_of_a_worker() -> None:
    """The recipe's block has the units of Ray."""
    assert StageResources.model_validate({"gpus": 0.5}).model_dump() == {"cpus": 1.0, "gpus": 0.5, "custom": {}}
