"""A server on this machine that answers as the Hugging Face hub does, to the hub's real client, with faults on request.

It knows the few requests that a download takes: a repository's information at a revision, the headers of a file, the
file itself, and a search for names. Large files are redirected to another address with an entity tag of their own, as
files in Git LFS are.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

IN_LFS = (".safetensors", ".parquet", ".bin")


@dataclass
class StoredRepository:
    """A repository: files by commit, and commits by branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    token: str | None = None
    """The token that it asks for, if it is private."""
    gated: bool = False
    claimed: dict[str, int] = field(default_factory=dict)
    """Sizes that the hub names for files, if they are not the true ones."""

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch, and return it."""
        commit = hashlib.sha1(repr([len(self.commits), sorted(files)]).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


class HubServer:
    """The server, what it holds, and what it does wrong."""

    def __init__(self) -> None:
        self.repositories: dict[str, StoredRepository] = {}
        """By ``models/owner/name`` or ``datasets/owner/name``."""
        self.refusals: list[int] = []
        """HTTP statuses with which the next requests are answered."""
        self.refuses: int | None = None
        """The status with which all requests are answered."""
        self.break_off: Counter[str] = Counter()
        """How often each file's download breaks off in the middle from now on."""
        self.requests: list[str] = []
        """Method and path of each request."""
        self.resumed_at: list[int] = []
        """Where in a file each request began that asked for the rest of it."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, kind: str, name: str, files: Mapping[str, bytes]) -> StoredRepository:
        repository = self.repositories[f"{kind}/{name}"] = StoredRepository()
        repository.push(files)
        return repository

    def downloads(self) -> list[str]:
        """The names of the files that were asked for with GET, in order."""
        return [request.rpartition("/")[2] for request in self.requests if request.startswith("GET /cdn/")] + [
            request.partition("/resolve/")[2].partition("/")[2]
            for request in self.requests
            if request.startswith("GET") and "/resolve/" in request and not request.endswith(IN_LFS)
        ]

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process that uses this hub and a cache in ``home``."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return plain | {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | more

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path).lstrip("/")
            hub.requests.append(f"{self.command} /{path}")
            if hub.refuses or hub.refusals:
                status = hub.refuses or hub.refusals.pop(0)
                self._send(status, b"{}", {"Retry-After": "0"})
            elif path in ("api/models", "api/datasets"):
                words = parse_qs(url.query).get("search", [""])[0]
                kind = path.removeprefix("api/")
                names = [key.removeprefix(f"{kind}/") for key in hub.repositories if key.startswith(kind)]
                self._json([{"id": name} for name in names if any(word in name for word in words.split("-"))])
            elif path.startswith("api/"):
                self._information(path.removeprefix("api/"))
            elif path.startswith("cdn/"):
                _, kind, owner, name, commit, file = path.split("/", 5)
                self._content(hub.repositories[f"{kind}/{owner}/{name}"].commits[commit][file], file, {})
            else:
                self._file(path)

        def _information(self, path: str) -> None:
            kind, owner, name, *rest = path.split("/", 4)
            revision = rest[1] if rest else "main"
            found = self._allowed(f"{kind}/{owner}/{name}")
            if found is None:
                return
            commit = found.branches.get(revision, revision)
            if commit not in found.commits:
                self._error(404, "RevisionNotFound")
                return
            files = found.commits[commit]
            self._json(
                {
                    "id": f"{owner}/{name}",
                    "sha": commit,
                    "private": found.token is not None,
                    "gated": "manual" if found.gated else False,
                    "disabled": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "cardData": found.card,
                    "siblings": [
                        {"rfilename": name, "size": found.claimed.get(name, len(content))}
                        for name, content in files.items()
                    ],
                }
            )

        def _file(self, path: str) -> None:
            kind = "datasets" if path.startswith("datasets/") else "models"
            owner, name, _resolve, rest = path.removeprefix("datasets/").split("/", 3)
            found = self._allowed(f"{kind}/{owner}/{name}", content=True)
            if found is None:
                return
            revision = next((known for known in found.branches if rest.startswith(f"{known}/")), rest.split("/")[0])
            file = rest.removeprefix(f"{revision}/")
            commit = found.branches.get(revision, revision)
            if file not in found.commits.get(commit, {}):
                self._error(404, "EntryNotFound")
                return
            content = found.commits[commit][file]
            tag = hashlib.sha256(content).hexdigest()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{tag[:40]}"'}
            if file.endswith(IN_LFS):
                headers |= {
                    "X-Linked-ETag": f'"{tag}"',
                    "X-Linked-Size": str(len(content)),
                    "Location": f"{hub.url}/cdn/{kind}/{owner}/{name}/{commit}/{file}",
                }
                self._send(302, b"", headers)
            else:
                self._content(content, file, headers)

        def _content(self, content: bytes, file: str, headers: Mapping[str, str]) -> None:
            begin, status = 0, 200
            if asked := self.headers.get("Range"):
                begin, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
                hub.resumed_at.append(begin)
                headers = {**headers, "Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
            breaks_off = self.command == "GET" and hub.break_off[file] > 0
            hub.break_off[file] -= breaks_off
            self._send(status, content[begin:], headers, breaks_off=breaks_off)

        def _allowed(self, key: str, *, content: bool = False) -> StoredRepository | None:
            """Return the repository, or answer that it is not there, as the hub does for a private one, too."""
            found = hub.repositories.get(key)
            has_token = found is not None and self.headers.get("Authorization") == f"Bearer {found.token}"
            if found is None or (found.token is not None and not has_token):
                self._error(401, "RepoNotFound")
                return None
            if found.gated and content:
                self._error(403, "GatedRepo")
                return None
            return found

        def _json(self, content: object) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _error(self, status: int, code: str) -> None:
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

        def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, breaks_off: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if breaks_off else body)
            if breaks_off:
                self.close_connection = True

    return Handler
