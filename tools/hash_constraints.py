#!/usr/bin/env python3
"""Write the hashes of `constraints.txt`, as `make` installs with them on Linux x86-64: `constraints-linux-x86_64.txt`.

Run it after every change of `constraints.txt`, with a lock file of the same versions, which lists every file of each:

    uv pip compile constraints.txt --no-deps --universal --python-version 3.11.5 --format pylock.toml -o pylock.toml
    tools/hash_constraints.py pylock.toml [WHEEL...]

WHEEL is a file that the package index does not have, such as a CPU build of torch. Source archives are listed only of
packages without a wheel that fits.
"""

import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PINS, HASHED = ROOT / "constraints.txt", ROOT / "constraints-linux-x86_64.txt"
HEAD = """\
# The versions of constraints.txt with the sha256 of their files for CPython 3.11 to 3.14 on Linux x86-64, where `make`
# installs with these; elsewhere with constraints.txt. Written by tools/hash_constraints.py.
"""
PYTHON = re.compile(r"cp3(1[1-4])")
ABI3 = re.compile(r"cp3(\d+)")
PLATFORM = re.compile(r"any|linux_x86_64|manylinux\w*_x86_64(\..*)?")


def fits(file: str) -> bool:
    """Return whether a wheel is for one of the interpreters and the platform of the list."""
    python, abi, platform = file.removesuffix(".whl").split("-")[-3:]
    if not PLATFORM.fullmatch(platform):
        return False
    if abi == "none":
        return "py3" in python or bool(PYTHON.fullmatch(python))
    if abi == "abi3":
        return any((match := ABI3.fullmatch(tag)) and int(match[1]) <= 14 for tag in python.split("."))
    return bool(PYTHON.fullmatch(python)) and abi == python


def list_hashes(package: dict[str, Any], extra: list[Path]) -> Iterator[str]:
    """Yield the hashes of the files of a package that may be installed here."""
    wheels = [wheel for wheel in package.get("wheels", ()) if fits(wheel["url"].rpartition("/")[2])]
    sources = [package["sdist"]] if not wheels and "sdist" in package else []
    yield from (file["hashes"]["sha256"] for file in [*wheels, *sources])
    name = normalize(package["name"])
    for path in extra:
        if normalize(path.name.split("-")[0]) == name:
            yield hashlib.sha256(path.read_bytes()).hexdigest()


def normalize(name: str) -> str:
    """Return a package's name as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(lock: Path, *extra: Path) -> None:
    """Write the file with hashes."""
    packages = {normalize(package["name"]): package for package in tomllib.loads(lock.read_text())["packages"]}
    lines = []
    for line in PINS.read_text().splitlines():
        if line.startswith("#") or not line:
            continue
        name, _, version = line.partition("==")
        package = packages[normalize(name)]
        if package["version"] != version:
            sys.exit(f"{lock} has {name} {package['version']}, and constraints.txt {version}; make the lock file anew")
        hashes = sorted(set(list_hashes(package, list(extra))))
        if not hashes:
            sys.exit(f"{name} {version} has no file for Linux x86-64")
        lines.append(" \\\n".join([line, *(f"    --hash=sha256:{value}" for value in hashes)]))
    HASHED.write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
