"""Fractional alpha at an object's edge, against truth: strands, motion, and no halo of the old background."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, make_floor

from rasura.stages.matte import extract_layers
from rasura.stages.matting.edges import estimate_edge_layers
from rasura.stages.matting.extrapolation import extrapolate_smoothly
from rasura.stages.matting.laplacian import compute_matting_laplacian
from rasura.stages.matting.layers import compose, merge_layers
from rasura.stages.matting.trimap import estimate_edge_width

cv2.setNumThreads(1)


def pair(kind, seed=0, height=220, width=260, noise=1.0):
    """source, clean, M_o, M_fg, true coverage, true coverage × colour; `kind` is strands, motion or lens."""
    rng = np.random.default_rng(seed)
    scale = 4
    drawn = np.zeros((height * scale, width * scale), np.uint8)
    centre = (width * scale // 2, height * scale // 2)
    cv2.ellipse(drawn, centre, (width * scale // 5, height * scale // 4), 0, 0, 360, 255, -1)
    if kind == "strands":
        for angle in rng.uniform(np.pi, 2 * np.pi, 70):
            start = np.array(centre) + np.array([width / 5.2 * np.cos(angle), height / 4.2 * np.sin(angle)]) * scale
            end = start + scale * rng.uniform(5, 11) * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(drawn, start.astype(int), end.astype(int), 255, int(rng.integers(2, 6)), cv2.LINE_AA)
    covered = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    colour = make_floor(height, width, seed + 9, colour=(175, 60, 40))
    if kind == "motion":
        kernel = np.full((1, 11), 1 / 11, np.float32)
        covered, colour = cv2.filter2D(covered, -1, kernel), make_floor(height, width, seed + 9, colour=(190, 60, 40))
    else:
        covered = cv2.GaussianBlur(covered, (0, 0), 0.5 if kind == "strands" else 1.0)
    background = make_floor(height, width, seed, colour=(105, 135, 150))
    light = covered[..., None] * colour
    source = capture(light + (1 - covered[..., None]) * background, rng, noise)
    mask = cv2.morphologyEx((covered > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    where = cv2.dilate((covered > 0.02).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return source, capture(background, rng, noise), mask, where, covered, light


@pytest.mark.parametrize(
    ("kind", "limit", "gain"), [("strands", 0.06, 2.0), ("motion", 0.08, 2.0), ("lens", 0.03, 4.0)]
)
def test_coverage_is_fractional_and_right(kind, limit, gain):
    """Mean error of alpha where truth is mixed is below the limit, and several times below the binary mask's."""
    errors, binary = [], []
    for seed in range(3):
        source, clean, mask, where, covered, _ = pair(kind, seed)
        layer, _ = extract_layers(source, clean, mask, where)
        mixed = (covered > 0.02) & (covered < 0.98)
        errors.append(np.abs(layer[..., 3] / 255 - covered)[mixed].mean())
        binary.append(np.abs(mask - covered)[mixed].mean())
    assert np.mean(errors) < limit
    assert np.mean(binary) > gain * np.mean(errors)


@pytest.mark.parametrize("kind", ["strands", "motion", "lens"])
@pytest.mark.parametrize("backdrop", [0, 255])
def test_no_halo_of_the_old_background_travels(kind, backdrop):
    """On black and on white the edge looks as it would have there: the error is less than half of what carrying the
    old pixels along would make."""
    ours, carried = [], []
    for seed in range(2):
        source, clean, mask, where, covered, light = pair(kind, seed)
        layer, added = extract_layers(source, clean, mask, where)
        other = np.full_like(clean, backdrop)
        truth = light + (1 - covered[..., None]) * other
        rim = (covered > 0.02) & (covered < 0.98)
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        ours.append(np.abs(compose(layer, added, other) - truth)[rim].mean())
        carried.append(np.abs(np.where(grown[..., None], source, other) - truth)[rim].mean())
    assert np.mean(ours) < 0.5 * np.mean(carried)


