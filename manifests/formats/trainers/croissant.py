"""Croissant 1.1 metadata of an export: its files with their sha256, and the fields of its rows.

The context is the specification's (docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html). Rows are described where
Croissant can read them as a table: those of Parquet files, and of `rows.jsonl` beside pictures and tars.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from rasura.manifests.formats.folder_export import PROVENANCE
from rasura.manifests.formats.target import ROWS
from rasura.manifests.schemas import PICTURES, Kind, Schema, read_schema
from rasura.manifests.storage import Store

VERSION = "http://mlcommons.org/croissant/1.1"
_TERMS = (
    *("citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject", "fileProperty"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
    *("isArray", "arrayShape"),
)
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_FORMATS = {
    ".parquet": "application/x-parquet",
    ".tar": "application/x-tar",
    ".lance": "application/octet-stream",
    ".manifest": "application/octet-stream",
    ".jsonl": "application/jsonlines",
    ".json": "application/json",
    ".png": "image/png",
    ".webp": "image/webp",
}
_SETS = {
    ".parquet": "Parquet files",
    ".lance": "data files of Lance datasets",
    ".tar": "tars of samples",
    ".png": "pictures",
    ".webp": "pictures",
}
_TYPES = {Kind.STRING: "sc:Text", Kind.INT: "sc:Integer", Kind.FLOAT: "sc:Float", Kind.BOOL: "sc:Boolean"}


def render_croissant(out: Store, manifest: Mapping[str, Any], description: str, licences: Sequence[str]) -> bytes:
    """Render the metadata of an export that is written.

    Args:
        out: the export.
        manifest: of it.
        description: a sentence on what it is.
        licences: of its pictures.
    """
    files = [file for file in manifest["files"] if file["bytes"]]
    suffixes = dict.fromkeys(PurePosixPath(file["name"]).suffix for file in files)
    lists = [file["name"] for file in files if PurePosixPath(file["name"]).name == ROWS]
    if not {".tar", ".parquet", ".lance"}.intersection(suffixes):
        suffixes |= dict.fromkeys((".png", ".webp"))
    sets = [_describe_set(suffix.strip("."), f"**/*{suffix}", suffix) for suffix in suffixes if suffix in _SETS]
    records = []
    if parquet := next((file["name"] for file in files if file["name"].endswith(".parquet")), None):
        with out.open(parquet) as source:
            records = [_describe_rows("parquet", read_schema(pq.read_schema(source)))]
    elif lists:
        pattern = ROWS if lists == [ROWS] else f"*/{ROWS}"
        sets.append(_describe_set("rows-files", pattern, ".jsonl"))
        records = [_describe_rows("rows-files", dict.fromkeys(("name", *_TEXTS), Kind.STRING))]
    value = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": manifest["name"],
        "description": f"{description} Made by Rasura from the recipe with the hash {manifest['recipe']}.",
        "license": list(licences) or ["not given"],
        "keywords": ["object removal", "inpainting"],
        "distribution": [*map(_describe_file, files), *sets],
        "recordSet": records,
    }
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


_TEXTS = tuple(name for name in PROVENANCE if name not in ("parents", "round"))


def _describe_file(file: Mapping[str, Any]) -> dict[str, Any]:
    suffix = PurePosixPath(file["name"]).suffix
    return {
        "@type": "cr:FileObject",
        "@id": file["name"],
        "name": file["name"],
        "contentUrl": file["name"],
        "contentSize": f"{file['bytes']} B",
        "encodingFormat": _FORMATS.get(suffix, "text/plain"),
        "sha256": file["sha256"],
    }


def _describe_set(id: str, pattern: str, suffix: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": id,
        "name": id,
        "description": _SETS.get(suffix, "a line for each row"),
        "encodingFormat": _FORMATS[suffix],
        "includes": pattern,
    }


def _describe_rows(files: str, schema: Schema) -> dict[str, Any]:
    fields = [_describe_field(files, name, kind) for name, kind in schema.items() if kind in (*PICTURES, *_TYPES)]
    return {"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}


def _describe_field(files: str, name: str, kind: Kind) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": files}, "extract": {"column": name}}
    if kind in PICTURES:
        source["transform"] = {"jsonPath": "bytes"}
    type = "sc:ImageObject" if kind in PICTURES else _TYPES[kind]
    return {"@type": "cr:Field", "@id": f"rows/{name}", "name": name, "dataType": type, "source": source}
