"""Source `studio`: rendered fixed-camera pairs with exact truth, from a seed alone.

Mitsuba is an extra (`rasura[studio]`) and is imported when the first pair is rendered. A pair is rendered once: the
cache holds it under the hash of its description, the render settings and the renderer's versions.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from rasura.manifests.ids import compute_seed, hash_json
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages.sources.files import InputPath, survey_files
from rasura.stages.sources.listing import MissingInput, expand_path
from rasura.stages.sources.studio import develop as studio_develop
from rasura.stages.sources.studio import render as studio_render
from rasura.stages.sources.studio import scene as studio_scene
from rasura.stages.sources.studio.traps import Trap, describe_trap_scene, find_conflict
from rasura.stages.stage import Kept, Outcome, Params, Record, Source

log = logging.getLogger(__name__)

ARRAYS: Mapping[str, tuple[type[np.generic], int]] = {
    # arrays of `studio_render.render`: type, number of axes
    "input": (np.uint8, 3),
    "gt": (np.uint8, 3),
    "object_mask": (np.bool_, 2),
    "foreground_mask": (np.bool_, 2),
    "floor": (np.bool_, 2),
    "depth": (np.uint16, 2),
    "empty": (np.uint8, 3),  # only where it is not gt
}
PAIR_VERSION = "1"
"""Part of every id: raise it when the same scene gives another pair."""
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})


class Degrade(Params):
    """Defects of a real camera. All off by default. The truth stays exact in the grid of `input`."""

    noise: float = Field(
        0.0, ge=0, le=50, description="Standard deviation of the sensor noise, grey levels, both pictures."
    )
    jpeg: int | None = Field(None, ge=1, le=100, description="JPEG quality that both pictures go through; null: none.")
    shift: float = Field(
        0.0, ge=0, le=16, description="`gt` is moved by up to this many pixels, in a random direction."
    )
    flicker: float = Field(0.0, ge=0, le=0.5, description="`gt`'s exposure changes by up to this share.")


class StudioParams(Params):
    """Parameters of the source `studio`."""

    count: int = Field(16, ge=1, description="Number of scenes.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Seed of the scenes; null: the recipe's.")
    width: int = Field(360, ge=16, le=4096, description="Width of the pictures, pixels.")
    height: int = Field(240, ge=16, le=4096, description="Height of the pictures, pixels.")
    spp: Literal[4, 16, 64, 256, 1024] = Field(
        16, description="Light paths a pixel: four times as many halve the noise."
    )
    light: studio_scene.Light = Field("mixed", description="sun, lamp, soft (no direction), or mixed: all of them.")
    remove: Literal["all", "one"] = Field("all", description="Remove all objects of a scene, or only its largest.")
    traps: list[Trap] = Field(
        [],
        description="Situations that fool programs which compare two pictures, in every scene all of these: "
        + ", ".join(get_args(Trap))
        + ".",
    )
    textures: InputPath | None = Field(
        None, description="Folder of photographs that cover floor and walls; null: procedural."
    )
    degrade: Degrade = Field(Degrade(), description="Noise, compression, shift and flicker of a real camera.")
    cache: str | None = Field(
        None, description="Folder of finished renders; null: rasura/studio in the user's cache folder."
    )
    licence: str = Field(
        "Apache-2.0", description="Licence written into the records. With `textures`, one that theirs allow."
    )

    @field_validator("traps")
    @classmethod
    def _can_be_combined(cls, traps: list[Trap]) -> list[Trap]:
        if names := find_conflict(traps):
            raise ValueError(f"the traps {' and '.join(names)} cannot be in one scene")
        return traps


def find_cache_folder(configured: str | None) -> Path:
    """Return the cache folder: as configured, else below XDG_CACHE_HOME, else below ~/.cache."""
    if configured is not None:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rasura" / "studio"


def load_render(path: Path) -> dict[str, Any] | None:
    """Load a finished render; None where there is none, or one that is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ARRAYS if name in stored or name != "empty"}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("the cached render %s is damaged (%s) and is made again", path, error)
        return None
    fits = all(
        (array.dtype, array.ndim) == (np.dtype(ARRAYS[name][0]), ARRAYS[name][1]) for name, array in arrays.items()
    )
    return arrays if fits and len({array.shape[:2] for array in arrays.values()}) == 1 else None


