"""An OpenAI-compatible server for tests of judges."""

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


class VlmServer:
    """An OpenAI-compatible server that scores a picture by the brightness of its last panel.

    Before that, each question meets the troubles in turn: a status, garbage, an answer without a score, silence.

    Args:
        port: 0 is any that is free.
        limit: questions that it answers before it is away (503); None is without end.
        dark: status or answer for candidates whose last panel is darker than 30, whenever they are asked.
    """

    def __init__(self, troubles=(), port=0, limit=None, dark=None):
        self.troubles, self.asked, self.requests, self.keys = troubles, Counter(), [], []
        self.limit, self.dark, self.answered = limit, dark, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.keys.append(self.headers.get("Authorization"))
                count = outer.asked[body]
                outer.asked[body] += 1
                outer.requests.append(json.loads(body))
                trouble = outer.troubles[count] if count < len(outer.troubles) else None
                if outer.dark and outer.measure_brightness(json.loads(body)) < 30:
                    trouble = outer.dark
                if outer.limit is not None and outer.answered >= outer.limit:
                    trouble = 503
                outer.answered += trouble is None
                status, answer = 200, outer.answer(json.loads(body))
                if isinstance(trouble, int):
                    status, answer = trouble, b"too bad"
                elif trouble:
                    answer = trouble
                try:
                    self.send_response(status)
                    self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    def measure_brightness(self, request):
        picture = self.picture(request)
        return float(picture[:, -picture.shape[0] :].mean())

    def answer(self, request):
        score = round(self.measure_brightness(request) / 2.55)
        content = f'Here you are: {{"score": {score}, "reason": "good"}}'
        return json.dumps({"choices": [{"message": {"content": content}}]}).encode()

    @staticmethod
    def picture(request):
        url = request["messages"][0]["content"][1]["image_url"]["url"]
        png = np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8)
        return cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
