"""The ground plane of a photo: where objects can stand, and how large they would be there."""

import cv2
import numpy as np
import pytest

from rasura.manifests.schemas import Kind
from rasura.stages.background import Background
from rasura.stages.ground import Ground, GroundParams
from rasura.stages.ground_plane.plane import (
    compute_ground_scale,
    compute_plane,
    compute_relative_error,
    find_flat_area,
    fit_ground_plane,
    fit_region_plane,
    is_ground_plane,
    make_pixel_rows,
    recedes,
)
from rasura.stages.ground_plane.region import (
    estimate_horizon,
    find_smooth_region,
    make_default_plane,
    measure_water_likeness,
    remove_specks,
)
from rasura.stages.stage import InvalidValues, Kept, MissingColumns, Params, Rejected

SHAPE = (90, 120)
FOCAL = 100.0


def make_depth_map(pitch=20.0, tall=1.5, far=8.0, roll=0.0, shape=SHAPE, focal=FOCAL):
    """Inverse depth (h, w), 1/m, of a floor `tall` m below a camera that looks down by `pitch` degrees and leans by
    `roll`, up to a wall `far` m away; and the floor's mask and normal."""
    p, r = np.deg2rad(pitch), np.deg2rad(roll)
    n = np.array([np.sin(r) * np.cos(p), np.cos(r) * np.cos(p), np.sin(p)])
    height, width = shape
    xs, ys = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    plane = (n[0] * xs / focal + n[1] * ys / focal + n[2]) / tall
    return np.maximum(plane, 1 / far).astype(np.float32), plane > 1 / far, n


def scene(height=240, width=320, horizon=100, seed=0):
    """A busy wall over a calm floor, (h, w, 3) uint8, read-only."""
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 2)
    picture = np.clip((picture - 127) * 6 + 127, 0, 255)
    picture[horizon:] = rng.normal((120, 110, 100), 2, (height - horizon, width, 3))
    out = picture.astype(np.uint8)
    out.flags.writeable = False
    return out


def fit(inverse, seed=0, **more):
    return fit_ground_plane(inverse, SHAPE, FOCAL, np.random.default_rng(seed), **more)


@pytest.mark.parametrize("pitch", [5, 20, 60])
@pytest.mark.parametrize("roll", [0, 8])
def test_the_floor_gives_camera_and_sizes(pitch, roll):
    """Of an exact floor: normal, camera height, pixels per metre everywhere, and the mask to the wall's foot."""
    inverse, floor, n = make_depth_map(pitch, roll=roll)
    line = fit(inverse)
    assert line is not None
    plane = compute_plane(line, FOCAL, SHAPE)
    assert plane[:3] == pytest.approx(n, abs=2e-3)
    assert plane[3] == pytest.approx(1.5, rel=0.01)
    assert is_ground_plane(plane)
    rows = make_pixel_rows((120, 90), SHAPE)
    at = floor.ravel()
    density = rows @ compute_ground_scale(plane, FOCAL, SHAPE)
    assert density[at] == pytest.approx((FOCAL * inverse).ravel()[at], rel=0.02)
    flat, error = find_flat_area(inverse, line, SHAPE)
    assert (flat & floor).sum() / (flat | floor).sum() > 0.95
    assert np.median(error[flat]) < 0.01


def test_the_grid_of_the_depth_changes_nothing():
    """A map at half the picture's resolution gives the same plane in the picture's pixels."""
    inverse, _, _ = make_depth_map(25, far=1e3)
    half = cv2.resize(inverse, (60, 45), interpolation=cv2.INTER_AREA)
    assert fit(half) == pytest.approx(fit(inverse), rel=0.02, abs=1e-5)


