"""Source `clip`: pairs with and without the object from a fixed camera's video, as RORD makes them.

The video is read twice: once small, to find when the camera is still and the scene is empty; once more for the frames
that are needed. `input` is a decoded frame as it is; `gt` is made in its grid from quiet frames around it.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from pydantic import Field

from rasura.manifests.ids import compute_content_id, make_child_id
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages import stage
from rasura.stages.sources.clip.frames import (
    REPORT_EVERY,
    find_clips,
    find_unreadable_levels,
    read_frames,
    sample_frames,
)
from rasura.stages.sources.clip.plate import (
    MIN_TRUSTED,
    Array,
    apply_tone,
    compute_features,
    estimate_camera_motion,
    find_changes,
    find_difference,
    find_plate,
    fit_tone,
    measure_activity,
    measure_tile_shifts,
    scale_affine,
    warp,
)
from rasura.stages.sources.clip.regions import Region, blend_region, choose_regions, contains_object
from rasura.stages.sources.files import InputPath, survey_files
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

QUIET_SIDE = 192  # px: long side of the pictures on which it is decided whether the scene is empty
ALIGN_SIDE = 640  # px: long side at which a pair's two frames are aligned
PLATE_SAMPLES = 80  # frames among which the plate is searched
STACK = 7  # quiet frames in a pair's median
MAX_CUT = 0.02  # share of a region's border at which the two frames may differ
QUIET_BUDGET = 32  # full-size quiet frames in memory at once
PASS_JOBS = 24  # pairs that are made in one reading of the clip; each gets at least one quiet frame


class PairJob(NamedTuple):
    """A pair to make: the sample with the object, the region that is emptied (None: all), and the quiet samples."""

    sample: int
    region: Region | None
    quiet: Sequence[int]


def estimate_motion(frames: list[Array]) -> tuple[Array, list[Array], int]:
    """Estimate the camera's motion against the best reference.

    The reference is, of a few frames, the one that most others agree with, so that a part in which the camera is
    carried away does not decide.

    Returns:
        (n,) px, n affines, and the number of tiles with texture.
    """
    last = len(frames) - 1
    probes = [compute_features(frames[k]) for k in sorted({round(q * last) for q in np.linspace(0, 1, 12)})]
    best, best_score = compute_features(frames[0]), -1.0
    for candidate in sorted({round(q * last) for q in (0.15, 0.5, 0.85)}):
        reference = compute_features(frames[candidate])
        lengths = [estimate_camera_motion(measure_tile_shifts(reference, probe))[0] for probe in probes]
        score = float(np.mean([1 / (1 + length) for length in lengths]))
        if score > best_score:
            best, best_score = reference, score
    motions = [estimate_camera_motion(measure_tile_shifts(best, compute_features(frame))) for frame in frames]
    textured = int((measure_tile_shifts(best, best)[:, 4] > 0).sum())
    return np.array([length for length, _ in motions]), [matrix for _, matrix in motions], textured


def describe_cut(numbers: Array, is_static: Array) -> str:
    """Describe where a clip begins to show another view; "" where at most a tenth of its samples do.

    Args:
        numbers: (n,) frame number of every sample.
        is_static: (n,) bool, of the samples that show the view of the reference.

    Examples:
        >>> describe_cut(np.arange(0, 40, 5), np.arange(8) < 5)
        '; 38 % of the frames show another view, by a cut or a moved camera: split the clip before frame 25'
    """
    away = 1 - float(is_static.mean())
    if away <= 0.1:
        return ""
    frame = int(numbers[int(np.flatnonzero(np.diff(is_static))[0]) + 1])
    text = "show another view, by a cut or a moved camera: split the clip before frame"
    return f"; {100 * away:.0f} % of the frames {text} {frame}"


def choose_moments(numbers: Array, area: Array, active: Array, min_gap: int, max_pairs: int) -> list[int]:
    """Choose the samples to use, one each `min_gap` frames of every passage, thinned evenly to `max_pairs`.

    A passage is a run of active samples. Its ends, where the object is hardly in the picture, are left out: samples
    with less than a fifth of the passage's largest changed area.
    """
    runs = np.split(np.flatnonzero(active), np.flatnonzero(np.diff(np.flatnonzero(active)) > 1) + 1)
    chosen: list[int] = []
    for run in runs:
        for k in run.tolist():
            complete = area[k] >= 0.2 * area[run].max()
            if complete and (not chosen or numbers[k] - numbers[chosen[-1]] >= min_gap):
                chosen.append(k)
    if len(chosen) > max_pairs:
        chosen = [chosen[k] for k in sorted({round(q) for q in np.linspace(0, len(chosen) - 1, max_pairs)})]
    return chosen


def choose_quiet(jobs: Sequence[PairJob], numbers: Array, affines: list[Array], light: Array) -> list[list[int]]:
    """Choose, for each job, the samples its `gt` is made from, best first: near in camera position, exposure and time.

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
            remaining = [q for q in order if q not in stack]
            reusable = [q for q in remaining if q in used]
            pick = remaining[:1] if remaining and (remaining[0] in used or len(used) < QUIET_BUDGET) else reusable[:1]
            stack.extend(pick)
            used.update(pick)
    return chosen


