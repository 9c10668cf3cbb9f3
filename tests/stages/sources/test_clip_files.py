"""Clips of many containers: whole or cut off, square pixels or not, high dynamic range."""

import cv2
import numpy as np
import pytest
from conftest import ASSETS

from rasura.stages.sources.clip.clip import PASS_JOBS, Clip, ClipParams, PairJob, choose_quiet
from rasura.stages.sources.clip.containers import read_container
from rasura.stages.sources.clip.frames import BadClip, count_frames, read_frames
from rasura.stages.sources.clip.regions import find_occupied_regions
from rasura.stages.stage import Rejected

cv2.setNumThreads(1)
CASES = ASSETS.parent / "cases"
FORMATS = {"mp4": "mp4v", "mov": "mp4v", "avi": "MJPG", "mkv": "mp4v", "webm": "VP80"}


def write_video(path, count=24):
    rng = np.random.default_rng(4)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*FORMATS[path.suffix[1:]]), 25, (64, 48))
    assert writer.isOpened()
    for _ in range(count):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def state_in_header(path, kind, content):
    """Replace the box of an MP4's bit rate, 12 bytes of content, by another one."""
    data = path.read_bytes()
    at = data.index(b"btrt")
    path.write_bytes(data[:at] + kind + content.ljust(12, b"\0") + data[at + 16 :])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_whole_file_is_read_and_a_cut_one_is_refused(tmp_path, suffix):
    path = write_video(tmp_path / f"clip.{suffix}")
    assert [number for number, _ in read_frames(path)] == list(range(24))
    data = path.read_bytes()
    for share in (0.5, 0.95):
        (tmp_path / f"cut.{suffix}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BadClip, match=r"cut\.\w+: the file is cut off"):
            list(read_frames(tmp_path / f"cut.{suffix}"))


def test_frames_that_the_duration_promises_are_not_missed(tmp_path):
    """A Matroska file has no count of frames: sound that goes on, or a variable rate, makes its duration longer."""
    path = write_video(tmp_path / "clip.mkv")
    at = path.read_bytes().index(b"\x44\x89\x88") + 3  # the element Duration, a float of 8 bytes
    data = bytearray(path.read_bytes())
    data[at : at + 8] = np.array(960.0 * 5, ">f8").tobytes()
    path.write_bytes(data)
    assert count_frames(path) >= 100
    assert len(list(read_frames(path))) == 24


def test_empty_frames_of_an_avi_are_not_missed(tmp_path):
    """An AVI's header counts frames of zero bytes, too, which repeat the one before."""
    path = write_video(tmp_path / "clip.avi")
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 8 + 32  # the stream header's number of frames
    assert int.from_bytes(data[at : at + 4], "little") == 24
    data[at : at + 4] = (300).to_bytes(4, "little")
    path.write_bytes(data)
    assert count_frames(path) == 300
    assert len(list(read_frames(path))) == 24


def test_pixels_become_square(tmp_path):
    for wide, high, shape in ((4, 3, (48, 85)), (8, 9, (54, 64)), (1, 1, (48, 64))):
        path = write_video(tmp_path / "clip.mp4")
        state_in_header(path, b"pasp", wide.to_bytes(4, "big") + high.to_bytes(4, "big"))
        assert {frame.shape[:2] for _, frame in read_frames(path)} == {shape}


def test_frames_of_gigabytes_are_refused(tmp_path):
    """A header of some bytes that makes each pixel sixty thousand times as wide as high: no frame is stretched."""
    path = write_video(tmp_path / "clip.mp4")
    state_in_header(path, b"pasp", (60_000).to_bytes(4, "big") + (1).to_bytes(4, "big"))
    with pytest.raises(BadClip, match="frames of 64 x 48, whose pixels are 60000 times as wide as high, are 184 mega"):
        next(read_frames(path))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, None), (13, None)])
def test_high_dynamic_range_is_rejected_with_its_transfer(tmp_path, transfer, name):
    path = write_video(tmp_path / "clip.mp4")
    state_in_header(path, b"colr", b"nclx" + bytes([0, 9, 0, transfer, 0, 9]))
    assert read_container(path).transfer == transfer
    source = Clip(ClipParams(path=str(path)))
    outcome = source.process_one(source.items(None)[0])
    assert isinstance(outcome, Rejected)
    assert (outcome.reason == "high dynamic range") == (name is not None)
    assert name is None or name in outcome.detail


@pytest.mark.skipif(not (CASES / "clips").is_dir(), reason="the shared cases are not here")
def test_cases_of_a_variable_rate_and_of_wide_pixels():
    assert len(list(read_frames(CASES / "clips" / "5_vfr.mkv"))) == 80
    assert {frame.shape for _, frame in read_frames(CASES / "clips" / "c_sar43.mp4")} == {(240, 427, 3)}


def test_people_beside_each_other_are_two_regions():
    """Outlines decide, not boxes: what is apart by less than its own size is a region of its own, unless it touches."""
    standing = np.zeros((144, 192), bool)
    standing[50:90, 60:72] = True
    standing[52:92, 92:104] = True
    assert len(find_occupied_regions(standing, 0.001)) == 2
    standing[60:64, 70:94] = True  # they hold hands
    assert len(find_occupied_regions(standing, 0.001)) == 1


def test_every_pair_of_a_reading_has_a_quiet_frame():
    """However many pairs a clip has, each gets frames that are empty at its own place."""
    numbers, light = np.arange(400), np.full(400, 90.0)
    affines = [np.eye(2, 3)] * 400
    jobs = [PairJob(k, None, [100 + 3 * k, 101 + 3 * k, 102 + 3 * k]) for k in range(PASS_JOBS)]
    stacks = choose_quiet(jobs, numbers, affines, light)
    for job, stack in zip(jobs, stacks, strict=True):
        assert stack
        assert set(stack) <= set(job.quiet)
