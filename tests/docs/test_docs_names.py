"""Files, modules and identifiers that README and docs name exist."""

import importlib
import re

from conftest import ROOT
from docs_blocks import DOCUMENTS, read_spans

from rasura.stages.masks import FAMILIES

CODE = ("annotator", "benchmarks", "discriminator", "examples", "manifests", "networks", "pipeline", "recipes")
CODE += ("removers", "stages", "tests", "tools")
FOLDERS = (*CODE, "docs", "rasura")
ELSEWHERE = {
    "data_dir",
    "down_blocks",
    "empty_prompt_embeds",
    "load_dataset",
    "meta_path",
    "min_submitted",
    "petrel_client",
    "ray_rasura_stage_seconds_total",
    "ray_rasura_waiting_rows",
    "transformer_blocks",
    "use_extra_fg_mask",
    "weights_only",
}
"""Identifiers of other projects that the text names."""

SPANS = [entry for document in DOCUMENTS for entry in read_spans(document)]


def test_files_exist() -> None:
    """A path below one of the repository's folders is there; a file named beside one is in the same folder."""
    missing = []
    for place, span in SPANS:
        for path in re.findall(r"[\w./-]+", span):
            parts = path.split("/")
            in_loop = parts[0] == "removers" and parts[1:2] in (["00"], ["lcm"])  # a loop's own folder of that name
            if parts[0] in FOLDERS and len(parts) > 1 and not in_loop and not (ROOT / path).exists():
                missing.append(f"{place}: {path}")
    assert missing == []


def test_python_files_exist() -> None:
    """A bare file name `x.py` is the name of some file."""
    names = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    missing = [f"{place}: {span}" for place, span in SPANS if re.fullmatch(r"\w+\.py", span) and span not in names]
    assert missing == []


def test_dotted_names_import() -> None:
    """`rasura.a.b.c` is a module or an attribute of one."""
    for place, span in SPANS:
        for name in re.findall(r"(?<![\w./])rasura(?:\.\w+)+", span):
            module, parts = importlib.import_module("rasura"), name.split(".")[1:]
            for index, part in enumerate(parts):
                try:
                    module = getattr(module, part)
                except AttributeError:
                    try:
                        module = importlib.import_module(".".join(["rasura", *parts[: index + 1]]))
                    except ModuleNotFoundError:
                        raise AssertionError(f"{place}: there is no {name}") from None


def test_identifiers_exist() -> None:
    """A snake_case word in code font is a word of the code, of a recipe or of a test."""
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*.*")]
    files += [*(ROOT / "rasura").glob("*.py"), ROOT / "pyproject.toml", ROOT / "Makefile"]
    words = {f"mask_{family}" for family in FAMILIES}
    for path in files:
        if path.suffix in (".py", ".yaml", ".js", ".html", ".toml") or path.name == "Makefile":
            words |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    missing = []
    for place, span in SPANS:
        for word in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b(?!\.py)", span):
            if word not in words and word not in ELSEWHERE:
                missing.append(f"{place}: {word}")
    assert missing == []
