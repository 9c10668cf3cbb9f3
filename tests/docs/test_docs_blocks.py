"""Every code block of README and docs is one that the test runs, and every command line in them parses."""

import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import ROOT, rasura
from docs_blocks import DOCUMENTS, Block, read_blocks, read_inline_commands
from docs_substitutions import FRAGMENTS, SUBSTITUTIONS, find_substitution
from docs_workspace import make_environment, make_workspace
from typer.core import TyperGroup

from rasura.pipeline.cli.app import app
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.stages.registry import SOURCES, STAGES, find_models, find_source, find_stage

BLOCKS = [block for document in DOCUMENTS for block in read_blocks(document)]
LANGUAGES = {"sh", "python", "yaml", "nginx", ""}  # nginx: tests/annotator/test_annotator_proxy.py
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # typer and click each have a class of this name


def parse_line(line: str) -> None:
    """Parse a `rasura …` command line as the program does, without running it.

    Raises:
        typer.BadParameter or its relatives: an unknown command or option, or a missing argument.
    """
    arguments = shlex.split(line)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        command: Any = typer.main.get_command(app)
        context, name, arguments = None, arguments[0], arguments[1:]
        try:
            while True:
                context = stack.enter_context(command.make_context(name, list(arguments), parent=context))
                if not isinstance(command, TyperGroup):
                    return
                name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        except typer.Exit:  # --help, --version
            return


def list_commands() -> list[tuple[str, str]]:
    """List the commands of all shell blocks, each with its place."""
    return [command for block in BLOCKS if block.language == "sh" for command in block.list_commands()]


def test_every_block_is_of_a_kind_that_runs() -> None:
    """Blocks are shell, Python, YAML, or without a language (listings); YAML is a file or a stated fragment."""
    assert len(BLOCKS) > 30
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block.place}: nothing runs a block of language '{block.language}'"
        if block.language == "yaml" and block.document not in FRAGMENTS:
            assert block.file_name, f"{block.place}: begin the block with a comment `# name.yaml`"
        if not block.language:
            assert not re.search(r"^\s*(rasura|make|python) ", block.text, re.MULTILINE), f"{block.place}: say ```sh"


def test_every_substitution_is_used() -> None:
    """The table holds no entry for a command that no document has."""
    used = {find_substitution(command) for _, command in list_commands()}
    assert [entry.pattern for entry in SUBSTITUTIONS if entry not in used] == []


@pytest.mark.parametrize(("place", "line"), list_commands())
def test_commands_parse(place: str, line: str) -> None:
    """Programs are known; commands and options of `rasura` exist; targets of make exist."""
    program = shlex.split(line)[0]
    if program == "make":
        assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{place}: {line}"
    elif program == "python":
        module = shlex.split(line)[2]
        assert importlib.util.find_spec(module), f"{place}: no module {module}"
    else:
        assert program in ("rasura", "ray"), f"{place}: {line}"
        parse_line(line if program == "rasura" else line.partition(" -- ")[2])


def test_commands_in_sentences_parse() -> None:
    """Commands that a sentence names have known names and options; arguments may be left out."""
    checked = 0
    for document in DOCUMENTS:
        for place, line in read_inline_commands(document):
            try:
                parse_line(re.sub(r"[\[\]…]", "", line))
            except USAGE_ERROR as error:
                if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
                    raise AssertionError(f"{place}: {line}: {error.format_message()}") from None
            checked += 1
    assert checked > 20


def check_fragment(block: Block) -> None:
    """Validate a list of stages: names and parameters are known."""
    for entry in yaml.safe_load(block.text):
        name, params = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        find_stage(name).Params(**params)


@pytest.mark.slow
def test_recipes_are_valid(tmp_path: Path) -> None:
    """`rasura check` finds nothing wrong with any recipe, once what the blocks before it make is there."""
    workspace = make_workspace(tmp_path / "work")
    env = make_environment(workspace) | {"PYTHONPATH": f"{ROOT}:{workspace}"}
    recipes = []
    for block in BLOCKS:
        if block.language == "yaml" and not block.file_name:
            check_fragment(block)
        elif block.file_name:
            (workspace / block.file_name).write_text(block.text + "\n")
            recipes += [block.file_name] if block.language == "yaml" else []
    # the demo's run here is of version 0.1.0, whose dataset had candidates in it
    flows = ("--flow", "captured", "--flow", "simulated")
    rasura("export", workspace / "runs/demo", "--format", "ober", *flows, "--out", workspace / "published", env=env)
    assert len(recipes) >= 4
    for name in recipes:
        rasura("check", name, env=env, cwd=workspace)


def list_models(model: Any) -> Iterator[Any]:
    """Yield a pydantic model and those that its fields hold."""
    yield model
    for field in model.model_fields.values():
        for child in find_models(field.annotation):
            yield from list_models(child)


def test_former_names_are_listed() -> None:
    """docs/recipes.md lists every renamed key of a stage, a source and a loop's recipe, and no other."""
    roots = [
        LoopRecipe,
        *(find_stage(name).Params for name in STAGES),
        *(find_source(name).Params for name in SOURCES),
    ]
    expected = set()
    for model in (model for root in roots for model in list_models(root)):
        expected |= {(former, name) for name, former in getattr(model, "former_names", {}).items()}
        for key, values in getattr(model, "former_values", {}).items():
            expected |= {(f"{key}: {former}", f"{key}: {value}") for value, former in values.items()}
    section = (ROOT / "docs" / "recipes.md").read_text().partition("## Former names")[2]
    listed = set(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE))
    assert {tuple(name.rpartition(".")[2] for name in row) for row in listed} == expected
