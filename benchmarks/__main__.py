"""`python -m benchmarks [NAME …]`: run the measurements; without a name all that take minutes.

Those that take longer run by name alone, and one of them takes options: `python -m benchmarks loop_study --minutes 30`.
"""

import importlib
import pkgutil
import sys

import benchmarks

# Benchmarks that take a folder and run for hours are started by themselves: `python -m benchmarks.loop_arms FOLDER`.
NOT_MEASUREMENTS = {
    "__main__",
    "chaos_damage",
    "chaos_job",
    "chaos_kinds",
    "chaos_nodes",
    "chaos_stage",
    "chaos_store",
    "common",
    "discriminator_kinds",
    "discriminator_tiny",
    "label_studio_peer",
    "loop_arms",
    "loop_removers",
    "loop_scenes",
    "loop_start",
    "loop_units",
    "peer_jobs",
}
LONG = {"chaos", "fit_likelihood", "loop_study", "peers", "spot_check"}
"""Measurements that take more than ten minutes, and run only where they are named."""


def list_measurements() -> dict[str, str]:
    """Return the measurements, as a mapping from name to module."""
    modules = [info for info in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.") if not info.ispkg]
    names = {info.name.rpartition(".")[2]: info.name for info in modules}
    return {name: module for name, module in names.items() if name not in NOT_MEASUREMENTS}


def main() -> None:
    """Run the measurements that the command line names."""
    measurements, arguments = list_measurements(), sys.argv[1:]
    options = next((index for index, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    for name in arguments[:options] or sorted(set(measurements) - LONG):
        if name not in measurements:
            sys.exit(f"no benchmark is called '{name}'; choose from {', '.join(sorted(measurements))}")
        sys.argv = [name, *arguments[options:]]  # most take theirs from the environment
        importlib.import_module(measurements[name]).main()


if __name__ == "__main__":
    main()
