"""What the security page and the installation promise: every named test is there, every file has its hash."""

import re
import tomllib
from pathlib import Path

from conftest import ROOT

TESTS = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
HASHED = ROOT / "constraints-linux-x86_64.txt"


def read_pins(path: Path) -> dict[str, str]:
    """Versions by package of a file of constraints."""
    lines = [line.split("\\")[0].strip() for line in path.read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_each_attack_names_tests_that_exist() -> None:
    """Every row of docs/security.md that is no heading names one test at least, and each test is in the suite."""
    defined = {name for file in (ROOT / "tests").rglob("test_*.py") for name in TESTS.findall(file.read_text())}
    rows = [
        line.split(" | ") for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")
    ]
    attacks = [row for row in rows[1:] if not row[0].startswith("| **")]
    assert len(attacks) > 30
    for attack, _, shown in attacks:
        names = re.findall(r"`(\w+)`", shown)
        assert names, attack
        assert not set(names) - defined, attack


def test_every_version_has_its_hashes() -> None:
    """The file with hashes has the versions of constraints.txt, each with the sha256 of a file at least; make installs
    with it, in pip's mode that takes nothing else, and fetches nothing for a build."""
    assert read_pins(HASHED) == read_pins(ROOT / "constraints.txt")
    entries = re.split(r"\n(?=[^\s#])", HASHED.read_text())[1:]
    assert len(entries) == len(read_pins(HASHED))
    for entry in entries:
        hashes = entry.split("\\\n")[1:]
        assert hashes, entry
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64} ?\n?", each) for each in hashes), entry
    makefile = (ROOT / "Makefile").read_text()
    installs = [
        line for line in makefile.splitlines() if line.startswith("\t") and re.search(r"pip install|\(PIP\)", line)
    ]
    assert installs
    assert "--require-hashes" in makefile
    for line in installs:
        assert "$(PIP)" in line or "--no-deps --no-build-isolation --editable ." in line, line


def test_nothing_under_the_agpl_is_installed_unasked() -> None:
    """`make setup` and `make test` install the extras of the Makefile, of which none has ultralytics; an environment of
    its own has it."""
    extras = re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert extras
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = [requirement for extra in extras[1].split(",") for requirement in optional[extra]]
    assert not [requirement for requirement in installed if "ultralytics" in requirement]
    assert any("ultralytics" in requirement for requirement in optional["yolo"])
    recipe = (ROOT / "Makefile").read_text().partition("\ntest-agpl:")[2].partition("\n\n")[0]
    assert "VENV=.venv-agpl" in recipe
    assert "yolo" in recipe
