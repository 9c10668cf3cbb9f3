"""The command line answers at once, helps, and tells mistakes in one sentence; and imports run downwards."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment, rasura, write_recipe

from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

FLOORS = {
    "manifests": set(),
    "networks": {"manifests"},
    "removers": {"manifests", "networks"},
    "discriminator": {"manifests", "networks"},
    "annotator": {"manifests"},
    "stages": {"manifests", "networks", "removers", "discriminator"},
    "pipeline": {"manifests", "networks", "removers", "discriminator", "annotator", "stages"},
}
HEAVY = {"ray", "cv2", "torch", "numpy", "pyarrow", "onnxruntime", "mitsuba", "pydantic", "transformers"}


def test_help_loads_nothing_heavy() -> None:
    """`rasura --help` imports no model library, no Ray, not even numpy: that is why it answers at once."""
    code = "import sys, rasura.pipeline.cli.app; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, env=environment(), check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
    text = rasura("--help").stdout
    for command in ("run", "status", "verify", "report", "show", "export", "stages"):
        assert command in text


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_imports_run_downwards(package: str) -> None:
    """A package imports only what stands below it, and model libraries only inside functions."""
    checked = 0
    for file in (ROOT / package).rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} imports relatively"
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            for parts in {tuple(name.split(".")) for name in names}:
                assert parts[0] not in FLOORS, f"{file} imports {parts[0]}: all packages are rasura.…"
                top = parts[1] if parts[0] == "rasura" else parts[0]
                if parts[0] == "rasura":
                    assert top in FLOORS[package] | {package}, f"{file} imports rasura.{top}"
                    checked += 1
                elif node in tree.body:
                    assert top not in {"torch", "onnxruntime", "mitsuba", "transformers", "ultralytics"}, file
    assert checked, f"no import of {package} was checked"


def test_only_stops_after_a_stage(tmp_path: Path) -> None:
    """`--only FLOW.STAGE` makes a table of what comes out of that stage, and leaves the flow's own table alone; a
    misspelt stage is told with the nearest."""
    stages = [{"synthetic:Triplet": {}}, {"select": {"keep": {"number": {"max": 3}}}}]
    flows = {"made": {"source": {"synthetic:Numbers": {"count": 6}}, "stages": stages}}
    recipe = write_recipe(tmp_path, flows=flows, engine={"workers": 1})
    run = tmp_path / "run"
    rasura("run", recipe, "--into", run, "--only", "made.synthetic:Triplet")
    tables = Tables(Store(run))
    assert tables.names() == ["made.synthetic:Triplet"]
    assert max(tables.table("made.synthetic:Triplet").light(["number"])["number"].to_pylist()) == 4
    wrong = rasura("run", recipe, "--into", run, "--only", "selct", check=False)
    assert wrong.returncode == 1
    assert "did you mean 'select'?" in wrong.stderr
    status = json.loads(rasura("status", run, "--json").stdout)
    assert [stage["stage"] for stage in status["flows"][0]["stages"]] == [
        "synthetic:Numbers",
        "synthetic:Triplet",
        "write",
    ]
    assert status["flows"][0]["stages"][1]["seconds"] > 0


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    """No traceback for what a person can mend: no run there, no dataset there, an unknown stage."""
    for arguments, told in (
        (("status", tmp_path), "is no run: it has no plan.json"),
        (("verify", tmp_path), "is neither a run (plan.json) nor a dataset (manifest.json)"),
        (("report", tmp_path), "is no run"),
        (("export", tmp_path, "--out", tmp_path / "x"), "is no run"),
        (("stages", "effcts"), "unknown stage 'effcts'; did you mean 'effects'?"),
    ):
        done = rasura(*arguments, check=False)
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_stages_explains_each() -> None:
    """Every stage and source has a purpose and describes each of its parameters."""
    from rasura.stages.registry import SOURCES, STAGES, describe, stage_class

    for name in [*SOURCES, *STAGES]:
        first = describe(name).splitlines()[0]
        assert len(first) > len(name) + 10, name
        for key, field in stage_class(name).Params.model_fields.items():
            assert field.description, f"{name}.{key}"
