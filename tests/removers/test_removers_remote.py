"""Removers behind HTTP: what is sent hides the hole, busy servers are asked again, and bad answers are told apart."""

import json
import time

import numpy as np
import pytest
from support.remover_server import WORKFLOW, Server, read_files

from rasura.networks.web_client import ServerUnavailable, check_address, request
from rasura.networks.weights import BadWeights
from rasura.pipeline.engine.faults import is_fault_of_surroundings
from rasura.removers.base import remove
from rasura.removers.registry import ModelParams, check_removers
from rasura.removers.registry import open_remover as open_remover_by_name
from rasura.removers.remote.comfyui import ComfyUi, read_workflow
from rasura.removers.remote.image_edits import ImageEdits
from rasura.removers.remote.remote import RemoteOptions, UnusableAnswer, encode_png


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


FAILED = [["execution_start", {}], ["execution_error", {"node_type": "KSampler", "exception_message": "no memory"}]]
MODERATED = b'{"error": {"code": "moderation_blocked", "message": "rejected by the safety system"}}'


def make_scenes(count):
    scenes = []
    for number in range(count):
        picture, mask = make_scene()
        scenes.append((np.roll(picture, number, axis=0), mask))
    return [picture for picture, _ in scenes], [mask for _, mask in scenes]


@pytest.mark.parametrize("kind", ["edits", "comfyui"])
@pytest.mark.parametrize("status", [400, 413, 415, 422, 451])
def test_a_picture_that_the_server_refuses_costs_its_row_and_no_other_is_asked_for_twice(
    kind, status, server, workflow
):
    """Its error has the server's words and is no fault of the surroundings; a batch is repeated one by one."""
    pictures, masks = make_scenes(4)
    remover = open_remover(kind, server, workflow)
    remove(remover, pictures[3:], masks[3:], [3], 0)
    sent = {"edits": "/images/edits", "comfyui": "/upload/image"}[kind]
    count, second = [0], 2 if kind == "edits" else 3  # ComfyUI's are a picture and a mask each

    def refuse(path, body):
        count[0] += path == sent
        return (status, MODERATED) if path == sent and count[0] == second else None

    server.refuses = refuse
    with pytest.raises(UnusableAnswer, match=f"status {status}.*rejected by the safety system") as caught:
        remove(remover, pictures[:3], masks[:3], [0, 1, 2], 0)
    assert not is_fault_of_surroundings(caught.value, False)
    results = []
    for k in range(3):
        try:
            results.append(remove(remover, [pictures[k]], [masks[k]], [k], 0)[0])
        except UnusableAnswer:
            results.append(None)
    assert [result is None for result in results] == [False, True, False]
    assert count[0] == (3 if kind == "edits" else 5)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_or_an_address_that_is_wrong_is_no_pictures_fault(status, server, workflow):
    pictures, masks = make_scenes(1)
    server.refuses = lambda path, body: (status, b"no such key")
    with pytest.raises(ServerUnavailable, match=f"answered with status {status}: no such key") as caught:
        remove(open_remover("edits", server, workflow), pictures, masks, [0])
    assert is_fault_of_surroundings(caught.value, False)
    assert len(server.requests) == 1


def test_a_server_that_refuses_every_picture_is_told_to_be_wrongly_configured(server, workflow):
    """After five without an answer; never after one, since then some pictures alone are refused."""
    pictures, masks = make_scenes(14)
    server.refuses = lambda path, body: (400, b"unknown parameter: size")
    remover = open_remover("edits", server, workflow)
    for k in range(4):
        with pytest.raises(UnusableAnswer, match="unknown parameter"):
            remove(remover, pictures[k : k + 1], masks[k : k + 1], [k])
    for k in (4, 5):
        with pytest.raises(ServerUnavailable, match=r"refused all \d pictures .* option of 'edits'.*unknown parameter"):
            remove(remover, pictures[k : k + 1], masks[k : k + 1], [k])
    server.refuses = lambda path, body: None
    remove(remover, pictures[6:7], masks[6:7], [6])
    server.refuses = lambda path, body: (400, b"no")
    for k in range(7, 14):
        with pytest.raises(UnusableAnswer):
            remove(remover, pictures[k : k + 1], masks[k : k + 1], [k])


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n", b"HTTP/1.0 "], ids=["body", "head"]
)
def test_an_answer_that_drips_ends_with_the_time(head, server, workflow):
    """In its body and in its head, where each byte alone is in time."""
    server.slow = head + b"2" * 5000  # for eight minutes
    pictures, masks = make_scenes(1)
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match="gave no answer: TimeoutError"):
        remove(open_remover("edits", server, workflow, timeout_s=1.5), pictures, masks, [0])
    assert 1.4 < time.monotonic() - start < 240


def test_no_pause_outlasts_the_time_for_a_picture(server, workflow):
    """A server that asks for a day is not waited for; one that asks for a moment is."""
    pictures, masks = make_scenes(1)
    server.first_answers = [(503, {"Retry-After": "86400"}, b"busy")]
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match="status 503"):
        remove(open_remover("edits", server, workflow, timeout_s=30), pictures, masks, [0])
    assert time.monotonic() - start < 25
    server.first_answers = [(429, {"Retry-After": "0"}, b"busy")]
    remove(open_remover("edits", server, workflow, timeout_s=30), pictures, masks, [0])


@pytest.mark.parametrize("side", [1, 10, 31])
def test_an_answer_that_is_much_smaller_is_refused_and_not_enlarged(side, server, workflow):
    pictures, masks = make_scenes(1)
    server.size = (side, side)
    with pytest.raises(UnusableAnswer, match=rf"{side} x {side} px, less than half of the 64 x 64"):
        remove(open_remover("edits", server, workflow), pictures, masks, [0])
    server.size = (32, 32)
    remove(open_remover("edits", server, workflow), pictures, masks, [0])


@pytest.mark.parametrize("kind", ["edits", "comfyui"])
def test_a_hole_that_comes_back_unfilled_is_refused(kind, server, workflow):
    """Transparent, which would be composited over white, or grey as it was sent."""
    pictures, masks = make_scenes(1)
    server.write = lambda pixels: encode_png(
        np.dstack([pixels, np.where((pixels == 77).all(axis=2), 0, 255)]).astype(np.uint8)
    )
    with pytest.raises(UnusableAnswer, match="hole is not filled: 100% of it is transparent"):
        remove(open_remover(kind, server, workflow), pictures, masks, [0])
    server.write, server.fill = encode_png, 127
    with pytest.raises(UnusableAnswer, match="hole is not filled: it is as it was sent"):
        remove(open_remover(kind, server, workflow), pictures, masks, [0])


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (
            {"status": {"status_str": "error", "completed": False, "messages": FAILED}},
            "failed on .*: KSampler: no memory",
        ),
        ({"outputs": {"4": {"images": [{"filename": None, "type": "output"}]}}}, "saved no picture"),
        ({"outputs": {"4": {"images": None}, "5": []}}, "saved no picture"),
    ],
    ids=["a node that failed", "no name", "no list"],
)
def test_a_workflow_says_why_there_is_no_picture(entry, match, server, workflow):
    respond = server.respond

    def answer(path, body):
        return (
            json.dumps({path.rsplit("/", 1)[1]: entry}).encode() if path.startswith("/history") else respond(path, body)
        )

    server.respond = answer
    pictures, masks = make_scenes(1)
    with pytest.raises(UnusableAnswer, match=match):
        remove(open_remover("comfyui", server, workflow), pictures, masks, [0])
