"""A local fake of an object store's API: whole uploads, prefixes instead of folders, no rename.

Both ways to it are served from the same objects: fsspec's, by which `etils.epath` reads and writes,
and the JSON API over HTTP, by which tensorstore reads arrays.
"""

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
from fsspec.spec import AbstractFileSystem


class ObjectStore(AbstractFileSystem):
    """Objects by `bucket/name`; `uploads` counts them, and one of them can be made to fail."""

    protocol = ("gs", "gcs")
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    uploads: ClassVar[list[str]] = []
    fails: ClassVar[int | None] = None

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = named(path)
        found: dict[str, dict[str, Any]] = {}
        for name, content in self.objects.items():
            if name == path:
                found[name] = {"name": name, "size": len(content), "type": "file"}
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
            ObjectStore.objects[self.name] = self.getvalue()
        super().close()


class Handler(BaseHTTPRequestHandler):
    """`objects.get` with `alt=media`, and `objects.list`, of the JSON API."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")  # storage, v1, b, BUCKET, o, OBJECT
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        bucket = parts[3]
        if len(parts) == 5:
            prefix = f"{bucket}/{query.get('prefix', '')}"
            names = [name for name in ObjectStore.objects if name.startswith(prefix)]
            items = [{"name": name[len(bucket) + 1 :], "generation": "1"} for name in names]
            self.answer(200, json.dumps({"items": items}).encode())
            return
        content = ObjectStore.objects.get(f"{bucket}/{unquote('/'.join(parts[5:]))}")
        if content is None:
            self.answer(404, b"{}")
            return
        asked = self.headers.get("Range")
        if asked is None:
            self.answer(200, content)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), int(last) + 1 if last else len(content)
        total = len(content)
        self.answer(206, content[start:stop], f"bytes {start}-{min(stop, total) - 1}/{total}")

    def answer(self, code: int, content: bytes, part: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-goog-generation", "1")
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
    ObjectStore.uploads.clear()
    ObjectStore.fails = None
    yield ObjectStore


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of its JSON API."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def put(folder: Path, bucket: str) -> None:
    """Copy a folder into a bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            name = f"{bucket}/{file.relative_to(folder).as_posix()}"
            ObjectStore.objects[name] = file.read_bytes()
