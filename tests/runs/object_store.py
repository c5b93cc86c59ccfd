"""A local fake of an object store's API: whole uploads, prefixes instead of folders, no rename.

Both ways to it are served from the same objects: fsspec's, by which `etils.epath` reads and writes,
and the JSON API over HTTP, by which tensorstore reads arrays.
"""

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
from fsspec.spec import AbstractFileSystem


class ObjectStore(AbstractFileSystem):
    """Objects by `bucket/name`; `uploads` counts them, and one of them can be made to fail."""

    protocol = ("gs", "gcs")
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    generations: ClassVar[dict[str, int]] = {}
    times: ClassVar[dict[str, float]] = {}
    uploads: ClassVar[list[str]] = []
    fails: ClassVar[int | None] = None

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = named(path)
        found: dict[str, dict[str, Any]] = {}
        for name, content in self.objects.items():
            if name == path:
                made = self.times.get(name, 0)
                found[name] = {"name": name, "size": len(content), "type": "file", "mtime": made}
            elif name.startswith(f"{path}/"):
                first, *rest = name[len(path) + 1 :].split("/")
                own = f"{path}/{first}"
                size = 0 if rest else len(content)
                kind = "directory" if rest else "file"
                found[own] = {"name": own, "size": size, "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return [found[name] if detail else name for name in sorted(found)]

    def listdir(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        return self.ls(path, detail)

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        path = named(path)
        if mode == "rb":
            if path not in self.objects:
                raise FileNotFoundError(path)
            return io.BytesIO(self.objects[path])
        assert mode == "wb", mode
        return Upload(path)

    def rm_file(self, path: str) -> None:
        self.objects.pop(named(path), None)

    def rmdir(self, path: str) -> None:
        """There are no folders."""

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        raise AssertionError(f"an object store cannot rename {path1} to {path2}")

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """There are no folders."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """There are no folders."""


def keep(name: str, content: bytes) -> int:
    """An object, and its generation."""
    ObjectStore.objects[name] = content
    ObjectStore.generations[name] = generation(name) + 1
    ObjectStore.times[name] = time.time()
    return generation(name)


def generation(name: str) -> int:
    """How often an object was written; 0 of one that is not there."""
    return ObjectStore.generations.get(name, 1) if name in ObjectStore.objects else 0


def named(path: str) -> str:
    """The bucket and the object's name."""
    return path.removeprefix("gs://").strip("/")


class Upload(io.BytesIO):
    """An object is there when its upload is closed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def close(self) -> None:
        if not self.closed:
            ObjectStore.uploads.append(self.name)
            if len(ObjectStore.uploads) == ObjectStore.fails:
                super().close()
                raise OSError(f"the upload of {self.name} was cut off")
            keep(self.name, self.getvalue())
        super().close()


class Handler(BaseHTTPRequestHandler):
    """What tensorstore calls of the JSON API: get, list, insert and delete of objects."""

    def asked(self) -> tuple[str, str, dict[str, str]]:
        """Bucket, object (empty where none is named), and parameters."""
        url = urlsplit(self.path)
        parts = url.path.removeprefix("/upload").strip("/").split("/")  # storage/v1/b/BUCKET/o/NAME
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        return parts[3], unquote("/".join(parts[5:])), query

    def refused(self, name: str, query: dict[str, str]) -> bool:
        """Whether an object has another generation than is asked for."""
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != generation(name):
            self.answer(412, b"{}")
            return True
        return False

    def do_GET(self) -> None:
        bucket, name, query = self.asked()
        if not name:
            self.list(bucket, query)
            return
        name = f"{bucket}/{name}"
        content = ObjectStore.objects.get(name)
        if content is None:
            self.answer(404, b"{}")
            return
        if self.refused(name, query):
            return
        known, asked = query.get("ifGenerationNotMatch"), self.headers.get("Range")
        if known is not None and int(known) == generation(name):
            self.answer(304, b"", of=name)
        elif asked is None:
            self.answer(200, content, of=name)
        else:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), int(last) + 1 if last else len(content)
            total = len(content)
            part = f"bytes {start}-{min(stop, total) - 1}/{total}"
            self.answer(206, content[start:stop], part, of=name)

    def list(self, bucket: str, query: dict[str, str]) -> None:
        start, end = query.get("startOffset", ""), query.get("endOffset")
        items = []
        for whole in sorted(ObjectStore.objects):
            own, _, name = whole.partition("/")
            inside = name >= start and (end is None or name < end)
            if own == bucket and inside and name.startswith(query.get("prefix", "")):
                size = len(ObjectStore.objects[whole])
                items.append(
                    {"name": name, "generation": str(generation(whole)), "size": str(size)}
                )
        self.answer(200, json.dumps({"items": items}).encode())

    def do_POST(self) -> None:
        bucket, _, query = self.asked()
        name = f"{bucket}/{query['name']}"
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused(name, query):
            return
        ObjectStore.uploads.append(name)
        made = keep(name, content)
        of = {"name": query["name"], "generation": str(made), "size": str(len(content))}
        self.answer(200, json.dumps(of).encode(), of=name)

    def do_DELETE(self) -> None:
        bucket, name, query = self.asked()
        name = f"{bucket}/{name}"
        if not self.refused(name, query):
            found = ObjectStore.objects.pop(name, None)
            self.answer(404 if found is None else 204, b"")

    def answer(self, code: int, content: bytes, part: str | None = None, *, of: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        if of:
            self.send_header("x-goog-generation", str(generation(of)))
        if part is not None:
            self.send_header("Content-Range", part)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def object_store() -> Iterator[type[ObjectStore]]:
    """An empty store at `gs://`."""
    fsspec.register_implementation("gcs", ObjectStore, clobber=True)
    ObjectStore.objects.clear()
    ObjectStore.generations.clear()
    ObjectStore.uploads.clear()
    ObjectStore.fails = None
    yield ObjectStore


@contextlib.contextmanager
def served() -> Iterator[None]:
    """tensorstore calls its JSON API, with a token that no one checks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    found = {"TENSORSTORE_GCS_HTTP_URL": address, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
    try:
        with patch.dict(os.environ, found):
            yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def put(folder: Path, bucket: str) -> None:
    """Copy a folder into a bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            name = f"{bucket}/{file.relative_to(folder).as_posix()}"
            keep(name, file.read_bytes())
