"""MuLAn's layers: a row for each layer that is taken away.

MuLAn (arXiv 2404.02790) is published as annotations of the photographs of COCO and LAION: `<image>.p.zl`, pickles in
zlib's form, which are read without executing them (`manifests.foreign.plain_pickles`). Its script writes the same as
pictures: `<image>-layer_0.png`, the background, and `<image>-layer_1.png` …, the instances with alpha, from the back to
the front. What lies behind an instance was painted by a model, so its rows are `edited`: candidates.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.foreign.plain_pickles import MOST_BYTES, Array, NotPlain, decompress, read_pickle
from rasura.manifests.images import RGB, Mask, decode_image, decode_rgba
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages.imaging.mask_change import find_change, measure_mask_change
from rasura.stages.sources.files import RunContext, format_origin, remember, survey_files
from rasura.stages.sources.foreign.pictures import list_columns, prepare_pair
from rasura.stages.sources.foreign.rows import ACCEPTED, ForeignPairParams, ForeignRow, ForeignSource, read_range
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files, normalize_name
from rasura.stages.sources.provided_masks import NO_MASK
from rasura.stages.stage import Record, Rejected

MOST_LAYERS = 64
LAYER = re.compile(r"^(.+)-layer_(\d{1,4})\.(?:png|webp)$", re.IGNORECASE)
ANNOTATION, PICKLES = ".p.zl", (".pkl", ".pickle", ".p")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
INSTANCES = ".instances"
"""Name of the listing with the number of each annotation's instances."""


class Stack(NamedTuple):
    """A picture of layers, with and without one of them.

    Attributes:
        source: (h, w, 3) uint8, all layers.
        target: the same without one.
        mask: (h, w) bool, where that one is what is mostly seen.
    """

    source: RGB
    target: RGB
    mask: Mask


class MulanParams(ForeignPairParams):
    accepted: bool = ACCEPTED
    images: str | None = Field(
        None,
        description="folder of the photographs that the annotations (.p.zl) belong to, such as COCO's; null: beside "
        "them. They have the annotations' names",
    )


