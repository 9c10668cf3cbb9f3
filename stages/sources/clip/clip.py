"""Source `clip`: a fixed camera's video to pairs with and without the object, as RORD makes them.

The video is read twice: once small, to see when the camera stands and the scene is empty; once more for the frames
that are needed. `input` is a decoded frame as it is; `gt` is made in its grid from quiet frames around it.
"""

import glob
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from pydantic import Field

from rasura.manifests.ids import child_id, content_id
from rasura.manifests.schemas import Kind, Schema
from rasura.stages import stage
from rasura.stages.sources.clip.plate import (
    MIN_TRUSTED,
    Array,
    activity,
    apply_tone,
    camera_motion,
    changed,
    difference,
    features,
    find_plate,
    fit_tone,
    psnr,
    scaled,
    tile_shifts,
    warp,
)
from rasura.stages.sources.clip.regions import Region, choose_regions, pasted, stands_in
from rasura.stages.sources.photos import fit
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts"})
ANALYSIS_SIDE = 384  # px: long side of the pictures on which motion is measured
QUIET_SIDE = 192  # px: long side of the pictures on which it is judged whether the scene is empty
ALIGN_SIDE = 640  # px: long side at which a pair's two frames are aligned
PLATE_SAMPLES = 80  # frames among which the plate is searched
STACK = 7  # quiet frames in a pair's median
MAX_CUT = 0.02  # share of a region's border at which the two frames may differ
QUIET_BUDGET = 32  # full-size quiet frames in memory at once


class Job(NamedTuple):
    """A pair to make: the sample with the object, the region that is emptied (None: all), the samples to do it with."""

    sample: int
    region: Region | None
    quiet: Sequence[int]


class BadClip(ValueError):
    """A file that is no usable video: empty, in no known format, or cut off."""


def read_frames(path: Path, only: frozenset[int] | None = None) -> Iterator[tuple[int, Array]]:
    """Frames (h, w, 3) RGB of a video with their numbers; with `only`, the others are skipped undecoded.

    Raises:
        FileNotFoundError
        BadClip: empty, not a video, or fewer frames than its header promises.
    """
    if path.stat().st_size == 0:
        raise BadClip(f"{path}: the file has zero bytes")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not video.isOpened():
            raise BadClip(f"{path}: no video that can be opened; is it a video, and complete?")
        promised = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
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
        if last is None and number < 0.9 * promised:
            raise BadClip(f"{path}: only {number} of {promised} frames can be read; the file is cut off or damaged")
    finally:
        video.release()


def sample(path: Path, limit: int) -> list[tuple[int, Array]]:
    """At most `limit` frames at analysis size, evenly spaced, whatever the length: when full, every second goes."""
    kept: list[tuple[int, Array]] = []
    stride = 1
    for number, frame in read_frames(path):
        if number % stride == 0:
            kept.append((number, fit(frame, ANALYSIS_SIDE)))
            if len(kept) > limit:
                kept, stride = kept[::2], stride * 2
    return kept


def motions(frames: list[Array]) -> tuple[Array, list[Array], int]:
    """How the camera moved: (n,) px against the best reference, n affines, and the number of tiles with texture.

    The reference is, of a few frames, the one that most others agree with, so that a part in which the camera is
    carried away does not decide.
    """
    last = len(frames) - 1
    probes = [features(frames[k]) for k in sorted({round(q * last) for q in np.linspace(0, 1, 12)})]
    best, best_score = features(frames[0]), -1.0
    for candidate in sorted({round(q * last) for q in (0.15, 0.5, 0.85)}):
        reference = features(frames[candidate])
        lengths = [camera_motion(tile_shifts(reference, probe))[0] for probe in probes]
        score = float(np.mean([1 / (1 + length) for length in lengths]))
        if score > best_score:
            best, best_score = reference, score
    found = [camera_motion(tile_shifts(best, features(frame))) for frame in frames]
    return np.array([f[0] for f in found]), [f[1] for f in found], int((tile_shifts(best, best)[:, 4] > 0).sum())


def choose_moments(numbers: Array, area: Array, active: Array, min_gap: int, max_pairs: int) -> list[int]:
    """Indices of the samples to take, one each `min_gap` frames of every passage, thinned evenly to `max_pairs`.

    A passage is a run of active samples. Its ends, where the object is hardly in the picture, are left out: samples
    with less than a fifth of the passage's largest changed area.
    """
    runs = np.split(np.flatnonzero(active), np.flatnonzero(np.diff(np.flatnonzero(active)) > 1) + 1)
    chosen: list[int] = []
    for run in runs:
        for k in run.tolist():
            whole = area[k] >= 0.2 * area[run].max()
            if whole and (not chosen or numbers[k] - numbers[chosen[-1]] >= min_gap):
                chosen.append(k)
    if len(chosen) > max_pairs:
        chosen = [chosen[k] for k in sorted({round(q) for q in np.linspace(0, len(chosen) - 1, max_pairs)})]
    return chosen


