"""A remover that is a workflow of ComfyUI, exported in its API format.

In the workflow's inputs `{image}` and `{mask}` stand for the names of the uploaded pictures (nodes `LoadImage` and
`LoadImageMask`, red channel, white = hole), `{seed}` for the seed and `{prompt}` for the prompt. Its first saved
picture is the result.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from rasura.networks.web_client import ServerUnavailable, check_address, make_headers, request
from rasura.networks.weights import BadWeights
from rasura.removers.base import Capability
from rasura.removers.remote.remote import RemoteOptions, UnusableAnswer, encode_form, encode_png, read_answer

Array = npt.NDArray[Any]

CAPABILITY = Capability("remover", None, False, "that of the workflow's models", name="ComfyUI workflow")
PLACEHOLDERS = ("{image}", "{mask}")
"""What every workflow has to have."""
POLL_S = 0.5


def read_workflow(path: Path) -> dict[str, Any]:
    """Read a workflow in ComfyUI's API format.

    Raises:
        BadWeights: it is none, or has no place for the picture or the mask.
    """
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadWeights(f"'{path}' is no workflow of ComfyUI: {error}") from error
    if not isinstance(workflow, dict) or not all(
        isinstance(node, dict) and "class_type" in node for node in workflow.values()
    ):
        raise BadWeights(f"'{path}' is no workflow in ComfyUI's API format: save it with 'Export (API)'")
    text = json.dumps(workflow)
    for placeholder in PLACEHOLDERS:
        if placeholder not in text:
            raise BadWeights(f"'{path}' has no input \"{placeholder}\": write it where the uploaded picture is named")
    return workflow


def fill_placeholders(value: Any, values: Mapping[str, Any]) -> Any:
    """Return a workflow whose placeholders have their values; one that is all of a text keeps its type.

    Examples:
        >>> fill_placeholders({"seed": "{seed}", "text": "a {prompt}"}, {"{seed}": 3, "{prompt}": "wall"})
        {'seed': 3, 'text': 'a wall'}
    """
    if isinstance(value, dict):
        return {name: fill_placeholders(child, values) for name, child in value.items()}
    if isinstance(value, list):
        return [fill_placeholders(child, values) for child in value]
    if isinstance(value, str):
        if value in values:
            return values[value]
        for name, replacement in values.items():
            value = value.replace(name, str(replacement))
    return value


class ComfyUi:
    """A workflow of ComfyUI, run once for each picture."""

    def __init__(self, name: str, options: RemoteOptions, pause: Callable[[float], None] = time.sleep) -> None:
        self.name, self.options, self.pause = name, options, pause
        self.url = check_address(options.url)
        self.capability = replace(CAPABILITY, native_size=options.size)
        self.workflow: dict[str, Any] = {}

    def weights(self) -> Mapping[str, Path]:
        path = Path(self.options.workflow)
        read_workflow(path)
        return {"workflow": path}

    def setup(self) -> None:
        self.workflow = read_workflow(Path(self.options.workflow))

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Fill as `Remover.fill` does.

        Raises:
            ServerUnavailable: it is away, or no picture is ready in time.
            UnusableAnswer: the workflow failed, or saved no picture.
        """
        return self.paint(pictures, holes, seeds, [self.options.prompt] * len(pictures))

    def set_texts(self, texts: Sequence[str]) -> None:
        """Announce texts as `Inserter.set_texts` does: a server needs no preparation."""

    def paint(
        self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], texts: Sequence[str]
    ) -> list[Array]:
        """Paint as `Inserter.paint` does; the text takes the place of `{prompt}`. It raises what `fill` raises."""
        return [self._run(*values) for values in zip(pictures, holes, seeds, texts, strict=True)]

    def _run(self, picture: Array, hole: Array, seed: int, text: str) -> Array:
        values = {
            "{image}": self._upload(np.where(hole[..., None], 127, picture).astype(np.uint8)),
            "{mask}": self._upload(np.repeat(hole[..., None] * np.uint8(255), 3, axis=2)),
            "{seed}": seed % 2**32,
            "{prompt}": text,
        }
        document = json.dumps({"prompt": fill_placeholders(self.workflow, values)}).encode()
        number = self._read_json("/prompt", document, {"Content-Type": "application/json"}).get("prompt_id")
        if not isinstance(number, str):
            raise UnusableAnswer(f"{self.url}/prompt gave no `prompt_id`")
        saved = self._wait(number)
        data = self._request(f"/view?{urlencode(saved)}")
        return read_answer(data, picture, hole, self.url)

    def _upload(self, picture: Array) -> str:
        """Upload a picture under a name of its content, so that workers do not overwrite each other's."""
        png = encode_png(picture)
        name = f"rasura-{hashlib.sha256(png).hexdigest()[:32]}.png"
        body, kind = encode_form({"overwrite": "true"}, {"image": (name, png)})
        answer = self._read_json("/upload/image", body, {"Content-Type": kind})
        file = answer.get("name")
        if not isinstance(file, str):
            raise UnusableAnswer(f"{self.url}/upload/image gave no `name`")
        folder = answer.get("subfolder") or ""
        return f"{folder}/{file}" if folder else file

    def _wait(self, number: str) -> dict[str, str]:
        """Wait until a workflow is done; return the name, folder and type of its first saved picture."""
        for _ in range(max(1, round(self.options.timeout_s / POLL_S))):
            entry = self._read_json(f"/history/{number}").get(number)
            if isinstance(entry, dict):
                if (entry.get("status") or {}).get("status_str") == "error":
                    raise UnusableAnswer(f"the workflow '{self.options.workflow}' failed on {self.url}")
                pictures = [image for node in (entry.get("outputs") or {}).values() for image in node.get("images", [])]
                saved = [image for image in pictures if image.get("type") == "output"] or pictures
                if not saved:
                    raise UnusableAnswer(f"the workflow '{self.options.workflow}' saved no picture on {self.url}")
                return {name: str(saved[0].get(name, "")) for name in ("filename", "subfolder", "type")}
            self.pause(POLL_S)
        raise ServerUnavailable(f"{self.url} did not finish the workflow in {self.options.timeout_s:g} s")

    def _request(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        options = self.options
        every = {**make_headers(options.key_variable), **(headers or {})}
        return request(f"{self.url}{path}", body, every, options.timeout_s, options.attempts, self.pause)

    def _read_json(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        answer = self._request(path, body, headers)
        try:
            document = json.loads(answer)
        except ValueError as error:
            raise UnusableAnswer(f"{self.url}{path} gave no JSON: {answer[:60]!r}") from error
        if not isinstance(document, dict):
            raise UnusableAnswer(f"{self.url}{path} gave a {type(document).__name__} in JSON, not an object")
        return document


def comfyui(name: str, options: RemoteOptions) -> ComfyUi:
    """Create a remover that is a workflow of ComfyUI.

    Raises:
        ValueError: `url` is no address of a server.
    """
    return ComfyUi(name, options)
