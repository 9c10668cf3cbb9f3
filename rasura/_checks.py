"""Checks of what the Python API is given: places, texts, options, packages."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rasura.manifests.errors import InputError, RasuraError
from rasura.manifests.extras import describe_missing, find_extra

Model = TypeVar("Model", bound=BaseModel)


class WrongType(InputError, TypeError):
    """A value of another type than the function takes."""


class MissingPackage(RasuraError, ImportError):
    """A package that the function needs and that is not installed."""


def check_type(value: Any, type: type, name: str, example: str) -> None:
    """Check the type of an argument.

    Args:
        value: the argument.
        type: the type that it must have.
        name: of the argument, with its function.
        example: words for what the function takes.

    Raises:
        WrongType: it has another type.

    Examples:
        >>> check_type(3, str, "Run.show(id)", "a row's id")
        Traceback (most recent call last):
        rasura._checks.WrongType: Run.show(id) is 3 (int); give a row's id
    """
    if not isinstance(value, type):
        raise WrongType(f"{name} is {describe_value(value)}; give {example}")


def read_place(value: Any, name: str) -> str:
    """Return a folder, file or URI as text.

    Raises:
        WrongType: it is neither text nor a path.

    Examples:
        >>> from pathlib import Path
        >>> read_place(Path("runs/mine"), "open_run(uri)")
        'runs/mine'
    """
    if not isinstance(value, str | os.PathLike):
        raise WrongType(f"{name} is {describe_value(value)}; give a path or a URI, as text or pathlib.Path")
    return str(value)


def describe_value(value: Any) -> str:
    """Describe a value with its type, on one short line.

    Examples:
        >>> describe_value(None), describe_value("a.png"), describe_value([1, 2])
        ('None', "'a.png' (str)", '[1, 2] (list)')
    """
    if value is None:
        return "None"
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else f'{text[:57]}…'} ({type(value).__name__})"


def read_options(model: type[Model], values: Mapping[str, Any], function: str) -> Model:
    """Validate the options of a function.

    Args:
        model: the pydantic class that has their names, types and bounds.
        values: the options.
        function: its name.

    Raises:
        InputError: an option is unknown or has a wrong value; all of them are named.

    Examples:
        >>> from rasura.stages.segment import SegmentParams
        >>> read_options(SegmentParams, {"backen": "sam"}, "effects")
        Traceback (most recent call last):
        rasura.manifests.errors.InputError: effects(backen=…): unknown key 'backen'; did you mean 'backend'?
    """
    from rasura.pipeline.recipe.load import describe_faults

    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = describe_faults(error, model)
    raise InputError("; ".join(f"{function}({'.'.join(map(str, path))}=…): {message}" for path, message in faults))


@contextmanager
def explain_missing_packages() -> Iterator[None]:
    """Turn the error of an import from one of Rasura's extras into a sentence that names the extra.

    Raises:
        MissingPackage: a package is missing.

    Examples:
        >>> with explain_missing_packages():
        ...     raise ModuleNotFoundError(name="diffusers")
        Traceback (most recent call last):
        rasura._checks.MissingPackage: 'diffusers' is not installed; install the extra with pip install 'rasura[models]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if find_extra(error.name) is None:
            raise
        raise MissingPackage(describe_missing(error.name or "")) from error
