"""The plan of a run as text, for `rasura check`."""

from collections.abc import Iterator

from rasura.manifests.spelling import format_count
from rasura.pipeline.recipe.plan import Plan
from rasura.pipeline.recipe.specs import Demand, FlowPlan
from rasura.stages.stage import Resources, Source

INDENT = "    "


def describe_plan(plan: Plan) -> str:
    """Describe a plan: flows, stages, inputs, resources, weights, dataset."""
    lines = [f"recipe '{plan.recipe.name}' can be run: {format_count(len(plan.flows), 'flow')}, hash {plan.hash[:12]}"]
    for flow in plan.flows.values():
        lines += _describe_flow(flow, plan.sources[flow.name], plan.inputs[flow.name])
    if plan.dataset is not None:
        lines.append(f"dataset: triplets of {', '.join(plan.dataset)}")
    if plan.left_out:
        lines.append(f"warning: {describe_left_out(plan)}")
    workers = plan.recipe.engine.workers
    lines.append(f"engine: {format_count(workers, 'CPU worker') if workers else 'a CPU worker for each core'}")
    return "\n".join(lines)


def describe_left_out(plan: Plan) -> str:
    """Describe which flows are not in the dataset, though the recipe names them, and why."""
    names = f"flow{'s' if len(plan.left_out) > 1 else ''} {', '.join(plan.left_out)}"
    return (
        f"the dataset is without {names}: these rows are candidates, results of removers that nobody has accepted; "
        "select them by score, verdict or kind, or set `candidates: true` under `dataset`"
    )


def _describe_flow(flow: FlowPlan, source: Source, inputs: int | None) -> Iterator[str]:
    yield f"{flow.name}: {describe_inputs(source, inputs)}, in shards of {flow.shard_rows}"
    for group in flow.groups:
        names = " → ".join(spec.name for spec in group.stages)
        yield f"{INDENT}{names}  ({describe_demand(group.demand)} a worker)"
    for spec in flow.stages:
        for name, sha256 in spec.weights.items():
            yield f"{INDENT}weights of {spec.name}: {name}, sha256 {sha256[:12]}"


def describe_inputs(source: Source, inputs: int | None) -> str:
    """Describe the inputs of a source: how many there are and where, or which flows it reads."""
    if flows := source.upstream():
        return f"reads {', '.join(dict.fromkeys(flows))}"
    paths = [path for name in source.input_paths if (path := getattr(source.params, name, None))]
    place = f" in {paths[0]}" if paths else f" of source {source.name}"
    if inputs is not None:
        return format_count(inputs, source.input_noun) + place
    count = getattr(source.params, "count", None)
    return f"source {source.name}" if count is None else format_count(count, "input") + place


def describe_demand(demand: Demand) -> str:
    """Describe what a worker asks for; where it holds networks, their memory on a GPU and without one.

    Examples:
        >>> from rasura.networks.memory import NetworkMemory
        >>> describe_demand(Demand(memory=NetworkMemory(10_400_000_000, 20_100_000_000)))
        '10.4 GB of a GPU, or 1 CPU and 20.1 GB of memory'
    """
    if demand.memory is None:
        return describe_resources(demand.resources)
    choices = {
        "cuda": f"{format_gigabytes(demand.memory.gpu_bytes)} of a GPU",
        "cpu": f"{describe_resources(demand.resources)} and {format_gigabytes(demand.memory.cpu_bytes)} of memory",
    }
    return choices.get(demand.memory.device) or f"{choices['cuda']}, or {choices['cpu']}"


def format_gigabytes(count: int) -> str:
    """Write a number of bytes in GB.

    Examples:
        >>> format_gigabytes(9_840_000_000)
        '9.8 GB'
    """
    return f"{count / 1e9:.1f} GB"


def describe_resources(resources: Resources) -> str:
    """Describe what a worker holds.

    Examples:
        >>> describe_resources(Resources(gpus=0.5))
        '1 CPU, 0.5 GPU'
    """
    parts = [f"{resources.cpus:g} CPU"] if resources.cpus else []
    parts += [f"{resources.gpus:g} GPU"] if resources.gpus else []
    parts += [f"{amount:g} {name}" for name, amount in resources.custom.items()]
    return ", ".join(parts) or "nothing"
