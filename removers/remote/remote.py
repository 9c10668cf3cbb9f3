"""What removers behind HTTP have in common: their options, pictures as PNG, and answers that are checked."""

import hashlib
import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rasura.manifests.errors import InputError
from rasura.manifests.images import decode_image
from rasura.networks.web_client import ServerUnavailable, check_address
from rasura.removers.base import Capability, resize

Array = npt.NDArray[Any]

HOLE_GREY = 127
"""Colour of the hole in the picture that is sent: the server does not get the object."""
LEAST_SIDE = 0.5
"""Smallest answer, as a share of the side that was asked for; a smaller one would be enlarged into a blur."""
LEAST_ALPHA, MOST_TRANSPARENT = 250, 0.01
"""Opacity below which a pixel of an answer is not filled, and the share of the hole that may be so."""
REFUSALS = 5
"""Pictures that a server refuses, before it has answered any, until it is taken to be wrongly configured."""
REMEMBERED = 64
"""Answers that are remembered."""


class UnusableAnswer(InputError, ValueError):
    """A server's answer that is no picture of the hole's surroundings. It costs the row that it was asked for."""


@dataclass(frozen=True)
class RemoteOptions:
    """Options of a remover behind HTTP.

    url: address of the server. model: that it runs, where it has several. prompt: what the picture should show.
    workflow: ComfyUI's. key_variable: environment variable that holds the key, which is never written anywhere.
    size: side in px of the square around the hole that is sent. timeout_s: until a picture has to be there, attempts
    and pauses together. attempts: of each request.
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


class RemoteRemover:
    """A remover or inserter that asks a server for one picture after the other.

    A picture that the server refuses, or answers unusably, costs its row; what a server answered beside it is kept for
    when the rest of the batch is repeated, since many are paid for each picture.
    """

    def __init__(self, name: str, options: RemoteOptions, capability: Capability) -> None:
        self.name, self.options = name, options
        self.url = check_address(options.url)
        self.capability = replace(capability, native_size=options.size)
        self.answers: dict[bytes, Array | str] = {}
        self.refused, self.has_answered = 0, False

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self) -> None:
        """Load nothing."""

    def ask(self, picture: Array, hole: Array, seed: int, text: str) -> Array:
        """Ask the server for one picture.

        Args:
            picture: (h, w, 3) uint8. hole: (h, w) bool.

        Raises:
            ServerUnavailable: it is away, or refuses what is asked.
            UnusableAnswer: it answered with no picture of this hole.
        """
        raise NotImplementedError

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does; it raises what `paint` raises."""
        return self.paint(pictures, holes, seeds, [self.options.prompt] * len(pictures))

    def set_texts(self, texts: Sequence[str]) -> None:
        """Announce texts as `Inserter.set_texts` does: a server needs no preparation."""

    def paint(
        self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], texts: Sequence[str]
    ) -> list[Array]:
        """Paint as `Inserter.paint` does.

        Raises:
            ServerUnavailable: the server is away, refuses its key or address, or refuses every picture.
            UnusableAnswer: it refuses a picture, or answered with no picture of its hole.
        """
        questions = list(zip(pictures, holes, seeds, texts, strict=True))
        keys = [_hash_question(*question) for question in questions]
        for key, question in zip(keys, questions, strict=True):
            answer = self.answers[key] if key in self.answers else self._try(*question)
            if isinstance(answer, str):
                if self.answers.pop(key, None) is None and len(questions) > 1:
                    self.answers[key] = answer
                raise UnusableAnswer(answer)
            self.answers[key] = answer
            while len(self.answers) > max(REMEMBERED, len(questions)):
                del self.answers[next(iter(self.answers))]
        results = [self.answers[key] for key in keys]
        for key in set(keys):
            del self.answers[key]
        return results  # type: ignore[return-value]

    def _try(self, *question: Any) -> Array | str:
        """Return a server's answer, or why there is none for this picture."""
        try:
            answer = self.ask(*question)
        except UnusableAnswer as error:
            return str(error)
        except ServerUnavailable as error:
            if not error.is_about_the_request:
                raise
            self.refused += 1
            if self.refused < REFUSALS or self.has_answered:
                return f"the server refuses this picture: {error}"
            text = str(error)
        else:
            self.has_answered = True
            return answer
        raise ServerUnavailable(
            f"the server has refused all {self.refused} pictures that it was asked for: most likely an option of "
            f"'{self.name}' does not suit it: {text}"
        )


def _hash_question(picture: Array, hole: Array, seed: int, text: str) -> bytes:
    digest = hashlib.sha256(f"{picture.shape} {seed} {text}".encode())
    digest.update(np.ascontiguousarray(picture).tobytes())
    digest.update(np.packbits(hole).tobytes())
    return digest.digest()


def read_answer(data: bytes, picture: Array, hole: Array, url: str) -> Array:
    """Return the picture of an answer at the size of the one that was sent; outside the hole it is that one.

    Args:
        data: the answer's file. picture: (h, w, 3) uint8. hole: (h, w) bool.

    Raises:
        UnusableAnswer: it is no picture, one of other proportions or much smaller, or its hole is not filled.
    """
    try:
        answer = decode_image(data)
    except ValueError as error:
        raise UnusableAnswer(f"{url} answered with no picture: {error}") from error
    height, width = hole.shape
    size = f"{answer.shape[1]} x {answer.shape[0]} px"
    if abs(answer.shape[1] / answer.shape[0] - width / height) > 0.02:
        raise UnusableAnswer(f"{url} answered with a picture of {size}, not of {width} x {height}")
    if answer.shape[0] < LEAST_SIDE * height:
        raise UnusableAnswer(
            f"{url} answered with a picture of {size}, less than half of the {width} x {height} that it was asked for: "
            "set `size` to what it makes"
        )
    filled = resize(answer, hole.shape)
    transparent = (resize(_read_alpha(data, answer.shape[:2]), hole.shape)[hole] < LEAST_ALPHA).mean()
    if transparent > MOST_TRANSPARENT or (np.abs(filled[hole].astype(int) - HOLE_GREY) <= 1).all():
        how = f"{transparent:.0%} of it is transparent" if transparent > MOST_TRANSPARENT else "it is as it was sent"
        raise UnusableAnswer(f"{url} answered with a picture whose hole is not filled: {how}")
    return np.asarray(np.where(hole[..., None], filled, picture))


def _read_alpha(data: bytes, shape: tuple[int, int]) -> Array:
    """Return the opacity (h, w) uint8 of a picture that was decoded before; opaque where it has none."""
    with Image.open(io.BytesIO(data)) as image:
        if not image.has_transparency_data:
            return np.full(shape, 255, np.uint8)
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return alpha if alpha.shape == shape else np.asarray(Image.fromarray(alpha).resize(shape[::-1]))


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
