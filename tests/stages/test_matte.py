"""The stage that makes a pair's foreground: what it gives, and what its layers give back."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, freeze, make_floor, make_scene

from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages.matte import Matte, MatteParams, extract_layers
from rasura.stages.matting.layers import compose
from rasura.stages.stage import Rejected

cv2.setNumThreads(1)


def run(pair, **params):
    record = {
        "id": "x",
        "input": freeze(pair.source),
        "gt": freeze(pair.clean),
        "object_mask": freeze(pair.object_mask),
        "foreground_mask": freeze(pair.foreground_mask),
    }
    return Matte(MatteParams(**params)).process_one(record).records[0]


def test_composed_over_gt_gives_input_back():
    """Laid over gt, the layers give input back: >= 38 dB in M_e, at the object's rim and in all; stored as measured."""
    for seed in range(3):
        pair = make_scene(seed, noise=1)
        record = run(pair)
        x0, y0, _, _ = (int(v) for v in record["foreground_box"])
        back = compose(record["foreground"], record["foreground_light"], pair.clean, x0, y0)
        effects = pair.foreground_mask & ~pair.object_mask
        assert record["alpha_psnr"] == pytest.approx(compute_psnr(back, pair.source))
        assert record["alpha_psnr_effects"] == pytest.approx(compute_psnr(back[effects], pair.source[effects]))
        assert record["alpha_psnr"] >= 38
        assert record["alpha_psnr_effects"] >= 38
        # the bound for any alpha: two pictures of sigma 1 differ by 45.1 dB
        assert record["alpha_psnr"] <= 46
        assert record["light_energy"] < 0.01


def test_reflection_comes_back():
    """A coloured glow beside the object, which alpha cannot give, is in the light layer: >= 38 dB in M_e, where alpha
    alone has less than 30."""
    rng = np.random.default_rng(0)
    background = make_floor(200, 260, 4)
    rows, columns = np.mgrid[:200, :260].astype(np.float32)
    glow = 45 * np.exp(-(((columns - 170) / 30) ** 2 + ((rows - 130) / 18) ** 2))[..., None] * np.array([1, 0.4, 0.1])
    picture = background + glow
    picture[60:140, 60:130] = (210, 90, 30)
    source, clean = capture(picture, rng, 1), capture(background, rng, 1)
    mask = np.zeros((200, 260), bool)
    mask[60:140, 60:130] = True
    where = mask | (glow.max(2) > 5)
    layer, light = extract_layers(source, clean, mask, where)
    effects = where & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert compute_psnr(compose(layer, light, clean)[effects], source[effects]) >= 38
    assert compute_psnr(compose(layer, None, clean)[effects], source[effects]) < 30


def test_hard_shadow_keeps_its_edge():
    """A shadow with a sharp edge keeps it: alpha is right to 0.03 two pixels inside the edge, 0 two pixels outside."""
    rng = np.random.default_rng(0)
    background = make_floor(200, 260)
    alpha = np.zeros((200, 260), np.float32)
    alpha[80:150, 120:220] = 0.4
    foreground = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((5, 5))) > 0
    source, clean = capture(background * (1 - alpha[..., None]), rng, 1), capture(background, rng, 1)
    source[90:140, 60:121], foreground[88:142, 58:123] = (200, 30, 30), True
    obj = np.zeros_like(foreground)
    obj[90:140, 60:121] = True
    alpha_estimate = extract_layers(source, clean, obj, foreground)[0][..., 3] / 255
    assert np.abs(alpha_estimate[84:146, 140:216] - 0.4).mean() < 0.02
    assert alpha_estimate[84:146, 216].mean() > 0.37
    assert np.abs(alpha_estimate[76:78, 130:210]).mean() < 0.01
    assert (alpha_estimate[100:130, 70:110] == 1).all()


def test_a_soft_shadow_has_no_step_where_its_mask_ends():
    """Where M_fg ends, alpha goes on falling: no neighbours along a line across that end differ by more than 2 %."""
    pair = make_scene(3, noise=1, darkness=0.3)
    layer, _ = extract_layers(pair.source, pair.clean, pair.object_mask, pair.foreground_mask)
    alpha = layer[..., 3].astype(np.float32) / 255
    away = ~cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool)
    end = cv2.dilate(pair.foreground_mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    end &= ~pair.foreground_mask & away
    step = np.abs(np.diff(alpha, axis=1))[end[:, 1:]]
    assert np.percentile(step, 95) < 0.02
    assert alpha[end].mean() > 0.002


def test_what_is_strong_outside_the_mask_is_left_out():
    """A change beside M_fg that is no faint tail (somebody else's shadow) gets no alpha and no light."""
    pair = make_scene(1, noise=1)
    source = pair.source.copy()
    columns = np.flatnonzero(pair.foreground_mask.any(0))
    stranger = np.s_[20:60, columns[-1] + 6 : columns[-1] + 30]
    source[stranger] = (source[stranger] * 0.5).astype(np.uint8)
    layer, light = extract_layers(source, pair.clean, pair.object_mask, pair.foreground_mask)
    assert not layer[stranger][2:-2, 2:-2].any()
    assert not light[stranger][2:-2, 2:-2].any()


def test_crop_holds_all_and_only_the_foreground():
    """The box is the crop's place in input; object mask, layers and box share it; inside M_o alpha is 255 and the
    colours are input's."""
    pair = make_scene(2)
    record = run(pair)
    x0, y0, x1, y1 = (int(v) for v in record["foreground_box"])
    assert record["foreground"].shape == (y1 - y0, x1 - x0, 4)
    assert record["foreground_light"].shape == (y1 - y0, x1 - x0, 3)
    assert (record["foreground_object"] == pair.object_mask[y0:y1, x0:x1]).all()
    assert record["foreground_object"].sum() == pair.object_mask.sum()
    inner = cv2.erode(pair.object_mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    cut = inner[y0:y1, x0:x1]
    assert (record["foreground"][..., 3][cut] == 255).all()
    assert (record["foreground"][cut][:, :3] == pair.source[inner]).all()
    edges = [record["foreground"][..., 3], record["foreground_light"].max(2)]
    for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert any(edge[side].any() for edge in edges)
    assert 0.1 < record["shadow_alpha"] < 0.45


def test_without_effects_there_is_no_figure_for_them():
    """A pair whose M_fg is M_o has alpha_psnr_effects null and no shadow."""
    pair = make_scene(0, darkness=0.0)
    record = {"id": "x", "input": pair.source, "gt": pair.clean}
    record |= {"object_mask": pair.object_mask, "foreground_mask": pair.object_mask}
    out = Matte(MatteParams()).process_one(record).records[0]
    assert out["alpha_psnr_effects"] is None
    assert out["shadow_alpha"] == 0
    assert out["light_energy"] == 0


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 40)])
def test_odd_pictures_pass(size):
    """Tiny pictures, black backgrounds, masks that fill everything: finite figures, no warning."""
    rng = np.random.default_rng(0)
    for clean in (np.zeros((*size, 3), np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)):
        source = rng.integers(0, 256, (*size, 3), np.uint8)
        everything = np.ones(size, bool)
        one = np.zeros(size, bool)
        one[0, 0] = True
        for mask in (everything, one):
            record = {"id": "x", "input": source, "gt": clean, "object_mask": mask, "foreground_mask": everything}
            out = Matte(MatteParams()).process_one(record).records[0]
            assert np.isfinite([out["alpha_psnr"], out["shadow_alpha"], out["light_energy"]]).all()
    record["object_mask"] = np.zeros(size, bool)
    assert Matte(MatteParams()).process_one(record) == Rejected("no object found", "object_mask is empty")
