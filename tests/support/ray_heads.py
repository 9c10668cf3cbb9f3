"""Ray heads that tests start: waiting until one takes jobs."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))


def wait_for_jobs(address: str, env: Mapping[str, str], limit_s: float = 300) -> None:
    """Wait until a head takes jobs: its dashboard answers before the agent that starts them is there.

    Raises:
        TimeoutError: no job ended well within the limit.
    """
    deadline = time.monotonic() + limit_s
    command = [RAY, "job", "submit", "--address", address, "--", "true"]
    while subprocess.run(command, env=dict(env), capture_output=True, timeout=limit_s).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the Ray head at {address} took no job in {limit_s:g} s")
        time.sleep(0.3)
