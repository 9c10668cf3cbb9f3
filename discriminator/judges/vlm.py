"""A vision-language model behind an OpenAI-compatible server, as a judge.

Such models rank edits little better than chance when they are asked plainly, and their scores are not calibrated: the
answers become logits, which are calibrated on votes as those of any judge.

An answer is kept in a file named by a hash of the picture, the prompt, the model and the number of the sample, so that
no question is asked twice. A server that is away stops everything (`ServerUnavailable`), because no candidate is to
blame, as does one whose answers to several candidates in a row are not those of such a server, or have no score; a
candidate about which alone it gives no usable answer has the logit NaN.
"""

import base64
import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.discriminator.crops import Crop, cut_crop
from rasura.manifests.spelling import format_count
from rasura.networks import web_client
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
MAX_TOKENS = 2048
"""Tokens of an answer, at most: a plain model needs about 30, one that reasons before it answers some hundred more."""
THOUGHT = re.compile("<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)
WRITTEN_SCORE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:%|/\s*100)?\s*")
LONGEST_ANSWER = 20_000
"""Characters at the end of an answer in which its score is looked for."""
WRONG_SERVER, WRONG_ANSWERS = 5, 30
"""Candidates in a row after which no candidate is to blame: without an answer as such a server gives it, and without a
usable answer."""


class NoCompletion(ValueError):
    """What a server answered is not a chat completion."""


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
    max_tokens: of an answer, with all that the model thinks before it.
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
    max_tokens: int = MAX_TOKENS
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
    """Return the score, 0 to 100, of the last JSON object with one in an answer, outside of what the model thought.

    Raises:
        ValueError: there is none, or the score is not a number from 0 to 100.

    Examples:
        >>> parse_score('Sure! {"score": 85, "reason": "good"}')
        85.0
        >>> parse_score('<think>{"score": 20}?</think> {"score": 30} No: {"score": "40 %", "reason": "a {seam}"}')
        40.0
    """
    score = None
    for document in _iterate_objects(remove_thoughts(answer)[-LONGEST_ANSWER:]):
        score = document.get("score", score)
    if isinstance(score, str) and (written := WRITTEN_SCORE.fullmatch(score)):
        score = float(written[1])
    if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 100:
        return float(score)
    raise ValueError(f"no JSON object with a score from 0 to 100 in the answer {answer[-200:]!r}")


def remove_thoughts(answer: str) -> str:
    """Return an answer without what the model thought, between tags, before it.

    Examples:
        >>> remove_thoughts("<think>Is it?</think>It is."), remove_thoughts("Is it?</think>It is.")
        ('It is.', 'It is.')
    """
    parts, start, is_inside = list[str](), 0, False
    for tag in THOUGHT.finditer(answer):
        if not is_inside:  # what is before an end without a beginning is a thought that the question's template began
            parts = [] if tag[1] else [*parts, answer[start : tag.start()]]
        start, is_inside = tag.end(), not tag[1]
    return "".join(parts if is_inside else [*parts, answer[start:]])


def _iterate_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, in order; those within an object only where it has no score."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        end = start + 1
        try:
            document, stop = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            yield document
            end = stop if "score" in document else end
        start = text.find("{", end)


def read_completion(data: bytes) -> str:
    """Return the text of a chat completion.

    Raises:
        NoCompletion: it is none.
        ValueError: it was cut off, so that what it says is not its end.

    Examples:
        >>> read_completion(b'{"choices": [{"message": {"content": "Good."}}]}')
        'Good.'
    """
    try:
        choice = json.loads(data)["choices"][0]
        content = choice["message"]["content"]
        if isinstance(content, list):  # parts, as those of a question
            content = "".join(part.get("text") or "" for part in content)
        is_cut = choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        text = " ".join(data[:200].decode(errors="replace").split())
        raise NoCompletion(f"no chat completion of an OpenAI-compatible server, but {text!r}") from error
    if is_cut:
        raise ValueError(f"the answer was cut off at `max_tokens`, a larger number lets it end: {content or ''!r:.200}")
    return str(content or "")


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
        self._lock, self._unanswered = threading.Lock(), 0

    def preprocess(self, source: Array, target: Array, mask: Array) -> Crop:
        """Return a candidate's square crop."""
        return cut_crop(source, target, mask, self.settings.size, "crop", self.settings.context)

    def compute_logits(self, crops: Sequence[Crop], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) of candidates; NaN where no attempt brought a usable answer.

        Raises:
            ServerUnavailable: the server is away, refuses every request, or is none of this sort. What it has answered
                is kept.
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
                return parse_score(json.loads(file.read_text())["answer"])
            except (ValueError, KeyError, TypeError):
                pass  # a file that was cut short by a crash, or an answer that is not usable: ask again
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
        """Return the first answer that has a score; None where none has.

        Raises:
            ServerUnavailable: the server is away, or no candidate is to blame for what it answers.
        """
        settings, body = self.settings, json.dumps(self._make_request(picture)).encode()
        headers = {"Content-Type": "application/json", **make_headers(settings.key_variable)}
        end, fault = time.monotonic() + settings.patience_s, ValueError()
        for attempt in range(settings.attempts):
            left = end - time.monotonic()
            try:
                data = request(self.url, body, headers, settings.timeout_s, settings.attempts, patience_s=left)
                answer = read_completion(data)
                parse_score(answer)
            except ServerUnavailable as error:
                if error.status in REFUSED and self._has_answers():
                    return None
                raise
            except ValueError as error:
                fault = error
            else:
                self._count_unanswered(None)
                return answer
            pause = min(web_client.LONGEST_PAUSE_S, web_client.FIRST_PAUSE_S * 2**attempt)
            pause = pause if isinstance(fault, NoCompletion) else 0.0  # a model that is there may be asked at once
            if attempt + 1 == settings.attempts or time.monotonic() + pause > end:
                break
            time.sleep(pause)
        self._count_unanswered(fault)
        return None

    def _has_answers(self) -> bool:
        return any(self.cache.glob("*.json"))

    def _count_unanswered(self, fault: ValueError | None) -> None:
        """Count a candidate without a usable answer; one with such an answer ends the count.

        Raises:
            ServerUnavailable: there were too many in a row.
        """
        with self._lock:
            self._unanswered = 0 if fault is None else self._unanswered + 1
            count = self._unanswered
        if fault is None:
            return
        is_wrong = isinstance(fault, NoCompletion) and (count >= WRONG_SERVER or not self._has_answers())
        if is_wrong or count >= WRONG_ANSWERS:
            candidates = format_count(count, "candidate")
            raise ServerUnavailable(f"{self.url} gave no usable answer about {candidates} in a row: {fault}")

    def _make_request(self, picture: Array) -> Mapping[str, Any]:
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        image = f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
        parts = [{"type": "text", "text": self.settings.prompt}, {"type": "image_url", "image_url": {"url": image}}]
        return {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": parts}],
            "temperature": 0.7 if self.settings.samples > 1 else 0,
            "max_tokens": self.settings.max_tokens,
        }
