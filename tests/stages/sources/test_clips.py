"""Pairs from fixed-camera videos."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ASSETS

from rasura.stages.sources.clip.clip import Clip, ClipParams, choose_moments
from rasura.stages.sources.clip.frames import BadClip, read_frames
from rasura.stages.sources.clip.plate import (
    compute_features,
    estimate_camera_motion,
    find_plate,
    fit_tone,
    measure_tile_shifts,
)
from rasura.stages.sources.listing import MissingInput
from rasura.stages.stage import Kept, Rejected

cv2.setNumThreads(1)
CAR_CLIP = ASSETS / "clips" / "car-detection.mp4"


def make_texture(width=224, height=168, seed=0):
    """A textured, asymmetric scene."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)).astype(np.float32), (0, 0), 3)
    return np.clip((grain - 127) * 4 + 127, 20, 235).astype(np.uint8)


def write_video(path, frames):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()


def make_passage(count=48, first=16, last=36, shake=0.0, gains=None, seed=0):
    """Frames (BGR) of a scene through which a bright block goes, and the empty scene."""
    rng = np.random.default_rng(seed)
    scene = make_texture(seed=seed)
    frames = []
    for n in range(count):
        frame = scene.copy()
        if first <= n < last:
            x = 5 + (n - first) * 8 * 20 // (last - first)
            cv2.rectangle(frame, (x, 50), (x + 42, 115), (30, 40, 220), -1)
        if shake:
            dx, dy = rng.uniform(-shake, shake, 2)
            matrix = np.array([[1, 0, dx], [0, 1, dy]])
            frame = cv2.warpAffine(frame, matrix, (224, 168), borderMode=cv2.BORDER_REFLECT_101)
        if gains is not None:
            frame = np.clip(frame * gains[n], 0, 255).astype(np.uint8)
        frames.append(frame)
    return frames, scene


def find_pairs(path, **params):
    source = Clip(ClipParams(path=str(path), licence="CC0", **params))
    (item,) = source.items(None)
    return item, source.process_one(item)


def outside_psnr(record):
    difference = np.abs(record["input"].astype(int) - record["gt"])
    core = cv2.dilate((difference.max(axis=2) > 40).astype(np.uint8), np.ones((25, 25))) == 0
    return 10 * np.log10(255**2 / max(float((difference[core] ** 2).mean()), 1e-9))


def test_a_passage_becomes_pairs_with_the_object_gone(tmp_path):
    """A block that crosses a fixed scene gives pairs, min_gap apart, whose gt is the scene without the block."""
    frames, scene = make_passage()
    write_video(tmp_path / "a.avi", frames)
    item, outcome = find_pairs(tmp_path / "a.avi", min_gap=6)
    assert isinstance(outcome, Kept)
    numbers = [r["clip_frame"] for r in outcome.records]
    assert numbers == sorted(numbers)
    assert min(np.diff(numbers)) >= 6
    assert all(16 <= n < 36 for n in numbers)
    assert len(numbers) >= 3
    for record in outcome.records:
        assert record["id"] == f"{item['id']}.{record['clip_frame']:06d}"
        assert record["scene_id"] == item["id"]
        assert record["origin"] == f"{item['path']}#frame={record['clip_frame']}"
        assert record["licence"] == "CC0"
        assert record["given_mask"] is None
        assert np.abs(record["gt"].astype(int) - scene[..., ::-1]).mean() < 4  # JPEG inside the video
        assert np.abs(record["input"].astype(int) - record["gt"]).max() > 100


def test_progress_is_reported_while_frames_are_read_and_searched(tmp_path):
    """A long clip is one row: what is done of it, and how much there is, is reported in every part of the work."""
    frames, _ = make_passage()
    write_video(tmp_path / "a.avi", frames)
    source = Clip(ClipParams(path=str(tmp_path / "a.avi")))
    reports = []
    source.on_progress = lambda done, total, note: reports.append((done, total, note))
    (item,) = source.items(None)
    assert isinstance(source.process_one(item), Kept)
    notes = list(dict.fromkeys(note for _, _, note in reports))
    assert notes == ["frames read", "samples searched for objects", "frames of the pairs read", "pairs made"]
    assert all(0 <= done <= total for done, total, _ in reports)
    assert (25, 48, "frames read") in reports


