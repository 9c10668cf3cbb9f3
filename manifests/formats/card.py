"""The dataset card: README.md with the front matter that `datasets.load_dataset` reads, written by the run itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rasura.manifests.schemas import PICTURES, Kind, Schema

_CARD = """---
{front}---
# {name}

{rows} removal triplets: `source` (the picture with the object), `mask` (the object, white), `target` (the picture
without it, and without its shadow and reflection). Outside `foreground_mask` (object and effects; null where it is
not known) source and target are equal, pixel by pixel. Made by Rasura from the recipe `{name}` (hash `{recipe}`).

```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder", split="{first}")
```

| split | rows | bytes |
|---|---|---|
{splits}

| kind | rows |
|---|---|
{kinds}

Splits are a hash of the scene, so that no scene is in two of them, and they do not move when data is added.
Licences of the pictures in it: {licences}.
"""


def _yaml_feature(name: str, kind: Kind) -> dict[str, Any]:
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


def card(
    name: str,
    recipe_hash: str,
    columns: Schema,
    splits: Mapping[str, tuple[int, int]],
    kinds: Mapping[str, int],
    licences: Sequence[str],
) -> str:
    """The card's text.

    Args:
        splits: split name -> (rows, bytes).
        kinds: captured, simulated, edited -> rows.
    """
    front = {
        "pretty_name": name,
        "task_categories": ["image-to-image"],
        "tags": ["object-removal", "inpainting"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits],
            }
        ],
        "dataset_info": {
            "features": [_yaml_feature(column, kind) for column, kind in columns.items()],
            "splits": [
                {"name": split, "num_examples": rows, "num_bytes": size} for split, (rows, size) in splits.items()
            ],
        },
    }
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=name,
        rows=sum(rows for rows, _ in splits.values()),
        recipe=recipe_hash,
        first=next(iter(splits), "train"),
        splits="\n".join(f"| {split} | {rows} | {size} |" for split, (rows, size) in splits.items()),
        kinds="\n".join(f"| {kind} | {rows} |" for kind, rows in sorted(kinds.items())),
        licences=", ".join(licences) or "none given",
    )
