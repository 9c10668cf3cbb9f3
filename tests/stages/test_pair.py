"""Registration of gt to input: motion, exposure, and what is measured of both."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, freeze, make_floor, make_scene, move_camera

from rasura.stages.imaging.filters import compute_gradient_magnitude, estimate_gradient
from rasura.stages.pair import Pair, PairParams
from rasura.stages.registration.exposure import apply_gain, estimate_gain
from rasura.stages.registration.motion import estimate_registration, measure_residual_motion
from rasura.stages.registration.noise import estimate_noise, measure_background_psnr
from rasura.stages.registration.resampling import translate_and_fill
from rasura.stages.stage import Kept, Rejected

cv2.setNumThreads(1)


def run(source, clean, **params):
    return Pair(PairParams(**params)).process_one({"id": "x", "input": freeze(source), "gt": freeze(clean)})


def test_sub_pixel_shift_is_found():
    """A shift of up to 3 px under noise, flicker and with a moving object is found to 0.06 px in nine of ten pairs."""
    rng = np.random.default_rng(5)
    errors = []
    for seed in range(12):
        dx, dy = rng.uniform(-3, 3, 2)
        pair = make_scene(seed, noise=2, shift=(-dx, -dy), gain=float(rng.uniform(0.95, 1.05)))
        registration = estimate_registration(pair.source, pair.clean)
        errors.append(np.hypot(registration.dx - dx, registration.dy - dy))
    assert np.percentile(errors, 90) <= 0.06, errors


def test_what_stands_still_is_not_interpolated():
    """Without motion gt stays on its pixels: interpolation would blur every target for nothing."""
    for seed in range(4):
        pair = make_scene(seed, noise=2)
        kept = run(pair.source, pair.clean)
        assert (kept.records[0]["pair_shift_x"], kept.records[0]["pair_shift_y"]) == (0, 0)
        assert kept.records[0]["gt"].tobytes() == pair.clean.tobytes()


@pytest.mark.parametrize(
    ("turn", "zoom", "still"), [(0, 1, True), (0.3, 1, False), (-1, 1, False), (0, 1.01, False), (0, 0.99, False)]
)
def test_a_moved_camera_is_told_from_a_fixed_one(turn, zoom, still):
    """pair_motion is below 0.4 px for a fixed or merely shifted camera, above it for 0.3 degrees or 1 % of zoom."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        background = make_floor(360, 480, seed)
        source = capture(background, rng, 2)
        source[100:200, 100:180] = (30, 60, 160)
        clean = capture(move_camera(background, *rng.uniform(-3, 3, 2), turn=turn, zoom=zoom), rng, 2)
        motion = run(source, clean).records[0]["pair_motion"]
        assert (motion < 0.4) is still, motion


def test_flicker_is_taken_off_and_small_gains_are_left():
    """A gain of 5 % is undone to 0.5 %, beside a shadow; within the dead zone gt's values are exactly its own."""
    for gain in (0.95, 1.05):
        pair = make_scene(1, gain=gain)
        assert estimate_gain(pair.source, pair.clean) == pytest.approx([1 / gain] * 3, abs=0.005)
    pair = make_scene(1, gain=1.002)
    assert estimate_gain(pair.source, pair.clean) == (1.0, 1.0, 1.0)
    assert apply_gain(pair.clean, (1.0, 1.0, 1.0)).tobytes() == pair.clean.tobytes()


def test_exposure_and_shift_together_leave_only_noise():
    """After a shift of 2.4 px and a flicker of 5 %, the background fits to within 1.5 dB of the noise floor."""
    pair = make_scene(3, noise=2, shift=(1.7, -1.7), gain=0.95)
    best = measure_background_psnr(*(make_scene(3, noise=2).source, make_scene(3, noise=2).clean))
    kept = run(pair.source, pair.clean).records[0]
    assert kept["pair_psnr"] > best - 1.5
    assert kept["pair_psnr"] > measure_background_psnr(pair.source, pair.clean) + 5


def test_noise_is_not_inflated_by_a_soft_shadow():
    """The measured noise is that of the same pair without shadow, to 15 %, though the shadow is large and soft."""
    rng = np.random.default_rng(0)
    background = make_floor(240, 320)
    rows, columns = np.mgrid[:240, :320]
    shade = 1 - 0.06 * np.exp(-(((columns - 160) / 90) ** 2 + ((rows - 120) / 60) ** 2))[..., None]
    plain = estimate_noise(capture(background, rng, 3), capture(background, rng, 3))
    shaded = estimate_noise(capture(background * shade, rng, 3), capture(background, rng, 3))
    assert shaded == pytest.approx(plain, rel=0.15)
    # Two pictures of sigma 3, averaged over 25 pixels, less the part that the 15 x 15 mean takes along.
    assert plain == pytest.approx(3 * np.sqrt(2) / 5, rel=0.2)


def test_pixels_without_data_come_from_input_but_an_object_does_not():
    """Where the shifted gt has nothing, gt is input's own pixels; an object at that border does not get in."""
    background = np.clip(np.rint(make_floor()), 0, 255).astype(np.uint8)
    fill = background.copy()
    fill[:60, 100:160] = (220, 20, 20)
    out = translate_and_fill(np.roll(background, (-4, -4), (0, 1)), 4, 4, fill)
    assert (out[:4, :90] == fill[:4, :90]).all()
    assert (out[:, :4] == fill[:, :4]).all()
    assert not (out[:4, 105:155] == (220, 20, 20)).all(2).any()


