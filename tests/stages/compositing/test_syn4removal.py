"""Syn4Removal's steps: instances and their filter, rotation, and the matted rim, against exact truth."""

import json

import cv2
import numpy as np
import pytest
from support.composites import compose, compose_kept
from support.pair_scenes import make_floor
from support.paste_scenes import make_background, make_foreground

from rasura.stages.composite import CompositeParams
from rasura.stages.compositing.cutouts import make_cutout
from rasura.stages.compositing.instance import Instance, InstanceParams
from rasura.stages.compositing.instances import InstanceFilter, select_instances
from rasura.stages.compositing.placement import Placement
from rasura.stages.compositing.rendering import compose_triplet, render_foreground
from rasura.stages.compositing.rotation import rotate_cutout
from rasura.stages.compositing.trimap_blend import BAND, blend_by_trimap
from rasura.stages.imaging.morphology import erode
from rasura.stages.stage import Kept, MissingColumns, Rejected

SYN4REMOVAL = {"placement": "gaussian", "rotation": 45, "blend": "trimap", "colour": 0, "max_grain": 0}


def draw_coverage(height, width, seed=0):
    """Draw a shape with an antialiased rim: its exact coverage, (h, w) float32, from 8 x 8 samples a pixel."""
    rng = np.random.default_rng(seed)
    fine = np.zeros((8 * height, 8 * width), np.uint8)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radii = 8 * min(height, width) * rng.uniform(0.28, 0.42, 24)
    points = np.stack([4 * width + radii * np.cos(angles), 4 * height + radii * np.sin(angles)], axis=1)
    cv2.fillPoly(fine, [np.rint(points).astype(np.int32)], 1)
    return fine.reshape(height, 8, width, 8).mean(axis=(1, 3), dtype=np.float64).astype(np.float32)


def make_instance_record(coverage, colour, behind, **more):
    """A photograph of a shape in front of something, with the binary mask of what it mostly covers."""
    picture = np.rint(coverage[..., None] * colour + (1 - coverage[..., None]) * behind).astype(np.uint8)
    mask = coverage >= 0.5
    return {"id": "i", "source": picture, "object_mask": mask, "label": "shape", "licence": "CC0", **more}


def cut(record, **params):
    stage = Instance(InstanceParams(**params))
    stage.setup()
    outcome = stage.process_one(record)
    assert isinstance(outcome, Kept), outcome
    return outcome.records[0]


def make_layer(row, background, at=None):
    """Render an instance where it was cut out, at its own size."""
    cutout = make_cutout({**row, "source_size": [row["picture_width"], row["picture_height"]]})
    x, y = cutout.photo_contact_point if at is None else at
    placement = Placement((x - 0.5, y - 1), 1.0, (0, 0, 0, 0), None)
    layer = render_foreground(cutout, placement, background)
    assert layer is not None
    return layer


def test_an_instance_is_what_its_mask_cuts_out():
    """Its pixels and alpha are exact; it says where it was, and how much of the picture and of the frame it has."""
    coverage = draw_coverage(90, 120)
    record = make_instance_record(coverage, np.array([200.0, 40, 40]), make_floor(90, 120, 3), width=120)
    row = cut(record)
    x0, y0, x1, y1 = (int(value) for value in row["foreground_box"])
    mask = record["object_mask"]
    assert np.array_equal(row["foreground"][..., 3] == 255, mask[y0:y1, x0:x1])
    inside = row["foreground_object"]
    assert np.array_equal(row["foreground"][inside, :3], record["source"][y0:y1, x0:x1][inside])
    assert not row["foreground"][~inside].any()
    assert row["foreground_area"] == mask.mean()
    assert (row["foreground_cut"], row["clip_score"]) == (0.0, None)
    assert "source" not in row
    assert set(row) == set(Instance(InstanceParams()).schema(dict.fromkeys(record, "string")))
    edge = {**record, "object_mask": np.pad(mask[:, 40:], ((0, 0), (0, 40)))}
    assert cut(edge)["foreground_cut"] > 0.05


def test_rows_that_have_a_cut_out_keep_it_and_others_need_a_mask():
    """Of a pair's cut-out nothing is changed; a photograph without a mask is refused when the recipe is read."""
    row = make_foreground("a", colour=(10, 20, 30))
    done = cut(row)
    assert done["clip_score"] is None
    assert all(done[name] is row[name] for name in row)
    with pytest.raises(MissingColumns, match="object_mask"):
        Instance(InstanceParams()).schema({"source": "rgb"})
    empty = make_instance_record(np.zeros((20, 20), np.float32), np.zeros(3), make_floor(20, 20))
    assert isinstance(Instance(InstanceParams()).process_one(empty), Rejected)