class Mulan(ForeignSource):
    """MuLAn's annotations or layers: the picture of all layers, and the same without one of the instances.

    Examples:
        - mulan: {path: mulan-annotations, images: coco, accepted: true, licence: CC-BY-NC-SA-4.0}
    """

    name = "mulan"
    version = "1"
    input_paths = ("path", "images")
    gives: ClassVar[Schema] = {**PROVENANCE, **list_columns("pairs"), "verdict": Kind.STRING}
    default_kind = "edited"
    Params = MulanParams
    params: MulanParams

    @property
    def clean_part(self) -> str:
        return "layer_0"

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the files of layers and of annotations.

        Raises:
            MissingInput: there are none.
        """
        files = [file for file in find_files(self.params.path) if is_layer(file) or is_annotation(file)]
        if not files:
            raise MissingInput(
                f"'{expand_path(self.params.path)}' has neither annotations <image>{ANNOTATION}, as MuLAn is published "
                "(unpack its .rar files), nor files <image>-layer_<number>.png, as its dataset_decomposition.py writes"
            )
        return files

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_files(*filter(None, (self.params.path, self.params.images)))

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        images: dict[str, dict[int, SourceFile]] = {}
        twice: dict[str, str] = {}
        annotations, others = list[SourceFile](), list[SourceFile]()
        for file in find_files(self.params.path, passed_over=run.passed_over):
            folder, _, name = file.path.rpartition("/")
            match = LAYER.match(name)
            if match is None:
                (annotations if is_annotation(file) else others).append(file)
                continue
            image, number = f"{folder}/{match.group(1)}", int(match.group(2))
            other = images.setdefault(image, {}).setdefault(number, file)
            if other is not file:
                twice[image] = f"{format_origin(other.path)} and {format_origin(file.path)} are one layer"
        for image, found in sorted(images.items()):
            files = {f"layer_{number}": found[number] for number in sorted(found)}
            fault = self._find_fault(found, twice.get(image))
            for number in sorted(found)[1:] if fault is None else [max(found)]:
                details: Record = {"layer": number, "layers": sorted(found)}
                yield ForeignRow(f"{format_origin(image)}#layer_{number}", files, details, str(number), fault)
        decomposed = {normalize_name(image.rpartition("/")[2]) for image in images}
        yield from self._list_annotated(annotations, others, decomposed, run)

    def _list_annotated(
        self, annotations: Sequence[SourceFile], others: Sequence[SourceFile], decomposed: set[str], run: RunContext
    ) -> Iterator[ForeignRow]:
        """Yield the rows of annotations; each is opened once, to count its instances."""
        passed_over = run.passed_over
        photographs: dict[str, list[SourceFile]] = {}
        for file in find_files(self.params.images) if self.params.images else others:
            if file.path.lower().endswith(PICTURES):
                photographs.setdefault(_get_stem(file), []).append(file)
        listed = {file.path for files in photographs.values() for file in files}
        for file in (file for file in others if file.path not in listed):
            is_pickle = file.path.lower().endswith(PICKLES)
            passed_over["pickle that is no annotation of MuLAn's" if is_pickle else "no layer"] += 1
        wanted = [file for file in annotations if _get_stem(file) not in decomposed]
        if len(wanted) < len(annotations):
            passed_over["annotation of a picture whose layers are there"] += len(annotations) - len(wanted)
        (counts,) = remember(wanted, run, count_instances, (INSTANCES,)) if wanted else ({},)
        for file in wanted:
            origin, found = format_origin(file.path), photographs.get(_get_stem(file), [])
            count = counts[file.path] or "the file cannot be read"
            fault = None
            if not count.isdigit():
                fault = ("damaged annotation", count)
            elif not found:
                fault = ("no photograph", f"there is none of its name in '{self.params.images or self.params.path}'")
            elif len(found) > 1:
                fault = ("ambiguous photograph", " and ".join(format_origin(photo.path) for photo in found))
            elif not 0 < int(count) <= MOST_LAYERS:
                fault = ("no instance" if count == "0" else "too many layers", f"it has {count} instances")
            if fault is not None:
                yield ForeignRow(origin, {"annotation": file}, {}, fault=fault)
                continue
            files = {"layer_0": found[0], "annotation": file}  # what the photographs look like decides scenes
            for number in range(1, int(count) + 1):
                yield ForeignRow(f"{origin}#instance_{number}", files, {"layer": number}, f"instance_{number}")
        used = {_get_stem(file) for file in wanted}
        if spare := sum(len(files) for stem, files in photographs.items() if stem not in used):
            passed_over["photograph without an annotation" if wanted else "no layer"] += spare

    @staticmethod
    def _find_fault(found: dict[int, SourceFile], twice: str | None) -> tuple[str, str] | None:
        """Find what is wrong with the layers of an image."""
        if twice:
            return "ambiguous layers", twice
        if sorted(found) != list(range(len(found))):
            missing = min(set(range(len(found))) - set(found))
            return "missing layer", f"there is no layer_{missing}, and there are {', '.join(map(str, sorted(found)))}"
        if len(found) == 1:
            return "no instance", "there is a background and no layer in front of it"
        if len(found) > MOST_LAYERS:
            return "too many layers", f"{len(found)}, limit {MOST_LAYERS}"
        return None

    def load(self, item: Record) -> Record | Rejected:
        layer, stack = item["details"]["layer"], None
        try:
            for number, pixels in enumerate(self._read_layers(item)):  # one layer in memory at a time
                if stack is not None and pixels.shape[:2] != stack.source.shape[:2]:
                    sizes = {"layer_0": stack.source.shape[:2], f"layer_{number}": pixels.shape[:2]}
                    return Rejected("layers of two sizes", str(sizes))
                stack = add_layer(stack, pixels, number == layer)
        except NotPlain as error:
            return Rejected("damaged annotation", str(error))
        assert stack is not None
        source, target, mask = stack
        if not mask.any():
            return Rejected("empty mask", f"layer {layer} is hidden by those in front of it")
        measured = measure_mask_change(mask, find_change(source, target))
        columns = NO_MASK | {
            "mask_values": "alpha of a layer",
            "mask_polarity": "white",
            "mask_change": measured.change,
            "mask_changed": measured.changed,
        }
        foreground = mask | (source != target).any(axis=2)
        masks = {"mask": mask, "foreground_mask": foreground}
        pictures = prepare_pair(source, target, masks, columns, self.get_kind(item), self.give, self.params)
        return pictures if isinstance(pictures, Rejected) else pictures | columns

    def _read_layers(self, item: Record) -> Iterator[RGB]:
        """Yield the layers of an item, back to front: (h, w, 3) or (h, w, 4) uint8."""
        first = self.read_part(item, "layer_0") or b""
        if "annotation" not in item["paths"]:
            parts = [f"layer_{number}" for number in item["details"]["layers"]]
            read = partial(decode_rgba, max_pixels=self.params.max_pixels)
            yield from (read(first if part == "layer_0" else self.read_part(item, part) or b"") for part in parts)
            return
        photograph = decode_image(first, self.params.max_pixels)
        background, instances = read_annotation(self.read_part(item, "annotation") or b"")
        yield compose_layer(photograph, background, is_instance=False)
        yield from (compose_layer(photograph, instance, is_instance=True) for instance in instances)


def is_layer(file: SourceFile) -> bool:
    """Return whether a file's name is that of a layer."""
    return LAYER.match(file.path.rpartition("/")[2]) is not None


def is_annotation(file: SourceFile) -> bool:
    """Return whether a file's name is that of an annotation."""
    return file.path.lower().endswith(ANNOTATION)


def _get_stem(file: SourceFile) -> str:
    name = normalize_name(file.path.rpartition("/")[2])
    return name.removesuffix(ANNOTATION) if name.endswith(ANNOTATION) else name.rpartition(".")[0]