def choose_quiet(jobs: Sequence[Job], numbers: Array, affines: list[Array], light: Array) -> list[list[int]]:
    """For each job the samples its `gt` is made from, best first: near in camera position, exposure and time.

    At most `QUIET_BUDGET` different ones over all jobs, dealt out in turns, so that memory stays flat.
    """
    span = max(1.0, float(numbers[-1] - numbers[0]))
    orders: list[list[int]] = []
    for m, _, quiet in jobs:
        cost = [
            float(np.hypot(*(affines[q][:, 2] - affines[m][:, 2])))
            + 4 * abs(float(np.log((light[q] + 1) / (light[m] + 1))))
            + 8 * abs(float(numbers[q] - numbers[m])) / span
            for q in quiet
        ]
        orders.append([int(quiet[k]) for k in np.argsort(cost, kind="stable")])
    used: set[int] = set()
    chosen: list[list[int]] = [[] for _ in jobs]
    for _ in range(STACK):
        for stack, order in zip(chosen, orders, strict=True):
            wanted = [q for q in order if q not in stack]
            known = [q for q in wanted if q in used]
            pick = wanted[:1] if wanted and (wanted[0] in used or len(used) < QUIET_BUDGET) else known[:1]
            stack.extend(pick)
            used.update(pick)
    return chosen


def empty_view(picture: Array, quiet: list[Array]) -> tuple[Array, float, float]:
    """The empty scene as `picture`'s camera saw it: aligned and tone-matched quiet frames.

    Two are made, the nearest quiet frame and the median of all, and the one with the smaller error outside the
    object stays: the single frame wins when light drifts, the median when noise and shake dominate.

    Args:
        picture: (h, w, 3) uint8. quiet: pictures of its shape, nearest first.

    Returns:
        (h, w, 3) uint8; PSNR in dB outside the object; camera motion in px against the nearest.
        PSNR is -inf when nothing outside the object is left.
    """
    scale = max(picture.shape[:2]) / max(fit(picture, ALIGN_SIDE).shape[:2])
    reference = features(fit(picture, ALIGN_SIDE))
    aligned, motion = [], 0.0
    for k, frame in enumerate(quiet):
        length, matrix = camera_motion(tile_shifts(reference, features(fit(frame, ALIGN_SIDE))))
        if k == 0:
            motion = length * scale
        aligned.append(warp(frame, scaled(matrix, scale)))
    margin = max(9, round(0.03 * max(picture.shape[:2]))) | 1
    outside = np.ones(picture.shape[:2], bool)
    for _ in range(2):  # first with a robust fit on everything, then without the object
        shown = [apply_tone(a, fit_tone(a, picture, outside)) for a in aligned]
        middle = np.median(np.stack(shown), axis=0) if len(shown) > 1 else shown[0]
        mask = changed(picture, middle).astype(np.uint8)
        outside = cv2.dilate(mask, np.ones((margin, margin), np.uint8)) == 0
        if not outside.any():
            return picture, float("-inf"), motion
    candidates = [np.clip(np.rint(view), 0, 255).astype(np.uint8) for view in (shown[0], middle)]
    errors = [psnr(picture, view, outside) for view in candidates]
    best = int(np.argmax(errors))
    return candidates[best], errors[best], motion


