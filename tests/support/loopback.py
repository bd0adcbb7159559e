"""An HTTP server on loopback that behaves as badly as the addresses of datasets do."""

import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Loopback:
    """Serves `pages` under `/<behaviour>/<name>`, and remembers what was asked.

    Behaviours: `good` (with ranges), `plain` (ranges ignored, no version mark), `short` (promises
    ten bytes more than it sends), `break` (closes after `piece` bytes of every answer), `busy`
    (503 for the first two requests), `shift` (another version mark each time), `moved` (redirects
    to `good`), `liar` (206 with another start than was asked for), `unsized` (says no length).
    """

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.piece = 1000
        self.asked: list[tuple[str, str | None]] = []
        self.hits: Counter[str] = Counter()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def make_handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour, name = self.path.removeprefix("/").split("/", 1)
            asked = self.headers.get("Range")
            loopback.asked.append((self.path, asked))
            loopback.hits[self.path] += 1
            body = loopback.pages.get(name)
            if behaviour == "moved":
                self.send_head(302, ("Location", f"/good/{name}"), ("Content-Length", "0"))
            elif body is None:
                self.send_error(404)
            elif behaviour == "busy" and loopback.hits[self.path] <= 2:
                self.send_error(503)
            else:
                self.answer(behaviour, name, body, asked)

        def answer(self, behaviour: str, name: str, body: bytes, asked: str | None) -> None:
            mark = f'"{loopback.hits[self.path] if behaviour == "shift" else name}"'
            match = re.match(r"bytes=(\d+)-", asked or "")
            start = int(match[1]) if match else 0
            stale = self.headers.get("If-Range") not in (None, mark)
            if behaviour in ("plain", "short") or stale:
                start, asked = 0, None
            if asked and start >= len(body):
                nothing = ("Content-Range", f"bytes */{len(body)}"), ("Content-Length", "0")
                self.send_head(416, *nothing)
                return
            part, claimed = body[start:], start + (behaviour == "liar")
            headers = []
            if behaviour != "unsized":
                headers.append(("Content-Length", str(len(part) + 10 * (behaviour == "short"))))
            if asked:
                headers.append(("Content-Range", f"bytes {claimed}-{len(body) - 1}/{len(body)}"))
            if behaviour != "plain":
                headers.append(("ETag", mark))
            self.send_head(206 if asked else 200, *headers)
            whole = behaviour not in ("break", "liar") or (behaviour == "liar" and asked)
            self.wfile.write(part if whole else part[: loopback.piece])
            self.close_connection = True

        def send_head(self, status: int, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for header in headers:
                self.send_header(*header)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
