"""The text of a recipe: what is no recipe is refused with one sentence, within seconds; wrong values in plain words."""

from pathlib import Path

import pytest
from conftest import rasura

from rasura.manifests.errors import RecipeError
from rasura.pipeline.recipe.load import MAX_BYTES, load, parse

BOMB = "x0: &x0 [a, a]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 12))
CHAIN = "x0: &x0 [a]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}]\n" for n in range(1, 400))
FLOW = "name: t\nflows:\n  a:\n    source: {pairs: {path: p}}\n    stages:\n      - pair\n      - "


def parse_fault(text: str, *overrides: str) -> str:
    """The faults of a recipe's text."""
    with pytest.raises(RecipeError) as caught:
        parse(text, "r.yaml", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "r.yaml:5:5: not valid YAML: more than 20000 values, counted as often as aliases"),
        ("{a: [" + "1, " * 30_000 + "]}", "more than 20000 values"),
        (CHAIN, "r.yaml:50:6: not valid YAML: lists or mappings are nested more than 50 levels deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "r.yaml:1:53: not valid YAML: lists or mappings are nested more than 50"),
        ("a: &a {b: [*a]}", "r.yaml:1:12: not valid YAML: the alias *a contains itself"),
        ("a: 1\n[b]: 2", "r.yaml:2:1: not valid YAML: a key has to be text"),
        ("a: 2020-13-45", "r.yaml:1:4: not valid YAML: '2020-13-45' cannot be read; put it into quotes"),
        ("a: " + "9" * 5000, "r.yaml:1:4: not valid YAML: '99999"),
        ("a: 1\nb: \0", "r.yaml:2:1: not valid YAML: character U+0000 cannot be in a text file"),
        ("a: 1\n---\nb: 1", "r.yaml:2:1: not valid YAML: expected a single document in the stream, but"),
        ("# nothing", "r.yaml: nothing is in it; `rasura init` writes a recipe"),
        ("- a", "r.yaml: expected keys such as name, flows and dataset"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(text: str, message: str) -> None:
    """Aliases that stand for more than fits into memory, too deep nesting, and what YAML reads as no plain value."""
    assert message in parse_fault(text)


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    """A folder names the recipes in it; a device, a circle of links, an empty, a binary and a very large file are told
    apart."""
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff")
    (tmp_path / "large.yaml").write_text("#" * (MAX_BYTES + 1))
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    for name, message in (
        ("", "is a folder; name the recipe in it ("),
        ("binary.yaml", "is no text file: byte 6 is not UTF-8"),
        ("large.yaml", "has 1.0 MB; a recipe is a text of at most 1 MB"),
        ("mine.yaml", "nothing is in it"),
        ("circle.yaml", "circle.yaml' is a link that leads to no file; name the recipe itself"),
    ):
        with pytest.raises(RecipeError) as caught:
            load(tmp_path / name)
        assert message in str(caught.value)
    with pytest.raises(RecipeError, match="'/dev/null' is no regular file"):
        load("/dev/null")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("segment: grabcut", "flows.a.stages.1: 'segment' is followed by 'grabcut'; expected its parameters, such as"),
        ("[pair, effects]", "flows.a.stages.1: expected a name, or a name with its parameters, such as"),
        ("null", "(it is null)"),
        ("7", "(it is 7)"),
        ("{effects: null, sigmas: 3}", "flows.a.stages.1: one entry has the keys effects, sigmas: begin each stage"),
    ],
)
def test_a_malformed_stage_has_its_place(entry: str, message: str) -> None:
    """In the file and from `--set`: value, flow, index and place."""
    text = parse_fault(FLOW + entry)
    assert text.startswith("r.yaml:7:9: ")
    assert message in text
    option = f"--set flows.a.stages.1={entry}"
    text = parse_fault(f"{FLOW}effects", option.removeprefix("--set "))
    assert text.startswith(f"{option}: ")
    assert message.removeprefix("flows.a.stages.1: ") in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: t", "name: 4", "r.yaml:1:1: name: expected text in quotes (it is 4)"),
        ("name: t", "name: a b", "name: expected letters, digits, _ and - only, the first a letter or a digit (it is"),
        ("name: t", "name: t\nseed: 9223372036854775808", "seed: expected less than 9223372036854775808 (it is"),
        ("name: t", "name: t\nseed: -1", "seed: expected 0 or more (it is -1)"),
        ("name: t", "name: t\nseed: true", "r.yaml:2:1: seed: expected a number (it is true)"),
        ("name: t", "name: t\nseed: 1.5", "seed: expected a whole number (it is 1.5)"),
        ("name: t", "name: t\nengine: 3", "engine: expected keys with values, {key: value} (it is 3)"),
        (
            "name: t",
            "name: t\nreview: {order: randm}",
            "expected uncertainty, balance, random or best_first (it is 'randm'); did",
        ),
        ("name: t", "name: t\ndataset: {flows: []}", "dataset.flows: it is empty"),
        ("name: t", "name: t\ndataset: {flows: a}", "dataset.flows: expected a list, [first, second] (it is 'a')"),
        ("name: t", "name: t\nvars: {a: b, c: '${a}/d'}", "r.yaml:2:14: vars.c: a variable cannot contain another"),
        ("path: p", "path: '${p'", "path: '${' without its '}' in '${p'"),
        ("path: p", "path: '${ p }'", "path: unknown variable ' p '"),
        ("    source: {pairs: {path: p}}\n", "", "flows.a.source: 'source' is missing"),
    ],
)
def test_wrong_values_are_told_in_plain_words(old: str, new: str, message: str) -> None:
    """What was expected and what is there, as the recipe writes it; nothing is read as something else silently."""
    text = parse_fault(f"{FLOW}effects".replace(old, new))
    assert message in text
    assert "Input should" not in text


def test_an_option_changes_one_of_two_aliases() -> None:
    """What `--set` sets in a stage that an alias repeats is set there alone."""
    text = "name: t\nflows:\n  a: &f {source: {pairs: {path: p}}, stages: [effects: {sigmas: 4}]}\n  b: *f\n"
    recipe, _ = parse(text, "r.yaml", ["flows.a.stages.effects.sigmas=5"])
    assert [recipe.flows[name].stages[0].params["sigmas"] for name in "ab"] == [5, 4]


def test_exit_statuses(tmp_path: Path) -> None:
    """1 for what is wrong in a recipe or a value of `--set`; 2 for options that the command does not have."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: t\nflows: {a: {source: {photos: {path: .}}}}\n")
    for arguments, status in ((["--set", "seed"], 1), (["--set", "seed=x"], 1), (["--seed", "3"], 2)):
        done = rasura("check", recipe, *arguments, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False)
