"""Video files of the source `clip`: finding them, reading frames, and sampling a long video."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2

from rasura.manifests.errors import InputError
from rasura.manifests.images import MAX_PIXELS
from rasura.manifests.storage import is_remote
from rasura.stages.sources.clip.containers import HDR_TRANSFERS, read_container
from rasura.stages.sources.clip.plate import Array
from rasura.stages.sources.listing import MissingInput, expand_path, find_files
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.stage import ProgressCallback

SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv"}
)
ANALYSIS_SIDE = 384  # px: long side of the pictures on which motion is measured
REPORT_EVERY = 25  # frames between two reports of progress


class BadClip(InputError):
    """A file that is no usable video: empty, in no supported format, or cut off."""


def find_clips(pattern: str, passed_over: Counter[str] | None = None) -> list[Path]:
    """Find the videos that a file, folder (searched to its depths) or glob names, sorted.

    Args:
        pattern: file, folder or glob.
        passed_over: to which other files of a folder are added, by the reason.

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
    try:
        files = [Path(file.path) for file in find_files(pattern, passed_over=passed_over)]
    except MissingInput:
        files = []
    videos = [file for file in files if not path.is_dir() or file.suffix.lower() in SUFFIXES]
    if passed_over is not None and len(videos) < len(files):
        passed_over["no video by its name"] += len(files) - len(videos)
    if not videos:
        raise MissingInput(f"no video at '{pattern}' (file, folder or glob; {', '.join(sorted(SUFFIXES))})")
    return videos


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

    Frames are upright, and their pixels are square.

    Raises:
        FileNotFoundError: no such file.
        BadClip: empty, not a video, cut off, too large, or fewer frames than its container stores.
    """
    if path.stat().st_size == 0:
        raise BadClip(f"{path}: the file has zero bytes")
    container = read_container(path)
    if container.missing_bytes:
        raise BadClip(f"{path}: the file is cut off: its container says {container.missing_bytes} bytes more")
    video = _open_video(path)
    try:
        if not video.isOpened():
            raise BadClip(f"{path}: no video that can be opened; is it a video, and complete?")
        expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if container.stores_count else 0
        aspect = read_pixel_aspect(video)
        _check_frame_size(path, video, aspect)
        last = max(only) if only else None
        number = 0
        while (last is None or number <= last) and video.grab():
            if only is None or number in only:
                good, frame = video.retrieve()
                if not good:
                    raise BadClip(f"{path}: frame {number} cannot be decoded")
                yield number, make_pixels_square(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), aspect)
            number += 1
        if number == 0:
            raise BadClip(f"{path}: the video has no frame that can be decoded")
        if last is None and number < 0.9 * expected:
            raise BadClip(f"{path}: only {number} of {expected} frames can be read; the file is cut off or damaged")
    finally:
        video.release()


def _open_video(path: Path) -> cv2.VideoCapture:
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


def _check_frame_size(path: Path, video: cv2.VideoCapture, aspect: float) -> None:
    """Check that frames with square pixels are no larger than pictures may be: a few bytes can ask for gigabytes."""
    width, height = (int(video.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if (pixels := width * height * max(aspect, 1 / aspect)) > MAX_PIXELS:
        raise BadClip(
            f"{path}: frames of {width} x {height}, whose pixels are {aspect:g} times as wide as high, are "
            f"{pixels / 1e6:.0f} megapixels, limit {MAX_PIXELS / 1e6:.0f}"
        )


def read_pixel_aspect(video: cv2.VideoCapture) -> float:
    """Return the width of a pixel of the upright frames, over its height; 1 where the video does not say."""
    width, height = video.get(cv2.CAP_PROP_SAR_NUM), video.get(cv2.CAP_PROP_SAR_DEN)
    if width <= 0 or height <= 0:
        return 1.0
    turned = round(video.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90  # OpenCV turns frames upright
    return float(height / width if turned else width / height)


def make_pixels_square(frame: Array, aspect: float) -> Array:
    """Enlarge a frame (h, w, 3), whose pixels are `aspect` times as wide as high, along its denser direction.

    Examples:
        >>> import numpy as np
        >>> make_pixels_square(np.zeros((240, 320, 3), np.uint8), 4 / 3).shape
        (240, 427, 3)
        >>> make_pixels_square(np.zeros((240, 320, 3), np.uint8), 8 / 9).shape
        (270, 320, 3)
    """
    height, width = frame.shape[:2]
    size = (round(width * max(1.0, aspect)), round(height * max(1.0, 1 / aspect)))
    return frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)


def find_unreadable_levels(path: Path) -> tuple[str, str] | None:
    """Return why a video's levels cannot be read as those of an ordinary display: reason, detail; None where they can.

    Raises:
        BadClip: no video that can be opened.
    """
    transfer = read_container(path).transfer
    if transfer in HDR_TRANSFERS:
        return "high dynamic range", f"transfer {HDR_TRANSFERS[transfer]}; convert it to BT.709 first"
    video = _open_video(path)
    try:
        depth = read_bit_depth(int(video.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) if video.isOpened() else 0)
    finally:
        video.release()
    if depth == 8 or transfer is not None:
        return None
    return (
        "unknown transfer",
        f"{depth} bits a channel, and the container states no transfer: it may be high dynamic range; state it in the "
        "file, or convert it to 8 bits",
    )


def read_bit_depth(tag: int) -> int:
    """Return the bits a channel of FFmpeg's tag of a raw pixel format; 8 for all that are not known to have more.

    Examples:
        >>> [read_bit_depth(int.from_bytes(tag, "little")) for tag in (bytes([89, 51, 11, 10]), b"I420", b"P010")]
        [10, 8, 10]
    """
    code = (tag & 0xFFFFFFFF).to_bytes(4, "little")
    if code[:1] == b"Y" and code[3] in range(9, 17):  # planar: Y, kind, chroma subsampling, bits
        return code[3]
    if code[3:] == b"Y" and code[0] in range(9, 17):  # the same with the high byte first
        return code[0]
    if code[:1] == b"P" and code[2:].isdigit():  # P010, P210, …: one plane of mixed chroma
        return max(8, int(code[2:]))
    return 8


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
    video = _open_video(path)
    try:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        video.release()