class Reconstruction(NamedTuple):
    """An empty scene that was made for a frame.

    Attributes:
        picture: (h, w, 3) uint8.
        psnr: dB, outside the object; -inf when nothing outside the object is left.
        motion: of the camera against the nearest quiet frame, px.
        noise: (h, w) uint16, 1/100 grey level; None for a single quiet frame.
    """

    picture: Array
    psnr: float
    motion: float
    noise: Array | None


def measure_spread(frames: Sequence[Array]) -> Array | None:
    """Measure how much each pixel differs by itself between frames of the empty scene: leaves, water, fluttering tape.

    The noise of a still pixel is in it too: the spread is that of 5 x 5 means, as all changes are measured.

    Args:
        frames: (h, w, 3), aligned and of one exposure.

    Returns:
        (h, w) uint16, standard deviation in 1/100 grey level, the largest over channels; None for fewer than 3 frames.
    """
    if len(frames) < 3:
        return None
    means = np.stack([cv2.blur(frame.astype(np.float32), (5, 5)) for frame in frames])
    spread: Array = np.clip(np.rint(100 * means.std(axis=0, ddof=1).max(axis=2)), 0, 65535).astype(np.uint16)
    return spread


def reconstruct_background(picture: Array, quiet: list[Array]) -> Reconstruction:
    """Reconstruct the empty scene in `picture`'s camera position, from aligned and tone-matched quiet frames.

    Two versions are made, the nearest quiet frame and the median of all, and the one with the smaller error outside the
    object stays: the single frame wins when light drifts, the median when noise and shake dominate.

    Args:
        picture: (h, w, 3) uint8. quiet: pictures of its shape, nearest first.

    """
    scale = max(picture.shape[:2]) / max(shrink_to_fit(picture, ALIGN_SIDE).shape[:2])
    reference = compute_features(shrink_to_fit(picture, ALIGN_SIDE))
    aligned, motion = [], 0.0
    for k, frame in enumerate(quiet):
        length, matrix = estimate_camera_motion(
            measure_tile_shifts(reference, compute_features(shrink_to_fit(frame, ALIGN_SIDE)))
        )
        if k == 0:
            motion = length * scale
        aligned.append(warp(frame, scale_affine(matrix, scale)))
    margin = max(9, round(0.03 * max(picture.shape[:2]))) | 1
    outside = np.ones(picture.shape[:2], bool)
    for _ in range(2):  # first with a robust fit on everything, then without the object
        toned = [apply_tone(a, fit_tone(a, picture, outside)) for a in aligned]
        middle = np.median(np.stack(toned), axis=0) if len(toned) > 1 else toned[0]
        mask = find_changes(picture, middle).astype(np.uint8)
        outside = cv2.dilate(mask, np.ones((margin, margin), np.uint8)) == 0
        if not outside.any():
            return Reconstruction(picture, float("-inf"), motion, None)
    candidates = [np.clip(np.rint(view), 0, 255).astype(np.uint8) for view in (toned[0], middle)]
    errors = [compute_psnr(picture, view, outside, least_error=1e-9) for view in candidates]
    best = int(np.argmax(errors))
    return Reconstruction(candidates[best], errors[best], motion, measure_spread(toned))