def test_the_unit_of_depth_changes_only_the_height():
    """Disparity up to a factor gives the same normal, area and ratios of sizes."""
    inverse, _, _ = make_depth_map(25)
    metres, other = (compute_plane(fit(values), FOCAL, SHAPE) for values in (inverse, inverse * 7))
    assert other[:3] == pytest.approx(metres[:3], abs=1e-6)
    assert other[3] == pytest.approx(metres[3] / 7)
    one, two = (find_flat_area(values, fit(values), SHAPE)[0] for values in (inverse, inverse * 7))
    assert np.array_equal(one, two)


def test_a_thing_on_the_floor_is_no_floor():
    """A box that stands on the plane, nearer than the floor behind it, is left out of the flat part."""
    inverse, _, _ = make_depth_map(15)
    inverse[50:70, 40:70] = inverse[70, 50]
    flat, _ = find_flat_area(inverse, fit(inverse), SHAPE)
    assert flat[50:62, 45:65].mean() < 0.1
    assert flat[60:85, 80:115].mean() > 0.9


def test_of_floor_and_table_the_larger_is_taken():
    """Two levels, a table of a third of the floor's height in front: one plane, and nothing of the other."""
    floor, _, _ = make_depth_map(25, far=1e3)
    table, _, _ = make_depth_map(25, tall=1.0, far=1e3)
    whole = floor.copy()
    whole[60:, :50] = table[60:, :50]
    flat, _ = find_flat_area(whole, fit(whole), SHAPE)
    assert not flat[62:, 2:48].any()
    assert flat[60:, 52:].mean() > 0.95
    allowed = np.zeros(SHAPE, bool)
    allowed[60:, :50] = True  # a class map that only knows the table
    flat, _ = find_flat_area(whole, fit(whole, allowed=allowed), SHAPE)
    assert flat[62:, 2:48].mean() > 0.95
    assert not flat[62:, 52:].any()


def test_noise_is_borne_and_the_result_is_repeatable():
    """A slow error of 3 %, a blur and 2 % of noise: the area keeps 85 %, the pitch 2 degrees; same seed, same plane."""
    rng = np.random.default_rng(1)
    inverse, floor, n = make_depth_map(25)
    slow = cv2.resize(rng.normal(1, 0.03, (6, 8)).astype(np.float32), (120, 90), interpolation=cv2.INTER_CUBIC)
    inverse = cv2.GaussianBlur(inverse, (0, 0), 1) * slow * rng.normal(1, 0.02, SHAPE).astype(np.float32)
    one, two = fit(inverse, 4), fit(inverse, 4)
    assert np.array_equal(one, two)
    flat = remove_specks(find_flat_area(inverse, one, SHAPE)[0])
    assert (flat & floor).sum() / (flat | floor).sum() > 0.85
    plane = compute_plane(one, FOCAL, SHAPE)
    assert np.rad2deg(np.arccos(plane[:3] @ n)) < 2


@pytest.mark.parametrize(
    "inverse",
    [
        np.full(SHAPE, 0.3, np.float32),
        (0.3 * np.random.default_rng(0).normal(1, 0.02, SHAPE)).astype(np.float32),
        make_depth_map(20, roll=40)[0],
        np.ascontiguousarray(make_depth_map(5, shape=SHAPE[::-1])[0].T),
        np.zeros(SHAPE, np.float32),
        make_depth_map(80)[0],
    ],
    ids=["wall ahead", "noisy wall ahead", "leaning", "wall at the side", "sky", "straight down"],
)
def test_walls_and_tilted_planes_are_no_floors(inverse):
    """A wall ahead or at the side, a plane that leans by 40 degrees, the sky, and a floor seen from above: refused."""
    assert fit(inverse) is None


