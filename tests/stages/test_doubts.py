"""What speaks against one removed object: shadows alone, half an object, things in the wind, light from outside."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import audit_pair, capture, freeze, make_floor, make_scene

from rasura.stages.audit import Audit, AuditParams

cv2.setNumThreads(1)
LIMITS = {
    "audit_evidence": 0.3,
    "audit_missed": 0.13,
    "audit_moving": 0.00035,
    "audit_outside": 0.02,
    "audit_ghost": 0.001,
}


def draw_leaves(picture, seed, count=14, shift=0):
    """Return a picture with leaves of fixed places and colours, each moved by up to `shift` px."""
    rng, out = np.random.default_rng(seed), np.ascontiguousarray(picture.astype(np.float32))
    moved = np.random.default_rng(seed + 1)
    height, width = picture.shape[:2]
    for _ in range(count):
        x, y, turn = rng.uniform(8, width - 8), rng.uniform(8, height - 8), rng.uniform(0, 180)
        x, y = (np.array([x, y]) + moved.uniform(-shift, shift, 2)).round().astype(int).tolist()
        cv2.ellipse(
            out, (x, y), (6, 3), turn + 20 * (shift > 0), 0, 360, rng.uniform((200, 150, 0), (250, 230, 60)), -1
        )
    return np.rint(out).astype(np.uint8)


@pytest.mark.parametrize(
    "options",
    [{}, {"noise": 2.5}, {"darkness": 0.7}, {"gain": 0.97, "shift": (0.6, -0.4)}, {"height": 240, "width": 320}],
    ids=str,
)
@pytest.mark.parametrize("seed", [101, 102])
def test_nothing_speaks_against_one_object_with_its_shadow(options, seed):
    pair = make_scene(seed, **options)
    out = audit_pair(pair.source, pair.clean)
    assert out["audit_evidence"] > LIMITS["audit_evidence"]
    for name in ("audit_missed", "audit_moving", "audit_outside", "audit_ghost"):
        assert out[name] <= LIMITS[name], (name, out[name])


@pytest.mark.parametrize("tint", [(1, 1, 1), (0.95, 1, 1.05)], ids=["grey", "bluish"])
@pytest.mark.parametrize("strength", [0.3, 0.6])
@pytest.mark.parametrize("width", [1.0, 12.0], ids=["hard", "soft"])
def test_a_shadow_alone_has_no_evidence_of_an_object(tint, strength, width):
    """Whatever its hue, strength and rim: what only became darker is no object."""
    rng, floor = np.random.default_rng(7), make_floor(seed=107)
    area = np.zeros(floor.shape[:2], np.float32)
    cv2.ellipse(area, (190, 170), (90, 35), 15, 0, 360, 1, -1)
    dark = 1 - strength * cv2.GaussianBlur(area, (0, 0), width)[..., None]
    out = audit_pair(capture(floor * dark ** np.array(tint, np.float32), rng, 1.0), capture(floor, rng, 1.0))
    assert out["audit_evidence"] < LIMITS["audit_evidence"]


@pytest.mark.parametrize("seed", [111, 112, 113])
def test_things_that_moved_beside_the_object_are_noticed(seed):
    """Leaves that lie still do not count; the same leaves, moved between the shots, do, or `effects` cuts them out."""
    pair = make_scene(seed)
    still = [draw_leaves(p, seed) for p in (pair.source, pair.clean)]
    assert audit_pair(*still)["audit_moving"] <= LIMITS["audit_moving"]
    blown = draw_leaves(pair.clean, seed, shift=14)
    leaves = np.where(pair.object_mask[..., None], pair.source, still[0])
    out = audit_pair(leaves, blown)
    assert out["audit_moving"] + out["effects_moved"] > LIMITS["audit_moving"]


@pytest.mark.parametrize("seed", [114, 115])
def test_a_tape_that_is_in_the_object_mask_is_noticed(seed):
    """A tape behind the object hangs elsewhere in gt. In M_o it is no object that hides a detail of gt."""
    pair = make_scene(seed)
    rows = np.mgrid[:320, :400][0]
    centre = int(np.argwhere(pair.object_mask)[:, 0].mean())
    before, after = (np.abs(rows - centre + move) <= 2 for move in (20, 14))
    source = np.where((before & ~pair.object_mask)[..., None], np.uint8((235, 235, 225)), pair.source)
    clean = np.where(after[..., None], np.uint8((235, 235, 225)), pair.clean)
    masks = {"object_mask": pair.object_mask | before, "foreground_mask": pair.foreground_mask | before | after}
    record = {"id": "a", "input": freeze(source), "gt": freeze(clean), "pair_noise": 0.3} | masks
    audit = Audit(AuditParams())
    assert audit.process_one(record).records[0]["audit_moving"] > LIMITS["audit_moving"]
    assert audit.process_one(record | {"gt": freeze(pair.clean)}).records[0]["audit_moving"] == 0


@pytest.mark.parametrize("turn", range(4))
def test_a_shadow_from_outside_lies_opposite_to_the_objects_own(turn):
    """Shadow that comes in over the border opposite to the object's own is another thing's, on all four sides."""
    pair = make_scene(121)
    foot = np.argwhere(pair.object_mask)
    y, x = int(foot[:, 0].max()) - 25, int(foot[:, 1].min()) + 8
    area = np.zeros(pair.object_mask.shape, np.float32)
    cv2.rectangle(area, (-9, y - 14), (x, y + 14), 1, -1)
    dark = 1 - 0.45 * cv2.GaussianBlur(area, (0, 0), 1.5)[..., None]
    dark[pair.object_mask] = 1
    lit, entered = pair.source, np.rint(pair.source * dark).astype(np.uint8)
    values = [
        audit_pair(np.rot90(source, turn).copy(), np.rot90(pair.clean, turn).copy())["audit_outside"]
        for source in (lit, entered)
    ]
    assert values[0] == 0
    assert values[1] > LIMITS["audit_outside"]


@pytest.mark.parametrize("opacity", [0.6, 1.0])
def test_a_ghost_that_only_gt_shows_is_noticed(opacity):
    """Something beside the object is in gt alone: in M_fg it would come into the target. In input alone, it is none."""
    pair = make_scene(125)
    columns = np.flatnonzero(pair.object_mask.any(0))
    x = 30 if columns[0] > 100 else pair.object_mask.shape[1] - 75
    pictures = []
    for picture in (pair.source, pair.clean):
        other = np.ascontiguousarray(picture).copy()
        cv2.rectangle(other, (x, 200), (x + 40, 260), (30, 160, 60), -1)
        pictures.append(np.rint(opacity * other + (1 - opacity) * picture).astype(np.uint8))
    record = audit_pair(pair.source, pair.clean)
    box = np.zeros_like(pair.object_mask)
    box[196:265, x - 4 : x + 45] = True
    record |= {"foreground_mask": record["foreground_mask"] | box}
    audit = Audit(AuditParams())
    in_clean, in_source = (
        audit.process_one(record | {name: freeze(picture)}).records[0]["audit_ghost"]
        for name, picture in zip(("gt", "input"), pictures[::-1], strict=True)
    )
    assert in_clean > LIMITS["audit_ghost"]
    assert in_source == 0


@pytest.mark.parametrize("cut", [0.3, 0.5])
def test_what_the_object_mask_misses_is_measured(cut):
    """A mask that ends before the object does misses a share of it; the whole mask misses next to nothing."""
    pair = make_scene(131)
    record = audit_pair(pair.source, pair.clean)
    whole = pair.object_mask
    rows = np.flatnonzero(whole.any(1))
    part = whole.copy()
    part[: rows[0] + round(cut * len(rows))] = False
    audit = Audit(AuditParams())
    missed = [audit.process_one(record | {"object_mask": m}).records[0]["audit_missed"] for m in (whole, part)]
    assert missed[0] < 0.05
    assert missed[1] > LIMITS["audit_missed"]


def test_no_object_mask_has_no_measurements():
    pair = make_scene(3)
    record = audit_pair(pair.source, pair.clean) | {"object_mask": None, "foreground_mask": np.zeros((320, 400), bool)}
    out = Audit(AuditParams()).process_one(record).records[0]
    assert all(out[name] is None for name in LIMITS)
    assert out["audit_reason"] == "nothing changed"


@pytest.mark.parametrize("seed", [141, 142])
def test_what_a_clip_saw_move_by_itself_is_no_change(seed):
    """With a clip's noise the leaves leave M_fg, the object stays; the column is not passed on."""
    pair = make_scene(seed)
    first, second = draw_leaves(pair.source, seed), draw_leaves(pair.clean, seed, shift=10)
    first = np.where(pair.object_mask[..., None], pair.source, first)
    quiet = np.stack([draw_leaves(pair.clean, seed, shift=shift) for shift in (0, 10, 0, 10, 0)]).astype(np.float32)
    spread = np.stack([cv2.blur(frame, (5, 5)) for frame in quiet]).std(0).max(-1)
    noise = np.rint(100 * 1.5 * spread).astype(np.uint16)
    without, within = audit_pair(first, second, clip_noise=None), audit_pair(first, second, clip_noise=noise)
    away = ~cv2.dilate(pair.foreground_mask.astype(np.uint8), np.ones((15, 15))).astype(bool)
    assert (within["foreground_mask"] & away).sum() < 0.2 * (without["foreground_mask"] & away).sum()
    assert (within["foreground_mask"] & pair.object_mask).sum() > 0.95 * pair.object_mask.sum()
    assert "clip_noise" not in within
    assert "clip_noise" not in without
