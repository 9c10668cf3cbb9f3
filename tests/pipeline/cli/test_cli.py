"""The command line answers at once, helps, and reports mistakes in one sentence; and imports run downwards."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment, rasura, write_recipe
from support.dataset_runs import make_finished_run, make_row
from typer.testing import CliRunner

from rasura import __version__
from rasura.manifests import errors
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.cli.app import app
from rasura.pipeline.cli.options import explain
from rasura.pipeline.cli.review import read_policy
from rasura.pipeline.cli.trainings import read_changes
from rasura.pipeline.recipe.starters import STARTERS
from rasura.pipeline.run.progress import Progress

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
    """`rasura --help` imports no model library, no Ray, not even numpy, and few modules at all: that is why it answers
    at once (`python -m benchmarks startup`)."""
    code = "import sys, rasura.pipeline.cli.app; heavy = set(sys.modules) & set(sys.argv[1:])\n"
    code += "print(sorted(heavy), len(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, env=environment(), check=True, cwd=ROOT
    )
    heavy, _, modules = done.stdout.rpartition(" ")
    assert heavy == "[]"
    assert int(modules) < 400
    text = rasura("--help").stdout
    for command in ("run", "status", "verify", "report", "show", "export", "stages", "check", "init"):
        assert command in text


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_imports_run_downwards(package: str) -> None:
    """A package imports only what stands below it, and model libraries only inside functions.

    Architectures (`networks/inpainting`) are classes of torch; they in turn are imported inside functions alone.
    """
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
                if parts in {("rasura",), ("rasura", "__version__")}:
                    continue  # the place and the version of the whole are in the light top package
                top = parts[1] if parts[0] == "rasura" else parts[0]
                if parts[0] == "rasura":
                    assert top in FLOORS[package] | {package}, f"{file} imports rasura.{top}"
                    checked += 1
                    if node in tree.body and file.parent.name != "inpainting":
                        assert parts[1:3] != ("networks", "inpainting"), f"{file} imports an architecture at its top"
                elif node in tree.body and file.parent.name != "inpainting":
                    assert top not in {"torch", "onnxruntime", "mitsuba", "transformers", "ultralytics"}, file
    assert checked, f"no import of {package} was checked"


@pytest.mark.ray
def test_only_stops_after_a_stage(tmp_path: Path) -> None:
    """`--only FLOW.STAGE` makes a table of what comes out of that stage, and leaves the flow's own table alone; a
    misspelt stage is answered with the nearest."""
    stages = [{"synthetic:Triplet": {}}, {"select": {"keep": {"number": {"max": 3}}}}]
    flows = {"made": {"source": {"synthetic:Numbers": {"count": 6}}, "stages": stages}}
    recipe = write_recipe(tmp_path, flows=flows, engine={"workers": 1})
    run = tmp_path / "run"
    rasura("run", recipe, "--into", run, "--only", "made.synthetic:Triplet")
    tables = Tables(Store(run))
    assert tables.names() == ["made.synthetic:Triplet"]
    assert max(tables.table("made.synthetic:Triplet").read_light(["number"])["number"].to_pylist()) == 4
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
    for arguments, message in (
        (("status", tmp_path), "is no run: it has no plan.json"),
        (("verify", tmp_path), "is neither a run (plan.json) nor a dataset (manifest.json)"),
        (("report", tmp_path), "is no run"),
        (("export", tmp_path, "--out", tmp_path / "x"), "is no run"),
        (("stages", "effcts"), "unknown stage 'effcts'; did you mean 'effects'?"),
    ):
        done = rasura(*arguments, check=False)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_stages_explains_each() -> None:
    """Every stage and source has a purpose and describes each of its parameters."""
    from rasura.stages.registry import SOURCES, STAGES, describe, find_stage

    for name in [*SOURCES, *STAGES]:
        first = describe(name).splitlines()[0]
        assert len(first) > len(name) + 10, name
        for key, field in find_stage(name).Params.model_fields.items():
            assert field.description, f"{name}.{key}"


OLD_RUNS = ROOT / "tests" / "data" / "written_by_0_1_0"


def call(*arguments: object, code: int = 0) -> str:
    """Runs a command in this process; what it printed. Errors come through as they are."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_version() -> None:
    """`rasura --version` prints the version of the package."""
    assert call("--version").strip() == f"rasura {__version__}"