def find_clips(pattern: str) -> list[Path]:
    """The videos that a file, folder (searched to its depths) or glob names, sorted.

    Raises:
        FileNotFoundError: nothing is there.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]
    if not found:
        raise FileNotFoundError(f"no video at '{pattern}' (file, folder or glob; {', '.join(sorted(SUFFIXES))})")
    return sorted(found)


class ClipParams(stage.Params):
    path: str = Field(description="A video, a folder of videos, or a glob.")
    licence: str = Field("unknown", description="Licence of the videos, as it goes into every row.")
    max_side: int | None = Field(None, ge=64, description="Frames with a longer side are made smaller, px.")
    max_samples: int = Field(400, ge=8, description="Frames that are looked at; a longer clip is sampled evenly.")
    max_motion: float = Field(
        0.01, gt=0, description="Farthest camera position that counts as static, share of the long side."
    )
    quiet_area: float = Field(0.005, ge=0, description="Share of changed pixels up to which a frame counts as empty.")
    min_area: float = Field(0.006, gt=0, description="Share of changed pixels from which an object is there.")
    max_area: float = Field(0.6, le=1, description="Share of changed pixels above which it is no object but the scene.")
    regions: bool = Field(
        True,
        description="In a clip that is never wholly empty, empty one region at a time: its pairs differ there only.",
    )
    min_gap: int = Field(8, ge=1, description="Frames between two pairs.")
    max_pairs: int = Field(24, ge=1, description="Pairs of one clip at most.")


class Clip(Source):
    """Pairs out of fixed-camera videos."""

    name = "clip"
    version = "2"
    gives: ClassVar[Schema] = {
        "input": Kind.RGB,
        "gt": Kind.RGB,
        "given_mask": Kind.MASK,
        "clip_frame": Kind.INT,
        "clip_motion": Kind.FLOAT,
        "clip_psnr": Kind.FLOAT,
    }
    item_columns: ClassVar[Schema] = {"id": Kind.STRING, "origin": Kind.STRING, "path": Kind.STRING}
    time_limit_s = 3600.0
    Params = ClipParams

    def items(self, run: Any) -> list[Record]:
        listed = []
        for path in find_clips(self.params.path):
            with path.open("rb") as file:  # a video may be larger than memory
                listed.append({"id": content_id(hashlib.file_digest(file, "sha256").digest()), "origin": str(path)})
        return [item | {"path": item["origin"]} for item in listed]

    def process_one(self, record: Record) -> Outcome:
        params: ClipParams = self.params
        path = Path(record["path"])
        samples = sample(path, params.max_samples)
        if len(samples) < 8:
            return Rejected("too short", f"{len(samples)} frames, at least 8 are needed")
        numbers, small = np.array([n for n, _ in samples]), [f for _, f in samples]
        lengths, affines, textured = motions(small)
        if textured < MIN_TRUSTED:
            return Rejected("no texture", f"{textured} of 16 tiles can be followed, at least {MIN_TRUSTED} needed")
        limit = params.max_motion * max(small[0].shape[:2])
        static = np.flatnonzero(lengths <= limit)
        if len(static) < max(8, 0.25 * len(samples)):
            full = max(fit(next(read_frames(path))[1], params.max_side).shape[:2]) / max(small[0].shape[:2])
            median = float(np.median(lengths)) * full
            text = f"{median:.1f} px" if np.isfinite(median) else "too far to follow"
            return Rejected("moving camera", f"motion median {text}, limit {limit * full:.1f} px")
        aligned = {int(k): fit(warp(small[k], affines[k]), QUIET_SIDE) for k in static}
        some = static[:: max(1, len(static) // PLATE_SAMPLES)]
        plate, _ = find_plate([aligned[int(k)] for k in some])
        area = np.full(len(samples), np.nan)
        area[static] = [activity(aligned[int(k)], plate) for k in static]
        quiet = np.flatnonzero(area <= params.quiet_area)
        if len(quiet) >= 3:
            active = (area >= params.min_area) & (area <= params.max_area)
            moments = choose_moments(numbers, area, active, params.min_gap, params.max_pairs)
            jobs = [Job(m, None, quiet.tolist()) for m in moments]
        elif params.regions:
            # Any few frames have somebody in them: here each place's own median is the emptiest there is.
            plate = np.median(np.stack([aligned[int(k)] for k in some]), axis=0).astype(np.float32)
            masks = {k: difference(picture, plate) for k, picture in aligned.items()}
            bounds = params.min_area, params.max_area, params.quiet_area, params.min_gap, params.max_pairs
            jobs = [Job(*chosen) for chosen in choose_regions(masks, numbers, *bounds)]
        else:
            jobs = []
        if not jobs and len(quiet) < 3:
            return Rejected("never empty", f"least change {np.nanmin(area):.4f}, limit {params.quiet_area}")
        if not jobs:
            return Rejected("nothing passes", f"largest change {np.nanmax(area):.4f}, limit {params.min_area}")
        light = np.array([float(f.mean()) for f in small])
        stacks = choose_quiet(jobs, numbers, affines, light)
        wanted = frozenset(
            int(numbers[k]) for job, stack in zip(jobs, stacks, strict=True) for k in (job.sample, *stack)
        )
        frames = {n: fit(f, params.max_side) for n, f in read_frames(path, wanted)}
        kept = []
        for job, stack in zip(jobs, stacks, strict=True):
            made = self._pair(record, job, int(numbers[job.sample]), frames, [int(numbers[q]) for q in stack])
            if made is not None:
                kept.append(made)
        return Kept(kept) if kept else Rejected("nothing passes", "no frame could be aligned with an empty one")

    def _pair(self, record: Record, job: Job, number: int, frames: dict[int, Array], quiet: list[int]) -> Record | None:
        """The record of a pair, or None where it cannot be aligned or its region cuts through something."""
        picture = frames[number]
        gt, error, motion = empty_view(picture, [frames[q] for q in quiet])
        if not np.isfinite(error) or not np.isfinite(motion):
            return None
        key, origin = f"{number:06d}", f"{record['origin']}#frame={number}"
        if job.region is not None:
            gt, cut = pasted(picture, gt, job.region)
            if cut > MAX_CUT or not stands_in(picture, gt):
                return None
            rows, columns = job.region.pixels(picture.shape)
            x, y, width, height = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
            key, origin = f"{key}-{x}-{y}", f"{origin}&xywh={x},{y},{width},{height}"
        return {
            "id": child_id(record["id"], key),
            "scene_id": record["id"],
            "origin": origin,
            "licence": self.params.licence,
            "input": picture,
            "gt": gt,
            "given_mask": None,
            "clip_frame": number,
            "clip_motion": motion,
            "clip_psnr": error,
        }
