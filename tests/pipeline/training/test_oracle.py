"""The oracle reviewer: near the truth is yes, each known failure is no with its reason, at any size; its votes are in
the reviewers' format under its own name."""

import cv2
import numpy as np
import pytest
from conftest import ASSETS, DATA
from support.annotator.runs import CANDIDATES, CAPTURED, Run, row

from rasura.annotator.exchange.vote_rows import VOTES
from rasura.annotator.exchange.votes_file import read_votes
from rasura.annotator.store.enums import Reason, Verdict
from rasura.annotator.store.items import compute_item_id
from rasura.manifests.storage import Store
from rasura.pipeline.training import oracle
from rasura.stages.judging.truth import review_candidate


def scene(side, number=0):
    """Truth, source, hole, effects: a ball and its shadow on a wavy, noisy ground, the same at every size."""
    rng = np.random.default_rng(number)
    coarse = cv2.resize(rng.uniform(60, 190, (6, 6, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    grain = sum(
        cv2.resize(rng.normal(0, 5, (n, n, 1)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        for n in (16, 32, 64) + ((side // 2, side) if side > 128 else ())
    )
    truth = np.clip(coarse + grain[..., None], 0, 255).astype(np.uint8)
    ball, cast = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    unit = side / 64
    cv2.circle(ball, (int(28 * unit), int(30 * unit)), int(10 * unit), 1, -1)
    cv2.ellipse(cast, (int(44 * unit), int(40 * unit)), (int(10 * unit), int(4 * unit)), 0, 0, 360, 1, -1)
    effects = (cast > 0) & ~(ball > 0)
    source = truth.copy()
    source[effects] = (source[effects] * 0.5).astype(np.uint8)
    source[ball > 0] = (220, 40, 30)
    return truth, source, ball > 0, effects


@pytest.mark.parametrize("side", [64, 128, 256, 512, pytest.param(1024, marks=pytest.mark.slow)])
def test_verdicts_and_reasons_hold_at_every_size(side):
    """The truth and a slightly noisy truth are yes; the object left, a ghost of it, a smear, another texture, the
    shadow left and a change elsewhere are no, each for its own reason, from 64 to 1024 px."""
    truth, source, hole, effects = scene(side)
    rng = np.random.default_rng(1)
    inside = hole[..., None]
    noisy = np.clip(truth + rng.normal(0, 2, truth.shape), 0, 255).astype(np.uint8)
    ghost = np.where(inside, np.rint(0.6 * truth + 0.4 * source), truth).astype(np.uint8)
    smear = np.where(inside, cv2.GaussianBlur(truth, (0, 0), 3.5 * side / 64), truth)
    checks = (np.indices((side, side)).sum(0) // max(2, side // 24) % 2 * 120 + 60).astype(np.uint8)
    other = np.where(inside, checks[..., None], truth)
    shadow = np.where(effects[..., None], source, truth)
    elsewhere = truth.copy()
    elsewhere[: side // 8, : side // 8] = 255 - elsewhere[: side // 8, : side // 8]
    opinions = {
        name: review_candidate(candidate, truth, source, hole, effects)
        for name, candidate in {
            "truth": truth,
            "noisy": noisy,
            "left": source,
            "ghost": ghost,
            "smear": smear,
            "other": other,
            "shadow": shadow,
            "elsewhere": elsewhere,
        }.items()
    }
    yes = ("yes", None)
    assert opinions["truth"] == yes
    assert opinions["noisy"] == yes
    assert opinions["left"] == ("no", Reason.OBJECT)
    assert opinions["ghost"] == ("no", Reason.OBJECT)
    assert opinions["smear"] == ("no", Reason.SEAM)
    assert opinions["other"] == ("no", Reason.HALLUCINATED)
    assert opinions["shadow"] == ("no", Reason.SHADOW)
    assert opinions["elsewhere"] == ("no", Reason.OUTSIDE)


def test_a_shadow_inside_the_hole_counts_as_one():
    """Where the mask covers object and shadow and only the shadow is left, the reason is the shadow; without effects
    known it is the object."""
    truth, source, ball, effects = scene(64)
    left = np.where(effects[..., None], source, truth)
    assert review_candidate(left, truth, source, ball | effects, effects) == ("no", Reason.SHADOW)
    assert review_candidate(truth, truth, source, effects, effects) == ("yes", None)


@pytest.mark.parametrize(
    "folder",
    [DATA / "pictures" / "photos", ASSETS / "photos" / "coco"],
    ids=["few", "many"],
)
def test_photographs_are_judged_alike_when_they_are_larger(folder):
    """A candidate enlarged eightfold with its truth gets the same verdict nearly always: the rule follows the hole."""
    photos = sorted(folder.glob("*.jpg"))[:12]
    if not photos:
        pytest.skip(f"no photographs at {folder} (set RASURA_ASSETS)")
    same = total = 0
    for number, path in enumerate(photos):
        photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        truth = cv2.resize(photo[:300, :300], (64, 64), interpolation=cv2.INTER_AREA)
        _, _, hole, _ = scene(64)
        rng = np.random.default_rng(number)
        source = np.where(hole[..., None], rng.integers(0, 255, 3), truth).astype(np.uint8)
        for flag in (cv2.INPAINT_TELEA, cv2.INPAINT_NS):
            candidate = cv2.inpaint(source, hole.astype(np.uint8), 3, flag)
            small = review_candidate(candidate, truth, source, hole)
            large = [
                cv2.resize(picture, (512, 512), interpolation=cv2.INTER_CUBIC) for picture in (candidate, truth, source)
            ]
            wide = cv2.resize(hole.astype(np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST) > 0
            same += review_candidate(*large, wide).verdict == small.verdict
            total += 1
    assert same >= 0.85 * total


def test_what_cannot_be_reviewed_is_refused():
    truth, source, hole, _ = scene(64)
    with pytest.raises(ValueError, match="empty"):
        review_candidate(truth, truth, source, np.zeros_like(hole))
    with pytest.raises(ValueError, match="do not fit"):
        review_candidate(truth[:32], truth, source, hole)


@pytest.fixture
def run(tmp_path):
    """Three captured rows; three candidates made of each, of which one is its truth and one its source; and a
    candidate of a photo that nobody knows the truth of."""
    run_folder = Run(tmp_path / "run")
    captured = [row(n, "captured") for n in range(3)]
    candidates = []
    for triplet in captured:
        for remover, target in (("good", triplet["target"]), ("bad", triplet["source"])):
            more = {name: triplet[name] for name in ("source", "mask", "scene_id")}
            more |= {
                "id": f"{triplet['id']}.{remover}",
                "remover": remover,
                "target": target,
                "parents": [triplet["id"]],
            }
            candidates.append({**row(0, "edited"), **more})
    candidates.append(row(77, "edited", parents=["photo"]))
    run_folder.flow("captured", captured, CAPTURED)
    run_folder.flow("candidates", candidates, CANDIDATES)
    return run_folder


def test_its_votes_are_in_the_reviewers_format_under_its_own_name(run, tmp_path):
    """Each candidate with a known truth has one vote, by the item's id of the review; the file is one that
    `rasura votes import` reads; made twice it is the same to the byte; what has no truth is left out."""
    rows = list(oracle.review_run(run.store, ["candidates"]))
    assert [(vote["row_id"].split(".")[1], vote["verdict"]) for vote in rows] == [("bad", "no"), ("good", "yes")] * 3
    assert {vote["reviewer"] for vote in rows} == {"oracle"}
    assert set(rows[0]) == set(VOTES.names)
    place = (rows[0]["place_table"], rows[0]["place_shard"], rows[0]["place_row"])
    assert rows[0]["item"] == compute_item_id(place, "target")
    for name in ("one", "two"):
        oracle.write_votes(list(oracle.review_run(run.store)), Store(tmp_path / name))
    for file in ("votes.jsonl", "votes.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        assert [vote["verdict"] for vote in read_votes(tmp_path / "one" / file)] == [vote["verdict"] for vote in rows]
    assert {vote["verdict"] for vote in rows} <= set(Verdict)


def test_a_run_without_truth_is_refused(tmp_path):
    run = Run(tmp_path / "run")
    run.flow("candidates", [row(1, "edited")], CANDIDATES)
    with pytest.raises(oracle.NoTruth, match="none of its 1 candidates"):
        list(oracle.review_run(run.store))