class ClipParams(stage.Params):
    """Parameters of the source `clip`."""

    path: InputPath = Field(description="A video, a folder of videos, or a glob.")
    licence: str = Field("unknown", description="Licence of the videos, as it goes into every row.")
    max_side: int | None = Field(None, ge=64, description="Frames with a longer side are made smaller, px.")
    max_samples: int = Field(400, ge=8, description="Frames that are examined; a longer clip is sampled evenly.")
    max_motion: float = Field(
        0.01, gt=0, description="Farthest camera position that counts as static, share of the long side."
    )
    quiet_area: float = Field(0.005, ge=0, description="Share of changed pixels up to which a frame counts as empty.")
    min_area: float = Field(0.006, gt=0, description="Share of changed pixels from which an object is there.")
    max_area: float = Field(0.6, le=1, description="Share of changed pixels above which it is no object but the scene.")
    regions: bool = Field(
        True,
        description="In a clip that is never completely empty, empty one region at a time: pairs differ there only.",
    )
    min_gap: int = Field(8, ge=1, description="Frames between two pairs.")
    max_pairs: int = Field(24, ge=1, description="Pairs of one clip at most.")


class Clip(Source):
    """Pairs from fixed-camera videos."""

    name = "clip"
    input_paths = ("path",)
    input_noun = "video"
    version = "3"
    gives: ClassVar[Schema] = {
        "input": Kind.RGB,
        "gt": Kind.RGB,
        "given_mask": Kind.MASK,
        "clip_frame": Kind.INT,
        "clip_motion": Kind.FLOAT,
        "clip_psnr": Kind.FLOAT,
        "clip_noise": Kind.DEPTH,
    }
    item_columns: ClassVar[Schema] = {"id": Kind.STRING, "origin": Kind.STRING, "path": Kind.STRING}
    time_limit_s = 3600.0
    Params = ClipParams

    def list_inputs(self, passed_over: Counter[str] | None = None) -> list[Path]:
        """List the videos; other files of their folder are added to `passed_over`, by the reason.

        Raises:
            MissingInput: there are none.
            BadClip: there is a single file, which is no video.
        """
        return find_clips(self.params.path, passed_over)

    def survey_inputs(self, run: Any) -> tuple[str, int]:
        return survey_files(self.params.path)

    def items(self, run: Any) -> list[Record]:
        items: list[Record] = []
        for path in self.list_inputs(getattr(run, "passed_over", None)):
            with path.open("rb") as file:  # a video may be larger than memory
                digest = hashlib.file_digest(file, "sha256").digest()
            items.append({"id": compute_content_id(digest), "origin": str(path), "path": str(path)})
        return items

    def process_one(self, record: Record) -> Outcome:
        """Find the pairs of a clip. Progress is reported in frames: those that are sampled, then those of the pairs."""
        params: ClipParams = self.params
        path = Path(record["path"])
        if reason := find_unreadable_levels(path):
            return Rejected(*reason)
        samples = sample_frames(path, params.max_samples, self.report_progress)
        if len(samples) < 8:
            return Rejected("too short", f"{len(samples)} frames, at least 8 are needed")
        numbers, small = np.array([n for n, _ in samples]), [f for _, f in samples]
        lengths, affines, textured = estimate_motion(small)
        if textured < MIN_TRUSTED:
            return Rejected("no texture", f"{textured} of 16 tiles can be followed, at least {MIN_TRUSTED} needed")
        limit = params.max_motion * max(small[0].shape[:2])
        static = np.flatnonzero(lengths <= limit)
        if len(static) < max(8, 0.25 * len(samples)):
            full = max(shrink_to_fit(next(read_frames(path))[1], params.max_side).shape[:2]) / max(small[0].shape[:2])
            median = float(np.median(lengths)) * full
            text = f"{median:.1f} px" if np.isfinite(median) else "too far to follow"
            return Rejected("moving camera", f"motion median {text}, limit {limit * full:.1f} px")
        aligned = {int(k): shrink_to_fit(warp(small[k], affines[k]), QUIET_SIDE) for k in static}
        jobs = self.find_pairs(numbers, aligned)
        if isinstance(jobs, Rejected):
            return Rejected(jobs.reason, jobs.detail + describe_cut(numbers, lengths <= limit))
        light = np.array([float(f.mean()) for f in small])
        records: list[Record] = []
        for start in range(0, len(jobs), PASS_JOBS):
            part = jobs[start : start + PASS_JOBS]
            records += self.make_pairs(record, part, numbers, choose_quiet(part, numbers, affines, light))
        return Kept(records) if records else Rejected("nothing passes", "no frame could be aligned with an empty one")

    def find_pairs(self, numbers: Array, aligned: dict[int, Array]) -> list[PairJob] | Rejected:
        """Find the samples that show an object, and samples in which its place is empty.

        Args:
            numbers: (n,) frame number of every sample. aligned: static samples, small, by their index.
        """
        params: ClipParams = self.params
        static = np.array(sorted(aligned))
        some = static[:: max(1, len(static) // PLATE_SAMPLES)]
        plate, _ = find_plate([aligned[int(k)] for k in some])
        area = np.full(len(numbers), np.nan)
        for index, k in enumerate(static):
            if index % REPORT_EVERY == 0:
                self.report_progress(index, len(static), "samples searched for objects")
            area[k] = measure_activity(aligned[int(k)], plate)
        quiet = np.flatnonzero(area <= params.quiet_area)
        jobs: list[PairJob] = []
        if len(quiet) >= 3:
            active = (area >= params.min_area) & (area <= params.max_area)
            moments = choose_moments(numbers, area, active, params.min_gap, params.max_pairs)
            jobs = [PairJob(m, None, quiet.tolist()) for m in moments]
        elif params.regions:
            # In any few frames somebody is visible: here each place's own median is the emptiest there is.
            plate = np.median(np.stack([aligned[int(k)] for k in some]), axis=0).astype(np.float32)
            masks = {k: find_difference(picture, plate) for k, picture in aligned.items()}
            bounds = params.min_area, params.max_area, params.quiet_area, params.min_gap, params.max_pairs
            jobs = [PairJob(*chosen) for chosen in choose_regions(masks, numbers, *bounds)]
        if not jobs and len(quiet) < 3:
            return Rejected("never empty", f"least change {np.nanmin(area):.4f}, limit {params.quiet_area}")
        if not jobs:
            return Rejected("nothing passes", f"largest change {np.nanmax(area):.4f}, limit {params.min_area}")
        return jobs

    def make_pairs(
        self, record: Record, jobs: Sequence[PairJob], numbers: Array, stacks: Sequence[Sequence[int]]
    ) -> list[Record]:
        """Read the frames of the jobs at full size and make their pairs, as far as they can be aligned.

        Args:
            stacks: for each job the samples that its `gt` is made from.
        """
        path = Path(record["path"])
        used = frozenset(int(numbers[k]) for job, stack in zip(jobs, stacks, strict=True) for k in (job.sample, *stack))
        frames: dict[int, Array] = {}
        for number, frame in read_frames(path, used):
            self.report_progress(len(frames), len(used), "frames of the pairs read")
            frames[number] = shrink_to_fit(frame, self.params.max_side)
        records = []
        for index, (job, stack) in enumerate(zip(jobs, stacks, strict=True)):
            self.report_progress(index, len(jobs), "pairs made")
            pair = self._make_pair(record, job, int(numbers[job.sample]), frames, [int(numbers[q]) for q in stack])
            if pair is not None:
                records.append(pair)
        return records

    def _make_pair(
        self, record: Record, job: PairJob, number: int, frames: dict[int, Array], quiet: list[int]
    ) -> Record | None:
        """Return the record of a pair, or None where it cannot be aligned or its region cuts through something."""
        picture = frames[number]
        gt, error, motion, noise = reconstruct_background(picture, [frames[q] for q in quiet])
        if not np.isfinite(error) or not np.isfinite(motion):
            return None
        key, origin = f"{number:06d}", f"{record['origin']}#frame={number}"
        if job.region is not None:
            gt, cut = blend_region(picture, gt, job.region)
            if cut > MAX_CUT or not contains_object(picture, gt):
                return None
            x, y, width, height = job.region.find_box(picture.shape)
            key, origin = f"{key}-{x}-{y}", f"{origin}&xywh={x},{y},{width},{height}"
        return {
            "id": make_child_id(record["id"], key),
            "scene_id": record["id"],
            "origin": origin,
            "licence": self.params.licence,
            "input": picture,
            "gt": gt,
            "given_mask": None,
            "clip_frame": number,
            "clip_motion": motion,
            "clip_psnr": error,
            "clip_noise": noise,
        }
