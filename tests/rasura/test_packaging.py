"""One import package: the wheel holds `rasura/` alone, and a user's own folders with the names of ours do no harm."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import DATA, ROOT

FOLDERS = ("annotator", "discriminator", "manifests", "networks", "pipeline", "recipes", "removers", "stages")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("checkout")
    for folder in (*FOLDERS, "rasura"):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, copy]
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=1200)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_rasura_and_nothing_else(wheel: Path) -> None:
    """Everything lies below `rasura/`: each module of the checkout, the type marker, page, report template, recipes."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"rasura"}
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".html", ".js", ".css", ".svg", ".yaml"):
                assert f"rasura/{file.relative_to(ROOT)}" in names
    assert {"rasura/py.typed", "rasura/__init__.py", "rasura/__main__.py"} <= names


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked in a folder of its own it answers, explains a stage, and finds its report template and page."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    code = (
        "import rasura, rasura.annotator.server.review as review, rasura.pipeline.report.html as html, pathlib\n"
        "home = pathlib.Path(rasura.__file__).parent\n"
        "assert (review.PAGE / 'index.html').is_file() and home in review.PAGE.parents, review.PAGE\n"
        "assert (html.PAGE / 'page.html').is_file() and home in html.PAGE.parents, html.PAGE\n"
        "print(home)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.strip() == str(tmp_path / "site" / "rasura"), done.stderr
    explained = subprocess.run(
        [sys.executable, "-m", "rasura", "stages", "effects"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert "foreground_mask" in explained.stdout


@pytest.mark.ray
@pytest.mark.parametrize("place", ["working folder", "PYTHONPATH"])
def test_packages_of_a_users_own_do_no_harm(tmp_path: Path, place: str) -> None:
    """With packages called pipeline, stages, manifests, models … that raise when they are imported, and files in the
    working folder by the names of libraries, a recipe runs with the console command, workers included, and finds a
    stage of one's own in the working folder."""
    home = tmp_path if place == "working folder" else tmp_path / "elsewhere"
    for name in (*FOLDERS, "models", "utils"):
        (home / name).mkdir(parents=True)
        (home / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    for name in ("cv2", "fsspec", "numpy", "pyarrow", "pydantic", "yaml"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the working folder was imported')\n")
    shutil.copy(ROOT / "examples" / "sharpness.py", tmp_path)
    shutil.copytree(DATA / "pictures" / "photos", tmp_path / "photos")
    flows = "{photos: {source: {photos: {path: photos}}, stages: [sharpness:Sharpness]}}"
    (tmp_path / "sharp.yaml").write_text(f"name: sharp\nflows: {flows}\nengine: {{workers: 1}}\n")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(home)] * (place == "PYTHONPATH") + [str(ROOT)])
    command = Path(sys.executable).with_name("rasura")
    if not command.exists():
        pytest.skip("the console command is not installed")
    done = subprocess.run(
        [str(command), "run", "sharp.yaml"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    count = len(list((tmp_path / "photos").iterdir()))
    assert f"photos: {count} rows" in done.stdout
