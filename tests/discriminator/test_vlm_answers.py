"""What a VLM says at length: the last score outside of its thoughts counts, and a server that is none is found out."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vlm_server import VlmServer

from rasura.discriminator.judges import folder, vlm
from rasura.discriminator.judges.vlm import VlmJudge, VlmSettings
from rasura.networks import web_client
from rasura.networks.web_client import ServerUnavailable


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 2} no wait {"score": 9}', 9),
        ('<think>{"score": 3} maybe</think>{"score": 81}', 81),
        ('{"score": 3} the template has begun the thought</think>{"score": 82}', 82),
        ('{"score": 83}<think>{"score": 3}</think>', 83),
        ('<THINK>a</THINK> <think>{"score": 1}</think> {"score": 84}', 84),
        ('{"score": "7"}', 7),
        ('{"score": " 70 % "}', 70),
        ('{"score": "71/100"}', 71),
        ('{"score": 72, "reason": "a {brace} and a }"}', 72),
        ('{"score": 73, "parts": {"score": 1}}', 73),
        ('{"verdict": {"score": 74}} {}', 74),
        ('a set {1, 2}, {"score": 75}', 75),
    ],
)
def test_the_last_score_outside_of_thoughts_counts(answer, score):
    assert vlm.parse_score(answer) == score


@given(st.text(alphabet='{}" <>/think:score0123,', max_size=60), st.integers(0, 100))
def test_whatever_was_thought_or_drafted_the_end_counts(draft, score):
    """Any text before does not change the score at the end, be it a thought or not."""
    end = json.dumps({"score": score})
    assert vlm.parse_score(f"<think>{draft}</think>{end}") == score
    quiet = draft.replace('"', "").replace("<", "").replace("{", "")
    assert vlm.parse_score(f"{quiet}\n{end}") == score
    with pytest.raises(ValueError, match="no JSON object"):
        vlm.parse_score(f"<think>{end}")


def test_a_thought_without_end_is_no_answer_and_cost_is_bounded():
    """Long and hostile answers are read in no time."""
    for text in ("<think>" * 50_000, '{"a":' * 50_000, '{"score": 1, ' * 20_000):
        with pytest.raises(ValueError, match="no JSON object"):
            vlm.parse_score(text)


def complete(content, reason="stop"):
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": reason}]}).encode()


def test_completions_are_told_from_everything_else():
    """Texts and parts are read; what is no completion is shown; what was cut off says how to let it end."""
    assert vlm.read_completion(complete([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])) == "ab"
    assert vlm.read_completion(complete(None)) == ""
    for data in (b"<html>gateway</html>", b'{"error": {"message": "model is loading"}}', b"[]", b"", b'{"choices": 1}'):
        with pytest.raises(vlm.NoCompletion) as fault:
            vlm.read_completion(data)
        assert data.decode() in str(fault.value)
    with pytest.raises(ValueError, match=r"max_tokens.*draft"):
        vlm.read_completion(complete('draft {"score": 1}', "length"))


@pytest.fixture
def pauses(monkeypatch):
    waited = []
    monkeypatch.setattr(vlm.time, "sleep", waited.append)
    monkeypatch.setattr(web_client, "FIRST_PAUSE_S", 0.01)
    return waited


def ask(server, cache, count, **changes):
    settings = VlmSettings(**{"url": server.url, "model": "m", "prompt": "?", "size": 32, "parallel": 1} | changes)
    judge, mask = VlmJudge(settings, cache), np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    source = np.zeros((32, 32, 3), np.uint8)
    crops = [judge.preprocess(source, np.full_like(source, 5 + 240 * n // count), mask) for n in range(count)]
    return judge.compute_logits(crops)


@pytest.mark.parametrize("answer", [b"<html>gateway</html>", b'{"error": {"message": "model is loading"}}'])
def test_a_server_of_another_kind_is_no_candidates_fault(tmp_path, pauses, answer):
    """A server that never answers as it should is told at once, with its answer, after pauses between the tries; one
    that did before, after some candidates in a row."""
    with VlmServer((answer,) * 99) as server:
        with pytest.raises(ServerUnavailable, match=r"no usable answer about 1 candidate in a row.*(gateway|loading)"):
            ask(server, tmp_path / "new", 1, attempts=4)
        assert len(server.requests) == 4
        assert pauses == [0.01, 0.02, 0.04]
        server.troubles = ()
        assert np.isfinite(ask(server, tmp_path / "old", 3)).all()
        server.troubles, before = (answer,) * 99, len(server.requests)
        with pytest.raises(ServerUnavailable, match="about 5 candidates in a row"):
            ask(server, tmp_path / "old", 10, attempts=2)
        # the next question may have begun
        assert 2 * vlm.WRONG_SERVER <= len(server.requests) - before <= 2 * vlm.WRONG_SERVER + 2


def test_a_model_without_scores_is_told_with_an_example(tmp_path, pauses):
    """Answers that are cut off, one candidate after the other, are a matter of settings."""
    with VlmServer((complete("Let me think", "length"),) * 99) as server:
        with pytest.raises(ServerUnavailable, match=r"30 candidates in a row.*cut off at `max_tokens`.*Let me think"):
            ask(server, tmp_path, 40, attempts=1)
        assert server.requests[0]["max_tokens"] == vlm.MAX_TOKENS
    assert pauses == []


def test_the_length_of_answers_is_a_setting(tmp_path):
    """It is in the folder, and sent; a folder of before has the default."""
    with VlmServer() as server:
        folder.create_vlm(tmp_path / "judge", server.url, "m", size=32, max_tokens=77)
        record = json.loads((tmp_path / "judge" / "judge.json").read_text())
        assert record.pop("max_tokens") == 77
        assert folder.open_judge(tmp_path / "judge").settings.max_tokens == 77
        (tmp_path / "judge" / "judge.json").write_text(json.dumps(record))
        assert folder.open_judge(tmp_path / "judge").settings.max_tokens == vlm.MAX_TOKENS


def test_kept_answers_are_read_as_new_ones(tmp_path):
    """An answer that an older version kept with the score of a draft counts with its last."""
    with VlmServer() as server:
        first = ask(server, tmp_path, 1)
        (file,) = tmp_path.glob("*.json")
        stored = json.loads(file.read_text())
        file.write_text(json.dumps(stored | {"score": 1, "answer": '{"score": 1} no: {"score": 90}'}))
        assert ask(server, tmp_path, 1)[0] == vlm.compute_logit(90) != first[0]
        assert len(server.requests) == 1
