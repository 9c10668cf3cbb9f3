"""Nearly equal pictures are recognized, different ones are not."""

from itertools import combinations, starmap
from pathlib import Path

import cv2
import numpy as np
import pytest

from rasura.manifests import fingerprints as fingerprints_module
from rasura.manifests.fingerprints import compute_fingerprint, find_near_duplicates
from rasura.manifests.images import decode_image
from rasura.stages.sources.scenes import join_scenes

PICTURES = Path(__file__).parents[1] / "data" / "pictures"
PHOTOS = sorted((PICTURES / "photos").glob("*.jpg")) + sorted((PICTURES / "photos").glob("*.png"))


def _encode(picture, suffix, *options):
    return decode_image(cv2.imencode(suffix, picture[..., ::-1], options)[1].tobytes())


CHANGES = {
    "JPEG of quality 40": lambda picture: _encode(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 40),
    "half the size, then JPEG": lambda picture: _encode(cv2.resize(picture, None, fx=0.5, fy=0.5), ".jpg"),
    "other proportions": lambda picture: cv2.resize(picture, (300, 200), interpolation=cv2.INTER_AREA),
    "darker": lambda picture: (picture * 0.9).astype(np.uint8),
    "noise": lambda picture: np.clip(picture + np.random.default_rng(3).normal(0, 8, picture.shape), 0, 255).astype(
        np.uint8
    ),
    "a rim of 1 % cut off": lambda picture: picture[
        picture.shape[0] // 100 : -(picture.shape[0] // 100), picture.shape[1] // 100 : -(picture.shape[1] // 100)
    ],
}


@pytest.fixture(scope="module")
def photos():
    assert len(PHOTOS) >= 4
    return [decode_image(path.read_bytes()) for path in PHOTOS]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_duplicate_of_its_photo_alone(photos, change):
    copies = [CHANGES[change](photo) for photo in photos]
    fingerprints = [compute_fingerprint(picture) for picture in photos + copies]
    assert list(find_near_duplicates(fingerprints)) == [(i, i + len(photos)) for i in range(len(photos))]


@pytest.mark.parametrize("change", [name for name in CHANGES if not name.startswith("a rim")])
def test_a_mirrored_copy_is_a_near_duplicate_of_its_photo_alone(photos, change):
    """A shot of the mirrored place is of the same place: it must not be in another split."""
    copies = [np.ascontiguousarray(CHANGES[change](photo)[:, ::-1]) for photo in photos]
    fingerprints = [compute_fingerprint(picture) for picture in photos + copies]
    assert list(find_near_duplicates(fingerprints)) == [(i, i + len(photos)) for i in range(len(photos))]


def _group(fingerprints):
    """Return for each picture the first one of its scene."""
    items = [{"scene_id": f"{number:04d}", "fingerprint": each.hex()} for number, each in enumerate(fingerprints)]
    join_scenes(items)
    return [int(item["scene_id"]) for item in items]


def test_groups_are_joined_by_chains_and_named_by_their_first_member(photos):
    fingerprints = [compute_fingerprint(picture) for picture in photos]
    copy = compute_fingerprint(CHANGES["JPEG of quality 40"](photos[1]))
    count = len(photos)
    assert _group([*fingerprints, copy, copy]) == [*range(count), 1, 1]
    assert _group([copy, *fingerprints]) == [0, 1, 0, *range(3, count + 1)]


def test_different_pictures_are_far_apart_also_in_large_sets():
    rng = np.random.default_rng(11)
    pictures = [cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (96, 64)) for _ in range(600)]
    fingerprints = [compute_fingerprint(picture) for picture in pictures]
    assert list(find_near_duplicates(fingerprints)) == []
    fingerprints[577] = fingerprints[31]  # in two blocks of the comparison
    assert list(find_near_duplicates(fingerprints)) == [(31, 577)]
    assert list(find_near_duplicates(fingerprints, known=577)) == [(31, 577)]
    assert list(find_near_duplicates(fingerprints, known=578)) == []


def test_pairs_are_the_same_however_the_work_is_divided(monkeypatch):
    """Some hundred fingerprints with near ones across jobs, blocks and tiles, against all pairs one by one."""
    rng = np.random.default_rng(12)
    table = rng.integers(0, 256, (700, 72), np.uint8)
    table[:, 18:24] = 0
    for first, second in ((3, 690), (255, 256), (256, 511), (10, 11)):
        table[second] = table[first]
        table[second, :2] ^= 0b101
    fingerprints = [row.tobytes() for row in table]
    signs = np.unpackbits(table[:, :24], axis=1).astype(np.int64)
    near = signs @ (1 - signs.T) + (1 - signs) @ signs.T <= fingerprints_module.MAX_SIGNS
    expected = [(i, j) for i, j in np.argwhere(near).tolist() if i < j]
    assert len(expected) == 5
    monkeypatch.setattr(fingerprints_module, "_TILE", 100)
    monkeypatch.setattr(fingerprints_module, "JOB_COMPARISONS", 1)
    jobs = []

    def map_jobs(function, arguments):
        jobs.extend(arguments)
        return starmap(function, jobs)

    assert list(find_near_duplicates(fingerprints, map_jobs=map_jobs)) == expected
    assert jobs == [(0, 256), (256, 512), (512, 700)]


def test_the_order_changes_no_group(photos):
    pictures = photos + [CHANGES["noise"](photo) for photo in photos]
    fingerprints = [compute_fingerprint(picture) for picture in pictures]
    order = np.random.default_rng(5).permutation(len(pictures))
    straight, mixed = _group(fingerprints), _group([fingerprints[k] for k in order])
    for i, j in combinations(range(len(pictures)), 2):
        assert (straight[order[i]] == straight[order[j]]) == (mixed[i] == mixed[j])


def test_pictures_of_one_colour_are_near_those_of_the_same_colour_only():
    """Without any detail, signs that agree say nothing: grey is no copy of black or of white."""
    levels = [127, 200, 0, 255, 127]
    fingerprints = [compute_fingerprint(np.full((40, 60, 3), level, np.uint8)) for level in levels]
    assert list(find_near_duplicates(fingerprints)) == [(0, 4)]
    faint = np.full((40, 60, 3), 127, np.uint8)
    faint[:20] = 128  # has signs, and hardly any detail
    pair = [compute_fingerprint(faint), fingerprints[0]]
    assert list(find_near_duplicates(pair)) == list(find_near_duplicates(pair[::-1])) == []