def test_a_region_shows_its_own_plane():
    """Walls that a loose floor would swallow: they do not recede upwards by themselves. Outliers are cut off."""
    inverse, _, n = make_depth_map(20, far=1e3)
    everywhere = np.ones(SHAPE, bool)
    inverse[10:20, 10:20] *= 3
    own = fit_region_plane(inverse, SHAPE, everywhere)
    assert compute_plane(own, FOCAL, SHAPE)[:3] == pytest.approx(n, abs=1e-3)
    assert recedes(own)
    side = np.ascontiguousarray(make_depth_map(5, shape=SHAPE[::-1], far=1e3)[0].T)
    assert not recedes(fit_region_plane(side, SHAPE, everywhere))
    assert not recedes(fit_region_plane(make_depth_map(20, far=1e3)[0][::-1], SHAPE, everywhere))
    assert fit_region_plane(inverse, SHAPE, np.zeros(SHAPE, bool)) is None
    above = compute_relative_error(np.array([1.0]), np.array([0.0, 1.0, -50.0]), np.array([[5.0, 10.0, 1.0]]))
    assert np.isinf(above).all()


def test_the_calm_region_is_the_floor():
    """Of a busy wall over a calm floor the floor is found, without the thing that stands on it."""
    picture = scene().copy()
    cv2.rectangle(picture, (140, 120), (190, 200), (200, 30, 30), -1)
    region = find_smooth_region(picture)
    assert region.shape == (240, 320)
    assert region[150:, :100].mean() > 0.9
    assert region[:90].mean() < 0.02
    assert region[130:190, 150:180].mean() < 0.05


def test_an_evenly_rough_floor_is_calm():
    """Gravel is rough everywhere alike: it is one region, under a wall of another colour."""
    rng = np.random.default_rng(2)
    picture = np.full((240, 360, 3), (150, 60, 40), np.uint8)
    grain = rng.choice([60, 120, 180], (90, 180))
    picture[60:] = np.kron(grain, np.ones((2, 2)))[:, :, None]
    region = find_smooth_region(picture)
    assert region[120:].mean() > 0.9
    assert not region[:50].any()


def test_the_guessed_camera():
    """The horizon lies above the region and no lower than usual; the plane's scale is 0 on it and grows downwards."""
    region = np.zeros((200, 100), bool)
    region[70:] = True
    horizon = estimate_horizon(region)
    assert 50 < horizon < 70
    n = make_default_plane(horizon, 120.0, 200)
    a, b, c = compute_ground_scale(n, 120.0, (200, 100))
    assert a == 0
    assert b * horizon + c == pytest.approx(0)
    assert b * 200 + c > b * 150 + c > 0
    region[:150] = False
    assert estimate_horizon(region) == pytest.approx(84)
    assert estimate_horizon(np.ones((200, 100), bool)) == -80
    assert estimate_horizon(np.zeros((200, 100), bool)) == pytest.approx(84)


def test_water_is_told_by_hue_and_ripples():
    """Green-blue with flat ripples looks like water; grass, grey ripples and blue carpet do not."""
    rng = np.random.default_rng(0)
    ripples = cv2.GaussianBlur(rng.normal(0, 60, (200, 300, 1)), (0, 0), sigmaX=6, sigmaY=1)[..., None]
    grain = rng.normal(0, 8, (200, 300, 1))
    everywhere = np.ones((200, 300), bool)

    def surface(colour, texture):
        return np.clip(np.array(colour) + texture, 0, 255).astype(np.uint8)

    assert measure_water_likeness(surface((60, 120, 115), ripples), everywhere) > 0.6
    assert measure_water_likeness(surface((90, 130, 50), ripples), everywhere) < 0.2
    assert measure_water_likeness(surface((120, 118, 115), ripples), everywhere) < 0.2
    assert measure_water_likeness(surface((60, 90, 150), grain), everywhere) < 0.2
    assert measure_water_likeness(surface((60, 120, 115), ripples), ~everywhere) == 0


