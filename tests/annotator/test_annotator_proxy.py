"""The review behind nginx, with the configuration that docs/reviewing.md shows."""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import ROOT
from support.annotator.runs import make_run
from support.annotator.server import nonce, serving
from support.ports import find_free_ports

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
FRAME = """daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
{server}
}}
"""


def read_example() -> str:
    """The configuration in the documentation."""
    match = re.search(r"```nginx\n(.*?)```", (ROOT / "docs" / "reviewing.md").read_text(), re.DOTALL)
    assert match
    return match[1]


@contextmanager
def proxy(folder: Path, server: str, port: int) -> Iterator[None]:
    """Run nginx with a configuration of one server."""
    folder.mkdir()
    make_key = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "pem")]
    subprocess.run([*make_key.split(), *files], check=True, capture_output=True)
    for path in (folder.parent, folder):
        path.chmod(0o755)
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder, server=server))
    with subprocess.Popen([str(NGINX), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None, process.stderr.read() if process.stderr else ""
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize("names_host", [True, False])
def test_the_example_works(tmp_path: Path, names_host: bool) -> None:
    """Signing in, the next item, its picture and a vote pass nginx over https, as the documentation configures it, and
    where it names its own host instead of the reviewers'; a page of another origin is refused."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("no nginx here (tests/support/annotator/setup.sh installs it)")
    (port,) = find_free_ports(1)
    url = f"https://localhost:{port}"
    with serving(
        make_run(tmp_path / "run", 3).store,
        tmp_path / "r.sqlite",
        public_url=url,
        hosts=("127.0.0.1", "localhost"),
    ) as served:
        server = read_example().replace("443", str(port)).replace("http://127.0.0.1:8765", served.url)
        server = server.replace("/etc/ssl/review.pem", f"{tmp_path}/nginx/pem")
        server = server.replace("/etc/ssl/review.key", f"{tmp_path}/nginx/key").replace("review.example", "localhost")
        if not names_host:
            server = re.sub(r".*proxy_set_header Host.*\n", "", server)
        with proxy(tmp_path / "nginx", server, port):
            trust = ssl.create_default_context(cafile=str(tmp_path / "nginx" / "pem"))
            with httpx.Client(base_url=url, headers={"origin": url}, verify=trust, timeout=120) as client:
                answer = client.post("/api/login", json={"token": served.token("Ann")})
                assert answer.status_code == 200, answer.text
                assert "secure" in answer.headers["set-cookie"].lower()
                (item,) = client.post("/api/next", json={"want": 1}).json()["items"]
                assert client.get(f"/api/pictures/{item['id']}/result").status_code == 200
                body = {"item": item["id"], "nonce": nonce(), "verdict": "yes"}
                assert (
                    client.post("/api/votes", json=body, headers={"origin": "https://evil.example"}).status_code == 403
                )
                assert client.post("/api/votes", json=body).status_code == 200
                assert client.get("/").headers["content-security-policy"]
