"""The files that put Rasura onto machines: a Dockerfile by the rules of linters, a RayJob by its published schema."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DATA, ROOT

from rasura.pipeline.recipe.load import load

jsonschema = pytest.importorskip("jsonschema")

DEPLOY = ROOT / "examples" / "deploy"
SCHEMA = json.loads((DATA / "deploy" / "rayjob_v1.json").read_text())["schema"]
PACKAGES = {path.name for path in (ROOT / "rasura").iterdir() if path.is_symlink() and path.is_dir()}


def read_dockerfile() -> list[tuple[str, str]]:
    """Read the instructions of the Dockerfile with their arguments, lines joined and comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def read_manifest() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text()))


def list_faults(job: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(job)]


def test_the_dockerfile_follows_the_rules_of_linters() -> None:
    """A fixed base, no rights at the end, lists of packages deleted in the layer that fetched them, no recommended
    packages, no cache of pip, a shell whose pipes fail, no ADD, no sudo, absolute working folders, an exec form."""
    instructions = read_dockerfile()
    names = [name for name, _ in instructions]
    assert set(names) <= {"ARG", "FROM", "SHELL", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
    base = next(rest for name, rest in instructions if name == "FROM")
    assert re.fullmatch(r"python:\$\{PYTHON\}-slim-\w+", base)
    assert "pipefail" in next(rest for name, rest in instructions if name == "SHELL")
    runs = [rest for name, rest in instructions if name == "RUN"]
    for run in runs:
        assert "sudo" not in run.split()
        assert ("apt-get install" in run) <= ("--no-install-recommends" in run and "rm -rf /var/lib/apt/lists" in run)
        assert run.count("pip install") == run.count("pip install --no-cache-dir")
    assert all(rest.startswith("/") for name, rest in instructions if name == "WORKDIR")
    user = [rest for name, rest in instructions if name == "USER"][-1]
    uid, gid = map(int, user.split(":"))
    assert uid >= 10_000  # a number: Kubernetes cannot tell that a name is not root
    assert gid == 0  # the group of a random user
    assert names[-1] == "CMD"
    assert isinstance(json.loads(instructions[-1][1]), list)
    environment = dict(entry.split("=", 1) for n, rest in instructions if n == "ENV" for entry in shlex.split(rest))
    assert environment["HOME"] == "/tmp"
    assert {"USER", "LOGNAME"} <= set(environment)


def test_the_image_has_the_package_and_no_more() -> None:
    """Each package of the checkout is copied, and what is copied is there and sent; versions are those of the
    constraints; dependencies come before the code, which changes more often."""
    instructions = read_dockerfile()
    copied = [name.rstrip("/") for name, rest in instructions if name == "COPY" for name in rest.split()[:-1]]
    assert set(copied) >= PACKAGES
    assert all((ROOT / name).exists() for name in copied)
    sent = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert set(sent) == set(copied)
    runs = [rest for name, rest in instructions if name == "RUN"]
    for run in runs:
        for command in re.findall(r"pip install[^&;]*", run):
            assert "--constraint constraints.txt" in command or "--no-deps" in command
    order = [rest for _, rest in instructions]
    assert order.index(next(rest for rest in order if "--requirement" in rest)) < order.index("stages stages")


def test_the_job_is_what_its_schema_says() -> None:
    """The RayJob has only fields that KubeRay's schema has, of their types; a misspelt, missing or mistyped one is a
    fault, so that the check can fail."""
    recipe, job = read_manifest()
    assert list_faults(job) == []
    assert job["spec"]["rayClusterSpec"]["rayVersion"] in (ROOT / "constraints.txt").read_text()
    mounted = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    assert mounted == recipe["metadata"]["name"]
    text = json.dumps(job)
    for before, after in (
        ('"entrypoint"', '"entryPoint"'),
        ('"shutdownAfterJobFinishes": true', '"shutdownAfterJobFinishes": "yes"'),
        ('"groupName"', '"group"'),
        ('"containerPort": 6379', '"containerPort": "6379"'),
        ('"runAsNonRoot"', '"runAsNonroot"'),
        ('"mode": "token"', '"mode": "tokens"'),
    ):
        assert before in text
        assert list_faults(json.loads(text.replace(before, after, 1))) != [], before


def test_the_job_runs_a_recipe_without_rights(tmp_path: Path) -> None:
    """The recipe in it can be read; its pods run as no root, without further rights, with memory that is bounded; the
    cluster asks for a token."""
    recipe, job = read_manifest()
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert {"cpu", "memory"} <= set(resources["limits"])
    file = tmp_path / "mine.yaml"
    file.write_text(recipe["data"]["mine.yaml"])
    assert load(file)[0].name == "mine"
    assert job["spec"]["entrypoint"].startswith("rasura run /work/recipe/mine.yaml --into s3://")