def test_the_stage_without_a_network():
    """Mask, rule, area, scale and a guessed plane come out, not metric; no residual; the photo stays."""
    outcome = Ground(GroundParams()).process_one({"id": "a", "source": scene(), "licence": "CC0"})
    assert isinstance(outcome, Kept)
    (out,) = outcome.records
    assert out["ground_rule"] == "lower-region"
    assert out["ground_residual"] is None
    assert out["ground_class"] is None
    assert out["ground_metric"] is False
    assert out["ground_area"] == pytest.approx(float(out["ground_mask"].mean()))
    assert np.linalg.norm(out["ground_plane"][:3]) == pytest.approx(1)
    assert out["ground_plane"][3] == 1.6
    a, b, c = out["ground_scale"]
    ys, xs = np.nonzero(out["ground_mask"])
    assert (a * xs + b * ys + c > 0).all()
    assert out["licence"] == "CC0"


@pytest.mark.parametrize("column", ["source", "gt"])
def test_depth_that_the_record_has(column):
    """A column in millimetres gives the floor of a photo or of a pair's empty picture, in metres; the columns agree:
    scale = focal / depth. A field of view that the record tells counts before the assumed one."""
    width, height = 320, 240
    focal = width / 2 / np.tan(np.deg2rad(50) / 2)
    inverse, floor, n = make_depth_map(20, shape=(height, width), focal=focal)
    millimetres = np.clip(1000 / inverse, 0, 65535).astype(np.uint16)
    millimetres[0] = 0  # nothing was measured there
    record = {"id": "a", column: scene(), "input": None, "true_depth": millimetres}
    stage = Ground(GroundParams(backend="depth-column", field_of_view=50))
    stage.setup()
    from_column = Ground(GroundParams(backend="depth-column"))
    from_column.setup()
    outcome = stage.process_one(record)
    again = from_column.process_one(record | {"camera_fov": 50.0})
    assert isinstance(outcome, Kept)
    assert isinstance(again, Kept)
    (out,) = outcome.records
    assert again.records[0]["ground_plane"] == out["ground_plane"]
    assert set(out) - set(record) == set(Ground.gives)
    assert (out["ground_mask"] & floor).sum() / (out["ground_mask"] | floor).sum() > 0.95
    assert out["ground_plane"][:3] == pytest.approx(n, abs=5e-3)
    assert out["ground_plane"][3] == pytest.approx(1.5, rel=0.01)
    assert out["ground_focal"] == pytest.approx(focal)
    assert out["ground_metric"] is True
    assert out["ground_residual"] < 0.01
    assert isinstance(stage.process_one({"id": "b", "source": scene(), "true_depth": None}), Rejected)
    a, b, c = out["ground_scale"]
    assert a * 160.5 + b * 200.5 + c == pytest.approx(focal * inverse[200, 160], rel=0.02)


def test_batches_and_order_change_nothing():
    """The records of a batch get what each gets alone, in their order."""
    inverse, _, _ = make_depth_map(20, shape=(240, 320), focal=277.0)
    depth = (1000 / inverse).astype(np.uint16)
    records = [{"id": str(k), "source": scene(seed=k), "true_depth": depth} for k in range(2)]
    records.append({"id": "x", "source": np.full((60, 50, 3), 9, np.uint8), "true_depth": np.full((60, 50), 900, "u2")})
    stage = Ground(GroundParams(backend="depth-column"))
    stage.setup()
    for record, outcome in zip(records, stage.process(records), strict=True):
        alone = stage.process_one(record)
        assert type(alone) is type(outcome)
        if isinstance(outcome, Kept) and isinstance(alone, Kept):
            assert np.array_equal(alone.records[0]["ground_mask"], outcome.records[0]["ground_mask"])
            assert alone.records[0]["ground_plane"] == outcome.records[0]["ground_plane"]
        else:
            assert isinstance(outcome, Rejected)
            assert record["id"] == "x"