def test_source_is_untouched_and_arrays_may_be_read_only():
    """The stage returns the very input it got; it runs on read-only arrays and gives the same bytes every time."""
    pair = make_scene(2, noise=2, shift=(1.3, 0.4), gain=1.04)
    first, second = run(pair.source, pair.clean), run(pair.source, pair.clean)
    assert isinstance(first, Kept)
    assert (first.records[0]["input"] == pair.source).all()
    assert first.records[0]["gt"].tobytes() == second.records[0]["gt"].tobytes()
    assert set(Pair.gives) <= set(first.records[0])


def test_frames_of_different_sizes_are_rejected():
    """Two sizes are no pair: rejected with both sizes in the detail."""
    out = run(np.zeros((40, 50, 3), np.uint8), np.zeros((40, 52, 3), np.uint8))
    assert out == Rejected("frames do not match", "input 50x40, gt 52x40")


@pytest.mark.parametrize("size", [(16, 16), (17, 200), (1, 1), (3, 40), (64, 48)])
@pytest.mark.parametrize("content", ["flat", "black", "white", "grain", "other"])
def test_odd_pictures_pass(size, content):
    """Tiny, flat, black, white, identical and unrelated pictures give finite measurements."""
    rng = np.random.default_rng(0)
    level = {"flat": 128, "black": 0, "white": 255}.get(content)
    source = np.full((*size, 3), level, np.uint8) if level is not None else rng.integers(0, 256, (*size, 3), np.uint8)
    clean = rng.integers(0, 256, (*size, 3), np.uint8) if content == "other" else source
    record = run(source, clean).records[0]
    assert record["gt"].shape == source.shape
    numbers = [record[k] for k in ("pair_shift_x", "pair_shift_y", "pair_motion", "pair_noise", "pair_psnr")]
    assert np.isfinite([*numbers, *record["pair_gain"]]).all()
    if content != "other":
        assert (record["gt"] == source).all()
        assert record["pair_psnr"] == 99.0


def test_identical_frames_have_no_motion():
    """A frame against itself: no shift, no motion, no noise."""
    picture = make_scene(4).source
    record = run(picture, picture).records[0]
    assert [record[k] for k in ("pair_shift_x", "pair_shift_y", "pair_noise")] == [0, 0, 0]
    assert record["pair_motion"] < 0.01
    assert measure_residual_motion(picture, picture) < 0.01


def test_faint_shade_over_most_of_the_floor_is_no_exposure():
    """An object that takes up to 2 % of the light from three quarters of the picture leaves the gain where it was.

    With a flicker of 3 % besides, the gain is right to 0.4 %: it is read where no shade is.
    """
    pair = make_scene(seed=11, noise=0.5)
    rows, columns = np.mgrid[:320, :400]
    shade = 1 - 0.02 * np.clip(1 - np.hypot(columns - 150, rows - 130) / 230, 0, 1)[..., None]
    source = np.clip(np.rint(pair.source * shade), 0, 255).astype(np.uint8)
    assert estimate_gain(source, pair.clean) == (1.0, 1.0, 1.0)
    dimmed = np.clip(np.rint(pair.clean * 0.97), 0, 255).astype(np.uint8)
    assert estimate_gain(source, dimmed) == pytest.approx((1 / 0.97,) * 3, rel=0.004)


def test_each_channel_has_its_own_gain():
    """White balance drifts: gains of 0.98, 1.0 and 1.03 are found to 0.4 % beside an object and its shadow."""
    pair = make_scene(seed=12)
    drifted = np.clip(np.rint(pair.clean / np.array([0.98, 1.0, 1.03])), 0, 255).astype(np.uint8)
    assert estimate_gain(pair.source, drifted) == pytest.approx((0.98, 1.0, 1.03), rel=0.004)


def test_a_turn_shows_though_an_object_fills_most_of_the_picture():
    """Where only a corner shows the floor unchanged, partly covered tiles vote too: half a degree is still seen."""
    empty = make_floor(seed=13)
    rng = np.random.default_rng(13)
    full = empty.copy()
    cv2.circle(full, (150, 150), 130, (60, 180, 120), -1)
    for turn, still in ((0.0, True), (0.5, False)):
        record = {
            "id": "x",
            "input": capture(full, rng, 1.0),
            "gt": capture(move_camera(empty, 1.3, -0.6, turn), rng, 1.0),
        }
        assert (Pair(PairParams()).process_one(record).records[0]["pair_motion"] <= 0.4) == still


def test_the_gradient_does_not_depend_on_where_its_arrays_are_in_memory() -> None:
    """The same values give the same magnitude to the last bit wherever the allocator puts its results, and it is right
    to two units in the last place. OpenCV's own depends on the place, which is why it is not used."""
    values = np.random.default_rng(1).uniform(0, 255, (97, 131)).astype(np.float32)
    kept, ours = [], set()
    for number in range(64):
        kept.append(np.empty(16 + 48 * number, np.uint8))  # the next arrays begin somewhere else
        ours.add(compute_gradient_magnitude(values).tobytes())
    assert len(ours) == 1
    across, down = (part.astype(np.float64) for part in estimate_gradient(values))
    error = np.abs(np.frombuffer(ours.pop(), np.float32).reshape(values.shape) - np.hypot(across, down))
    assert (error <= 2 * np.spacing(np.hypot(across, down).astype(np.float32))).all()
