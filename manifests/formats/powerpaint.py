"""PowerPaint's training data (arXiv 2312.03594; train_ppt1_sd15.py and train_ppt2_bn.py), as its two loaders read it.

The OpenImages loader reads `prompt/prompt_anno_0.txt` to `_15.txt` with lines `image,,mask,caption`, and makes boxes
(P_obj) and dilated shapes (P_shape) of the objects' masks itself. The LAION loader reads `context/*.jsonl`, and takes
random masks (P_ctxt) from `random_mask/`. For trainers of one's own, `tasks.jsonl` has the same three tasks with their
masks drawn: fitting degree α is the weight of P_shape, 1 − α that of P_ctxt.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rasura.manifests.formats.dataset_rows import JUDGEMENT, DatasetRow, explain_unfit
from rasura.manifests.formats.folder_export import ConvertedRow, LeftOut, Tally, encode_png, name_row, read_parts
from rasura.manifests.formats.ober import get_picture_suffix
from rasura.manifests.formats.random_masks import draw_brush
from rasura.manifests.formats.sorted_lists import ListFile, render_line
from rasura.manifests.ids import compute_seed
from rasura.manifests.images import Mask, decode_mask

NAME = "powerpaint"
ANNOTATIONS = tuple(f"prompt/prompt_anno_{number}.txt" for number in range(16))
CONTEXT, TASKS = "context/context.jsonl", "tasks.jsonl"
SMALLEST_SIDE = 512
TOO_SMALL = f"a side is under {SMALLEST_SIDE} px, which both of the trainer's loaders skip"
NOT_FILTERED = {"aesthetic_score": 10.0, "similarity": 1.0, "pwatermark": 0.0}
"""Scores that the LAION loader filters by and Rasura does not measure: values that pass every threshold."""
MaskMaker = Callable[[Mask, np.random.Generator], Mask]


def clean_caption(caption: str) -> str:
    """Return a caption as one field of a line of `prompt_anno_*.txt`, which the loader splits at commas and line feeds.

    Examples:
        >>> clean_caption("a cat,\\n on a mat")
        'a cat on a mat'
    """
    return " ".join(caption.replace(",", " ").split())


class PowerPaintLayout:
    """PowerPaint's files for `manifests.formats.folder_export`.

    Args:
        repeats: of `find_repeats`.
        draw_box: draws the mask of the object task where a row has no `mask_box`.
        draw_shape: draws that of the shape task where a row has no `mask_dilated`.
    """

    name = NAME
    columns: Sequence[str] = ("source", "target", "mask", "mask_box", "mask_dilated", "caption", *JUDGEMENT)
    lists: Sequence[ListFile] = (*map(ListFile, ANNOTATIONS), ListFile(CONTEXT), ListFile(TASKS))
    types: Sequence[str] = ("object", "shape", "context")
    names_by_folder = False

    def __init__(self, repeats: Mapping[str, str], draw_box: MaskMaker, draw_shape: MaskMaker) -> None:
        self._repeats = repeats
        self._makers = {"object": ("mask_box", draw_box), "shape": ("mask_dilated", draw_shape)}

    def name_row(self, id: str) -> str:
        return name_row(id)

    def list_paths(self, name: str) -> Sequence[str]:
        pictures = [f"{folder}/{name}.{suffix}" for folder in ("source", "target") for suffix in ("webp", "png")]
        return [*pictures, *(f"{folder}/{name}.png" for folder in ("mask", "object_mask", "shape_mask", "random_mask"))]

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> ConvertedRow | LeftOut:
        source, target, encoded = read_parts(raw, row, ("source", "target", "mask"))
        mask = decode_mask(encoded)
        if min(mask.shape) < SMALLEST_SIDE:
            return LeftOut(TOO_SMALL)
        no_source = explain_unfit(raw, "source") or self._repeats.get(row.id)
        no_target = explain_unfit(raw, "target")
        caption = raw.get("caption") or raw.get("label") or ""
        files: dict[str, bytes] = {}
        entries: dict[str, list[str]] = {TASKS: []}
        types: list[str] = []
        if not no_source:
            image = f"source/{name}.{get_picture_suffix(source)}"
            files |= {image: source, f"mask/{name}.png": encode_png(mask)}
            line = f"{image},,mask/{name}.png,{clean_caption(caption)}\n"
            entries[ANNOTATIONS[zlib.crc32(row.id.encode()) % len(ANNOTATIONS)]] = [line]
            for task in self._makers:
                hole = self._read_hole(row, raw, mask, task)
                files[f"{task}_mask/{name}.png"] = encode_png(hole)
                alpha = 1.0 if task == "object" else min(1.0, int((hole & mask).sum()) / max(1, int(hole.sum())))
                entries[TASKS].append(_render_task(task, image, f"{task}_mask/{name}.png", caption, alpha))
                types.append(task)
        if not no_target:
            image, hole_file = f"target/{name}.{get_picture_suffix(target)}", f"random_mask/{name}.png"
            hole = draw_brush((mask.shape[0], mask.shape[1]), self._make_rng(row, "context"))
            files |= {image: target, hole_file: encode_png(hole)}
            # the caption names the object, and the target is without it
            entries[TASKS].append(_render_task("context", image, hole_file, "", 1.0))
            entries[CONTEXT] = [render_line(_describe_context(image, mask.shape))]
            types.append("context")
        if not types:
            return LeftOut("; ".join(dict.fromkeys(filter(None, (no_source, no_target)))))
        return ConvertedRow(files, entries, types)

    def _read_hole(self, row: DatasetRow, raw: Mapping[str, Any], mask: Mask, task: str) -> Mask:
        """Read the variant of a mask that stage `masks` made, or draw one."""
        column, draw = self._makers[task]
        if raw.get(column) is not None:
            return decode_mask(raw[column]["bytes"])
        return draw(mask, self._make_rng(row, task))

    def _make_rng(self, row: DatasetRow, task: str) -> np.random.Generator:
        return np.random.default_rng(compute_seed(0, f"{NAME}.{task}", row.id))

    def describe(self, tally: Tally) -> str:
        return (
            "PowerPaint's training data, a folder for each split: `prompt/` lists `source/` (with the object), `mask/` "
            "(the object, white) and a caption for its OpenImages loader; `context/` lists `target/` (without the "
            "object) for its LAION loader, which takes holes from `random_mask/`; `tasks.jsonl` has all with their "
            f"masks drawn. In `context/`, {', '.join(f'{key} {value}' for key, value in NOT_FILTERED.items())} mean: "
            "not measured."
        )


TASK_TYPES = {"object": "object_inpainting", "shape": "shape_inpainting", "context": "inpainting"}
"""Tasks -> the loaders' names for them."""
_TOKENS = {"object": ("P_obj", "P_obj"), "shape": ("P_shape", "P_ctxt"), "context": ("P_ctxt", "P_ctxt")}


def _render_task(task: str, image: str, hole: str, caption: str, alpha: float) -> str:
    """Render a line of `tasks.jsonl`, with the keys of the loaders' samples."""
    first, second = _TOKENS[task]
    return render_line(
        {
            "task_type": TASK_TYPES[task],
            "image": image,
            "mask": hole,
            "promptA": first,
            "promptB": second,
            "prompt": caption,
            "tradeoff": [alpha, 1 - alpha],
        }
    )


def _describe_context(image: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Describe a picture without the object as the LAION loader expects it, with no caption."""
    return {
        "content": "",
        "remark": NOT_FILTERED | {"height": shape[0], "width": shape[1]},
        "img_list": {"0": {"jpg_exists": True, "jpg_prefix": "", "jpg_path": image}},
    }
