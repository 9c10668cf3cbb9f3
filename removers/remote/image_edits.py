"""A remover behind an OpenAI-compatible server: `POST {url}/images/edits` with a picture, a mask and a prompt.

Such servers take no seed: a picture that is asked for again may come out otherwise. What a run has committed stays.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.networks.web_client import check_address, make_headers, request
from rasura.removers.base import Capability
from rasura.removers.remote.remote import RemoteOptions, UnusableAnswer, encode_form, encode_png, read_answer

Array = npt.NDArray[Any]

CAPABILITY = Capability("inserter", None, True, "that of the server's model", name="image edits by HTTP")


class ImageEdits:
    """A model that edits pictures, asked once for each."""

    def __init__(self, name: str, options: RemoteOptions) -> None:
        self.name, self.options = name, options
        self.url = check_address(options.url)
        self.capability = replace(CAPABILITY, native_size=options.size)

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self) -> None:
        pass

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does, but for the seeds: the interface has none.

        Raises:
            ServerUnavailable: it is away, or refuses what is asked.
            UnusableAnswer: it answered with no picture.
        """
        return self.paint(pictures, holes, seeds, [self.options.prompt] * len(pictures))

    def set_texts(self, texts: Sequence[str]) -> None:
        """Announce texts as `Inserter.set_texts` does: a server needs no preparation."""

    def paint(
        self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], texts: Sequence[str]
    ) -> list[Array]:
        """Paint as `Inserter.paint` does, but for the seeds; it raises what `fill` raises."""
        return [self._ask(*values) for values in zip(pictures, holes, texts, strict=True)]

    def _ask(self, picture: Array, hole: Array, text: str) -> Array:
        # the hole is transparent, and grey below: the server does not get the object
        visible = np.where(hole[..., None], 127, picture)
        rgba = np.dstack([visible, np.where(hole, 0, 255)]).astype(np.uint8)
        height, width = hole.shape
        fields = {"prompt": text, "n": "1", "size": f"{width}x{height}"}
        fields |= {"model": self.options.model} if self.options.model else {}
        png = encode_png(rgba)
        body, kind = encode_form(fields, {"image": ("image.png", png), "mask": ("mask.png", png)})
        headers = {"Content-Type": kind, **make_headers(self.options.key_variable)}
        url = f"{self.url}/images/edits"
        answer = request(url, body, headers, self.options.timeout_s, self.options.attempts)
        try:
            data = base64.b64decode(json.loads(answer)["data"][0]["b64_json"], validate=True)
        except (ValueError, LookupError, TypeError, binascii.Error) as error:
            raise UnusableAnswer(f"{url} gave no picture as `data[0].b64_json` ({type(error).__name__})") from error
        return read_answer(data, picture, hole, url)


def image_edits(name: str, options: RemoteOptions) -> ImageEdits:
    """Create a remover behind an OpenAI-compatible server.

    Raises:
        ValueError: `url` is no address of a server.
    """
    return ImageEdits(name, options)
