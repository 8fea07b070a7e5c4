"""A local server with the Hub's interface, which counts the bytes it sends."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class LocalHub(ThreadingHTTPServer):
    """Serves folders as model repositories, as the Hub's addresses of files and listings do.

    `sent` counts body bytes by file. `revisions` are folders of other revisions than `main`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Path] = {}
        self.revisions: dict[str, Path] = {}  # by name/revision
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
        path = self.path.split("?")[0]
        listing = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?", path)
        match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/([\w./-]+)", path)
        asked = listing or match
        if asked is None or asked[1] not in self.server.repositories:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        folder, commit = self._revision(asked[1], asked[2] or "main")
        if folder is None:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if match is None:
            return self._list(asked[1], folder, commit)
        path_of_file = folder / match[3]
        if not path_of_file.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = path_of_file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            start, stop = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return self._send(206, headers, data[start:stop], match[3] if body else None)
        return self._send(200, headers, data, match[3] if body else None)

    def _revision(self, name: str, revision: str) -> tuple[Path | None, str]:
        """The folder of a revision, named by its branch or its commit, and its commit."""
        named = {"main": self.server.repositories[name]}
        for key, folder in self.server.revisions.items():
            if key.startswith(f"{name}/"):
                named[key.removeprefix(f"{name}/")] = folder
        commits = {hashlib.sha1(key.encode()).hexdigest(): key for key in named}
        branch = commits.get(revision, revision)
        return named.get(branch), hashlib.sha1(branch.encode()).hexdigest()

    def _list(self, name: str, folder: Path, commit: str) -> None:
        siblings = [
            {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        facts = {"id": name, "sha": commit, "siblings": siblings}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(facts).encode(), "listing")

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