def test_input_is_the_decoded_frame_untouched(tmp_path):
    """The picture with the object is what the decoder gives, never resampled or re-exposed."""
    frames, _ = make_passage(shake=1.0)
    write_video(tmp_path / "a.avi", frames)
    _, outcome = find_pairs(tmp_path / "a.avi")
    decoded = dict(read_frames(tmp_path / "a.avi"))
    assert isinstance(outcome, Kept)
    for record in outcome.records:
        assert np.array_equal(record["input"], decoded[record["clip_frame"]])


def test_shake_and_flicker_are_taken_out_of_gt(tmp_path):
    """1.5 px of shake and 20 % of exposure flicker cost no more than video noise outside the object."""
    gains = 1 + 0.2 * np.sin(np.arange(48))
    frames, _ = make_passage(shake=1.5, gains=gains)
    write_video(tmp_path / "a.avi", frames)
    _, outcome = find_pairs(tmp_path / "a.avi")
    assert isinstance(outcome, Kept)
    assert np.median([outside_psnr(r) for r in outcome.records]) > 34
    assert all(0 <= r["clip_motion"] < 4 for r in outcome.records)


def test_somebody_who_stays_for_most_of_the_clip_is_no_part_of_the_plate(tmp_path):
    """An object that stands in one place for 65 % of the frames is still found, not taken for the scene."""
    scene = make_texture(seed=3)
    frames = []
    for n in range(60):
        frame = scene.copy()
        if n < 39:
            cv2.rectangle(frame, (84, 50), (126, 115), (30, 40, 220), -1)
            cv2.rectangle(frame, (14 + n, 125), (28 + n, 153), (200, 40, 20), -1)
        frames.append(frame)
    write_video(tmp_path / "a.avi", frames)
    _, outcome = find_pairs(tmp_path / "a.avi")
    assert isinstance(outcome, Kept)
    assert all(r["clip_frame"] < 39 for r in outcome.records)
    assert all(np.abs(r["gt"].astype(int) - scene[..., ::-1]).mean() < 4 for r in outcome.records)


def test_a_moving_camera_is_rejected_with_its_motion(tmp_path):
    """A pan through the whole clip is a judgement with the measured value, not pairs and not a crash."""
    wide = make_texture(width=600, seed=1)
    write_video(tmp_path / "a.avi", [wide[:, 8 * n : 8 * n + 224] for n in range(40)])
    _, outcome = find_pairs(tmp_path / "a.avi")
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "moving camera"
    assert "motion median" in outcome.detail
    assert "limit 2.2 px" in outcome.detail


def test_a_clip_is_cut_to_its_static_part(tmp_path):
    """When the camera is carried away at the end, pairs come from before only, though objects are in both parts."""
    frames, _ = make_passage()
    wide = make_texture(width=600, seed=1)
    for n in range(24):
        frame = wide[:, 10 * n : 10 * n + 224].copy()
        cv2.rectangle(frame, (70, 50), (112, 115), (30, 40, 220), -1)
        frames.append(frame)
    write_video(tmp_path / "a.avi", frames)
    _, outcome = find_pairs(tmp_path / "a.avi")
    assert isinstance(outcome, Kept)
    assert max(r["clip_frame"] for r in outcome.records) < 36


def test_nothing_to_see_and_never_empty_are_told_apart(tmp_path):
    """A still scene is rejected because nothing passes; a busy one because no frame is
    empty (where region pairs are switched off); a short one as such."""
    scene = make_texture()
    write_video(tmp_path / "still.avi", [scene] * 20)
    assert find_pairs(tmp_path / "still.avi")[1].reason == "nothing passes"
    write_video(tmp_path / "short.avi", [scene] * 4)
    assert find_pairs(tmp_path / "short.avi")[1].reason == "too short"
    busy = []
    for n in range(40):
        frame = scene.copy()
        for k in range(6):
            x = (n * 23 + k * 61) % 196
            cv2.rectangle(frame, (x, 8 + 25 * k), (x + 24, 28 + 25 * k), (30 * k, 250 - 40 * k, 40), -1)
        busy.append(frame)
    write_video(tmp_path / "busy.avi", busy)
    outcome = find_pairs(tmp_path / "busy.avi", quiet_area=0.0001, regions=False)[1]
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "never empty"


