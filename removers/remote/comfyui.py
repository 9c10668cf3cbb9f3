"""A remover that is a workflow of ComfyUI, exported in its API format.

In the workflow's inputs `{image}` and `{mask}` stand for the names of the uploaded pictures (nodes `LoadImage` and
`LoadImageMask`, red channel, white = hole), `{seed}` for the seed and `{prompt}` for the prompt. Its first saved
picture is the result.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt

from rasura.manifests.json_lines import parse_json
from rasura.networks.web_client import ServerUnavailable, make_headers, request
from rasura.networks.weights import BadWeights
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
        workflow = parse_json(path.read_text(encoding="utf-8"))
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


def find_exception(messages: Any) -> str:
    """Return what a failed node said, of the messages of a workflow's status; "" where none did.

    Examples:
        >>> find_exception([["execution_error", {"node_type": "KSampler", "exception_message": "out of memory"}]])
        'KSampler: out of memory'
    """
    for message in messages if isinstance(messages, list) else []:
        details = message[1] if isinstance(message, list) and len(message) == 2 else None
        if isinstance(details, dict) and details.get("exception_message"):
            return f"{details.get('node_type') or 'a node'}: {details['exception_message']}"[:300].strip()
    return ""


class ComfyUi(RemoteRemover):
    """A workflow of ComfyUI, run once for each picture."""

    def __init__(self, name: str, options: RemoteOptions, pause: Callable[[float], None] = time.sleep) -> None:
        super().__init__(name, options, CAPABILITY)
        self.pause, self.end = pause, 0.0
        self.workflow: dict[str, Any] = {}

    def weights(self) -> Mapping[str, Path]:
        path = Path(self.options.workflow)
        read_workflow(path)
        return {"workflow": path}

    def setup(self) -> None:
        """Read the workflow.

        Raises:
            BadWeights: it is none.
        """
        self.workflow = read_workflow(Path(self.options.workflow))

    def ask(self, picture: Array, hole: Array, seed: int, text: str) -> Array:
        self.end = time.monotonic() + self.options.timeout_s
        values = {
            "{image}": self._upload(np.where(hole[..., None], HOLE_GREY, picture).astype(np.uint8)),
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
            entry = self._read_json(f"/history/{quote(number, safe='')}").get(number)
            if isinstance(entry, dict) and (saved := self._find_saved(entry)):
                return saved
            if time.monotonic() > self.end:
                break
            self.pause(POLL_S)
        raise ServerUnavailable(f"{self.url} did not finish the workflow in {self.options.timeout_s:g} s")

    def _find_saved(self, entry: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the first saved picture of a workflow by its entry in the history; None while it runs.

        Raises:
            UnusableAnswer: it failed, or saved none.
        """
        status = entry.get("status")
        status = status if isinstance(status, dict) else {}
        workflow = f"the workflow '{self.options.workflow}'"
        if status.get("status_str") == "error":
            reason = find_exception(status.get("messages"))
            raise UnusableAnswer(f"{workflow} failed on {self.url}" + (f": {reason}" if reason else ""))
        if status.get("completed") is False:
            return None
        outputs = entry.get("outputs")
        nodes = [node for node in outputs.values() if isinstance(node, dict)] if isinstance(outputs, dict) else []
        images = [image for node in nodes for image in node.get("images") or [] if isinstance(image, dict)]
        pictures = [image for image in images if isinstance(image.get("filename"), str) and image["filename"]]
        saved = [image for image in pictures if image.get("type") == "output"] or pictures
        if not saved:
            raise UnusableAnswer(f"{workflow} saved no picture on {self.url}")
        return {name: str(saved[0].get(name) or "") for name in ("filename", "subfolder", "type")}

    def _request(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        options = self.options
        every = {**make_headers(options.key_variable), **(headers or {})}
        left = max(0.0, self.end - time.monotonic())
        return request(
            f"{self.url}{path}", body, every, options.timeout_s, options.attempts, self.pause, deadline_s=left
        )

    def _read_json(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        answer = self._request(path, body, headers)
        try:
            document = parse_json(answer)
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
