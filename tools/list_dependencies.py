#!/usr/bin/env python3
"""Print what the project and the extras that are named (with commas between them) depend on, one requirement a line.

pip refuses to install an editable project in its mode with hashes; its dependencies are therefore installed by this
list, and the project after them.
"""

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())

if __name__ == "__main__":
    extras = [extra for argument in sys.argv[1:] for extra in argument.split(",")]
    requirements = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    for extra in extras:
        requirements += PROJECT["project"]["optional-dependencies"][extra]
    print(*dict.fromkeys(requirements), sep="\n")
