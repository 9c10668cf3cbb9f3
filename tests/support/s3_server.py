"""A local S3 server with one bucket, `rasura-test`."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from support.ports import find_free_ports


@contextlib.contextmanager
def serve_bucket() -> Iterator[dict[str, str]]:
    """A bucket of a local S3 server."""
    pytest.importorskip("moto.server")
    (port,) = find_free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(3000):
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=30).close()
            break
        except OSError:
            time.sleep(0.1)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    keys["AWS_ENDPOINT_URL"] = url
    os.environ.update(keys)
    import s3fs

    try:
        s3fs.S3FileSystem.clear_instance_cache()  # a client that was made for an earlier server
        s3fs.S3FileSystem().mkdir("rasura-test")
        yield keys
    finally:
        for key in keys:
            del os.environ[key]
        process.terminate()
        process.wait()
