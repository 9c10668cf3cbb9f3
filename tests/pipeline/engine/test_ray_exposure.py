"""A Ray on this machine is nobody else's: it listens to the machine alone, and answers whoever has its token."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import environment

pytestmark = pytest.mark.ray

JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR'); print('in')"
START = """
import json, os, signal, subprocess, sys, psutil
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
"""
LIST_LISTENERS = f"""{START}
    address = ray.get_runtime_context().gcs_address
    keys = {{"own": os.environ["RAY_AUTH_TOKEN"], "other": "0" * 64}}
    def ask(token):
        env = {{**os.environ, "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": ""}}
        command = [sys.executable, "-c", {JOIN!r}, address]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        return done.stdout.strip()
    answers = {{name: ask(token) for name, token in keys.items()}}
    programs = [os.path.basename(part) for child in driver.children(recursive=True) for part in child.cmdline()]
print(json.dumps({{"listeners": listeners, "answers": answers, "programs": programs}}))
"""
IMPORTED_BEFORE = f"""
import ray
{START}
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    facts = {{"listeners": listeners, "wants token": is_token_auth_enabled(), "token": os.environ["RAY_AUTH_TOKEN"]}}
    print(json.dumps(facts), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
"""
AFTERWARDS = f"""
import builtins, os
before = dict(os.environ), builtins.print
{START}
    from ray._private.worker import print_to_stdstream
    def print_notice():
        print_to_stdstream({{"lines": ["a notice"], "pid": "raylet", "is_err": False}}, ignore_prefix=False)
    def shut_down(shut_down=ray.shutdown):
        print_notice()
        shut_down()
    print_notice()
    ray.shutdown = shut_down
of_ray = {{"PYTHONBREAKPOINT", "RAY_CLIENT_MODE"}}
changed = {{name for name, _ in before[0].items() ^ os.environ.items()}} - of_ray
ray.init("local", log_to_driver=False, logging_level="ERROR", include_dashboard=False)
address = ray.get_runtime_context().gcs_address
done = subprocess.run([sys.executable, "-c", {JOIN!r}, address], capture_output=True, text=True, timeout=300)
print(json.dumps({{"changed": [*changed], "print": print is before[1], "answer": done.stdout.strip()}}))
"""


def start(script: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in environment().items() if not name.startswith("RAY_A")}
    return subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=900, cwd=os.sep
    )


def check_listeners(listeners: "list[list[str]]") -> None:
    assert {"gcs_server", "raylet"} <= {name for name, _ in listeners}
    assert {address.removeprefix("::ffff:") for _, address in listeners} <= {"127.0.0.1", "::1"}


def test_it_listens_to_this_machine_and_wants_its_token() -> None:
    """Every socket of its servers and workers is bound to the loopback interface; a process without the random token
    cannot join, one with it can. No autoscaler, log reader or dashboard is started."""
    done = start(LIST_LISTENERS)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    check_listeners(result["listeners"])
    assert result["answers"] == {"own": "in", "other": ""}
    assert "gcs_server" in result["programs"]
    assert not {"monitor.py", "log_monitor.py", "dashboard.py"} & set(result["programs"])


def test_a_ray_that_was_imported_before_is_no_more_open() -> None:
    """Ray reads its settings at import: a program that imported it first gets a Ray of the same kind. Ended by SIGTERM,
    such a program ends in order, without a stack, though it has no handler of its own."""
    done = start(IMPORTED_BEFORE)
    result = json.loads(done.stdout.splitlines()[-1])
    check_listeners(result["listeners"])
    assert result["wants token"]
    assert len(result["token"]) == 64
    assert (done.returncode, "SIGTERM" in done.stderr) == (128 + signal.SIGTERM, False), done.stderr


def test_the_process_has_its_environment_back() -> None:
    """A program that has built a dataset starts a Ray of its own afterwards, which others join as they would. Ray's
    notices, which come until it has ended, are not in its output."""
    done = start(AFTERWARDS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"changed": [], "print": True, "answer": "in"}
