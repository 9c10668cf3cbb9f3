"""Values in pickles, read without executing one.

A pickle is a program that may call anything. Here its instructions are read one by one, and those that build plain
values are followed: containers, texts, numbers, bytes, arrays of numbers, and the pixels of Pillow's pictures. A name
that a pickle calls for is compared with a list and never imported; every other name and instruction is refused.
"""

import pickletools
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MOST_BYTES = 2**29
"""Bytes of a decompressed pickle; the layers of a picture of 24 megapixels take about half of that."""
MOST_STEPS = 1_000_000
"""Instructions of a pickle. An array is a few dozen, whatever its size."""
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""Pillow's modes whose pixels are read -> channels of 8 bits."""
NUMBERS = re.compile(r"[<>|=]?[buif]\d{1,2}")
"""numpy's codes of bool, whole numbers and floats."""
VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotPlain(ValueError):
    """A pickle that is damaged, too large, or made of more than plain values."""


@dataclass
class Array:
    """An array of numbers, or the pixels of a picture.

    Attributes:
        values: bool, whole numbers or floats.
    """

    values: npt.NDArray[Any] | None = None


@dataclass
class _DataType:
    """A type of numbers, whose order of bytes a later instruction may set."""

    code: str


class _Name(NamedTuple):
    """A name that a pickle calls for, such as `numpy.ndarray`."""

    text: str


class _Mark:
    """The beginning of a group on the stack."""


def decompress(data: bytes, limit: int = MOST_BYTES) -> bytes:
    """Decompress zlib's bytes, never more than a limit of them.

    Raises:
        NotPlain: they are none of zlib's, are cut off, or are more. The text says which.

    Examples:
        >>> decompress(zlib.compress(b"layers")), decompress(zlib.compress(bytes(9)), limit=8)
        Traceback (most recent call last):
        rasura.manifests.foreign.plain_pickles.NotPlain: more than 8 bytes when decompressed
    """
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data, limit + 1)
    except zlib.error as error:
        raise NotPlain(f"not zlib's data: {error}") from None
    if len(text) > limit:
        raise NotPlain(f"more than {limit} bytes when decompressed")
    if not reader.eof:
        raise NotPlain(f"cut off after {len(data)} bytes")
    return text


def read_pickle(data: bytes) -> Any:
    """Read the value of a pickle of protocol 3 or later that has plain values only.

    Args:
        data: bytes of the pickle.

    Returns:
        Its value; arrays and pictures are `Array`.

    Raises:
        NotPlain: it has something else, or is damaged. The text names it.

    Examples:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"size": (2, 3), "pixels": np.arange(3)}))["pixels"].values.tolist()
        [0, 1, 2]
        >>> read_pickle(pickle.dumps(eval))
        Traceback (most recent call last):
        rasura.manifests.foreign.plain_pickles.NotPlain: it calls for 'builtins.eval', which is no plain value
    """
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    try:
        for step, (code, argument, _) in enumerate(pickletools.genops(data)):
            if step >= MOST_STEPS:
                raise NotPlain(f"more than {MOST_STEPS} instructions")
            if code.name == "STOP":
                (value,) = stack
                return value
            _follow(code.name, argument, stack, memory)
    except NotPlain:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error) as error:
        raise NotPlain(f"damaged: {str(error)[:200] or type(error).__name__}") from None
    raise NotPlain("damaged: it has no end")


