"""Extras of the package: which one installs a module that is missing."""

from importlib.util import find_spec

EXTRAS = {
    "s3fs": "s3",
    "gcsfs": "gcs",
    "mitsuba": "studio",
    "torch": "models",
    "torchvision": "models",
    "transformers": "models",
    "diffusers": "models",
    "accelerate": "models",
    "peft": "models",
    "safetensors": "models",
    "huggingface_hub": "hub",
    "lance": "lance",
    "lpips": "models",
    "segment_anything": "models",
    "scipy": "models",
    "pandas": "models",
    "groundingdino": "groundingdino",
    "ultralytics": "yolo",
    "fastapi": "review",
    "markdown_it": "review",
    "uvicorn": "review",
    "sqlalchemy": "review",
    "psycopg": "postgres",
}
"""Module to the extra that installs it."""


def find_extra(module: str | None) -> str | None:
    """Find the extra that installs a module or its parent; None where no extra does.

    Examples:
        >>> find_extra("diffusers.models")
        'models'
    """
    return EXTRAS.get((module or "").partition(".")[0])


def describe_missing(module: str) -> str:
    """Return a sentence that names the extra to install.

    Examples:
        >>> describe_missing("mitsuba")
        "'mitsuba' is not installed; install the extra with pip install 'rasura[studio]'"
    """
    if extra := find_extra(module):
        module = module.partition(".")[0]
    remedy = (
        f"install the extra with pip install 'rasura[{extra}]'" if extra else f"install it with pip install {module}"
    )
    return f"'{module}' is not installed; {remedy}"


def can_import(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