@pytest.mark.parametrize("kind", ["strands", "motion", "lens"])
def test_the_edge_gives_input_back(kind):
    """Laid over gt, the edge's pixels are input's to 36 dB: fractional alpha loses nothing."""
    source, clean, mask, where, covered, _ = pair(kind, 5)
    layer, added = extract_layers(source, clean, mask, where)
    rim = (covered > 0.02) & (covered < 0.98)
    error = (compose(layer, added, clean).astype(float) - source)[rim]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 36


def test_the_inside_is_left_alone():
    """Deep inside M_o coverage is 1 and the colours are input's bytes, however much they resemble the background."""
    source, clean, mask, where, _, _ = pair("lens", 2)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    source = source.copy()
    source[95:125, 115:145] = clean[95:125, 115:145]  # a patch of the floor's very colour
    coverage, colour, _ = estimate_edge_layers(source, clean, mask, where, np.zeros(mask.shape, np.float32), 0.3)
    assert (coverage[inner] == 1).all()
    layer = merge_layers(coverage, colour, np.zeros(mask.shape, np.float32))
    assert (layer[inner][:, :3] == source[inner]).all()


def test_a_reflection_is_no_part_of_the_object():
    """Light of the object's colour that fades on the floor below it goes to the light layer, not to alpha."""
    rng = np.random.default_rng(3)
    background = make_floor(200, 240, 3, colour=(90, 90, 95))
    glow = np.zeros((200, 240, 3), np.float32)
    glow[120:150, 80:160] = np.linspace(40, 5, 30)[:, None, None] * np.array([1.0, 0.25, 0.2])
    picture = background + glow
    picture[60:120, 80:160] = (200, 50, 40)
    source, clean = capture(picture, rng, 1), capture(background, rng, 1)
    mask = np.zeros((200, 240), bool)
    mask[60:120, 80:160] = True
    where = mask | (glow.max(2) > 5)
    layer, light = extract_layers(source, clean, mask, where)
    inner = np.s_[124:145, 84:156]
    assert layer[inner][..., 3].mean() / 255 < 0.03
    assert np.abs(light[inner].astype(float) - glow[inner])[..., 0].mean() < 4


def test_edge_width_tells_motion_from_a_sharp_edge():
    """The median width along the outline is below 4 px for a sharp edge and within 30 % of 11 px for that much motion,
    at the left and right where the object moved across its edge."""
    widths = {}
    for kind in ("lens", "motion"):
        source, clean, mask, _, covered, _ = pair(kind, 1)
        width = estimate_edge_width(source.astype(np.float32) - clean, mask, 12)
        side = (np.abs(covered - 0.5) < 0.3) & (np.abs(np.arange(220) - 110) < 20)[:, None]
        widths[kind] = float(np.median(width[side]))
    assert widths["lens"] < 4
    assert 7 < widths["motion"] < 15


def test_matting_laplacian_is_zero_on_linear_models():
    """Where alpha is linear in the guide's colours, L α vanishes; for other alphas it does not."""
    rng = np.random.default_rng(0)
    guide = rng.uniform(0, 255, (20, 20, 3)).astype(np.float32)
    windows, left = compute_matting_laplacian(guide, np.ones((20, 20), bool), 1e-3)
    linear = (guide @ np.array([0.001, -0.002, 0.0015]) + 0.3).astype(np.float32)
    other = rng.random((20, 20)).astype(np.float32)
    assert np.abs(left @ linear.ravel()[windows][..., None]).max() < 1e-3
    assert np.abs(left @ other.ravel()[windows][..., None]).max() > 0.1


def test_spread_reaches_everywhere():
    """Values are carried over any distance, and known places keep about their own."""
    values = np.zeros((50, 300, 1), np.float32)
    known = np.zeros((50, 300), bool)
    known[10:20, 5:15], known[10:20, 280:290] = True, True
    values[:, :150], values[:, 150:] = 3, 7
    out = extrapolate_smoothly(values, known, 2.0)[..., 0]
    assert np.isfinite(out).all()
    assert out[15, 10] == pytest.approx(3, abs=0.01)
    assert out[15, 285] == pytest.approx(7, abs=0.01)
    assert 2.99 < out.min() <= out.max() < 7.01
