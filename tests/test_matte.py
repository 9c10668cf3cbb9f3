"""The foreground of a pair: alpha, rim and colours, and what they give back."""

import cv2
import numpy as np
import pytest
from pair_scenes import camera, floor, frozen, scene

from stages.matte import Matte, MatteParams, alpha_from_pair, compose, cut_out, psnr
from stages.stage import Rejected

cv2.setNumThreads(1)


def run(pair, **params):
    record = {
        "id": "x",
        "input": frozen(pair.source),
        "gt": frozen(pair.clean),
        "object_mask": frozen(pair.object_mask),
        "foreground_mask": frozen(pair.foreground_mask),
    }
    return Matte(MatteParams(**params)).process_one(record).records[0]


def test_alpha_recovers_a_known_shadow():
    """Mean error of the shadow's alpha <= 0.01 and 95 % of it <= 0.03, under noise; 1 on M_o, 0 outside M_fg."""
    for seed in range(3):
        pair = scene(seed, noise=1.5)
        alpha = alpha_from_pair(pair.source, pair.clean, pair.object_mask, pair.foreground_mask)
        near = cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((7, 7))) > 0
        shadow = pair.foreground_mask & ~near
        error = np.abs(alpha - pair.alpha)[shadow]
        assert error.mean() <= 0.01
        assert np.percentile(error, 95) <= 0.03
        assert (alpha[pair.object_mask] == 1).all()
        assert (alpha[~pair.foreground_mask] == 0).all()


def test_hard_shadow_keeps_its_edge():
    """A shadow with a sharp edge keeps it: alpha is right to 0.03 two pixels inside the edge, 0 two pixels outside."""
    rng = np.random.default_rng(0)
    background = floor(200, 260)
    alpha = np.zeros((200, 260), np.float32)
    alpha[80:150, 120:220] = 0.4
    foreground = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((5, 5))) > 0
    source, clean = camera(background * (1 - alpha[..., None]), rng, 1), camera(background, rng, 1)
    source[90:140, 60:121], foreground[88:142, 58:123] = (200, 30, 30), True
    obj = np.zeros_like(foreground)
    obj[90:140, 60:121] = True
    found = alpha_from_pair(source, clean, obj, foreground)
    assert np.abs(found[84:146, 140:216] - 0.4).mean() < 0.02
    assert found[84:146, 216].mean() > 0.37
    assert np.abs(found[76:78, 130:210]).mean() < 0.01


def test_composed_over_gt_gives_input_back():
    """Laid over gt, the foreground gives input back: >= 38 dB in M_e, at the object's rim and in all."""
    for seed in range(3):
        pair = scene(seed, noise=1)
        record = run(pair)
        x0, y0, _, _ = (int(v) for v in record["foreground_box"])
        back = compose(record["foreground"], pair.clean, x0, y0)
        effects = pair.foreground_mask & ~pair.object_mask
        assert record["alpha_psnr"] == pytest.approx(psnr(back, pair.source))
        assert record["alpha_psnr"] >= 38
        assert psnr(back[effects], pair.source[effects]) >= 38
        # the bound for any alpha: two pictures of sigma 1 differ by 45.1 dB
        assert record["alpha_psnr"] <= 46


def test_no_light_of_the_old_background_comes_along():
    """On another background the object's rim is a mix of object and the new background, not the old one."""
    pair = scene(1, noise=0.5, darkness=0.0)
    margin = cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((7, 7))) > 0
    alpha = alpha_from_pair(pair.source, pair.clean, pair.object_mask, margin)
    layer = cut_out(pair.source, pair.clean, alpha, pair.object_mask)
    blue = np.zeros_like(pair.clean)
    blue[..., 2] = 255
    rim = margin & ~pair.object_mask
    # The floor is greenish grey (140), the object is not (below 60): what shows green on the rim is old floor.
    assert compose(layer, blue)[rim][:, 1].mean() < 15


def test_crop_holds_all_and_only_the_foreground():
    """The box is the crop's place in input; object mask and RGBA share it; alpha is 255 exactly on M_o at least."""
    pair = scene(2)
    record = run(pair)
    x0, y0, x1, y1 = (int(v) for v in record["foreground_box"])
    assert record["foreground"].shape == (y1 - y0, x1 - x0, 4)
    assert (record["foreground_object"] == pair.object_mask[y0:y1, x0:x1]).all()
    assert record["foreground_object"].sum() == pair.object_mask.sum()
    assert (record["foreground"][..., 3][record["foreground_object"]] == 255).all()
    assert (record["foreground"][record["foreground_object"]][:, :3] == pair.source[pair.object_mask]).all()
    assert 0.1 < record["shadow_alpha"] < 0.45


def test_grain_is_not_carried_along():
    """In an even shadow the alpha's own noise is at most a third of the noise that the pixels had."""
    rng = np.random.default_rng(0)
    background = np.full((160, 200, 3), 120, np.float32)
    where = np.zeros((160, 200), bool)
    where[40:120, 60:150] = True
    shade = np.where(where, 0.7, 1)[..., None]
    source, clean = camera(background * shade, rng, 3), camera(background, rng, 3)
    alpha = alpha_from_pair(source, clean, np.zeros_like(where), where)
    assert alpha[55:105, 75:135].std() < 3 * np.sqrt(2) / 120 / np.sqrt(3) / 3
    assert alpha[55:105, 75:135].mean() == pytest.approx(0.3, abs=0.01)


def test_effects_can_only_darken():
    """Where source is brighter than gt, alpha is 0: Eq. 1 has no light to add."""
    clean = np.full((40, 40, 3), 100, np.uint8)
    where = np.zeros((40, 40), bool)
    where[10:30, 10:30] = True
    alpha = alpha_from_pair(clean + np.uint8(50) * where[..., None], clean, np.zeros_like(where), where)
    assert not alpha.any()


def test_compose_clips_at_the_border():
    """A foreground that hangs over the border is cut; one that lies outside changes nothing; background is kept."""
    background = np.full((20, 30, 3), 50, np.uint8)
    background.flags.writeable = False
    layer = np.full((10, 10, 4), 255, np.uint8)
    assert (compose(layer, background, 25, 15)[15:, 25:] == 255).all()
    assert (compose(layer, background, -5, -5)[:5, :5] == 255).all()
    assert (compose(layer, background, 40, 0) == background).all()
    assert (compose(layer, background, -5, -5)[5:, 5:] == 50).all()


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 40)])
def test_odd_pictures_pass(size):
    """Tiny pictures, black backgrounds, masks that fill everything: finite alpha, no warning."""
    rng = np.random.default_rng(0)
    for clean in (np.zeros((*size, 3), np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)):
        source = rng.integers(0, 256, (*size, 3), np.uint8)
        everything = np.ones(size, bool)
        one = np.zeros(size, bool)
        one[0, 0] = True
        for mask in (everything, one):
            record = {"id": "x", "input": source, "gt": clean, "object_mask": mask, "foreground_mask": everything}
            out = Matte(MatteParams()).process_one(record).records[0]
            assert np.isfinite([out["alpha_psnr"], out["shadow_alpha"]]).all()
    record["object_mask"] = np.zeros(size, bool)
    assert Matte(MatteParams()).process_one(record) == Rejected("no object found", "object_mask is empty")
