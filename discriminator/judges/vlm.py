"""A vision-language model behind an OpenAI-compatible server, as a judge.

Such models rank edits little better than chance when they are asked plainly, and their scores are not calibrated: the
answers become logits, which are calibrated on votes as those of any judge.

An answer is kept in a file named by a hash of the picture, the prompt, the model and the number of the sample, so that
no question is asked twice. A server that is away stops everything (`ServerUnavailable`), because no candidate is to
blame; a candidate about which it gives no usable answer has the logit NaN.
"""

import base64
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.discriminator.crops import Crop, cut_crop
from rasura.networks.trainer import OnProgress
from rasura.networks.web_client import ServerUnavailable, check_address, make_headers, request

Array = npt.NDArray[Any]

FORMAT = "1"
"""Of the question and of the cached answer; a new one asks again."""
PROMPTS = Path(__file__).parent / "prompts"
GAP = 8
OUTLINE = (255, 0, 0)
REFUSED = (400, 413, 422)
"""Status codes of a server that other requests have reached, by which it refuses this one: a filter, or a limit."""


@dataclass(frozen=True)
class VlmSettings:
    """Settings of a VLM judge.

    url: of the server's API, up to and without `/chat/completions`.
    prompt: the text of the question.
    size: side of each panel, px. context: picture around the hole, in hole sizes.
    samples: answers per candidate, whose mean counts; above 1 the temperature is 0.7, else 0.
    parallel: requests at a time. attempts: of each request while the server is away, and of each question while its
    answers cannot be used. timeout_s: of each attempt. patience_s: no attempt begins later than this after the first,
    so that a stage's time limit is not what ends a question.
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
    patience_s: float = 150.0
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

    Raises:
        ValueError: the url is no server's address.
    """

    def __init__(self, settings: VlmSettings, cache: Path) -> None:
        self.url = f"{check_address(settings.url)}/chat/completions"
        self.settings, self.cache = settings, cache

    def preprocess(self, source: Array, target: Array, mask: Array) -> Crop:
        """Return a candidate's square crop."""
        return cut_crop(source, target, mask, self.settings.size, "crop", self.settings.context)

    def compute_logits(self, crops: Sequence[Crop], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) of candidates; NaN where no attempt brought a usable answer.

        Raises:
            ServerUnavailable: the server is away, or refuses every request. What it has answered is kept.
        """
        count, scores = self.settings.samples, []
        questions = [(crop, sample) for crop in crops for sample in range(count)]
        pool = ThreadPoolExecutor(self.settings.parallel)
        try:
            for score in pool.map(lambda question: self._ask_once(*question), questions):
                scores.append(score)
                if on_progress and len(scores) % count == 0:
                    on_progress(len(scores) // count, len(crops), "")
        finally:
            pool.shutdown(cancel_futures=True)
        means = np.array(scores, float).reshape(-1, count).mean(axis=1)
        return np.array([math.nan if math.isnan(mean) else compute_logit(mean) for mean in means], float)

    def _ask_once(self, crop: Crop, sample: int) -> float:
        """Return the score of a sample, from its file if it was asked before; NaN where there is no usable answer."""
        picture = compose_panels(crop)
        file = self.cache / f"{self._hash_question(picture, sample)}.json"
        if file.is_file():
            try:
                return float(json.loads(file.read_text())["score"])
            except (ValueError, KeyError, TypeError):
                pass  # a file that was cut short by a crash: ask again
        answer = self._ask_until_answered(picture)
        if answer is None:
            return math.nan
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

    def _ask_until_answered(self, picture: Array) -> str | None:
        """Return the first answer that has a score; None where none has."""
        settings, body = self.settings, json.dumps(self._make_request(picture)).encode()
        headers = {"Content-Type": "application/json", **make_headers(settings.key_variable)}
        end = time.monotonic() + settings.patience_s
        for _ in range(settings.attempts):
            left = end - time.monotonic()
            try:
                data = request(self.url, body, headers, settings.timeout_s, settings.attempts, patience_s=left)
                answer = str(json.loads(data)["choices"][0]["message"]["content"])
                parse_score(answer)
                return answer
            except ServerUnavailable as error:
                if error.status in REFUSED and any(self.cache.glob("*.json")):
                    return None
                raise
            except (ValueError, LookupError, TypeError):  # no answer of such a server, or one without a score
                if time.monotonic() > end:
                    return None
        return None

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
