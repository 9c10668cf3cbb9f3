"""Small datasets in other people's layouts, written after their published formats: three scenes each."""

import csv
import io
import json
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from support.pair_scenes import make_floor

from rasura.manifests.images import encode_image, encode_mask

WIDTH, HEIGHT = 96, 64
LABELS = ("cup", "Hat", "cup")


def make_scene(seed: int) -> tuple[Any, Any, Any]:
    """A photograph with an object, the same without it, and the object's mask."""
    rng = np.random.default_rng(1700 + seed)
    clean = np.rint(make_floor(HEIGHT, WIDTH, 1700 + seed)).astype(np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x, y = 8 + 10 * seed, 6 + 6 * seed
    mask[y : y + 24, x : x + 30] = True
    source = clean.copy()
    source[mask] = rng.integers(10, 90, (int(mask.sum()), 3), dtype=np.uint8)
    return source, clean, mask


SCENES = [make_scene(seed) for seed in range(3)]


def write(path: Path, data: bytes | str) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def list_runs(mask: Any) -> list[int]:
    """Run lengths of a mask, column by column, that of 0 first."""
    values = np.concatenate([[False], mask.T.ravel()])
    return np.diff([0, *np.flatnonzero(np.diff(values)), mask.size]).tolist()


def outline(mask: Any) -> list[int]:
    """The polygon of a rectangle."""
    ys, xs = np.nonzero(mask)
    x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return [int(value) for value in (x0, y0, x1, y0, x1, y1, x0, y1)]


def write_coco(folder: Path, kind: str = "instances") -> dict[str, Any]:
    """COCO 2017's folders: instances (a polygon, run lengths, a crowd), LVIS' addresses, or panoptic PNG files."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (source, _, mask) in enumerate(SCENES):
        name = f"{number:012d}.jpg" if kind != "lvis" else f"{number:012d}.png"
        write(folder / "val2017" / name, encode_image(source))
        image = {"id": 40 + number, "width": WIDTH, "height": HEIGHT, "license": 1 + number % 2}
        named = {"file_name": name} if kind != "lvis" else {"coco_url": f"http://images.cocodataset.org/val2017/{name}"}
        images.append(image | named)
        runs = {"size": [HEIGHT, WIDTH], "counts": list_runs(mask)}
        entry = {"id": 900 + number, "image_id": 40 + number, "category_id": 7 if number != 1 else 27}
        entry |= {"area": int(mask.sum()), "segmentation": runs if number == 2 else [outline(mask)]}
        if kind == "panoptic":
            ids = np.where(mask, 3_226_956 + number, 17)
            colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
            png = name.replace("jpg", "png")
            write(folder / "annotations" / "panoptic_val2017" / png, encode_png(colours))
            segments = [
                {"id": 3_226_956 + number, "category_id": entry["category_id"], "area": 720, "iscrowd": 0},
                {"id": 17, "category_id": 184, "area": 5424, "iscrowd": 0},
            ]
            entry = {"image_id": 40 + number, "file_name": png, "segments_info": segments}
        annotations.append(entry | ({} if kind != "instances" else {"iscrowd": 0}))
    if kind == "instances":
        annotations.append(annotations[0] | {"id": 999, "iscrowd": 1})
    categories = [{"id": 7, "name": "cup", "isthing": 1}, {"id": 27, "name": "Hat", "isthing": 1}]
    licences = [{"id": 1, "url": "http://creativecommons.org/licenses/by/2.0/"}, {"id": 2, "name": "No known"}]
    text = json.dumps(
        {
            "info": {"year": 2017},
            "licenses": licences,
            "annotations": annotations,  # before the images, as some files have them
            "images": images,
            "categories": [*categories, {"id": 184, "name": "tree", "isthing": 0}],
        },
        indent=1,
    )
    place = write(folder / "annotations" / f"{kind}_val2017.json", text)
    return {"path": str(folder / "val2017"), "annotations": str(place)}


def encode_png(pixels: Any) -> bytes:
    """A PNG file of the pixels as they are."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write a CSV file with a line of titles."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return str(write(path, out.getvalue()))


def write_openimages(folder: Path) -> dict[str, Any]:
    """Open Images V7's CSV files; masks of half the photographs' size, as its masks are of another one."""
    masks, boxes, ids = [], [], []
    for number, (source, _, mask) in enumerate(SCENES):
        id, mid = f"{number:016x}", ("/m/02p5f1q", "/m/02dl1y", "/m/02p5f1q")[number]
        write(folder / "train" / f"{id}.jpg", encode_image(source))
        name = f"{id}_{mid.strip('/').replace('/', '')}_{number:08x}.png"
        write(folder / "masks" / name, encode_mask(mask[::2, ::2]))
        box = dict(zip(("XMin", "XMax", "YMin", "YMax"), (0.1 * number + 0.1, 0.5, 0.1, 0.4), strict=True))
        masks.append(
            {"MaskPath": name, "ImageID": id, "LabelName": mid, "BoxID": f"{number:08x}"}
            | {f"Box{side}": f"{value:.6f}" for side, value in box.items()}
            | {"PredictedIoU": "0.9", "Clicks": ""}
        )
        flags = {"IsOccluded": 0, "IsTruncated": 0, "IsGroupOf": int(number == 2), "IsDepiction": 0, "IsInside": 0}
        boxes.append({"ImageID": id, "Source": "xclick", "LabelName": mid, "Confidence": 1} | box | flags)
        ids.append({"ImageID": id, "License": "https://creativecommons.org/licenses/by/2.0/", "Rotation": "0.0"})
    write(folder / "classes.csv", "/m/02p5f1q,Coffee cup\n/m/02dl1y,Hat\n")
    return {
        "path": str(folder / "train"),
        "masks": str(folder / "masks"),
        "annotations": write_csv(folder / "train-annotations-object-segmentation.csv", masks),
        "boxes": write_csv(folder / "train-annotations-bbox.csv", boxes),
        "descriptions": str(folder / "classes.csv"),
        "images": write_csv(folder / "train-images-boxable-with-rotation.csv", ids),
    }


def write_rord(folder: Path) -> dict[str, Any]:
    """RORD as its preprocessing writes it: img, gt, and masks in which 255 is what stays."""
    for number, (source, clean, mask) in enumerate(SCENES):
        split = "test" if number == 2 else "train"
        name = f"I-210614_O0{number}019_W01_F0109.png"
        write(folder / split / "img" / name, encode_png(source))
        write(folder / split / "gt" / name, encode_png(clean))
        write(folder / split / "mask" / name, encode_png(np.where(mask, np.uint8(0), np.uint8(255))))
    return {"path": str(folder)}


def write_rord_clips(folder: Path, labels: str = "label") -> dict[str, Any]:
    """RORD as it is published: clips in folders with an empty frame each, and outlines at twice the pictures' size."""
    names = {"label": ("img", "label", ""), "M": ("jpg", "M", "_M")}[labels]
    for number, (source, clean, mask) in enumerate(SCENES):
        above = folder / ("val" if number == 2 else "train")
        clip = f"I-210614_O0{number}019_W01"
        write(above / names[0] / clip / f"{clip}_F0109.png", encode_png(source))
        write(above / names[0] / clip / f"{clip}_G0001.png", encode_png(clean))
        still = ~mask & np.roll(mask, 32, axis=1)
        shapes = [("F38", outline(mask)), ("BO30", outline(still)), ("F38", [1, 1])]
        entries = [{"Class_ID": kind, "segmentation": [2 * value for value in shape]} for kind, shape in shapes]
        value = {
            "Raw_Data_Info.": {"Resolution": f"{2 * WIDTH}, {2 * HEIGHT}"},
            "Learning_Data_Info.": {"Annotation": entries},
        }
        write(above / names[1] / clip / f"{clip}_F0109{names[2]}.json", json.dumps(value))
        if labels == "M" and number == 2:
            write(above / "M" / clip / f"{clip}_G0001_M.json", "{}")
        if labels == "label" and number == 0:
            write(above / "mask" / clip / f"{clip}_F0109_M.png", encode_png(np.where(mask, np.uint8(0), np.uint8(255))))
    return {"path": str(folder)}


def write_smarteraser(folder: Path) -> dict[str, Any]:
    """Syn4Removal's folders and `result.json`."""
    result = {}
    for number, (source, clean, mask) in enumerate(SCENES):
        name = f"{number}_0001.png"
        for part, data in {"paste": encode_png(source), "gt": encode_png(clean), "mask": encode_mask(mask)}.items():
            write(folder / part / name, data)
        result[name] = [LABELS[number], [0, 0, 1, 1], [WIDTH, HEIGHT]]
    write(folder / "result.json", json.dumps(result))
    return {"path": str(folder)}


def write_mulan(folder: Path) -> dict[str, Any]:
    """MuLAn's layers of one picture as its script writes them, and a hostile pickle beside them."""
    background = np.dstack([SCENES[0][1], np.full((HEIGHT, WIDTH), 255, np.uint8)])
    write(folder / "000000000139-layer_0.png", encode_png(background[..., :3]))
    for layer, (source, _, mask) in enumerate(SCENES[:2], 1):
        write(
            folder / f"000000000139-layer_{layer}.png",
            encode_png(np.dstack([source, np.where(mask, 255, 0)]).astype(np.uint8)),
        )
    write(folder / "000000000140.p.zl", zlib.compress(b"cos\nsystem\n(S'touch opened'\ntR."))
    return {"path": str(folder)}


def write_mulan_annotations(folder: Path, protocol: int = 4) -> dict[str, Any]:
    """MuLAn's release: a photograph of COCO's, and zlib's pickle with the layers that two instances are cut from.

    Layers are the photograph where it shows them, and what was painted where it does not; the instance behind is
    hidden by the one in front, as in `write_mulan`'s layers, which are the same.
    """
    (first, clean, first_mask), (second, _, second_mask) = SCENES[:2]
    photograph = np.where(second_mask[..., None], second, np.where(first_mask[..., None], first, clean))
    shown = {"background": ~first_mask & ~second_mask, 0: first_mask & ~second_mask, 1: second_mask}
    layers = {}
    for key, colours, mask in (("background", clean, None), (0, first, first_mask), (1, second, second_mask)):
        seen = shown[key].astype(np.uint8)[..., None]
        layers[key] = {
            "blip2": "a caption",
            "original_image_mask": seen,
            "inpainted_delta": colours.astype(np.int16) - photograph * seen.astype(np.int16),
        }
        if mask is not None:
            alpha = np.where(mask, np.uint8(255), np.uint8(0))
            layers[key]["instance_alpha"] = Image.fromarray(alpha) if key else alpha
    value = {
        "captioning": {"blip2": "a model", "score": np.float32(0.25)},
        "image": {"blip2": "a caption"},
        "background": layers["background"],
        "instances": {1: layers[1], 0: layers[0]},
    }
    write(folder / "images" / "val2017" / "000000000139.png", encode_png(photograph))
    write(folder / "annotations" / "000000000139.p.zl", zlib.compress(pickle.dumps(value, protocol)))
    return {"path": str(folder / "annotations"), "images": str(folder / "images")}


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write a tar of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return write(path, out.getvalue())


def list_members() -> list[tuple[str, bytes]]:
    """The members of three samples."""
    members = []
    for number, (source, clean, mask) in enumerate(SCENES):
        key = f"{number:06d}"
        members += [
            (f"{key}.source.png", encode_png(source)),
            (f"{key}.target.png", encode_png(clean)),
            (f"{key}.mask.png", encode_mask(mask)),
            (f"{key}.json", json.dumps({"label": LABELS[number], "licence": "CC0-1.0"}).encode()),
        ]
    return members


def write_webdataset(folder: Path) -> dict[str, Any]:
    """A shard of WebDataset's."""
    write_tar(folder / "shard-000000.tar", list_members())
    return {"path": str(folder)}


def list_table_rows() -> list[dict[str, Any]]:
    """The rows of an edit set, pictures in bytes."""
    return [
        {
            "original_image": {"bytes": encode_png(source), "path": f"{number}.png"},
            "edited_image": {"bytes": encode_png(clean), "path": None},
            "edit_type": "Remove" if number != 1 else "Recolour",
            "object": LABELS[number],
        }
        for number, (source, clean, _) in enumerate(SCENES)
    ]


COLUMNS = {"source": "original_image", "target": "edited_image", "label": "object"}


def write_table(folder: Path, form: str = "parquet") -> dict[str, Any]:
    """An edit set as Parquet, as `datasets` saves it (Arrow), or as JSON lines or CSV that name files."""
    rows = list_table_rows()
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if form == "parquet":
        pq.write_table(table, folder / "train-00000-of-00001.parquet")
    elif form == "arrow":
        with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as stream:
            for batch in table.to_batches(max_chunksize=2):
                stream.write_batch(batch)
        write(folder / "dataset_info.json", "{}")
        write(folder / "state.json", "{}")
    else:
        for number, row in enumerate(rows):
            for column in ("original_image", "edited_image"):
                name = f"{column}s/{number}.png"
                write(folder / name, row[column]["bytes"])
                row[column] = name
        if form == "csv":
            write_csv(folder / "metadata.csv", rows)
        else:
            write(folder / "sft.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(folder), "columns": COLUMNS, "accepted": True}
