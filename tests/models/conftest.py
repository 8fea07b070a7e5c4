"""A local server with the Hub's interface, which counts the bytes it sends."""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class LocalHub(ThreadingHTTPServer):
    """Serves folders as model repositories, as the Hub's `resolve` addresses do.

    `sent` counts body bytes by file.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Path] = {}
        self.sent: Counter[str] = Counter()
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/\w+/([\w./-]+)", self.path.split("?")[0])
        folder = self.server.repositories.get(match[1]) if match else None
        if match is None or folder is None:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        path = folder / match[2]
        if not path.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "1" * 40})
        data = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": "1" * 40,
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            start, stop = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return self._send(206, headers, data[start:stop], match[2] if body else None)
        return self._send(200, headers, data, match[2] if body else None)

    def _send(
        self, code: int, headers: dict[str, str], data: bytes = b"", counted: str | None = None
    ) -> None:
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if counted is not None:
            self.wfile.write(data)
            self.server.sent[counted] += len(data)


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    hub = LocalHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()
