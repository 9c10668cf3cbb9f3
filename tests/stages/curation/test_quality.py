"""Quality: each defect moves its own measure beyond any other picture's, and the score prefers the better copy."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, freeze, make_floor

from rasura.manifests.schemas import Kind
from rasura.stages.curation.licences import parse_licence
from rasura.stages.curation.measuring import Fingerprint, MeasureQuality, ReadLicence
from rasura.stages.curation.quality import find_borders, measure_quality, score_quality
from rasura.stages.stage import Kept, MissingColumns


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A sharp picture of many edges in colour, without noise."""
    rng = np.random.default_rng(17)
    floor = make_floor(240, 320, 23)
    for _ in range(40):
        x, y, w, h = (int(v) for v in rng.integers(10, 60, 4) * (5, 4, 1, 1))
        floor[y : y + h, x : x + w] = rng.uniform(20, 235, 3)
    return freeze(capture(floor, rng, 0.5))


def compress(picture: np.ndarray, quality: int) -> np.ndarray:
    code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)


def test_each_defect_has_its_measure(picture: np.ndarray) -> None:
    """Blur, noise, JPEG, grey, darkness, a border, text: measured, and worth less than the picture itself."""
    good = measure_quality(picture)
    written = picture.copy()
    cv2.putText(written, "SAMPLE PICTURE", (30, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    framed = picture.copy()
    framed[:24], framed[-24:] = 0, 0
    grey = np.repeat(picture.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    noisy = capture(picture.astype(np.float32), np.random.default_rng(2), 12)
    blurred = measure_quality(cv2.GaussianBlur(picture, (0, 0), 2.5))
    assert blurred.sharpness < good.sharpness - 1.5
    assert measure_quality(noisy).noise > good.noise + 5  # 12 levels a channel are 8 of the luma
    assert measure_quality(compress(picture, 10)).blocks > good.blocks + 0.5
    assert measure_quality(grey).colour < 1 < good.colour
    assert measure_quality((picture * 0.1).astype(np.uint8)).brightness < 0.1
    assert measure_quality(framed).border == pytest.approx(48 / 240)
    assert measure_quality(framed).side == 192
    assert measure_quality(written).overlay >= 7 > good.overlay
    for other in (written, framed, grey, noisy, compress(picture, 10), cv2.GaussianBlur(picture, (0, 0), 2.5)):
        assert score_quality(measure_quality(other)) < score_quality(good)
    enlarged = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert score_quality(measure_quality(enlarged)) < score_quality(good) + 1  # its pixels alone would be worth 2


def test_odd_pictures_are_measured_too() -> None:
    """One pixel, a line, one colour, black, white: numbers, all finite."""
    for shape in ((1, 1, 3), (1, 400, 3), (400, 2, 3), (30, 30, 3)):
        for level in (0, 128, 255):
            measured = measure_quality(np.full(shape, level, np.uint8))
            assert np.isfinite(measured).all(), (shape, level, measured)
    assert find_borders(np.zeros((40, 60, 3), np.uint8)) == (15, 10, 15, 10)


def test_stages_need_a_picture(picture: np.ndarray) -> None:
    """Of a photo or of a pair; the declared columns are those that come."""
    for cls in (MeasureQuality, Fingerprint):
        stage = cls(cls.Params())
        outcome = stage.process_one({"id": "a", "input": picture, "gt": None})
        assert isinstance(outcome, Kept)
        assert set(outcome.records[0]) == {"id", "input", "gt", *cls.gives}
        with pytest.raises(MissingColumns, match="source"):
            stage.schema({"id": Kind.STRING})


def test_licences_are_understood_or_null() -> None:
    """What is not understood allows nothing: `select` with an allow-list leaves it out."""
    expected = {
        "CC BY 4.0": ("CC-BY-4.0", True, True, False),
        "cc-by-sa-3.0": ("CC-BY-SA-3.0", True, True, True),
        "https://creativecommons.org/licenses/by-nd/2.0/": ("CC-BY-ND-2.0", True, False, False),
        "Attribution-NonCommercial-NoDerivs License": ("CC-BY-NC-ND", False, False, False),
        "Creative Commons Attribution Share Alike 4.0": ("CC-BY-SA-4.0", True, True, True),
        "CC0": ("CC0-1.0", True, True, False),
        "4": ("CC-BY-2.0", True, True, False),
        "No known copyright restrictions": ("public-domain", True, True, False),
        "all rights reserved": ("all-rights-reserved", False, False, False),
        "unknown": (None, None, None, None),
        "permitted by the author": (None, None, None, None),
        "": (None, None, None, None),
    }
    for text, values in expected.items():
        assert tuple(parse_licence(text)) == values, text
    stage = ReadLicence(ReadLicence.Params())
    assert stage.process_one({"id": "a", "licence": None}).records[0]["licence_id"] is None  # type: ignore[union-attr]
