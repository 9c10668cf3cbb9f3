"""Finding and opening networks' files: paths, the hub (a small one of our own), and what is refused."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from rasura.networks.pretrained import open_transformers
from rasura.networks.weights import (
    BadWeights,
    check_names,
    find_single,
    list_files,
    list_model_files,
    load_state,
    read_tensors,
    resolve,
)
from rasura.pipeline.recipe.specs import file_sha256

pytestmark = pytest.mark.torch

COMMIT = "0123456789" * 4
SERVED = {
    "config.json": b'{"model_type": "x"}',
    "model.safetensors": b"tensors",
    "pytorch_model.bin": b"a pickle",
    "nets/small.onnx": b"graph",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The hub's answers for one model at one commit."""

    asked: list[str] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        self.asked.append(path)
        headers, body = {}, None
        if path == f"/api/models/org/name/tree/{COMMIT}":
            rows = [{"type": "file", "path": n, "size": len(b), "oid": etag(b)} for n, b in SERVED.items()]
            body, headers = json.dumps(rows).encode(), {"Content-Type": "application/json"}
        elif path == f"/api/models/org/name/revision/{COMMIT}":
            listing = [{"rfilename": name} for name in SERVED]
            body, headers = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": listing}).encode(), {}
        elif (name := path.removeprefix(f"/org/name/resolve/{COMMIT}/")) in SERVED:
            body, headers = SERVED[name], {"ETag": f'"{etag(SERVED[name])}"', "X-Repo-Commit": COMMIT}
        self.send_response(404 if body is None else 200)
        for key, value in {**headers, "Content-Length": str(len(body or b""))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)

    do_HEAD = do_GET


def etag(data):
    return hashlib.sha1(data).hexdigest()


