"""What removers behind HTTP have in common: their options, pictures as PNG, and answers that are checked."""

import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rasura.manifests.errors import InputError
from rasura.manifests.images import decode_image
from rasura.removers.base import resize

Array = npt.NDArray[Any]


class UnusableAnswer(InputError, ValueError):
    """A server's answer that is no picture of the hole's surroundings. It costs the row that it was asked for."""


@dataclass(frozen=True)
class RemoteOptions:
    """Options of a remover behind HTTP.

    url: address of the server. model: that it runs, where it has several. prompt: what the picture should show.
    workflow: ComfyUI's. key_variable: environment variable that holds the key, which is never written anywhere.
    size: side in px of the square around the hole that is sent. timeout_s: until an answer begins, or a picture is
    ready. attempts: of each request.
    """

    url: str = ""
    model: str = ""
    prompt: str = "Remove what the mask covers, with its shadow and reflection; continue the background."
    workflow: str = ""
    key_variable: str = "OPENAI_API_KEY"
    size: int = 1024
    timeout_s: float = 300
    attempts: int = 5


def encode_png(picture: Array) -> bytes:
    """Return a picture (h, w), (h, w, 3) or (h, w, 4) uint8 as PNG."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def read_answer(data: bytes, picture: Array, hole: Array, url: str) -> Array:
    """Return the picture of an answer at the size of the one that was sent; outside the hole it is that one.

    Args:
        data: the answer's file. picture: (h, w, 3) uint8. hole: (h, w) bool.

    Raises:
        UnusableAnswer: it is no picture, or one of other proportions.
    """
    try:
        answer = decode_image(data)
    except ValueError as error:
        raise UnusableAnswer(f"{url} answered with no picture: {error}") from error
    height, width = hole.shape
    if abs(answer.shape[1] / answer.shape[0] - width / height) > 0.02:
        raise UnusableAnswer(
            f"{url} answered with a picture of {answer.shape[1]} x {answer.shape[0]} px, not of {width} x {height}"
        )
    return np.asarray(np.where(hole[..., None], resize(answer, hole.shape), picture))


def encode_form(fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    """Return the body of a form (multipart/form-data, RFC 7578) and its content type.

    Args:
        files: name and content of each PNG, by the field's name.
    """
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields.items():
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, (file, content) in files.items():
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
