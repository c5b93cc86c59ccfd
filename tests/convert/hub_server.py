"""A local HTTP server that speaks as much of the Hugging Face hub's API as a download needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"


class Hub:
    """Repositories by id, what to do wrong, and what was asked.

    cut: bytes after which a file's first download is cut off, by file name.
    requests: method, path and Range header of every request.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.broken: set[str] = set()
        self.cut: dict[str, int] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.url = ""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            api = re.fullmatch(
                r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/?]+))?(?:/?\?.*)?", self.path
            )
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            match = api or file
            if match is None:
                return self.refuse(404, "NotFound")
            repository = match[1]
            revision = api[3] if api else match[2]
            if repository in hub.broken:
                return self.refuse(500, "Broken")
            if repository in hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.refuse(401, "RepoNotFound")
            if repository not in hub.repositories:
                return self.refuse(404, "RepoNotFound")
            if revision not in (None, "main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            if repository in hub.gated and file:
                return self.refuse(403, "GatedRepo")
            directory = hub.repositories[repository]
            if file:
                return self.send_file(directory / file[3])
            if api[2] == "tree":
                return self.send_json([entry(path) for path in sorted(directory.iterdir())])
            siblings = [{"rfilename": path.name} for path in sorted(directory.iterdir())]
            self.send_json({"id": repository, "sha": COMMIT, "siblings": siblings})

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_json(self, value):
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def send_file(self, path):
            if not path.is_file():
                return self.refuse(404, "EntryNotFound")
            content = path.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.end_headers()
            if self.command == "HEAD":
                return
            stop = len(content)
            if path.name in hub.cut:
                stop = hub.cut.pop(path.name)
                self.close_connection = True
            self.wfile.write(content[start:stop])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def entry(path: Path) -> dict:
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return {
        "type": "file",
        "oid": hashlib.sha1(header + content).hexdigest(),
        "size": len(content),
        "path": path.name,
    }