def _follow(name: str, argument: Any, stack: list[Any], memory: dict[int, Any]) -> None:
    """Follow an instruction of a pickle."""
    if name in VALUES or name in BYTES:
        stack.append(argument)
    elif name in CONSTANTS:
        stack.append(CONSTANTS[name]())
    elif name == "MARK":
        stack.append(_Mark())
    elif name in TUPLES:
        stack[-TUPLES[name] :] = [tuple(_get_last(stack, TUPLES[name]))]
    elif name == "TUPLE":
        stack.append(tuple(_take_group(stack)))
    elif name in ("APPEND", "APPENDS"):
        values = _take_group(stack) if name == "APPENDS" else [stack.pop()]
        _expect(stack[-1], list).extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        values = _take_group(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        keys = values[::2]
        if not all(isinstance(key, str | int | float) for key in keys):
            raise NotPlain("a key that is neither text nor number")
        _expect(stack[-1], dict).update(zip(keys, values[1::2], strict=True))
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memory[len(memory) if argument is None else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memory[argument])
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        parts = argument.split(" ") if name == "GLOBAL" else [_expect(stack.pop(-2), str), _expect(stack.pop(), str)]
        stack.append(_check_name(".".join(parts)))
    elif name in ("REDUCE", "NEWOBJ"):
        arguments = _expect(stack.pop(), tuple)
        stack.append(MAKERS[_expect(stack.pop(), _Name).text](*arguments))
    elif name == "BUILD":
        state = stack.pop()
        _set_state(stack[-1], state)
    elif name not in ("PROTO", "FRAME"):
        raise NotPlain(f"it has the instruction {name}, which no plain value needs")


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise NotPlain(f"damaged: {type(value).__name__} where {kind.__name__} is expected")
    return value


def _get_last(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise NotPlain("damaged: fewer values than it takes")
    return stack[-count:]


def _take_group(stack: list[Any]) -> list[Any]:
    """Take the values after the last mark from the stack, and the mark."""
    place = next((k for k in range(len(stack) - 1, -1, -1) if isinstance(stack[k], _Mark)), None)
    if place is None:
        raise NotPlain("damaged: a group without a beginning")
    group = stack[place + 1 :]
    del stack[place:]
    return group


def _check_name(text: str) -> _Name:
    if text not in MAKERS and text not in TYPES:
        raise NotPlain(f"it calls for '{text[:100]}', which is no plain value")
    return _Name(text)


def _make_data_type(code: str, *_: Any) -> _DataType:
    if not isinstance(code, str) or not NUMBERS.fullmatch(code):
        raise NotPlain(f"an array of {str(code)[:40]!r}, which are no numbers")
    return _DataType(code)


def _make_values(data: Any, kind: _DataType, shape: tuple[int, ...], order: str) -> npt.NDArray[Any]:
    """Return the numbers in some bytes as an array, without copying them."""
    flat = np.frombuffer(_expect(data, bytes | bytearray), np.dtype(_expect(kind, _DataType).code))  # type: ignore[arg-type]
    if any(side < 0 for side in shape):
        raise NotPlain(f"damaged: an array of the shape {shape}")
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _make_array(data: Any, kind: _DataType, shape: tuple[int, ...], order: str) -> Array:
    return Array(_make_values(data, kind, shape, order))


def _make_number(kind: _DataType, data: bytes) -> bool | int | float:
    (value,) = _make_values(data, kind, (1,), "C").tolist()
    return value  # type: ignore[no-any-return]


def _make_empty_array(kind: _Name, *_: Any) -> Array:
    if _expect(kind, _Name).text != "numpy.ndarray":
        raise NotPlain(f"an array of the class {kind.text}")
    return Array()


def _set_state(value: Any, state: Any) -> None:
    """Give an array, a type of numbers or a picture the contents that an instruction has for it."""
    if isinstance(value, _DataType):
        order = state[1]
        if order in ("<", ">"):
            value.code = order + value.code.lstrip("<>|=")
        elif order not in ("|", "="):
            raise NotPlain(f"damaged: bytes in the order {str(order)[:10]!r}")
    elif isinstance(value, Array) and isinstance(state, tuple):
        _, shape, kind, is_fortran, data = state
        value.values = _make_values(data, kind, shape, "F" if is_fortran else "C")
    elif isinstance(value, Array) and isinstance(state, list):
        _, mode, (width, height), _, data = state[:5]
        if mode not in MODES:
            raise NotPlain(f"a picture of Pillow's mode {str(mode)[:10]!r}; read are {', '.join(MODES)}")
        shape = (height, width, MODES[mode])[: 2 if MODES[mode] == 1 else 3]
        value.values = _make_values(data, _DataType("u1"), shape, "C")
    else:
        raise NotPlain(f"it sets the state of a {type(value).__name__}")


TYPES = frozenset({"numpy.ndarray"})
"""Names that are arguments only."""
MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _make_data_type,
    "PIL.Image.Image": Array,
}
"""What makes a value, by the name in a pickle. Nothing of these names is imported or called."""
for _package in ("numpy.core", "numpy._core"):  # of numpy 1 and 2
    MAKERS |= {
        f"{_package}.multiarray._reconstruct": _make_empty_array,
        f"{_package}.multiarray.scalar": _make_number,
        f"{_package}.numeric._frombuffer": _make_array,
    }