def test_columns_that_are_needed():
    """Photos and pairs fit; a depth column must be given; an empty scene keeps its depth and floor."""
    assert "ground_plane" in Ground(GroundParams()).schema({"gt": Kind.RGB})
    with pytest.raises(MissingColumns, match="source"):
        Ground(GroundParams()).schema({"id": Kind.STRING})
    with pytest.raises(MissingColumns, match="depth_here"):
        Ground(GroundParams(backend="depth-column", depth_column="depth_here")).schema({"source": Kind.RGB})
    pair = {"gt": Kind.RGB, "input": Kind.RGB, "true_depth": Kind.DEPTH, "true_floor": Kind.MASK}
    columns = Background(Params()).schema(pair)
    assert {"source", "true_depth", "true_floor"} <= set(columns)
    assert not {"gt", "input"} & set(columns)


def test_a_picture_without_a_calm_foot_is_rejected():
    """Strong uneven texture everywhere: there is nothing to stand on. Tiny and flat pictures do not crash."""
    rng = np.random.default_rng(0)
    busy = cv2.resize(rng.integers(0, 256, (20, 26, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST)
    outcome = Ground(GroundParams()).process_one({"id": "a", "source": busy})
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no ground"
    pair = Ground(GroundParams()).process_one({"id": "a", "gt": busy})  # stays: its ground is only told
    assert isinstance(pair, Kept)
    assert pair.records[0]["ground_area"] == 0
    assert pair.records[0]["ground_plane"] is pair.records[0]["ground_mask"] is None
    deep = Ground(GroundParams(backend="depth-column"))
    deep.setup()
    for shape in ((1, 1, 3), (3, 500, 3), (500, 3, 3)):
        picture = np.full(shape, 90, np.uint8)
        assert Ground(GroundParams()).process_one({"id": "a", "source": picture}) is not None
        assert (
            deep.process_one({"id": "a", "source": picture, "true_depth": np.full(shape[:2], 2000, "u2")}) is not None
        )


@pytest.mark.parametrize(
    "given", [{"backend": "depth-onnx"}, {"backend": "depth-anything"}, {"classes": "mask2former"}]
)
def test_networks_without_weights_are_refused_before_the_run(given):
    """The backends with a network say that they need one."""
    with pytest.raises(InvalidValues, match="weights"):
        GroundParams(**given)


def test_depth_on_photographs(assets):
    """With METER, trained on streets: the beach and a lawn are ground, the sky is not; a door, a wall with hats and
    house fronts are rejected; open water is told as such; runs repeat exactly."""
    weights = assets / "weights" / "meter_xxs_kitti_192x636.onnx"
    stage = Ground(GroundParams(backend="depth-onnx", weights=str(weights)))
    stage.setup()
    assert list(stage.weights().values()) == [weights]

    def look(name):
        picture = np.ascontiguousarray(cv2.imread(str(assets / "photos" / name))[..., ::-1])
        record = {"id": name, "source": picture}
        outcome, again = stage.process_one(record), stage.process_one(record)
        assert type(outcome) is type(again)
        if isinstance(outcome, Kept) and isinstance(again, Kept):
            assert np.array_equal(outcome.records[0]["ground_mask"], again.records[0]["ground_mask"])
            return outcome.records[0]
        return None

    for name in ("backgrounds/12.png", "coco/000000418281.jpg", "coco/000000456496.jpg"):
        out = look(name)
        assert out is not None
        assert out["ground_rule"] == "depth-plane"
        assert 0 <= out["ground_residual"] < 0.1
        assert out["ground_area"] > 0.1
        assert out["ground_water"] < 0.3
        assert out["ground_metric"] is True
        height = len(out["ground_mask"])
        assert out["ground_mask"][: height // 3].mean() < 0.02
        a, b, c = out["ground_scale"]
        ys, xs = np.nonzero(out["ground_mask"])
        assert (a * xs + b * ys + c > 0).all()
    for name in ("backgrounds/02.png", "backgrounds/03.png", "backgrounds/08.png"):
        assert look(name) is None
    for name in ("backgrounds/06.png", "backgrounds/11.png"):
        out = look(name)
        assert out is not None
        assert out["ground_water"] > 0.6
