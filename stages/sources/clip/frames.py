"""Video files of the source `clip`: finding them, reading frames, and sampling a long video."""

import glob
from collections.abc import Iterator
from pathlib import Path

import cv2

from rasura.manifests.errors import InputError
from rasura.manifests.storage import is_remote
from rasura.stages.sources.clip.plate import Array
from rasura.stages.sources.files import MissingInput, expand_path
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.stage import ProgressCallback

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts"})
ANALYSIS_SIDE = 384  # px: long side of the pictures on which motion is measured
REPORT_EVERY = 25  # frames between two reports of progress


class BadClip(InputError):
    """A file that is no usable video: empty, in no supported format, or cut off."""


def find_clips(pattern: str) -> list[Path]:
    """Find the videos that a file, folder (searched to its depths) or glob names, sorted.

    Raises:
        MissingInput: nothing is there.
        BadClip: there is a single file, which is no video.
    """
    if is_remote(pattern):
        raise MissingInput(f"videos are read from this machine only, not from '{pattern}'; copy them here first")
    path = Path(expand_path(pattern))
    if path.is_file():
        check_clip(path)
        return [path]
    if path.is_dir():
        videos = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    else:
        videos = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]
    if not videos:
        raise MissingInput(f"no video at '{pattern}' (file, folder or glob; {', '.join(sorted(SUFFIXES))})")
    return sorted(videos)


def check_clip(path: Path) -> None:
    """Check that a file can be opened as a video, and has a first frame.

    Raises:
        BadClip: it cannot, or has none.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # the error says what its warning would
    try:
        next(read_frames(path, frozenset({0})))
    finally:
        cv2.utils.logging.setLogLevel(level)


def read_frames(path: Path, only: frozenset[int] | None = None) -> Iterator[tuple[int, Array]]:
    """Yield the frames (h, w, 3) RGB of a video with their numbers; with `only`, the others are skipped undecoded.

    Raises:
        FileNotFoundError: no such file.
        BadClip: empty, not a video, or fewer frames than its header gives.
    """
    if path.stat().st_size == 0:
        raise BadClip(f"{path}: the file has zero bytes")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not video.isOpened():
            raise BadClip(f"{path}: no video that can be opened; is it a video, and complete?")
        expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        last = max(only) if only else None
        number = 0
        while (last is None or number <= last) and video.grab():
            if only is None or number in only:
                good, frame = video.retrieve()
                if not good:
                    raise BadClip(f"{path}: frame {number} cannot be decoded")
                yield number, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
        if number == 0:
            raise BadClip(f"{path}: the video has no frame that can be decoded")
        if last is None and number < 0.9 * expected:
            raise BadClip(f"{path}: only {number} of {expected} frames can be read; the file is cut off or damaged")
    finally:
        video.release()


def sample_frames(path: Path, limit: int, report: ProgressCallback | None = None) -> list[tuple[int, Array]]:
    """Sample at most `limit` frames at analysis size, evenly, whatever the length: when full, every second is removed.

    Args:
        report: called with the number of frames that were read, the number that the header gives, and a note.
    """
    samples: list[tuple[int, Array]] = []
    stride, total = 1, count_frames(path) if report else 0
    for number, frame in read_frames(path):
        if report and number % REPORT_EVERY == 0:
            report(number, max(total, number), "frames read")
        if number % stride == 0:
            samples.append((number, shrink_to_fit(frame, ANALYSIS_SIDE)))
            if len(samples) > limit:
                samples, stride = samples[::2], stride * 2
    return samples


def count_frames(path: Path) -> int:
    """Return the number of frames that a video's header gives; 0 where it cannot be opened. It may be wrong."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        video.release()