def test_a_quarter_turn_moves_every_pixel_to_its_place():
    """Colours, alpha, mask and light of the object are those of numpy's own turn."""
    rng = np.random.default_rng(4)
    rgba = np.dstack([rng.integers(1, 255, (30, 50, 3)), np.full((30, 50), 255)]).astype(np.uint8)
    solid = np.ones((30, 50), bool)
    light = rng.integers(0, 40, (30, 50, 3)).astype(np.uint8)
    row = make_foreground("a") | {"foreground": rgba, "foreground_object": solid, "foreground_light": light}
    turned = rotate_cutout(make_cutout(row), 90.0)
    x0, y0, x1, y1 = turned.object_box
    assert (x1 - x0, y1 - y0) == (30, 50)
    assert np.abs(turned.rgba[y0:y1, x0:x1].astype(int) - np.rot90(rgba)).max() <= 1
    assert np.abs(turned.reflection[y0:y1, x0:x1].astype(int) - np.rot90(light)).max() <= 1


@pytest.mark.parametrize("degrees", [-45.0, -7.5, 20.0, 45.0, 180.0])
def test_a_rotated_cut_out_is_complete(degrees):
    """It has its area, nothing is cut off, it touches the ground where its mask does, and no light is claimed."""
    row = make_foreground("a", height=60, width=30, shadow_azimuth=20.0, shadow_confidence=1.0)
    cutout = make_cutout(row)
    turned = rotate_cutout(cutout, degrees)
    assert turned.object_mask.sum() == pytest.approx(cutout.object_mask.sum(), rel=0.03)
    assert not turned.object_mask[[0, -1]].any()
    assert not turned.object_mask[:, [0, -1]].any()
    shadow = turned.rgba[..., 3].sum(dtype=float)
    assert shadow == pytest.approx(cutout.rgba[..., 3].sum(dtype=float), rel=0.05)
    assert turned.contact_point[1] == np.flatnonzero(turned.object_mask.any(axis=1))[-1] + 1
    assert (turned.shadow_azimuth, turned.view, turned.rotation) == (None, None, degrees)
    colours = turned.rgba[turned.object_mask & (turned.rgba[..., 3] > 250)][:, :3]
    assert np.abs(np.median(colours, axis=0) - (200, 40, 40)).max() <= 1


def test_a_matted_rim_is_nearer_to_the_truth_than_a_hard_one():
    """The rim of a binary mask carries the colour of where the object came from; matting takes most of it away.

    Ten shapes of another colour than their old and their new background, whose composite is known to the pixel.
    """
    hard, matted = [], []
    for seed in range(10):
        rng = np.random.default_rng(70 + seed)
        coverage = cv2.GaussianBlur(draw_coverage(100, 120, seed), (0, 0), 1.0)
        colour = rng.permutation([215.0, 60, 40])
        old, new = make_floor(100, 120, seed, (225, 225, 215)), make_floor(100, 120, 50 + seed, (70, 75, 80))
        row = cut(make_instance_record(coverage, colour, old))
        background = np.rint(new).astype(np.uint8)
        truth = coverage[..., None] * colour + (1 - coverage[..., None]) * background
        layer = make_layer(row, background)
        rim = (coverage >= 0.5) & ~erode(coverage >= 0.5, BAND)
        errors = []
        for rendered in (layer, blend_by_trimap(layer, background)):
            source, target, mask, foreground = compose_triplet(background, [rendered], 0)
            assert np.array_equal(target, background)
            assert np.array_equal(source[~foreground], target[~foreground])
            assert np.array_equal(mask, coverage >= 0.5)
            errors.append(float(np.abs(source - truth)[rim].mean()))
        hard.append(errors[0])
        matted.append(errors[1])
        blended = blend_by_trimap(layer, background)
        inner = erode(np.pad(layer.object_mask, BAND), BAND)[BAND:-BAND, BAND:-BAND]
        assert (blended.alpha[inner] == 1).all()
        assert not blended.alpha[~layer.object_mask].any()
        assert np.allclose(blended.colour[inner], layer.colour[inner])
    assert np.mean(matted) < 0.7 * np.mean(hard), (hard, matted)
    assert sum(b < a for a, b in zip(hard, matted, strict=True)) >= 9


