"""`python -m benchmarks [NAME …]`: run the measurements, all of them by default."""

import importlib
import pkgutil
import sys

import benchmarks

# Benchmarks that take a folder and run for hours are started by themselves: `python -m benchmarks.loop_arms FOLDER`.
NOT_MEASUREMENTS = {
    "__main__",
    "common",
    "discriminator_kinds",
    "discriminator_tiny",
    "loop_arms",
    "loop_removers",
    "loop_scenes",
    "loop_start",
}


def list_measurements() -> dict[str, str]:
    """Return the measurements, as a mapping from name to module."""
    modules = [info for info in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.") if not info.ispkg]
    names = {info.name.rpartition(".")[2]: info.name for info in modules}
    return {name: module for name, module in names.items() if name not in NOT_MEASUREMENTS}


def main() -> None:
    """Run the measurements that the command line names."""
    measurements = list_measurements()
    for name in sys.argv[1:] or measurements:
        if name not in measurements:
            sys.exit(f"no benchmark is called '{name}'; choose from {', '.join(sorted(measurements))}")
        sys.argv = [name]  # a measurement's own options come from its environment
        importlib.import_module(measurements[name]).main()


if __name__ == "__main__":
    main()
