"""Removers behind HTTP: what is sent hides the hole, busy servers are asked again, and bad answers are told apart."""

import json

import numpy as np
import pytest
from support.remover_server import WORKFLOW, Server, read_files

from rasura.networks.web_client import ServerUnavailable, check_address, request
from rasura.networks.weights import BadWeights
from rasura.removers.base import remove
from rasura.removers.registry import ModelParams, check_removers
from rasura.removers.registry import open_remover as open_remover_by_name
from rasura.removers.remote.comfyui import ComfyUi, read_workflow
from rasura.removers.remote.image_edits import ImageEdits
from rasura.removers.remote.remote import RemoteOptions, UnusableAnswer


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(WORKFLOW))
    return path


def make_scene():
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (96, 128, 3), np.uint8)
    mask = np.zeros((96, 128), bool)
    mask[40:60, 50:90] = True
    return picture, mask


def open_remover(kind, server, workflow, pause=lambda seconds: None, **options):
    settings = RemoteOptions(server.url, size=64, prompt="an empty wall", workflow=str(workflow), **options)
    remover = ComfyUi("comfy", settings, pause) if kind == "comfyui" else ImageEdits("edits", settings)
    assert remover.weights().keys() == ({"workflow"} if kind == "comfyui" else set())
    remover.setup()
    return remover


@pytest.mark.parametrize("kind", ["edits", "comfyui"])
def test_the_hole_is_filled_and_the_object_is_never_sent(kind, server, workflow):
    picture, mask = make_scene()
    picture[mask] = (251, 1, 249)
    remover = open_remover(kind, server, workflow)
    result = remove(remover, [picture], [mask], [2**40 + 7], dilation=6)[0]
    assert (np.abs(result[mask].astype(int) - 77) <= 1).all()
    far = ~mask
    far[30:70, 40:100] = False
    assert (result[far] == picture[far]).all()
    for _, _, body in server.requests:
        for sent in read_files(body).values():
            pixels = np.array(sent)
            colours = pixels[..., :3] if pixels.shape[2] == 4 else pixels
            assert not (np.abs(colours.astype(int) - (251, 1, 249)) < 8).all(axis=2).any()
    if kind == "comfyui":
        (prompt,) = server.prompts
        assert prompt["3"]["inputs"]["seed"] == (2**40 + 7) % 2**32
        assert prompt["3"]["inputs"]["text"] == "an empty wall"


@pytest.mark.parametrize("answer", [(429, {"Retry-After": "3"}, b""), (503, {}, b"busy"), (None, {}, b"")])
def test_a_busy_or_broken_answer_is_asked_for_again(answer, server):
    server.first_answers = [answer, answer, (200, {}, b"here")]
    pauses = []
    assert request(server.url, attempts=3, pause=pauses.append) == b"here"
    assert pauses == ([3.0, 3.0] if answer[0] == 429 else [1.0, 2.0])


def test_a_refusal_ends_at_once_and_silence_after_all_attempts(server):
    server.first_answers = [(401, {}, b"no such key")] * 5
    with pytest.raises(ServerUnavailable, match="status 401: no such key"):
        request(server.url, pause=lambda seconds: None)
    assert len(server.requests) == 1
    server.first_answers = [(500, {}, b"broken")] * 5
    with pytest.raises(ServerUnavailable, match="status 500: broken"):
        request(server.url, attempts=4, pause=lambda seconds: None)
    assert len(server.requests) == 5
    server.close()
    with pytest.raises(ServerUnavailable, match="refused"):
        request(server.url, attempts=2, pause=lambda seconds: None)


def test_a_redirect_is_not_followed(server):
    server.first_answers = [(302, {"Location": f"{server.url}/other"}, b"")]
    with pytest.raises(ServerUnavailable, match="status 302"):
        request(server.url, headers={"Authorization": "Bearer secret"}, attempts=1)
    assert [path for path, _, _ in server.requests] == ["/"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8188", "ftp://x", "http://me:pw@host", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="address"):
        check_address(url)


@pytest.mark.parametrize("kind", ["edits", "comfyui"])
def test_an_answer_that_is_no_picture_of_the_scene_is_told(kind, server, workflow):
    picture, mask = make_scene()
    remover = open_remover(kind, server, workflow)
    server.size = (64, 32)
    with pytest.raises(UnusableAnswer, match="64 x 32 px"):
        remove(remover, [picture], [mask], [1])
    server.size = None
    server.write = lambda pixels: b"no picture"
    with pytest.raises(UnusableAnswer, match="no picture"):
        remove(remover, [picture], [mask], [1])


def test_a_workflow_that_fails_or_does_not_end_is_told(server, workflow):
    picture, mask = make_scene()
    server.fails = True
    with pytest.raises(UnusableAnswer, match="saved no picture"):
        remove(open_remover("comfyui", server, workflow), [picture], [mask], [1])
    server.unfinished = 10**6
    with pytest.raises(ServerUnavailable, match="did not finish the workflow in 3 s"):
        remove(open_remover("comfyui", server, workflow, timeout_s=3), [picture], [mask], [1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no workflow of ComfyUI"),
        ('{"nodes": []}', "API format"),
        (json.dumps({"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}), r'no input "\{image\}"'),
    ],
)
def test_a_file_that_is_no_workflow_is_refused(text, reason, tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text(text)
    with pytest.raises(BadWeights, match=reason):
        read_workflow(path)


def test_a_recipe_names_the_server_and_is_told_what_is_missing(server, workflow):
    model = ModelParams(kind="comfyui", url=server.url, workflow=str(workflow), size=64, prompt="an empty wall")
    check_removers(["mine"], {"mine": model})
    remover = open_remover_by_name("mine", {"mine": model})
    remover.weights()
    remover.setup()
    picture, mask = make_scene()
    assert (np.abs(remove(remover, [picture], [mask], [3])[0][mask].astype(int) - 77) <= 1).all()
    with pytest.raises(ValueError, match="comfyui needs `workflow`: File of ComfyUI's workflow"):
        check_removers(["mine"], {"mine": ModelParams(kind="comfyui", url=server.url)})
    with pytest.raises(ValueError, match="lama has no `url`; that is a key of image-edits, comfyui"):
        check_removers(["lama"], {"lama": ModelParams(base="x.pt", url=server.url)})
    with pytest.raises(ValueError, match="'image-edits' needs a server: add `models: image-edits:` with `url`"):
        check_removers(["image-edits"], {})


def test_the_key_comes_from_the_environment_alone(server, workflow, monkeypatch):
    monkeypatch.setenv("MY_KEY", "abc123")
    picture, mask = make_scene()
    remove(open_remover("edits", server, workflow, key_variable="MY_KEY"), [picture], [mask], [1])
    assert server.requests[0][1]["Authorization"] == "Bearer abc123"
