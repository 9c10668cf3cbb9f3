"""`rasura removers`: what a recipe can name, and the keys of each."""

import pytest
from typer.testing import CliRunner

from rasura.manifests.errors import UnknownNameError
from rasura.pipeline.cli.app import app
from rasura.pipeline.cli.removers import describe_remover, list_capabilities, make_key_model
from rasura.removers.registry import NETWORKS, REMOVERS, ModelParams


def test_every_remover_is_listed_with_its_facts():
    """Each name stands in one line with role, size, steps, memory and licence; what is non-commercial says so."""
    result = CliRunner().invoke(app, ["removers"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line}
    assert lines["name"].split() == ["name", "role", "size", "steps", "memory", "licence", "of", "the", "weights"]
    for name, capability in list_capabilities().items():
        assert capability.role in lines[name]
        assert capability.licence in lines[name]
        assert ("non-commercial" in lines[name].lower()) == capability.non_commercial
    assert lines["powerpaint"].split()[1:7] == ["remover", "640", "px", "45", "1.9", "GB"]
    assert set(REMOVERS) | set(NETWORKS) <= set(lines)


@pytest.mark.parametrize("name", [*REMOVERS, *NETWORKS])
def test_each_shows_its_keys_and_no_others(name):
    """The keys are those that a recipe may set for that kind, with its own defaults; what it needs is required."""
    result = CliRunner().invoke(app, ["removers", name])
    assert result.exit_code == 0
    shown = {line.split()[0] for line in result.output.splitlines() if line.startswith("    ")}
    network = NETWORKS.get(name)
    assert shown == (set(network.keys) if network else set())
    for key in network.keys if network else ():
        field = make_key_model(name).model_fields[key]
        assert field.is_required() == (key in network.needs)
        if key in network.defaults and not field.is_required():
            assert field.default == network.defaults[key]
    assert all(key in ModelParams.model_fields for key in shown)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'powerpaint'"):
        list(describe_remover("powerpant"))