def test_a_cut_is_named_where_nothing_was_found(tmp_path):
    """A clip of two still scenes is rejected with the frame at which the other one begins."""
    scenes = [make_texture(seed=number) for number in (0, 7)]
    write_video(tmp_path / "cut.avi", [scenes[frame >= 24] for frame in range(40)])
    _, outcome = find_pairs(tmp_path / "cut.avi")
    assert outcome.reason == "nothing passes"
    assert "split the clip before frame 24" in outcome.detail
    write_video(tmp_path / "still.avi", [scenes[0]] * 40)
    assert "split" not in find_pairs(tmp_path / "still.avi")[1].detail


def test_a_blank_wall_is_rejected_since_no_motion_can_be_measured(tmp_path):
    """Without texture nobody knows whether the camera stood still."""
    write_video(tmp_path / "a.avi", [np.full((168, 224, 3), 90, np.uint8)] * 20)
    outcome = find_pairs(tmp_path / "a.avi")[1]
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no texture"


def test_broken_files_say_what_is_wrong(tmp_path):
    """Empty, foreign and cut-off files are faults that name the file and the fault."""
    (tmp_path / "empty.avi").write_bytes(b"")
    with pytest.raises(BadClip, match=r"empty\.avi: the file has zero bytes"):
        find_pairs(tmp_path / "empty.avi")
    (tmp_path / "text.mp4").write_text("this is no video " * 100)
    with pytest.raises(BadClip, match=r"text\.mp4: no video"):
        find_pairs(tmp_path / "text.mp4")
    frames, _ = make_passage()
    write_video(tmp_path / "whole.avi", frames)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadClip, match=r"cut off: its container says \d+ bytes more"):
        find_pairs(tmp_path / "cut.avi")
    with pytest.raises(MissingInput, match="no video at"):
        Clip(ClipParams(path=str(tmp_path / "nowhere"))).items(None)


def test_a_folder_and_a_glob_list_videos_by_content(tmp_path):
    """A folder is searched to its depths, other files are left alone, and a copy has the id of its original."""
    (tmp_path / "deep").mkdir()
    write_video(tmp_path / "a.avi", [make_texture()] * 9)
    (tmp_path / "deep" / "b.AVI").write_bytes((tmp_path / "a.avi").read_bytes())
    (tmp_path / "notes.txt").write_text("x")
    items = Clip(ClipParams(path=str(tmp_path))).items(None)
    assert [Path(i["path"]).name for i in items] == ["a.avi", "b.AVI"]
    assert items[0]["id"] == items[1]["id"]
    assert len(Clip(ClipParams(path=str(tmp_path / "*.avi"))).items(None)) == 1


def test_the_same_clip_gives_the_same_bytes_and_max_side_shrinks(tmp_path):
    """Two runs are equal to the last bit; max_side bounds both pictures of a pair."""
    frames, _ = make_passage(shake=1.0)
    write_video(tmp_path / "a.avi", frames)
    one, two = (find_pairs(tmp_path / "a.avi", max_side=112, max_pairs=2)[1] for _ in range(2))
    assert isinstance(one, Kept)
    assert isinstance(two, Kept)
    assert len(one.records) == 2
    for a, b in zip(one.records, two.records, strict=True):
        assert a["gt"].shape == a["input"].shape == (84, 112, 3)
        assert np.array_equal(a["gt"], b["gt"])


def test_long_clips_are_sampled_not_stored(tmp_path):
    """With a sample limit below the length, pairs are still found, and none but sampled frames are used."""
    frames, _ = make_passage(count=120, first=40, last=90)
    write_video(tmp_path / "a.avi", frames)
    _, outcome = find_pairs(tmp_path / "a.avi", max_samples=40)
    assert isinstance(outcome, Kept)
    assert all(r["clip_frame"] % 4 == 0 for r in outcome.records)


