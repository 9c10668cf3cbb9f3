"""`rasura remover …`: trains on the triplets of runs, goes on where it was, distils; what is wrong is one sentence, and
nothing is half written."""

import json

import pytest
import yaml
from support import tiny_models
from support.annotator.runs import CAPTURED, Run, row
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file

from rasura.manifests.errors import RecipeError
from rasura.manifests.run_layout import NoRun
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.tables import NoTable
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.lora import WrongLora
from rasura.networks.pretrained import MissingWeights
from rasura.pipeline.cli import remover as remover_cli
from rasura.pipeline.training.rows import WrongRows
from rasura.removers import tiny
from rasura.removers.base import remove
from rasura.removers.registry import ModelParams, open_remover

pytestmark = pytest.mark.torch

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two flows of captured scenes, and one of photos."""
    run_folder = Run(tmp_path_factory.mktemp("scenes") / "run")
    run_folder.flow("start", [row(n, "captured", 48) for n in range(6)], CAPTURED)
    run_folder.flow(
        "more", [row(n, "captured", 48, split="test" if n == 9 else "train") for n in range(6, 10)], CAPTURED
    )
    photos = [{name: row(n, "captured", 48)[name] for name in ("id", "source")} for n in range(2)]
    run_folder.flow("photos", photos, {**PROVENANCE, "source": Kind.RGB})
    return run_folder.store.uri


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("base") / "sdxl")


def call(*arguments, code=0):
    """Runs a command; what it printed. Its errors come through as they are."""
    result = CliRunner().invoke(remover_cli.remover, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def settings(**changed):
    return [part for name, value in changed.items() for part in ("--set", f"{name}={value}")]


QUICK = settings(steps=2, batch=2, warm_up=1, rate=0.003)


def test_a_tiny_remover_is_trained_goes_on_and_runs(run, tmp_path):
    """On the flows that are named, of one split where that is asked for; the folder is a remover; told again nothing is
    done twice; `--from` goes on from it in another folder."""
    out = tmp_path / "one"
    flows = ("--flow", "start", "--flow", "more")
    text = call("train", run, *flows, "--split", "train", "--preset", "tiny", "--out", out, *QUICK)
    assert "learned from 9 triplets in 2 steps" in text
    assert "training: 2/2 steps" in text  # progress, on standard error
    before = (out / "log.jsonl").read_text()
    call("train", run, *flows, "--split", "train", "--preset", "tiny", "--out", out, *QUICK)
    assert (out / "log.jsonl").read_text() == before
    call("train", run, *flows, "--preset", "tiny", "--from", out, "--out", tmp_path / "two", *QUICK)
    remover = tiny.TinyRemover("tiny", tmp_path / "two")
    remover.weights()
    remover.setup()
    triplet = row(20, "captured", 48)
    fill = remove(remover, [triplet["source"]], [triplet["mask"]], [1], dilation=2)[0]
    assert (fill != triplet["source"]).any()
    with pytest.raises(TrainingFailed, match="other triplets"):
        call("train", run, "--flow", "start", "--preset", "tiny", "--out", out, *QUICK)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_objectclear_is_trained_and_what_is_printed_runs_it(run, base, tmp_path):
    """From SDXL-inpainting and CLIP, whole and as a LoRA; the line that is printed is a model of a recipe, and runs.
    Triplets without M_fg are refused, but for a training without the mask loss."""
    clip, without = tiny_models.clip_folder(tmp_path / "clip"), Run(tmp_path / "without")
    columns = {name: kind for name, kind in CAPTURED.items() if name != "foreground_mask"}
    rows = [{name: value for name, value in row(n, "captured", 48).items() if name in columns} for n in range(2)]
    without.flow("start", rows, columns)
    start = ("--flow", "start", "--preset", "objectclear", "--base", base, "--image-encoder", clip, *QUICK)
    small = settings(size=64, save_memory=False)
    for learn in ("all", "lora"):
        out = tmp_path / learn
        text = call("train", run, *start, "--out", out, *small, *settings(learn=learn, rank=2))
        config = yaml.safe_load(text.splitlines()[-1])
        model = ModelParams.model_validate(config | {"size": 64, "steps": 2, "device": "cpu"})
        remover = open_remover("mine", {"mine": model})
        remover.weights()
        remover.setup()
        triplet = row(20, "captured", 48)
        fill = remove(remover, [triplet["source"]], [triplet["mask"]], [1], dilation=2)[0]
        assert (fill != triplet["source"]).any()
    with pytest.raises(WrongRows, match="no foreground_mask"):
        call("train", without.store.uri, *start, "--out", tmp_path / "no", *small)
    call("train", without.store.uri, *start, "--out", tmp_path / "plain", *small, *settings(mask_loss=0, steps=1))


def test_a_trained_lora_is_distilled_and_what_is_printed_runs_it(run, base, tmp_path):
    """SDXL-inpainting is trained as a LoRA and that distilled into four steps; the line that `distill` prints is a
    model of a recipe, and runs."""
    first, out = tmp_path / "first", tmp_path / "lcm"
    small = settings(size=64, crop="whole")
    call(
        "train", run, "--flow", "start", "--base", base, "--out", first, *QUICK, *small, *settings(learn="lora", rank=2)
    )
    text = call(
        "distill",
        run,
        "--flow",
        "start",
        "--base",
        base,
        "--from",
        first,
        "--out",
        out,
        *QUICK,
        *small,
        *settings(rank=4),
    )
    config = yaml.safe_load(text.splitlines()[-1])
    model = ModelParams.model_validate(config | {"size": 64, "device": "cpu"})
    remover = open_remover("lcm", {"lcm": model})
    remover.weights()
    remover.setup()
    triplet = row(20, "captured", 48)
    fill = remove(remover, [triplet["source"]], [triplet["mask"]], [1], dilation=2)[0]
    assert (fill != triplet["source"]).any()
    assert remover.parts.scheduler.config._class_name == "LCMScheduler"
    record = json.loads((out / "training.json").read_text())
    assert record["prompt"].startswith("4K, high quality")
    assert {len(value) for name, value in load_file(out / "lora.safetensors").items() if "lora_A" in name} == {4}


def test_what_is_wrong_is_one_sentence_and_leaves_nothing(run, base, tmp_path):
    """Rows that are no triplets, a flow or split that is not there, a base that is none, a LoRA of another base, a
    setting that there is not."""
    out = tmp_path / "out"
    tinily, largely = ("--preset", "tiny", "--out", out, *QUICK), ("--base", base, "--out", out, *QUICK)
    for wrong, error, message in (
        (("train", run, "--flow", "photos", *tinily), WrongRows, "no mask, target; flows that fit: more, start"),
        (("train", run, "--flow", "starts", *tinily), NoTable, "no flow 'starts'; did you mean 'start'"),
        (("train", tmp_path, "--flow", "start", *tinily), NoRun, "is no run"),
        (("train", run, "--flow", "more", "--split", "none", *tinily), TrainingFailed, "no triplets.*split 'none'"),
        (("train", run, "--flow", "more", *tinily, "--set", "stepz=3"), RecipeError, "no 'stepz'"),
        (("train", run, "--flow", "more", *tinily, "--set", "batch=many"), RecipeError, "--set batch=many: .*'many'"),
        (("train", run, "--flow", "more", "--out", out), RecipeError, "name its folder with --base"),
        (("train", run, "--flow", "more", *tinily, "--set", "x"), RecipeError, "--set x: expected KEY=VALUE"),
        (("distill", run, "--flow", "more", *largely, "--from", base, "--prompts", out), RecipeError, "--teacher-prom"),
        (("train", run, "--flow", "more", "--base", tmp_path, "--out", out, *QUICK), MissingWeights, "no model in"),
        (("train", run, "--flow", "more", *largely, "--from", tmp_path), MissingWeights, "no remover in"),
        (("distill", run, "--flow", "more", *largely, "--from", tmp_path), MissingWeights, "no remover in"),
        (("distill", run, "--flow", "more", *largely, "--from", base, "--set", "objective=x0"), RecipeError, "'x0'"),
    ):
        with pytest.raises(error, match=message) as caught:
            call(*wrong)
        assert "\n" not in str(caught.value)
        assert not out.exists()
    assert "'tin' is not one of" in call("train", run, "--flow", "more", "--out", out, "--preset", "tin", code=2)
    other = tmp_path / "other"
    other.mkdir()
    shapes = {"unet.mid_block.nowhere.lora_A.weight": (4, 8), "unet.mid_block.nowhere.lora_B.weight": (8, 4)}
    from safetensors.torch import save_file

    save_file(tiny_models.lora_tensors(shapes), other / "lora.safetensors")
    for command in ("train", "distill"):
        with pytest.raises(WrongLora, match="for another base"):
            call(command, run, "--flow", "more", *largely, "--from", other)
    assert not out.exists()
