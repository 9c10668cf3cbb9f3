"""M_fg from what differs: precision and recall on soft shadows, robustness to noise, misfit and odd pictures."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, compute_iou, freeze, make_floor, make_scene, move_camera

from rasura.stages.effect_mask.object_core import find_object_core
from rasura.stages.effect_mask.osor import segment_foreground_osor
from rasura.stages.effect_mask.segmentation import compute_steady_difference, segment_foreground
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.components import apply_hysteresis, fill_holes
from rasura.stages.pair import Pair, PairParams
from rasura.stages.registration.noise import estimate_noise
from rasura.stages.stage import Kept, Rejected

cv2.setNumThreads(1)


def run(source, clean, registered=False, **params):
    record = {"id": "x", "input": freeze(source), "gt": freeze(clean)}
    if registered:
        record = Pair(PairParams()).process_one(record).records[0]
    else:
        record["pair_noise"] = estimate_noise(source, clean)
    return Effects(EffectsParams(**params)).process_one(record)


def measure_precision_recall(mask, truth):
    return (mask & truth).sum() / mask.sum(), (mask & truth).sum() / truth.sum()


def test_soft_shadow_is_found_whole():
    """With a clean camera, M_fg has precision >= 0.95 and recall >= 0.95 in each of five scenes."""
    for seed in range(5):
        pair = make_scene(seed)
        mask = run(pair.source, pair.clean).records[0]["foreground_mask"]
        precision, recall = measure_precision_recall(mask, pair.foreground_mask)
        assert precision >= 0.95, (seed, precision)
        assert recall >= 0.95, (seed, recall)


def test_soft_shadow_is_found_through_a_cameras_faults():
    """After registration, with noise, a sub-pixel shift and flicker: precision and recall >= 0.92 on average."""
    rng = np.random.default_rng(1)
    both = []
    for seed in range(4):
        pair = make_scene(seed, noise=2, shift=tuple(rng.uniform(-1, 1, 2)), gain=float(rng.uniform(0.95, 1.05)))
        both.append(
            measure_precision_recall(
                run(pair.source, pair.clean, True).records[0]["foreground_mask"], pair.foreground_mask
            )
        )
    precision, recall = np.mean(both, 0)
    assert precision >= 0.92, both
    assert recall >= 0.92, both


def test_core_is_object_and_not_shadow():
    """At most 6 % of the object core is off the object, and it covers 85 % of the object."""
    for seed in range(4):
        pair = make_scene(seed, noise=2)
        core, tinted, _ = find_object_core(
            pair.source, pair.clean, pair.foreground_mask, estimate_noise(pair.source, pair.clean)
        )
        off = (core & ~cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((5, 5))).astype(bool)).sum() / core.sum()
        assert off <= 0.06, (seed, off)
        assert (core & pair.object_mask).sum() / pair.object_mask.sum() >= 0.85
        assert not (tinted & ~core).any()


def test_a_patch_far_from_the_object_is_stray():
    """A change that hangs on no object (a lamp's reflex on the wall) is left out, and counted in effects_stray."""
    pair = make_scene(0)
    source = pair.source.copy()
    source[5:45, 350:395] = (source[5:45, 350:395] * 0.8).astype(np.uint8)
    record = run(source, pair.clean).records[0]
    assert not record["foreground_mask"][5:45, 350:395].any()
    assert record["effects_stray"] > 0.05
    assert run(pair.source, pair.clean).records[0]["effects_stray"] < 0.03


def test_a_line_that_the_camera_saw_beside_itself_is_no_object():
    """White lines on a floor, 1 px off because the camera turned a little, do not become core or M_fg."""
    rng = np.random.default_rng(3)
    background = make_floor(320, 400, 2, (90, 90, 92))
    for x in (30, 340):
        background[20:120, x : x + 6] = 240
    clean = capture(move_camera(background, 1.0, 0.4), rng, 1)
    background[150:250, 160:240] = (40, 60, 190)
    source = capture(background, rng, 1)
    record = run(source, clean).records[0]
    assert not record["foreground_mask"][:, :60].any()
    assert not record["foreground_mask"][:, 320:].any()
    assert record["foreground_mask"][155:245, 165:235].all()


def test_a_shadow_that_only_gt_has_stays_out():
    """Somebody's soft shadow in gt next to the object is not taken: the target would get a smudge."""
    pair = make_scene(0)
    rows, columns = np.mgrid[:320, :400]
    y, x = np.argwhere(pair.object_mask).mean(0)
    smudge = 0.12 * np.exp(-((((columns - (x - 115)) / 28) ** 2 + ((rows - y) / 40) ** 2) ** 2))
    clean = np.rint(pair.clean * (1 - smudge[..., None])).astype(np.uint8)
    mask = run(pair.source, clean).records[0]["foreground_mask"]
    inside = (smudge > 0.05) & ~pair.foreground_mask
    assert inside.sum() > 2000
    assert (mask & inside).sum() < 0.2 * inside.sum()
    assert (mask & pair.foreground_mask).sum() > 0.93 * pair.foreground_mask.sum()


def test_grey_pictures_work():
    """Without any colour the object is still told by brightness and texture: IoU of M_fg >= 0.85."""
    pair = make_scene(1, grey=True)
    assert compute_iou(run(pair.source, pair.clean).records[0]["foreground_mask"], pair.foreground_mask) >= 0.85


def test_noise_alone_is_no_difference():
    """Two shots of one empty scene are rejected, whatever the noise; so are identical frames."""
    background = make_floor(200, 240)
    for noise in (0, 1, 3, 6):
        rng = np.random.default_rng(noise)
        out = run(capture(background, rng, noise), capture(background, rng, noise))
        assert isinstance(out, Rejected), noise
        assert out.reason == "no difference"


def test_osor_runs_with_its_own_constants():
    """The alternative method finds the object too (recall of M_o >= 0.9) and rejects identical frames."""
    pair = make_scene(0)
    record = run(pair.source, pair.clean, method="osor").records[0]
    assert (record["foreground_mask"] & pair.object_mask).sum() >= 0.9 * pair.object_mask.sum()
    assert not segment_foreground_osor(pair.clean, pair.clean).any()
    assert isinstance(run(pair.clean, pair.clean, method="osor"), Rejected)


@pytest.mark.parametrize("size", [(16, 16), (17, 200), (1, 1), (3, 40)])
@pytest.mark.parametrize("method", ["noise", "osor"])
def test_odd_pictures_pass(size, method):
    """Tiny pictures are judged without a fault: all changed, nothing changed, or half of it."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (*size, 3), np.uint8)
    half = clean.copy()
    half[: size[0] // 2 + 1] = 0
    for source in (clean, 255 - clean, half):
        out = run(source, clean, method=method)
        assert isinstance(out, Kept | Rejected)
        if isinstance(out, Kept):
            assert out.records[0]["foreground_mask"].shape == size
            assert 0 <= out.records[0]["effects_stray"] <= 1


def test_same_bytes_every_time():
    """Masks do not change from one call to the next, and the columns are those that the stage declares."""
    pair = make_scene(2, noise=2)
    first, second = run(pair.source, pair.clean).records[0], run(pair.source, pair.clean).records[0]
    assert first["foreground_mask"].tobytes() == second["foreground_mask"].tobytes()
    assert set(Effects.gives) <= set(first)
    assert first["foreground_mask"].dtype == bool


def test_small_tools():
    """Hysteresis keeps faint pixels only where they touch strong ones; holes fill unless they reach the border."""
    values = np.zeros((6, 12), np.float32)
    values[2, 1:5], values[2, 4], values[4, 8:11] = 6, 12, 6
    assert apply_hysteresis(values, 5).sum() == 4
    ring = np.ones((7, 7), bool)
    ring[2:5, 2:5] = False
    assert fill_holes(ring).all()
    assert not fill_holes(ring, 4).all()
    ring[3, 4:] = False
    assert not fill_holes(ring)[3, 3]
    assert compute_difference(np.full((9, 9, 3), 7, np.uint8), np.zeros((9, 9, 3), np.uint8)).max() == 7
    assert not segment_foreground(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8), 0.0)[0].any()


def test_an_object_of_a_shadows_colour_is_known_by_the_grain_it_hides():
    """A plain patch as dark and grey as a shadow of the floor is core; the floor darkened alike is not."""
    rng = np.random.default_rng(21)
    empty = make_floor(seed=21)
    full = empty.copy()
    full[60:160, 60:160] = 0.6 * empty.mean((0, 1))  # an object
    full[60:160, 240:340] *= 0.6  # a shadow
    source, clean = capture(full, rng, 0.7), capture(empty, rng, 0.7)
    core = find_object_core(source, clean, compute_difference(source, clean) > 5, estimate_noise(source, clean))
    assert core.mask[70:150, 70:150].mean() > 0.9
    assert core.mask[70:150, 250:330].mean() < 0.02
    assert core.hidden[70:150, 70:150].mean() > 0.5


def test_the_shadow_of_something_outside_the_picture_is_no_object():
    """A darkening that comes in over the border, in which a codec has smeared the grain, starts no object."""
    pair = make_scene(seed=22)
    source = pair.source.copy()
    smeared = 0.6 * cv2.GaussianBlur(pair.clean[290:, 250:380].astype(np.float32), (0, 0), 6)
    source[290:, 250:380] = capture(smeared, np.random.default_rng(22), 0.5)
    core = find_object_core(source, pair.clean, compute_difference(source, pair.clean) > 5, 0.3).mask
    assert core[pair.object_mask].mean() > 0.5
    assert not core[295:, 255:375].any()


def test_steady_difference_keeps_its_noise_low_and_its_rims_sharp():
    """In a falloff its noise is well below the 5 x 5 mean's; beyond a hard rim it is zero where nothing changed."""
    rng = np.random.default_rng(23)
    clean = np.full((120, 160, 3), 120.0, np.float32)
    slope = clean - np.linspace(20, 4, 160, dtype=np.float32)[None, :, None]
    source, plain = capture(slope, rng, 2.0), capture(clean, rng, 2.0)
    expected = np.broadcast_to(np.linspace(20, 4, 160), (120, 160))
    errors = [
        float(np.std((values - expected)[10:-10, 10:-10]))
        for values in (compute_steady_difference(source, plain, 0.5), compute_difference(source, plain))
    ]
    assert errors[0] < 0.7 * errors[1]
    hard = clean.copy()
    hard[:, 80:] -= 40
    values = compute_steady_difference(hard.astype(np.uint8), clean.astype(np.uint8), 0.1)
    assert not values[:, :77].any()
    assert (values[:, 83:] > 35).all()