def test_motion_is_measured_to_a_tenth_of_a_pixel_under_an_object_and_a_light_change():
    """Tiles plus median give the true sub-pixel shift although a quarter of the frame is covered and darkened."""
    scene = make_texture(320, 240, seed=5)
    for shift in ((0.0, 0.0), (1.3, -0.7), (-2.4, 1.1)):
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        moved = cv2.warpAffine(scene, matrix, (320, 240), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        moved[60:200, 100:220] = 240
        moved = (moved * 0.6).astype(np.uint8)
        _, motion = estimate_camera_motion(measure_tile_shifts(compute_features(scene), compute_features(moved)))
        centre = motion @ [160, 120, 1] - [160, 120]
        assert np.abs(centre - shift).max() < 0.1


def test_tone_fit_ignores_an_object_and_the_plate_ignores_a_majority():
    """The exposure line comes from the unchanged 70 %; the plate from the frames that are empty, though few."""
    scene = make_texture(320, 240, seed=6)
    other = np.clip(scene * 0.6 + 12, 0, 255)
    other[:72] = 250
    lines = fit_tone(scene, other)
    assert np.abs(lines - [0.6, 12]).max() < 0.5
    assert np.abs(lines[:, 0] - 0.6).max() < 0.01
    frames = [scene.copy() for _ in range(20)]
    for k in range(14):
        frames[k][20:90, 10 * k : 10 * k + 150] = 255
    plate, scores = find_plate(frames)
    assert np.abs(plate - scene).max() < 3
    assert (scores[:14] > 0.05).all()
    assert (scores[14:] < 0.001).all()


def test_ends_of_a_passage_are_left_out():
    """Slivers at the edges of a passage are no moments; two passages are judged each by its own largest area."""
    area = np.array([0, 0.01, 0.2, 0.3, 0.02, 0, 0, 0.008, 0.02, 0.009, 0])
    chosen = choose_moments(np.arange(11), area, area > 0.005, 1, 10)
    assert chosen == [2, 3, 7, 8, 9]
    assert len(choose_moments(np.arange(11), area, area > 0.005, 1, 2)) == 2


@pytest.mark.slow
@pytest.mark.skipif(not CAR_CLIP.exists(), reason="no assets")
def test_the_real_clip_gives_clean_pairs():
    """A hand-held view of a road, exposure halved by white cars: at least 5 pairs from a coarse sample, 37 dB in the
    median outside the objects."""
    _, outcome = find_pairs(CAR_CLIP, max_samples=100, max_pairs=6)
    assert isinstance(outcome, Kept)
    assert len(outcome.records) >= 5
    assert np.median([r["clip_psnr"] for r in outcome.records]) > 37


def busy(count=60, seed=5):
    """Frames (BGR) of a scene that two blocks cross in turns, so that it is never empty, and the empty scene."""
    scene = make_texture(320, 240, seed)
    frames = []
    for n in range(count):
        frame = scene.copy()
        for top, left, colour in (
            (30, (5 * n) % 400 - 50, (210, 60, 30)),
            (150, (560 - 6 * n) % 400 - 50, (30, 40, 220)),
        ):
            cv2.rectangle(frame, (left, top), (left + 30, top + 44), colour, -1)
        frames.append(frame)
    return frames, scene


@pytest.mark.slow
def test_a_scene_that_is_never_empty_gives_pairs_region_by_region(tmp_path):
    """Each pair loses one region's object and shows the bare scene there; elsewhere both are the same bytes."""
    frames, scene = busy()
    write_video(tmp_path / "a.avi", frames)
    _, outcome = find_pairs(tmp_path / "a.avi", min_gap=4)
    assert isinstance(outcome, Kept)
    assert len(outcome.records) >= 10
    assert len({record["id"] for record in outcome.records}) == len(outcome.records)
    for record in outcome.records:
        x, y, width, height = map(int, record["origin"].split("xywh=")[1].split(","))
        inside = np.zeros((240, 320), bool)
        inside[y : y + height, x : x + width] = True
        assert np.array_equal(record["input"][~inside], record["gt"][~inside])
        gone = np.abs(record["input"].astype(int) - record["gt"]).max(2) > 60
        assert gone.any()
        assert np.abs(record["gt"].astype(int) - scene[..., ::-1])[gone].mean() < 8  # the scene, not an object
        ring = inside & ~gone
        assert np.abs(record["input"].astype(int) - record["gt"])[ring].mean() < 6
