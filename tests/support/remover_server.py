"""A server of both interfaces of removers behind HTTP, and a workflow for it."""

import base64
import io
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "{image}"}},
    "2": {"class_type": "LoadImageMask", "inputs": {"image": "{mask}", "channel": "red"}},
    "3": {"class_type": "Fill", "inputs": {"seed": "{seed}", "text": "{prompt}", "image": ["1", 0], "mask": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


class Server:
    """A server of both interfaces that fills the hole with one colour; its first answers can be set."""

    def __init__(self):
        self.requests, self.first_answers, self.pictures, self.prompts = [], [], {}, []
        self.fill, self.size, self.unfinished, self.fails = 77, None, 1, False
        self.refuses, self.slow = (lambda path, body: None), None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self, b"")

            def do_POST(self):
                outer.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def answer(self, handler, body):
        self.requests.append((handler.path, dict(handler.headers), body))
        status, headers, content = self.first_answers.pop(0) if self.first_answers else (200, {}, None)
        if refusal := self.refuses(handler.path, body):
            status, content = refusal
        if self.slow is not None:  # bytes of the answer that come one after the other
            self.drip(handler)
            return
        if status is None:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 50\r\n\r\ncut")
            return
        if content is None:
            content = self.respond(handler.path, body)
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def drip(self, handler):
        try:
            for byte in self.slow:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass  # whoever asked waits no longer

    def respond(self, path, body):
        if path == "/images/edits":
            picture = np.array(read_files(body)["mask.png"])
            filled = np.where(picture[..., 3:] == 0, self.fill, picture[..., :3]).astype(np.uint8)
            return json.dumps({"data": [{"b64_json": base64.b64encode(self.write(filled)).decode()}]}).encode()
        if path == "/upload/image":
            (name, picture), *_ = read_files(body).items()
            self.pictures[name] = np.array(picture)
            return json.dumps({"name": name, "subfolder": "", "type": "input"}).encode()
        if path == "/prompt":
            self.prompts.append(json.loads(body)["prompt"])
            return json.dumps({"prompt_id": f"p{len(self.prompts) - 1}"}).encode()
        if path.startswith("/history/"):
            if self.unfinished:
                self.unfinished -= 1
                return b"{}"
            number = path.rsplit("/", 1)[1]
            images = [] if self.fails else [{"filename": f"{number}.png", "subfolder": "", "type": "output"}]
            return json.dumps({number: {"outputs": {"4": {"images": images}}}}).encode()
        prompt = self.prompts[int(re.search(r"filename=p(\d+)", path)[1])]
        picture = self.pictures[prompt["1"]["inputs"]["image"]]
        hole = self.pictures[prompt["2"]["inputs"]["image"]][..., :1] > 127
        return self.write(np.where(hole, self.fill, picture).astype(np.uint8))

    def write(self, picture):
        out = io.BytesIO()
        image = Image.fromarray(picture)
        (image.resize(self.size) if self.size else image).save(out, "PNG")
        return out.getvalue()


def read_files(body):
    """Pictures of a form by their file names."""
    found = re.findall(rb'filename="([^"]+)"\r\nContent-Type: image/png\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
    return {name.decode(): Image.open(io.BytesIO(content)) for name, content in found}
