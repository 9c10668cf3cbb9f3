"""The dataset card: README.md with the front matter that `datasets.load_dataset` reads."""

from typing import Any

import yaml

from rasura.manifests.formats.dataset_rows import DatasetSummary
from rasura.manifests.schemas import PICTURES, Kind, Schema

_CARD = """---
{front}---
# {name}

{rows} {noun}: `source` (the picture with the object), `mask` (the object, white), `target` (the picture
without it; the kind of a row says how it was made). Outside `foreground_mask` (object and effects; null where it is
not known) source and target are equal, pixel by pixel. Made by Rasura from the recipe `{name}` (hash `{recipe}`).

```python
{example}```

| split | rows | bytes |
|---|---|---|
{splits}

| kind | rows | meaning |
|---|---|---|
{kinds}

Splits are a hash of the scene, so that no scene is in two of them, and they do not move when data is added.
Licences of the pictures in it: {licences}.
"""


LOAD_DATASET = """\
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder", split="{split}")
"""


def _describe_feature(name: str, kind: Kind) -> dict[str, Any]:
    if kind in PICTURES:
        return {"name": name, "dtype": "image"}
    match kind:
        case Kind.STRINGS:
            return {"name": name, "list": "string"}
        case Kind.FLOATS:
            return {"name": name, "list": "float64"}
        case Kind.VERSIONS:
            return {"name": name, "list": [{"name": "name", "dtype": "string"}, {"name": "value", "dtype": "string"}]}
        case _:
            return {"name": name, "dtype": str(kind)}


def render_front(summary: DatasetSummary, columns: Schema | None = None) -> str:
    """Render a card's front matter; of Parquet files, which have these columns, it says what is in which."""
    front: dict[str, Any] = {
        "pretty_name": summary.name,
        "task_categories": ["image-to-image"],
        "tags": ["object-removal", "inpainting"],
    }
    if columns is not None:
        files = [{"split": split, "path": f"data/{split}-*"} for split in summary.splits]
        front["configs"] = [{"config_name": "default", "data_files": files}]
        front["dataset_info"] = {
            "features": [_describe_feature(column, kind) for column, kind in columns.items()],
            "splits": [
                {"name": split, "num_examples": rows, "num_bytes": size}
                for split, (rows, size) in summary.splits.items()
            ],
        }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def render_card(summary: DatasetSummary, front: str, example: str) -> str:
    """Render the text of a card of triplets.

    Args:
        summary: of the dataset.
        front: its front matter.
        example: code that reads the first split, which it has as `{split}`.
    """
    first = next(iter(summary.splits), "train")
    return summary.format(_CARD, front=front, example=example.format(split=first))
