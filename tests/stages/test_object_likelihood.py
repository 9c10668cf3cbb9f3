"""The likelihood of each pixel to be object, and the masks that are cut by it."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import compute_iou, make_scene

from rasura.stages.effect_mask.object_likelihood import WORK_SIDE, estimate_object_likelihood, load_weights
from rasura.stages.segmenters.object_of_pair import compute_expected_iou, correct_parts, segment_by_likelihood

cv2.setNumThreads(1)


def enlarge(picture, factor):
    return cv2.resize(np.ascontiguousarray(picture), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("factor", [1, 2], ids=["as it is", "larger than it is measured at"])
@pytest.mark.parametrize("seed", [141, 142, 143])
def test_object_is_likely_and_its_shadow_is_not(seed, factor):
    """Of a made-up pair: by the truth's own M_fg, the mask that is cut has IoU >= 0.8; outside of M_fg all is 0."""
    pair = make_scene(seed)
    source, clean = (enlarge(picture, factor) for picture in (pair.source, pair.clean))
    objects, foreground = (
        enlarge(mask.astype(np.uint8), factor) > 0 for mask in (pair.object_mask, pair.foreground_mask)
    )
    assert (min(objects.shape) > WORK_SIDE) == (factor == 2)
    likelihood = estimate_object_likelihood(source, clean, foreground, 0.5)
    assert likelihood.shape == foreground.shape
    assert not likelihood[~foreground].any()
    assert likelihood.min() >= 0
    assert likelihood.max() <= 1
    assert likelihood[objects & foreground].mean() > 0.5 + likelihood[foreground & ~objects].mean()
    mask, score = segment_by_likelihood(source, likelihood, foreground)
    assert compute_iou(mask, objects) >= 0.8
    assert score == compute_expected_iou(mask, likelihood)


def test_nothing_is_likely_where_nothing_changed():
    pair = make_scene(144)
    nothing = np.zeros(pair.object_mask.shape, bool)
    likelihood = estimate_object_likelihood(pair.source, pair.clean, nothing, 0.5)
    assert not likelihood.any()
    mask, score = segment_by_likelihood(pair.source, likelihood, nothing)
    assert not mask.any()
    assert score == 0


def test_likelihood_does_not_depend_on_the_number_of_threads():
    pair = make_scene(145)
    results = []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        values = estimate_object_likelihood(pair.source, pair.clean, pair.foreground_mask, 0.5)
        results.append(values.tobytes())
    cv2.setNumThreads(1)
    assert results[0] == results[1]


def test_weights_fit_the_features():
    weights = load_weights()
    assert weights["first"].shape[1] == len(weights["mean"]) + 1 == len(weights["scale"]) + 1
    assert all(np.isfinite(values).all() for values in weights.values())


def test_bites_are_added_and_lobes_removed_where_the_likelihood_is_certain():
    """A smear beside the object, a pale patch in its middle, and a lobe of another hue stay as they are."""
    rows, columns = np.ogrid[:120, :160]
    disc = (rows - 60) ** 2 + (columns - 70) ** 2 < 40**2
    bite = disc & ((rows - 60) ** 2 + (columns - 34) ** 2 < 10**2)
    lobe = (rows >= 92) & (rows < 104) & (columns >= 60) & (columns < 80) & ~disc
    smear = (columns >= 108) & (columns < 116) & (rows >= 45) & (rows < 75) & ~disc
    patch = (rows - 60) ** 2 + (columns - 70) ** 2 < 8**2
    likelihood = np.where(disc | smear, np.float32(0.97), np.float32(0.02))
    likelihood[patch] = 0.02
    strength = np.where(disc, np.float32(80), np.float32(40))
    strength[smear] = 8
    foreground = disc | lobe | smear
    plain = np.zeros(disc.shape, np.float32)
    corrected = correct_parts((disc & ~bite) | lobe, likelihood, foreground, strength, plain)
    assert (corrected != disc).sum() <= 12  # a few pixels where the parts meet
    assert not (corrected & smear).any()
    assert corrected[patch].all()
    doubtful = np.where(bite, np.float32(0.8), likelihood)
    assert not (correct_parts(disc & ~bite, doubtful, foreground, strength, plain) & bite).sum() > 12
    hand, tape = plain + lobe, (rows >= 58) & (rows < 62) & (columns >= 110) & (columns < 160)
    assert correct_parts(disc | lobe, likelihood, foreground, strength, hand)[lobe].all()
    assert not correct_parts(disc | tape, likelihood, foreground, strength, plain + tape)[:, 118:].any()
