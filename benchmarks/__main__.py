"""`python -m benchmarks [NAME …]`: run the measurements; without a name all that take minutes.

Those that take longer run by name alone, and some of them take options: `python -m benchmarks loop_study --minutes 30`.
`python -m benchmarks --help` lists all of them, `python -m benchmarks NAME --help` says what one measures.
"""

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import benchmarks

NOT_MEASUREMENTS = {"__main__", "discriminator_tiny", "loop_arms", "loop_scenes", "loop_start", "loop_units"}
"""Modules that are started by themselves; most take a folder and hours: `python -m benchmarks.loop_arms FOLDER`."""
LONG = {"chaos", "fit_likelihood", "loop_study", "peers", "spot_check"}
"""Measurements that take more than ten minutes, and run only where they are named."""


def list_measurements() -> dict[str, str]:
    """Return the measurements, as a mapping from name to module."""
    modules = [info.name for info in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.") if not info.ispkg]
    names = {module.rpartition(".")[2]: module for module in modules if "\ndef main(" in read_source(module)}
    return {name: module for name, module in names.items() if name not in NOT_MEASUREMENTS}


def read_source(module: str) -> str:
    """Read a module's source, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    return Path(spec.origin).read_text()


def read_description(module: str) -> str:
    """Read what a measurement says of itself."""
    return ast.get_docstring(ast.parse(read_source(module))) or ""


def describe(names: Sequence[str], measurements: Mapping[str, str]) -> str:
    """Describe the named measurements in full, or all of them in a line each."""
    if names:
        return "\n\n".join(read_description(measurements[name]) for name in names)
    lines = [f"  {name:22}{read_description(module).splitlines()[0]}" for name, module in sorted(measurements.items())]
    return "\n".join([__doc__ or "", *lines, "", f"By name alone, over ten minutes: {', '.join(sorted(LONG))}"])


def main() -> None:
    """Run the measurements that the command line names."""
    measurements, arguments = list_measurements(), sys.argv[1:]
    options = next((index for index, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    named = arguments[:options]
    if unknown := [name for name in named if name not in measurements]:
        sys.exit(f"no benchmark is called '{unknown[0]}'; choose from {', '.join(sorted(measurements))}")
    if {"-h", "--help"} & set(arguments):
        print(describe(named, measurements))
        return
    if options < len(arguments) and not named:
        sys.exit(f"'{arguments[options]}' is an option of one measurement: name it first")
    for name in named or sorted(set(measurements) - LONG):
        sys.argv = [name, *arguments[options:]]  # most take theirs from the environment
        importlib.import_module(measurements[name]).main()


if __name__ == "__main__":
    main()
