"""A vision-language model behind an OpenAI-compatible server, as a judge.

Such models rank edits little better than chance when they are asked plainly, and their scores are not calibrated: the
answers become logits, which are calibrated on votes as those of any judge.

An answer is kept in a file named by a hash of the picture, the prompt, the model and the number of the sample, so that
no question is asked twice.
"""

import base64
import hashlib
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.discriminator.crops import Crop, cut_crop
from rasura.manifests.errors import RunError
from rasura.networks.trainer import OnProgress

Array = npt.NDArray[Any]

FORMAT = "1"
"""Of the question and of the cached answer; a new one asks again."""
PROMPTS = Path(__file__).parent / "prompts"
GAP = 8
OUTLINE = (255, 0, 0)
MAX_ANSWER = 1 << 20
"""Bytes of an answer that are read."""
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class VlmUnavailable(RunError):
    """A server that gave no usable answer in all attempts. The answers so far are kept: the same command goes on."""


class _NoAnswer(Exception):
    """One attempt without a usable answer. `pause` is the time that the server asks for, in seconds."""

    def __init__(self, text: str, pause: float | None = None, final: bool = False) -> None:
        super().__init__(text)
        self.pause, self.final = pause, final


@dataclass(frozen=True)
class VlmSettings:
    """Settings of a VLM judge.

    url: of the server's API, up to and without `/chat/completions`.
    prompt: the text of the question.
    size: side of each panel, px. context: picture around the hole, in hole sizes.
    samples: answers per candidate, whose mean counts; above 1 the temperature is 0.7, else 0.
    parallel: requests at a time. attempts: of each request. timeout_s: of each attempt.
    key_variable: the environment variable with the API key; no key is sent where it is not set.
    """

    url: str
    model: str
    prompt: str
    size: int = 448
    context: float = 0.75
    samples: int = 1
    parallel: int = 8
    attempts: int = 8
    timeout_s: float = 120.0
    key_variable: str = "OPENAI_API_KEY"


def read_prompt(name: str) -> str:
    """Read a prompt: one of this package by name, or a text file.

    Raises:
        ValueError: there is neither.
    """
    path = PROMPTS / f"{name}.txt" if re.fullmatch(r"[a-z0-9-]+", name) else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in PROMPTS.glob("*.txt")))
        raise ValueError(f"there is no prompt '{name}': name a text file, or one of {names}")
    return path.read_text()


def compose_panels(crop: Crop) -> Array:
    """Compose source, source with the mask's outline, and result, side by side: (s, 3 s + 2 GAP, 3) uint8."""
    outlined = crop.source.copy()
    contours, _ = cv2.findContours(crop.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, contours, -1, OUTLINE, max(1, crop.mask.shape[0] // 200))
    gap = np.full((crop.source.shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([crop.source, gap, outlined, gap, crop.target])


def parse_score(answer: str) -> float:
    """Return the score, 0 to 100, of an answer that has a JSON object in it.

    Raises:
        ValueError: there is none, or the score is not a number from 0 to 100.

    Examples:
        >>> parse_score('Sure! {"score": 85, "reason": "good"}')
        85.0
    """
    for match in re.finditer(r"\{[^{}]*\}", answer):
        try:
            score = json.loads(match.group()).get("score")
        except ValueError:
            continue
        if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 100:
            return float(score)
    raise ValueError(f"no JSON object with a score from 0 to 100 in the answer {answer[:80]!r}")


def compute_logit(score: float) -> float:
    """Return the logit of a score from 0 to 100, finite at both ends.

    Examples:
        >>> compute_logit(50)
        0.0
    """
    return math.log((score + 1) / (101 - score))


class VlmJudge:
    """A VLM that scores candidates from 0 to 100; the logit of the mean score is the judge's.

    Args:
        cache: folder of the answers.
    """

    def __init__(self, settings: VlmSettings, cache: Path) -> None:
        if not settings.url.startswith(("http://", "https://")):
            raise ValueError(f"the url '{settings.url}' is not one of a server: it begins with http:// or https://")
        self.settings, self.cache = settings, cache

    def preprocess(self, source: Array, target: Array, mask: Array) -> Crop:
        """Return a candidate's square crop."""
        return cut_crop(source, target, mask, self.settings.size, "crop", self.settings.context)

    def compute_logits(self, crops: Sequence[Crop], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) of candidates.

        Raises:
            VlmUnavailable: the server gave no usable answer to a question in all attempts.
        """
        scores = []
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            for score in pool.map(self._score, crops):
                scores.append(score)
                if on_progress:
                    on_progress(len(scores), len(crops), "")
        return np.array([compute_logit(score) for score in scores], float)

    def _score(self, crop: Crop) -> float:
        picture = compose_panels(crop)
        return float(np.mean([self._ask_once(picture, sample) for sample in range(self.settings.samples)]))

    def _ask_once(self, picture: Array, sample: int) -> float:
        file = self.cache / f"{self._hash_question(picture, sample)}.json"
        if file.is_file():
            try:
                return float(json.loads(file.read_text())["score"])
            except (ValueError, KeyError, TypeError):
                pass  # a file that was cut short by a crash: ask again
        answer = self._ask_until_answered(picture)
        score = parse_score(answer)
        self.cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}-{id(picture)}.part")
        part.write_text(json.dumps({"score": score, "answer": answer, "model": self.settings.model}))
        part.replace(file)
        return score

    def _hash_question(self, picture: Array, sample: int) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(picture).tobytes())
        question = (FORMAT, self.settings.model, self.settings.prompt, self.settings.samples > 1, sample, picture.shape)
        digest.update(json.dumps(question).encode())
        return digest.hexdigest()

    def _ask_until_answered(self, picture: Array) -> str:
        body = json.dumps(self._make_request(picture)).encode()
        pause, failure = PAUSE_S, ""
        for attempt in range(self.settings.attempts):
            try:
                answer = self._post(body)
                parse_score(answer)
                return answer
            except _NoAnswer as error:
                failure = str(error)
                if error.final:
                    break
                wait = min(LONGEST_PAUSE_S, pause if error.pause is None else error.pause)
            except ValueError as error:
                failure, wait = str(error), 0.0
            if attempt + 1 < self.settings.attempts:
                time.sleep(wait)
            pause *= 2
        raise VlmUnavailable(
            f"{self.settings.url} gave no usable answer ({self.settings.model}): {failure}; the answers so far are "
            f"kept in {self.cache}, and the same command goes on"
        )

    def _make_request(self, picture: Array) -> Mapping[str, Any]:
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        image = f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
        parts = [{"type": "text", "text": self.settings.prompt}, {"type": "image_url", "image_url": {"url": image}}]
        return {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": parts}],
            "temperature": 0.7 if self.settings.samples > 1 else 0,
            "max_tokens": 200,
        }

    def _post(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.settings.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.settings.timeout_s) as response:
                document = json.loads(response.read(MAX_ANSWER))
            return str(document["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            text = error.read(300).decode(errors="replace")
            asked = error.headers.get("Retry-After") or ""
            pause = float(asked) if asked.isdigit() else None
            # a wrong key, model or address does not mend itself
            final = 400 <= error.code < 500 and error.code not in (408, 409, 425, 429)
            raise _NoAnswer(f"status {error.code}: {' '.join(text.split())}", pause, final) from error
        except (OSError, TimeoutError) as error:
            raise _NoAnswer(f"{type(error).__name__}: {error}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise _NoAnswer(
                f"no answer of an OpenAI-compatible server ({type(error).__name__}: {error})", 0.0
            ) from error
