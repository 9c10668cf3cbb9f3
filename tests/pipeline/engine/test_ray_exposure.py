"""A Ray on this machine is nobody else's: it listens to the machine alone, and answers whoever has its token."""

import json
import os
import subprocess
import sys

import pytest
from conftest import environment

pytestmark = pytest.mark.ray

LIST_LISTENERS = """
import json, os, subprocess, sys, psutil
from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.recipe.schema import EngineSettings
with cluster(EngineSettings(workers=1)):
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    driver = psutil.Process()
    listeners = [
        [process.name(), connection.laddr.ip]
        for process in [driver, *driver.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    address = ray.get_runtime_context().gcs_address
    join = f"import ray; ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR'); print('in')"
    keys = {"own": os.environ["RAY_AUTH_TOKEN"], "other": "0" * 64}
    def ask(token):
        env = {**os.environ, "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": ""}
        done = subprocess.run([sys.executable, "-c", join], env=env, capture_output=True, text=True, timeout=300)
        return done.stdout.strip()
    answers = {name: ask(token) for name, token in keys.items()}
print(json.dumps({"listeners": listeners, "answers": answers}))
"""


def test_it_listens_to_this_machine_and_wants_its_token() -> None:
    """Every socket of its servers and workers is bound to the loopback interface; a process without the random token
    cannot join, one with it can."""
    env = {name: value for name, value in environment().items() if not name.startswith("RAY_A")}
    done = subprocess.run(
        [sys.executable, "-c", LIST_LISTENERS], env=env, capture_output=True, text=True, timeout=900, cwd=os.sep
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    names = {name for name, _ in result["listeners"]}
    assert {"gcs_server", "raylet"} <= names
    assert {address.removeprefix("::ffff:") for _, address in result["listeners"]} <= {"127.0.0.1", "::1"}
    assert result["answers"] == {"own": "in", "other": ""}
