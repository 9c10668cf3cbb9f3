"""MuLAn's layers as pictures, as its own script writes them: a row for each layer that is taken away.

MuLAn (arXiv 2404.02790) is published as pickles, which are never opened here: a pickle is a program. Its script writes
`<image>-layer_0.png`, the background, and `<image>-layer_1.png` …, the instances with alpha, from the back to the
front. What lies behind an instance was painted by a model, so its rows are `edited`: candidates.
"""

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from rasura.manifests.images import RGB, Mask, decode_rgba
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages.imaging.mask_change import find_change, measure_mask_change
from rasura.stages.sources.files import RunContext, format_origin
from rasura.stages.sources.foreign.pictures import list_columns, prepare_pair
from rasura.stages.sources.foreign.rows import ACCEPTED, ForeignPairParams, ForeignRow, ForeignSource
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files
from rasura.stages.sources.provided_masks import NO_MASK
from rasura.stages.stage import Record, Rejected

MOST_LAYERS = 64
LAYER = re.compile(r"^(.+)-layer_(\d{1,4})\.(?:png|webp)$", re.IGNORECASE)
PICKLES = (".p.zl", ".pkl", ".pickle", ".p")


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


class Mulan(ForeignSource):
    """MuLAn's layers: the picture of all of them, and the same without one of the instances.

    Examples:
        - mulan: {path: mulan-layers, accepted: true, licence: CC-BY-NC-SA-4.0}
    """

    name = "mulan"
    version = "1"
    gives: ClassVar[Schema] = {**PROVENANCE, **list_columns("pairs"), "verdict": Kind.STRING}
    default_kind = "edited"
    Params = MulanParams
    params: MulanParams

    @property
    def clean_part(self) -> str:
        return "layer_0"

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the files of layers.

        Raises:
            MissingInput: there are none.
        """
        files = [file for file in find_files(self.params.path) if LAYER.match(file.path.rpartition("/")[2])]
        if not files:
            raise MissingInput(
                f"'{expand_path(self.params.path)}' has no files <image>-layer_<number>.png: MuLAn's script "
                "dataset_decomposition.py writes them from its annotations, which are pickles and not read here"
            )
        return files

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        layers = {file.path for file in self.list_inputs()}
        images: dict[str, dict[int, SourceFile]] = {}
        twice: dict[str, str] = {}
        for file in find_files(self.params.path, passed_over=run.passed_over):
            folder, _, name = file.path.rpartition("/")
            if file.path not in layers:
                is_pickle = name.lower().endswith(PICKLES)
                run.passed_over["pickle, which is never opened" if is_pickle else "no layer"] += 1
                continue
            match = LAYER.match(name)
            assert match is not None
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
        details = item["details"]
        numbers, layer = details["layers"], details["layer"]
        stack = None
        for number in numbers:  # one layer in memory at a time
            pixels = decode_rgba(self.read_part(item, f"layer_{number}") or b"", self.params.max_pixels)
            if stack is not None and pixels.shape[:2] != stack.source.shape[:2]:
                sizes = {"layer_0": stack.source.shape[:2], f"layer_{number}": pixels.shape[:2]}
                return Rejected("layers of two sizes", str(sizes))
            stack = add_layer(stack, pixels, number == layer)
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