def test_triplets_made_as_by_syn4removal_are_exact_and_depend_on_their_id_alone():
    """Outside M_fg both pictures are one, with one object the target is the background; every object was rotated."""
    turns = []
    for seed in range(8):
        things = [make_foreground(f"t{k}", 50, 24, shadow=False) for k in range(1 + seed % 2)]
        picture = make_background(seed=seed)
        out = compose_kept(things, name=f"r{seed}", picture=picture, params=SYN4REMOVAL)
        again = compose_kept(things, name=f"r{seed}", picture=picture, params=SYN4REMOVAL)
        outside = ~out["foreground_mask"]
        assert np.array_equal(out["source"][outside], out["target"][outside])
        assert all(np.array_equal(out[name], again[name]) for name in out)
        if seed % 2 == 0:
            assert np.array_equal(out["target"], picture)
        turns += [thing["rotated"] for thing in json.loads(out["placement"])["objects"]]
    assert len(set(turns)) == len(turns)
    assert max(map(abs, turns)) <= 45
    assert min(turns) < -5
    assert max(turns) > 5


def test_objects_of_the_background_are_not_covered():
    """A picture whose left half is an object's box: what is pasted covers at most half of it, its middle is outside."""
    thing = make_foreground("a", 40, 40, shadow=False)
    params = {**SYN4REMOVAL, "areas": {"thing a": (0.06, 0.0)}, "rotation": 0}
    for things, allowed in (([0.0, 0, 130, 240], False), ([], True)):
        middles = []
        for seed in range(25):
            out = compose_kept([thing], name=f"b{seed}", params=params, ground_things=things, ground_mask=None)
            x0, _, x1, _ = json.loads(out["placement"])["objects"][0]["box"]
            middles.append((x0 + x1) / 2)
        assert (min(middles) < 130) == allowed


def test_the_class_area_of_a_draw_decides_the_size():
    """Mean and deviation that `draws` measured, unless the recipe's `areas` has the class."""
    thing = make_foreground("a", 40, 40, shadow=False, class_area=(0.2, 0.0))

    def measure_share(**more):
        out = compose_kept([thing], params={**SYN4REMOVAL, "rotation": 0, **more})
        return out["mask"].mean()

    assert measure_share() == pytest.approx(0.2, rel=0.05)
    assert measure_share(areas={"thing a": (0.1, 0.0)}) == pytest.approx(0.1, rel=0.05)


def test_what_stands_on_the_ground_is_not_rotated():
    """`rotation` with the ground plane is a mistake of the recipe."""
    with pytest.raises(ValueError, match="rotation needs `placement: gaussian`"):
        CompositeParams(rotation=10)
    assert isinstance(compose([make_foreground()], params={"blend": "trimap"}), Kept)


def test_the_rim_of_an_object_at_the_frame_is_matted_too():
    """An instance that is partly outside of the picture, in all corners."""
    coverage = draw_coverage(60, 60)
    row = cut(make_instance_record(coverage, np.array([220.0, 50, 50]), make_floor(60, 60)))
    background = make_background(80, 100)
    for at in ((5, 20), (95, 20), (5, 95), (95, 95)):
        layer = make_layer(row, background, at)
        source, target, _, foreground = compose_triplet(background, [blend_by_trimap(layer, background)], 0)
        assert np.array_equal(source[~foreground], target[~foreground])
        assert (source != target).any()


def test_the_filter_keeps_good_instances_of_classes_that_have_enough():
    """The best of a poor class stay within the tolerance; unknown scores and areas pass; small classes are left out."""
    rng = np.random.default_rng(8)
    rows = [
        {"label": label, "clip_score": score, "foreground_area": area}
        for label, base in (("cup", 0.25), ("mug", 0.12), ("hat", 0.25))
        for score, area in zip(base + rng.uniform(-0.1, 0.02, 40), rng.uniform(0, 1, 40), strict=True)
    ]
    limits = InstanceFilter()
    kept = select_instances(rows, InstanceFilter(min_count=1))
    best = {label: max(row["clip_score"] for row in rows if row["label"] == label) for label in ("cup", "mug", "hat")}
    for row in rows:
        good = row["clip_score"] >= min(0.2, best[row["label"]] - 0.02) and 0.05 <= row["foreground_area"] <= 0.95
        assert (row in kept) == good
    assert {row["label"] for row in kept} == {"cup", "mug", "hat"}
    counts = {label: sum(row["label"] == label for row in kept) for label in best}
    least = min(counts.values())
    many = [row for row in kept if counts[row["label"]] > least]
    assert select_instances(rows, InstanceFilter(min_count=least + 1)) == many
    unknown = [{"label": "cup", "clip_score": None, "foreground_area": None}] * 6
    assert select_instances(unknown, limits) == unknown
    assert select_instances(unknown[:5], limits) == []