@pytest.fixture(scope="module")
def hub():
    """Address of a hub that has `org/name`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def in_process(code, **env):
    """What a fresh interpreter prints: the hub's library reads its settings when it is imported."""
    program = f"import json\nfrom rasura.networks.weights import *\n{code}"
    whole = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", **env}
    done = subprocess.run([sys.executable, "-c", program], env=whole, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_a_model_of_the_hub_is_fetched_once_and_then_found_without_it(hub, tmp_path):
    """At a pinned commit the safe files (no pickle) and single files are fetched; offline they are still there.

    What is not there offline is one line that says why and what to do.
    """
    code = f"""
print(json.dumps({{k: str(v) for k, v in list_files("net", "org/name", "{COMMIT}").items()}}))
print(resolve("org/name/nets/small.onnx", "{COMMIT}"))
for name in ("org/name/missing.onnx", "org/nothing"):
    try:
        print(resolve(name, "{COMMIT}"))
    except BadWeights as error:
        print(error)
"""
    first = in_process(code, HF_ENDPOINT=hub, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0")
    asked = len(Hub.asked)
    second = in_process(code, HF_ENDPOINT=hub, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert len(Hub.asked) == asked
    for lines in (first, second):
        files = json.loads(lines[0])
        assert set(files) == {"net/config.json", "net/model.safetensors"}
        assert Path(files["net/model.safetensors"]).read_bytes() == SERVED["model.safetensors"]
        assert Path(lines[1]).read_bytes() == b"graph"
        assert "missing.onnx" in lines[2]
        assert f"org/nothing at {COMMIT}" in lines[3]
        assert len(lines) == 4
    assert "HF_HUB_OFFLINE is set" in second[3]
    assert f"`hf download org/nothing --revision {COMMIT}`" in second[3]
    assert "404" in first[3]


def test_names_that_are_no_place_are_told(tmp_path):
    """A missing file, a hub name without its commit, a branch for a commit, a name that no hub has."""
    with pytest.raises(BadWeights, match=r"no file or folder 'a/b/c.onnx'$"):
        resolve("a/b/c.onnx")
    with pytest.raises(BadWeights, match="no file or folder 'org/name'; if it is a model of the hub, give its commit"):
        resolve("org/name")
    with pytest.raises(BadWeights, match="no commit"):
        resolve("org/name", "main")
    with pytest.raises(BadWeights, match="no model of the hub"):
        resolve("name", COMMIT)
    assert list_files("net", tmp_path / "no.onnx") == {"net": tmp_path / "no.onnx"}


def test_a_file_is_one_entry_and_a_folder_one_a_file(tmp_path):
    """What a row records of a folder are the files that are opened, each with the sha256 that the file has."""
    (tmp_path / "a.onnx").write_bytes(b"a")
    assert list_files("net", tmp_path / "a.onnx") == {"net": tmp_path / "a.onnx"}
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in SERVED.items():
        if "/" not in name:
            (folder / name).write_bytes(data)
    (folder / "README.md").write_text("hello")
    files = list_files("net", folder)
    assert list(files) == ["net/config.json", "net/model.safetensors"]
    sums = [file_sha256(path) for path in files.values()]
    assert sums == [hashlib.sha256(SERVED[name]).hexdigest() for name in ("config.json", "model.safetensors")]


def test_a_folder_with_a_pickle_alone_is_refused(tmp_path):
    """There have to be safetensors; the error names the pickle. Where one file is wanted, two are a question."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadWeights, match=r"only pickles \(pytorch_model.bin\)"):
        list_model_files(tmp_path)
    assert find_single(tmp_path).name == "pytorch_model.bin"
    (tmp_path / "b.pth").write_bytes(b"")
    with pytest.raises(BadWeights, match=r"one file of weights .* has b.pth, pytorch_model.bin"):
        find_single(tmp_path)


def test_tensors_are_read_from_safetensors_and_from_pickles_of_tensors(tmp_path):
    """Both give the same table; a checkpoint's `model` or `state_dict` is opened."""
    table = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(table, tmp_path / "t.safetensors")
    torch.save(table, tmp_path / "t.pth")
    torch.save({"model": table, "epoch": 3}, tmp_path / "m.pth")
    torch.save({"state_dict": table}, tmp_path / "s.ckpt")
    for name in ("t.safetensors", "t.pth", "m.pth", "s.ckpt"):
        tensors = read_tensors(tmp_path / name)
        assert set(tensors) == {"a", "b"}
        assert all(torch.equal(tensors[key], value) for key, value in table.items())


class Running:
    """A pickle of this makes a file when it is opened carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_could_run_code_is_refused_and_does_not_run(tmp_path):
    """The error is one line with the file and what it asked for; nothing was executed."""
    mark = tmp_path / "ran"
    torch.save({"model": Running(mark)}, tmp_path / "evil.pth")
    with pytest.raises(BadWeights, match=r"evil.pth' is a pickle that holds more than tensors \(posix.mkdir\)") as told:
        read_tensors(tmp_path / "evil.pth")
    assert "\n" not in str(told.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [("empty.pth", b""), ("noise.pth", b"nonsense" * 9), ("cut.pth", b"PK\x03\x04"), ("noise.safetensors", b"x" * 40)],
    ids=["empty", "noise", "cut", "noise in safetensors"],
)
def test_files_that_are_no_weights_are_told_in_one_line(tmp_path, name, data):
    """Empty, random and truncated files of either kind."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadWeights, match=name) as told:
        read_tensors(tmp_path / name)
    assert "\n" not in str(told.value)


def test_a_table_of_other_things_is_no_weights(tmp_path):
    """Numbers instead of tensors."""
    torch.save({"a": 1}, tmp_path / "n.pth")
    with pytest.raises(BadWeights, match="holds no table of tensors"):
        read_tensors(tmp_path / "n.pth")


def test_a_module_takes_only_tensors_that_fit(tmp_path):
    """Missing, spare and misshapen tensors are told by name; names said to be spare pass."""
    linear = torch.nn.Linear(2, 3)
    fine = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    path = tmp_path / "w.pth"
    assert load_state(linear, fine, path)(torch.ones(1, 2)).tolist() == [[2.0, 2.0, 2.0]]
    with pytest.raises(BadWeights, match="is not a Linear: it lacks 'bias' and has, unused, 'other'"):
        load_state(linear, {"weight": fine["weight"], "other": torch.ones(1)}, path)
    load_state(linear, {**fine, "other.x": torch.ones(1)}, path, spare=["other."])
    with pytest.raises(BadWeights, match="does not fit Linear: size mismatch for weight"):
        load_state(linear, {**fine, "weight": torch.ones(3, 5)}, path)
    check_names(path, "X", [], [])


def test_a_transformers_model_of_another_kind_is_refused(tmp_path):
    """The folder's model_type is compared before anything is opened; lacking tensors are told by name."""
    from transformers import SamVisionConfig, SamVisionModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "mlp_dim": 16}
    more = {"output_channels": 8, "global_attn_indexes": [0], "window_size": 2, "patch_size": 8}
    config = SamVisionConfig(**sizes, **more)
    SamVisionModel(config).save_pretrained(tmp_path)
    assert open_transformers(SamVisionModel, tmp_path, ["sam_vision_model"]).config.hidden_size == 16
    with pytest.raises(BadWeights, match="holds a 'sam_vision_model', SamVisionModel needs a 'sam2'"):
        open_transformers(SamVisionModel, tmp_path, ["sam2"])
    state = read_tensors(tmp_path / "model.safetensors")
    name = next(key for key in state if key.endswith("neck.conv1.weight"))
    save_file({key: value for key, value in state.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(BadWeights, match=r"is not a SamVisionModel: it lacks .*neck.conv1.weight"):
        open_transformers(SamVisionModel, tmp_path, ["sam_vision_model"])
    with pytest.raises(BadWeights, match=r"no config.json"):
        open_transformers(SamVisionModel, tmp_path.parent, ["sam_vision_model"])


def test_a_pickle_is_converted_or_refused_as_a_whole(tmp_path):
    """Its tensors are written as safetensors to the bit; one that could run code, or a file that is there already, is
    refused, and nothing is left behind."""
    import torch
    from safetensors.torch import load_file

    from rasura.networks.weights import BadWeights, convert_pickle

    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones(2, dtype=torch.float16)}
    tensors["same"] = tensors["b"]
    torch.save({"state_dict": tensors}, tmp_path / "model.bin")
    assert convert_pickle(tmp_path / "model.bin", tmp_path / "new" / "model.safetensors") == 3
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in written.items())
    torch.save({"a": print}, tmp_path / "code.bin")
    with pytest.raises(BadWeights, match="could run code"):
        convert_pickle(tmp_path / "code.bin", tmp_path / "code.safetensors")
    with pytest.raises(BadWeights, match="is there already"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "new" / "model.safetensors")
    with pytest.raises(BadWeights, match=r"should end in \.safetensors"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "model.out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code.bin", "model.bin", "new"]