def save_render(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a render so that a reader gets all of it or nothing. A cache that cannot be written is only a warning."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        log.warning("the render cannot be cached as %s: %s", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink()


def find_photographs(folder: Path) -> list[Path]:
    """Find the pictures of a folder, sorted.

    Raises:
        MissingInput: no such folder, or no picture in it.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise MissingInput(f"studio: no photographs ({', '.join(sorted(PHOTO_SUFFIXES))}) in '{folder}'")
    return paths


def list_photographs(folder: Path) -> dict[str, str]:
    """List the pictures of a folder: sha256 to path.

    Raises:
        MissingInput: no such folder, or no picture in it.
    """
    return {hashlib.sha256(path.read_bytes()).hexdigest(): str(path.resolve()) for path in find_photographs(folder)}


class Studio(Source):
    """Rendered fixed-camera pairs with exact truth, from a seed alone."""

    name = "studio"
    input_paths = ("textures",)
    input_noun = "scene"
    version = "2"
    gives: ClassVar[Schema] = {
        **{column: PROVENANCE[column] for column in ("id", "scene_id", "split", "origin", "licence", "parents")},
        "label": Kind.STRING,
        "input": Kind.RGB,
        "gt": Kind.RGB,
        "given_mask": Kind.MASK,
        "true_object_mask": Kind.MASK,
        "true_foreground_mask": Kind.MASK,
        "true_empty": Kind.RGB,  # the scene of `input` without its objects and their effects, no defect of a camera
        "true_depth": Kind.DEPTH,  # of `true_empty`, mm along the viewing axis; 0: nothing, 65535: that far or farther
        "true_floor": Kind.MASK,
        "light_azimuth": Kind.FLOAT,
        "light_elevation": Kind.FLOAT,
        "camera_fov": Kind.FLOAT,  # degrees, horizontal
    }
    item_columns: ClassVar[Schema] = {"id": Kind.STRING, "origin": Kind.STRING, "scene": Kind.STRING}
    time_limit_s = 300.0
    Params = StudioParams

    def required_modules(self) -> tuple[str, ...]:
        return ("mitsuba",)

    def list_inputs(self) -> range:
        """List the numbers of the scenes.

        Raises:
            MissingInput: the folder of textures is missing, or has no photograph.
        """
        if self.params.textures is not None:
            find_photographs(Path(expand_path(self.params.textures)))
        return range(self.params.count)

    def survey_inputs(self, run: Any) -> tuple[str, int]:
        photographs = "" if self.params.textures is None else survey_files(self.params.textures)[0]
        is_known = self.params.textures is None or photographs
        return f"{PAIR_VERSION} {photographs}" if is_known else "", self.params.count

    def items(self, run: Any = None) -> list[Record]:
        """List one item a scene; `scene` is JSON: the description, its settings, and the paths of its photographs.

        Raises:
            ImportError: mitsuba is not installed.
            MissingInput: the folder of textures is empty or missing.
        """
        if find_spec("mitsuba") is None:
            raise ModuleNotFoundError(studio_render.NO_MITSUBA, name="mitsuba")
        p = self.params
        seed = self.seed if p.seed is None else p.seed
        photos = {} if p.textures is None else list_photographs(Path(expand_path(p.textures)))
        items = []
        for index in range(p.count):
            scene = describe_trap_scene(seed, index, p.traps, p.width / p.height, p.light, p.remove, tuple(photos))
            planes = [plane["texture"] for plane in (scene["floor"], scene["wall"]) if plane]
            used = {t["sha256"]: photos[t["sha256"]] for t in planes if t["kind"] == "photo"}
            settings = {"width": p.width, "height": p.height, "spp": p.spp}
            item_id = hash_json([PAIR_VERSION, scene, settings, p.degrade.model_dump()])
            text = json.dumps({"scene": scene, "settings": settings, "photos": used}, sort_keys=True)
            items.append({"id": item_id, "origin": f"studio:{seed}/{index}", "scene": text})
        return items

    def load_or_render(self, item: Record) -> dict[str, Any]:
        """Return the item's clean arrays (`studio_render.render`), from the cache or rendered now.

        Raises:
            ImportError: mitsuba is not installed.
        """
        description = json.loads(item["scene"])
        if find_spec("mitsuba") is None:
            raise ModuleNotFoundError(studio_render.NO_MITSUBA, name="mitsuba")
        renderer = [studio_render.VERSION, version("mitsuba"), np.__version__]
        key = hash_json([description["scene"], description["settings"], renderer])
        path = find_cache_folder(self.params.cache) / f"{key}.npz"
        arrays = load_render(path)
        if arrays is None:
            arrays = studio_render.render(description["scene"], photos=description["photos"], **description["settings"])
            save_render(path, arrays)
        return arrays

    def process_one(self, record: Record) -> Outcome:
        arrays = self.load_or_render(record)
        scene = json.loads(record["scene"])["scene"]
        # From the id alone: an id must not stand for two contents, whatever the recipe's seed
        rng = np.random.default_rng(compute_seed(0, self.name, record["id"]))
        source, clean = studio_develop.degrade_pair(
            arrays["input"], arrays["gt"], rng, **self.params.degrade.model_dump()
        )
        pair = {
            "id": record["id"],
            "scene_id": record["id"],
            "split": None,
            "origin": record["origin"],
            "licence": self.params.licence,
            "parents": [],
            "label": scene["objects"][scene["removed"][0]]["name"] if scene["removed"] else None,
            "input": source,
            "gt": clean,
            "given_mask": None,
            "true_object_mask": arrays["object_mask"],
            "true_foreground_mask": arrays["foreground_mask"],
            "true_empty": arrays.get("empty", arrays["gt"]),
            "true_depth": arrays["depth"],
            "true_floor": arrays["floor"],
            "light_azimuth": scene["light"]["azimuth"],
            "light_elevation": scene["light"]["elevation"],
            "camera_fov": scene["camera"]["fov"],
        }
        return Kept([pair])