@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("review", ["--host", "--port", "--database", "--public-url", "--set", "--flow", "add-reviewer"]),
        ("loop", ["--into", "--set", "--quiet", "status"]),
    ],
)
def test_a_group_shows_the_options_of_its_default_command(group: str, options: list[str]) -> None:
    """`rasura review --help` shows how a review is served, `rasura loop --help` how a loop is run."""
    text = call(group, "--help")
    for option in options:
        assert option in text
    assert f"\n\nrasura {group} {'RUN' if group == 'review' else 'RECIPE'}" in text.replace("root", "rasura")


@pytest.mark.parametrize("kind", sorted(STARTERS))
def test_init_writes_a_recipe_that_check_accepts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starter recipe is valid as soon as what it names is there; until then `check` says where what is missing."""
    monkeypatch.chdir(tmp_path)
    assert f"mine-{kind}.yaml" in call("init", f"mine-{kind}", "--kind", kind)
    with pytest.raises(errors.RecipeError, match=rf"mine-{kind}\.yaml:\d+:\d+: "):
        call("check", f"mine-{kind}.yaml")
    shutil.copytree(OLD_RUNS / "my-pairs", "pairs")
    shutil.copytree(OLD_RUNS / "my-pairs" / "input", "photos")
    rows = [make_row(number, scene_id=f"scene {number}") for number in range(120)]
    make_finished_run(Path("runs/pairs"), rows, flow="captured")
    for file in ("clips/a.mp4", "weights/yolox.onnx"):
        Path(file).parent.mkdir()
        Path(file).write_bytes(b"x")
    text = call("check", f"mine-{kind}.yaml")
    assert text.startswith(f"{'loop' if kind == 'loop' else 'recipe'} 'mine-{kind}' can be run: ")
    assert not (tmp_path / "runs" / f"mine-{kind}").exists()
    before = Path(f"mine-{kind}.yaml").read_text()
    assert "#" in before
    with pytest.raises(errors.RecipeError, match="is there already"):
        call("init", f"mine-{kind}", "--kind", "pairs")
    assert Path(f"mine-{kind}.yaml").read_text() == before
    call("init", f"mine-{kind}", "--kind", kind, "--force")
    with pytest.raises(errors.RecipeError, match="cannot be the name of a recipe"):
        call("init", "../elsewhere")


def test_check_prints_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows, stages, the inputs that are there, resources, weights, the dataset; `--set` counts."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD_RUNS / "my-pairs", "my-pairs")
    recipe = shutil.copy(OLD_RUNS / "pairs.yaml", tmp_path)
    Path("net.onnx").write_bytes(b"net")
    text = call("check", recipe, "--set", "flows.pairs.stages.3={detect: {weights: net.onnx}}", "--set", "dataset=null")
    assert "pairs: 3 pairs in my-pairs, in shards of 16" in text
    assert "pairs → pair → effects → segment  (1 CPU a worker)" in text
    assert re.search(r"detect  \(0\.8 GB of a GPU, or 1 CPU and 0\.\d GB of memory a worker\)\n    capture", text)
    assert "weights of detect: yolox-onnx, sha256 " in text
    assert "captured: reads pairs" in text
    assert "dataset: " not in text
    assert {path.name for path in tmp_path.iterdir()} == {"my-pairs", "net.onnx", "pairs.yaml"}
    with pytest.raises(errors.RecipeError, match=r"^--set engine\.shard_row=3: unknown key 'shard_row'; did you mean"):
        call("check", recipe, "--set", "engine.shard_row=3")


def test_errors_are_explained_by_class() -> None:
    """A sentence for every error of the tree and for what the system says of files and connections; for a missing
    module the extra; nothing for other errors, whatever their name."""
    for category in (errors.RecipeError, errors.StorageError, errors.WeightsError, errors.UnknownNameError):
        assert explain(type("OfAnotherName", (category,), {})("what and where")) == "what and where"
    assert explain(FileNotFoundError("no such file")) == "no such file"
    assert explain(ModuleNotFoundError("no", name="diffusers.models")).endswith("pip install 'rasura[models]'")
    assert explain(ModuleNotFoundError("no", name="my_own")) is None
    assert explain(type("RecipeError", (ValueError,), {})("not ours")) is None


def test_ctrl_c_always_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is interrupted, also the first imports: one sentence, and exit status 130."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rasura.pipeline.run.run.run", interrupt)
    assert "the same command continues from there" in call("run", tmp_path / "r.yaml", code=130)
    monkeypatch.setattr("rasura.pipeline.cli.check.check_recipe", interrupt)
    assert "stopped; the same command continues from there" in call("check", tmp_path / "r.yaml", code=130)
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")  # in place of the first module that is imported
    done = subprocess.run(
        [sys.executable, "-m", "rasura", "--version"],
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert (done.returncode, done.stderr) == (130, "stopped; the same command continues from there\n")


def test_a_full_disk_behind_the_output_is_one_sentence() -> None:
    """Whether the output is kept back until the end or not."""
    for unbuffered in ("", "1"):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "rasura", "--version"]
            env = environment(PYTHONUNBUFFERED=unbuffered)
            done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith("error: cannot write the output: ")


def test_a_former_name_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that begins with `warning:`, and names the place and the present name."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(f"name: r\nflows:\n  a:\n    source: {{photos: {{path: {OLD_RUNS}/my-pairs/gt}}}}\n"
                              "    stages: [ground: {things: net.onnx}]\n")  # fmt: skip
    Path("net.onnx").write_bytes(b"net")
    done = rasura("check", "r.yaml", cwd=tmp_path)
    assert done.stderr.splitlines() == ["warning: r.yaml:5:23: 'things' is called 'object_detector' now"]


def test_set_has_one_syntax_everywhere() -> None:
    """A review's policy and a training's settings are set as a recipe is; mistakes name the option."""
    run = str(OLD_RUNS / "demo_run")
    assert read_policy(run, ["votes=2", "order=random"]).votes == 2
    assert read_policy(run, ["review.votes=3"]).votes == 3
    for wrong, message in (
        ("vote=2", "--set vote=2: unknown key 'vote'; did you mean 'votes'?"),
        ("review.vote=2", "--set review.vote=2: unknown key 'vote'; did you mean 'votes'?"),
        ("votes=0", "--set votes=0: expected 1 or more (it is 0)"),
        ("votes", "--set votes: expected KEY=VALUE, for example --set votes=2"),
    ):
        with pytest.raises(errors.RecipeError) as caught:
            read_policy(run, [wrong])
        assert str(caught.value) == message
    settings, _ = read_changes(["steps=3", "distill.rank=4"])
    assert settings == {"steps": 3, "distill": {"rank": 4}}
    with pytest.raises(errors.RecipeError, match="--set steps: expected KEY=VALUE, for example --set steps=3000"):
        read_changes(["steps"])


def test_verify_tells_what_a_stage_made_from_damage(tmp_path: Path) -> None:
    """A triplet of several sizes and a row without a scene, committed by an earlier version: no disk has made them, and
    dropping files would not help."""
    small, plain = make_row(0)["source"][:8], dict.fromkeys(("foreground_mask", "mask_box"))
    run = make_finished_run(tmp_path, [make_row(0, source=small, **plain), make_row(1, scene_id=None), make_row(2)])
    done = CliRunner().invoke(app, ["verify", run.uri])
    assert done.exit_code == 1
    assert "its pictures differ in size: source 32 × 8, target 32 × 24, mask 32 × 24" in done.output
    assert "has no scene_id" in done.output
    assert "no disk has damaged them, a stage made them so" in done.output
    (shard,) = (tmp_path / "tables" / "made" / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-9])
    done = CliRunner().invoke(app, ["verify", run.uri])
    assert "`rasura verify --mend" in done.output
    assert "a stage made" not in done.output


def test_verify_and_export_show_what_is_left(tmp_path: Path) -> None:
    """On standard error, so that the output stays as it is."""
    run = tmp_path / "run"
    shutil.copytree(OLD_RUNS / "pairs_run", run)
    done = rasura("verify", run)
    assert "verify: " in done.stderr
    assert "0 s left" in done.stderr
    assert "rows" in done.stderr
    assert "all is well" in done.stdout
    for format in ("huggingface", "rorem"):
        done = rasura("export", run, "--out", tmp_path / format, "--format", format)
        assert "export: " in done.stderr
        assert "0 s left" in done.stderr
        assert rasura("export", run, "--out", tmp_path / format, "--format", format, "--quiet").stderr == ""


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not one line a report: the first after some time, then at the end, with amount, rate and what is left."""
    monkeypatch.setattr("rasura.pipeline.run.progress.LINE_EVERY_S", 1e-9)
    with Progress() as progress:
        show = progress.track("training", "steps")
        show(10, 40, "loss 0.31")
        monkeypatch.setattr("rasura.pipeline.run.progress.LINE_EVERY_S", 1e9)
        show(20, 40, "loss 0.30")
        show(40, 40, "loss 0.29")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["training: 10/40 steps", "training: 40/40 steps"]
    assert lines[0].endswith("loss 0.31")
    assert " s left" in lines[0]
    with Progress(quiet=True) as progress:
        progress.start("verify", 3)
        progress.advance(3)
    assert capsys.readouterr().err == ""
