"""A remover behind an OpenAI-compatible server: `POST {url}/images/edits` with a picture, a mask and a prompt.

Such servers take no seed: a picture that is asked for again may come out otherwise. What a run has committed stays.
"""

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.json_lines import parse_json
from rasura.networks.web_client import make_headers, request
from rasura.removers.base import Capability
from rasura.removers.remote.remote import (
    HOLE_GREY,
    RemoteOptions,
    RemoteRemover,
    UnusableAnswer,
    encode_form,
    encode_png,
    read_answer,
)

Array = npt.NDArray[Any]

CAPABILITY = Capability("inserter", None, True, "that of the server's model", name="image edits by HTTP")


class ImageEdits(RemoteRemover):
    """A model that edits pictures, asked once for each; its interface takes no seeds."""

    def __init__(self, name: str, options: RemoteOptions) -> None:
        super().__init__(name, options, CAPABILITY)

    def ask(self, picture: Array, hole: Array, seed: int, text: str) -> Array:
        # the hole is transparent, and grey below: the server does not get the object
        visible = np.where(hole[..., None], HOLE_GREY, picture)
        rgba = np.dstack([visible, np.where(hole, 0, 255)]).astype(np.uint8)
        height, width = hole.shape
        fields = {"prompt": text, "n": "1", "size": f"{width}x{height}"}
        fields |= {"model": self.options.model} if self.options.model else {}
        png = encode_png(rgba)
        body, kind = encode_form(fields, {"image": ("image.png", png), "mask": ("mask.png", png)})
        headers = {"Content-Type": kind, **make_headers(self.options.key_variable)}
        url = f"{self.url}/images/edits"
        within = self.options.timeout_s
        answer = request(url, body, headers, within, self.options.attempts, deadline_s=within)
        try:
            data = base64.b64decode(parse_json(answer)["data"][0]["b64_json"], validate=True)
        except (ValueError, LookupError, TypeError, binascii.Error) as error:
            raise UnusableAnswer(f"{url} gave no picture as `data[0].b64_json` ({type(error).__name__})") from error
        return read_answer(data, picture, hole, url)


def image_edits(name: str, options: RemoteOptions) -> ImageEdits:
    """Create a remover behind an OpenAI-compatible server.

    Raises:
        ValueError: `url` is no address of a server.
    """
    return ImageEdits(name, options)