def count_instances(path: str) -> tuple[str]:
    """Count the instances of an annotation file; where it cannot be read, the text says why."""
    try:
        data = read_range(path, 0, MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            return (f"more than {MOST_BYTES} bytes",)
        return (str(len(read_annotation(data).instances)),)
    except NotPlain as error:
        return (str(error),)


class Annotation(NamedTuple):
    """The layers of an annotation, as it has them: names to values; instances are ordered from back to front."""

    background: Mapping[str, Any]
    instances: Sequence[Mapping[str, Any]]


def read_annotation(data: bytes) -> Annotation:
    """Read an annotation of MuLAn's: zlib's bytes of a pickle, which is not executed.

    Raises:
        NotPlain: it is damaged, or has something else than layers. The text names it.
    """
    value = read_pickle(decompress(data))
    if not isinstance(value, dict) or not isinstance(value.get("background"), dict):
        raise NotPlain("it has no background")
    found = value.get("instances") or {}
    if isinstance(found, dict):  # by number; otherwise in the order in which they were written
        numbers = [int(key) if str(key).isdigit() else 0 for key in found]
        found = [entry for _, entry in sorted(zip(numbers, found.values(), strict=True), key=lambda pair: pair[0])]
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise NotPlain("its instances are no layers")
    return Annotation(value["background"], found)


def compose_layer(photograph: RGB, layer: Mapping[str, Any], is_instance: bool) -> RGB:
    """Compose a layer of an annotation from its photograph, as MuLAn's script does.

    Args:
        photograph: (h, w, 3) uint8.
        layer: `original_image_mask`, where the photograph is seen, and `inpainted_delta`, which is added to that; of
            an instance also `instance_alpha` and maybe `instance_mask`.
        is_instance: whether it has alpha; the background has none.

    Returns:
        (h, w, 4) uint8 of an instance, (h, w, 3) of the background.

    Raises:
        NotPlain: a part is missing, or is of another size than the photograph.

    Examples:
        >>> grey, half = np.full((1, 2, 3), 90, np.uint8), Array(np.array([[True, False]]))
        >>> delta = Array(np.array([[[0, 0, 0], [5, 6, 7]]], np.int16))
        >>> compose_layer(grey, {"original_image_mask": half, "inpainted_delta": delta}, False).tolist()
        [[[90, 90, 90], [5, 6, 7]]]
    """
    names = ["original_image_mask", *(["instance_mask"] if is_instance and "instance_mask" in layer else [])]
    seen = np.ones((1, 1, 1), np.int32)
    for name in names:
        part = _get_part(layer, name, photograph)
        if part.max(initial=0) > 1 or part.min(initial=0) < 0:
            raise NotPlain(f"its {name} has values other than 0 and 1")
        seen = seen * part
    delta = _get_part(layer, "inpainted_delta", photograph)
    colours = np.asarray((photograph * seen + delta).astype(np.int64) & 255, np.uint8)  # a delta of uint8 wraps
    if not is_instance:
        return colours
    alpha = _get_part(layer, "instance_alpha", photograph)
    if alpha.dtype.kind == "f" or alpha.max(initial=0) <= 1:
        alpha = np.rint(255 * alpha)
    return np.dstack([colours, alpha[..., 0].clip(0, 255).astype(np.uint8)])


def _get_part(layer: Mapping[str, Any], name: str, photograph: RGB) -> Any:
    """Return a part of a layer, (h, w, 1) or (h, w, 3), as int32 or float64."""
    part = layer.get(name)
    if not isinstance(part, Array) or part.values is None:
        raise NotPlain(f"a layer without {name}")
    values = part.values
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[:2] != photograph.shape[:2] or values.shape[2] not in (1, 3):
        height, width = photograph.shape[:2]
        raise NotPlain(f"its {name} is of the shape {values.shape}, its photograph has {width} x {height} px")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise NotPlain(f"its {name} has values that are no numbers")
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int32)


def add_layer(stack: Stack | None, pixels: RGB, is_removed: bool) -> Stack:
    """Put a layer in front of others.

    Args:
        stack: the layers behind it; None where it is the first.
        pixels: (h, w, 4) uint8, straight alpha.
        is_removed: whether the target is without it.

    Examples:
        >>> grey = np.full((1, 2, 4), 100, np.uint8)
        >>> grey[..., 3] = 255
        >>> red = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
        >>> stack = add_layer(add_layer(None, grey, False), red, True)
        >>> stack.source[0].tolist(), stack.target[0].tolist(), stack.mask[0].tolist()
        ([[200, 0, 0], [100, 100, 100]], [[100, 100, 100], [100, 100, 100]], [True, False])
    """
    if stack is None:
        colours = np.ascontiguousarray(pixels[..., :3])
        return Stack(colours, colours, np.zeros(colours.shape[:2], bool))
    alpha = pixels[..., 3:].astype(np.float32) / 255
    paint = alpha * pixels[..., :3]
    source = np.rint(paint + (1 - alpha) * stack.source).astype(np.uint8)
    target = stack.target if is_removed else np.rint(paint + (1 - alpha) * stack.target).astype(np.uint8)
    covers = alpha[..., 0] > 0.5
    return Stack(source, target, covers if is_removed else stack.mask & ~covers)
