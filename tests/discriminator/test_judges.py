"""Judges of any backend give one number a candidate; a server that fails costs no candidate, and no question twice."""

import json

import cv2
import numpy as np
import pytest
from support.vlm_server import VlmServer

from rasura.discriminator.judges import battery, folder, vlm
from rasura.discriminator.judges.battery import FailedCheck, TrueTriplet
from rasura.discriminator.judges.ensemble import Ensemble
from rasura.discriminator.judges.vlm import VlmJudge, VlmSettings
from rasura.discriminator.network import WrongDiscriminator
from rasura.networks import web_client
from rasura.networks.metrics.rc_s import compute_rc_s
from rasura.networks.web_client import ServerUnavailable
from rasura.networks.weights import BadWeights


def make_candidates(count, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.zeros((32, 32), bool)
    mask[10:20, 12:22] = True
    source = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return [(source, np.full((32, 32, 3), 20 + 200 * k // count, np.uint8), mask) for k in range(count)]


def score_all(judge, candidates):
    return judge.compute_logits([judge.preprocess(*candidate) for candidate in candidates])


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(web_client, "FIRST_PAUSE_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_every_trouble_is_retried_and_no_candidate_is_lost(tmp_path):
    """429, 500, no JSON, no choices, no score: each question is asked until it is answered, in the right order."""
    no_score = json.dumps({"choices": [{"message": {"content": "It looks fine to me."}}]}).encode()
    troubles = (429, 500, b"<html>", b'{"choices": []}', no_score)
    candidates = make_candidates(12)
    with VlmServer(troubles) as server:
        judge = VlmJudge(VlmSettings(server.url, "m", "Good?", size=32), tmp_path)
        logits = score_all(judge, candidates)
        assert set(server.asked.values()) == {len(troubles) + 1}
        assert len(server.asked) == len(candidates) == len(logits)
    assert (np.diff(logits) > 0).all()
    assert np.isfinite(logits).all()


def test_a_rerun_asks_nothing_and_a_change_asks_again(tmp_path):
    """Answers are kept by picture, prompt and model; one that a crash cut short is asked for again."""
    candidates = make_candidates(5)
    with VlmServer() as server:

        def count_questions(**changes):
            before = len(server.requests)
            settings = VlmSettings(**{"url": server.url, "model": "m", "prompt": "Good?", "size": 32} | changes)
            logits = score_all(VlmJudge(settings, tmp_path), candidates)
            return len(server.requests) - before, logits.tolist()

        first, logits = count_questions()
        assert first == 5
        assert count_questions() == (0, logits)
        assert count_questions(url=server.url + "/") == (0, logits)
        assert count_questions(prompt="Really good?")[0] == 5
        assert count_questions(model="n")[0] == 5
        assert count_questions(samples=3)[0] == 15
        file = sorted(tmp_path.glob("*.json"))[0]
        file.write_text("")
        assert sum(count_questions(**change)[0] for change in ({}, {"prompt": "Really good?"}, {"model": "n"})) <= 1


def test_the_question_shows_source_outline_and_result(tmp_path, monkeypatch):
    """Three panels side by side, the outline in red around the hole in the middle one alone; the key is sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with VlmServer() as server:
        score_all(VlmJudge(VlmSettings(server.url, "m", "Good?", size=32, context=9), tmp_path), make_candidates(1))
        picture = server.picture(server.requests[0])
        assert server.requests[0]["messages"][0]["content"][0]["text"] == "Good?"
        assert server.keys == ["Bearer secret"]
    source, target, mask = make_candidates(1)[0]
    assert picture.shape == (32, 3 * 32 + 2 * vlm.GAP, 3)
    assert (picture[:, :32] == source).all()
    assert (picture[:, -32:] == target).all()
    middle = picture[:, 32 + vlm.GAP : 64 + vlm.GAP]
    red = (middle == vlm.OUTLINE).all(axis=2)
    assert red[10, 12:22].all()
    assert not red[~cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)].any()
    assert "secret" not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_what_does_not_mend_itself_ends_at_once_and_keeps_the_answers(tmp_path):
    """A wrong key is not asked again and again; a dead server is given up in the end; what was answered stays."""
    candidates = make_candidates(3)
    with VlmServer() as server:
        settings = VlmSettings(server.url, "m", "Good?", size=32, parallel=1, attempts=3)
        score_all(VlmJudge(settings, tmp_path), candidates[:2])
        server.troubles = (401,) * 9
        with pytest.raises(ServerUnavailable, match="status 401"):
            score_all(VlmJudge(settings, tmp_path), candidates)
        assert len(server.requests) == 3
        server.troubles = (503,) * 9
        with pytest.raises(ServerUnavailable, match="503"):
            score_all(VlmJudge(settings, tmp_path), candidates)
        assert len(server.requests) == 3 + 3
        server.troubles = ()
        assert len(score_all(VlmJudge(settings, tmp_path), candidates)) == 3
    with pytest.raises(ServerUnavailable, match="URLError"):
        score_all(VlmJudge(settings, tmp_path / "other"), candidates)
    with pytest.raises(ValueError, match="begins with http"):
        VlmJudge(VlmSettings("file:///etc/passwd", "m", "?"), tmp_path)


def test_a_candidate_that_is_never_answered_about_costs_no_other(tmp_path):
    """Garbage, or a refusal of this one picture, ends in NaN for it alone; a refusal of all is the server's fault."""
    candidates = make_candidates(6)
    assert candidates[0][1].mean() < 30 <= candidates[1][1].mean()
    for name, dark in (("garbage", b"<html>"), ("refused", 400)):
        with VlmServer(dark=dark) as server:
            judge = VlmJudge(VlmSettings(server.url, "m", "Good?", size=32, attempts=3), tmp_path / name)
            score_all(judge, candidates[1:])
            logits = score_all(judge, candidates)
            assert np.isnan(logits).tolist() == [True] + [False] * 5
            assert len(server.requests) == 5 + (3 if name == "garbage" else 1)
            with VlmServer((400,) * 9) as other, pytest.raises(ServerUnavailable, match="status 400"):
                score_all(VlmJudge(VlmSettings(other.url, "m", "Good?", size=32), tmp_path / "none"), candidates)


def test_scores_are_read_strictly():
    """A number from 0 to 100 in a JSON object; nothing is guessed."""
    assert vlm.parse_score('```json\n{"score": 7.5}\n```') == 7.5
    wrong = ('{"score": "nine"}', '{"score": "7/10"}', '{"score": 1e400}', '{"score": -5}', '{"score": null}')
    for answer in ("90", *wrong, '{"score": 101}', '{"score": true}', '{"score": NaN}', "{}", "{]", "{" * 99_999):
        with pytest.raises(ValueError, match="no JSON object"):
            vlm.parse_score(answer)


def test_folders_open_as_what_they_are(tmp_path):
    """A VLM's folder has its prompt and its answers; an ensemble weighs its members; what is unknown is refused."""
    candidates = make_candidates(40)
    with VlmServer() as server:
        for name in ("one", "two"):
            folder.create_vlm(tmp_path / name, server.url, name, size=32)
        judge = folder.open_judge(tmp_path / "one")
        logits = score_all(judge, candidates)
        assert set(folder.list_files(tmp_path / "one")) == {"judge.json", "prompt.txt"}
        assert len(list((tmp_path / "one" / "answers").iterdir())) == 40
        votes = (np.arange(40) > 20).astype(float)
        rng = np.random.default_rng(0)
        members = [tmp_path / "one", tmp_path / "two"]
        weights = folder.create_ensemble(tmp_path / "both", members, np.stack([logits, rng.normal(size=40)], 1), votes)
        assert weights[0] > 3 * abs(weights[1])
        both = folder.open_judge(tmp_path / "both")
        assert isinstance(both, Ensemble)
        together = score_all(both, candidates)
        assert np.corrcoef(together, logits)[0, 1] > 0.9
        assert {"0/prompt.txt", "1/judge.json"} < set(folder.list_files(tmp_path / "both"))
    assert folder.needs_check(tmp_path / "one")
    (tmp_path / "one" / "judge.json").write_text('{"format": 1, "backend": "oracle"}')
    with pytest.raises(WrongDiscriminator, match="no backend 'oracle'"):
        folder.open_judge(tmp_path / "one")
    with pytest.raises(WrongDiscriminator, match=r"no judge\.json"):
        folder.open_judge(tmp_path)
    with pytest.raises(ValueError, match="removal-1"):
        folder.create_vlm(tmp_path / "x", "http://a", "m", prompt="nothing")
    with pytest.raises(BadWeights, match="no file"):
        folder.create_metric(tmp_path / "x", "rc_s", tmp_path / "none.onnx")


class Ideal:
    """A judge that knows the true target, and one that likes what is smooth."""

    def __init__(self, truths, likes_blur=False):
        self.truths, self.likes_blur = truths, likes_blur

    def preprocess(self, source, target, mask):
        return target

    def compute_logits(self, crops, on_progress=None):
        if self.likes_blur:
            return np.array([-cv2.Laplacian(crop, cv2.CV_64F).std() for crop in crops])
        both = list(self.truths) + [truth[:, ::-1] for truth in self.truths]
        return np.array([-min(np.abs(crop.astype(float) - truth).mean() for truth in both) for crop in crops])


def make_triplets(count):
    rng = np.random.default_rng(5)
    triplets = []
    for number in range(count):
        target = cv2.GaussianBlur(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8), (0, 0), 0.7)
        mask = np.zeros((48, 48), bool)
        mask[14:34, 12:32] = True
        source = np.where(mask[..., None], rng.integers(0, 256, 3), target).astype(np.uint8)
        triplets.append(TrueTriplet(source, target, mask, str(number)))
    return triplets


def test_the_battery_passes_a_good_judge_and_stops_one_that_likes_blur(tmp_path):
    """A judge close to the truth passes; one that prefers smooth fills fails, and may not keep anything."""
    triplets = make_triplets(24)
    passed = battery.run_battery(Ideal([triplet.target for triplet in triplets]), triplets)
    assert passed.passed
    assert passed.monotone == passed.untouched == 1
    failed = battery.run_battery(Ideal([], likes_blur=True), triplets)
    assert not failed.passed
    assert "rises with the blur" in failed.faults[0]
    battery.write_battery(passed, tmp_path)
    battery.check_battery(tmp_path, is_required=True)
    battery.write_battery(failed, tmp_path)
    with pytest.raises(FailedCheck, match="rises with the blur"):
        battery.check_battery(tmp_path, is_required=False)
    (tmp_path / battery.FILE).unlink()
    battery.check_battery(tmp_path, is_required=False)
    with pytest.raises(FailedCheck, match="rasura discriminator check"):
        battery.check_battery(tmp_path, is_required=True)
    with pytest.raises(FailedCheck, match="too few"):
        battery.run_battery(Ideal([]), triplets[:5])


def test_the_battery_leaves_out_triplets_without_an_answer():
    """A triplet about whose pictures the judge gives no answer does not count; with too few others nothing passes."""
    triplets = make_triplets(24)

    class Silent(Ideal):
        def compute_logits(self, crops, on_progress=None):
            logits = super().compute_logits(crops)
            return np.where([any((crop == one).all() for one in self.unknown) for crop in crops], np.nan, logits)

    judge = Silent([triplet.target for triplet in triplets])
    judge.unknown = [triplet.target for triplet in triplets[3:7]]
    result = battery.run_battery(judge, triplets)
    assert (result.rows, result.passed) == (20, True)
    judge.unknown = [triplet.target for triplet in triplets[3:8]]
    with pytest.raises(FailedCheck, match="19 triplets about whose pictures it gives usable answers"):
        battery.run_battery(judge, triplets)


def test_rc_s_prefers_a_fill_that_is_like_its_surroundings():
    """With features of colour and texture, the true fill is above a flat one, and that above a foreign one."""

    def compute_features(picture):
        grey = picture.astype(np.float32).mean(axis=2)
        deviation = np.abs(grey - cv2.blur(grey, (5, 5)))
        maps = [*picture.astype(np.float32).transpose(2, 0, 1), 4 * deviation, np.full_like(grey, 40)]
        return np.stack([cv2.resize(values, (32, 32), interpolation=cv2.INTER_AREA) for values in maps])

    rng = np.random.default_rng(3)
    picture = rng.integers(60, 160, (96, 96, 3), dtype=np.uint8)
    hole = np.zeros((96, 96), bool)
    hole[30:66, 34:70] = True
    flat = np.where(hole[..., None], 110, picture).astype(np.uint8)
    foreign = np.where(hole[..., None], (250, 10, 10), picture).astype(np.uint8)
    scores = [compute_rc_s(one, hole, compute_features) for one in (picture, flat, foreign)]
    assert 1 >= scores[0] > scores[1] > scores[2] > 0
    with pytest.raises(ValueError, match="empty"):
        compute_rc_s(picture, np.zeros_like(hole), compute_features)
