"""When and on what a run was made, from its log."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rasura.manifests.spelling import format_seconds


@dataclass
class History:
    """What the log of a run says of its making.

    Attributes:
        first, last: times of its first and last event, in seconds since 1970; None without a log.
        hosts: names of the machines that drove it.
        machines: what the cluster had at each start, in words.
        flows: flow -> seconds of the clock that it took, over all attempts.
    """

    first: float | None = None
    last: float | None = None
    hosts: dict[str, None] = field(default_factory=dict)
    machines: dict[str, None] = field(default_factory=dict)
    flows: dict[str, float] = field(default_factory=dict)

    def list_facts(self) -> list[tuple[str, str]]:
        """List what is known as names and texts."""
        if self.first is None or self.last is None:
            return []
        facts = [("made", f"{_format_time(self.first)} to {_format_time(self.last)} UTC")]
        if self.hosts:
            facts.append(("driver", ", ".join(self.hosts)))
        if self.machines:
            facts.append(("machine", "; ".join(self.machines)))
        if self.flows:
            times = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in self.flows.items())
            facts.append(("time of each flow", times))
        return facts


def read_history(events: Iterable[Mapping[str, Any]]) -> History:
    """Read a run's history from its events; what is damaged in them is left out."""
    history = History()
    for event in events:
        moment = event.get("time")
        if not isinstance(moment, int | float) or not 0 <= moment < 1e11:
            continue
        history.first = moment if history.first is None else min(history.first, moment)
        history.last = moment if history.last is None else max(history.last, moment)
        if isinstance(event.get("host"), str):
            history.hosts[event["host"]] = None
        if event.get("event") == "start" and isinstance(event.get("resources"), dict):
            history.machines[describe_resources(event["resources"])] = None
        seconds = event.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            continue
        if event.get("event") == "flow" and isinstance(event.get("flow"), str):
            history.flows[event["flow"]] = history.flows.get(event["flow"], 0.0) + seconds
    return history


def describe_resources(resources: Mapping[str, Any]) -> str:
    """Describe what a cluster has, by Ray's names.

    Examples:
        >>> describe_resources({"CPU": 16.0, "GPU": 1.0, "memory": 64e9, "accelerator_type:H100": 1.0, "nodes": 1})
        '16 CPU cores, 1 GPU (H100), 64 GB of memory'
        >>> describe_resources({"CPU": 32, "nodes": 4}), describe_resources({"CPU": 1.0})
        ('32 CPU cores on 4 nodes', '1 CPU core')
    """
    numbers = {name: value for name, value in resources.items() if isinstance(value, int | float)}
    cores = numbers.get("CPU", 0)
    parts = [f"{cores:g} CPU core{'' if cores == 1 else 's'}"]
    if gpus := numbers.get("GPU"):
        kinds = [name.partition(":")[2] for name in numbers if name.startswith("accelerator_type:")]
        parts.append(f"{gpus:g} GPU{'s' if gpus > 1 else ''}" + (f" ({', '.join(kinds)})" if kinds else ""))
    if memory := numbers.get("memory"):
        parts.append(f"{memory / 1e9:.0f} GB of memory")
    nodes = numbers.get("nodes", 1)
    return ", ".join(parts) + (f" on {nodes:g} nodes" if nodes > 1 else "")


def _format_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
