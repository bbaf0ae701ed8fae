"""Bare repositories behind git's own HTTP server; whoever has the token may write."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self


TOKEN = "the-jobs-token"


def run_git(folder: Path, *arguments: str) -> str:
    """What git prints in this folder."""
    ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True)
    return ran.stdout.decode().strip()


class GitServer:
    """Use it with `with`. `url` is that of the forge, `repository` the folder of `name`.

    `seen` has the method and path of every request, `before_push` is called before each push.
    """

    def __init__(self, folder: Path, name: str, token: str) -> None:
        self.folder, self.repository = folder, folder / f"{name}.git"
        self.token = token
        self.seen: list[str] = []
        self.before_push: Callable[[], None] = lambda: None
        self.repository.mkdir(parents=True)
        run_git(self.repository, "init", "--quiet", "--bare")
        run_git(self.repository, "config", "http.receivepack", "true")
        run_git(self.repository, "config", "uploadpack.allowFilter", "true")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def branch(self, name: str) -> list[str]:
        """The paths of the branch's files; none if there is no such branch."""
        if name not in run_git(self.repository, "branch", "--list", name):
            return []
        listed = run_git(self.repository, "ls-tree", "-r", "--name-only", name)
        return listed.splitlines()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self, b"")

            def do_POST(self) -> None:
                outer._answer(self, _body(self))

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        self.seen.append(f"{request.command} {request.path}")
        wanted = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {wanted}":
            _reply(request, 403, [], b"")
            return
        path, _, query = request.path.partition("?")
        if path.endswith("/git-receive-pack"):
            self.before_push()
        headers, _, content = self._ran(request, path, query, body).partition(b"\r\n\r\n")
        pairs = [line.split(": ", 1) for line in headers.decode().split("\r\n")]
        status = next((int(value[:3]) for name, value in pairs if name == "Status"), 200)
        _reply(request, status, [(n, v) for n, v in pairs if n != "Status"], content)

    def _ran(self, request: BaseHTTPRequestHandler, path: str, query: str, body: bytes) -> bytes:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "compose",
            "REQUEST_METHOD": request.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        }
        command = ["git", "http-backend"]
        ran = subprocess.run(command, env=environment, input=body, capture_output=True, check=True)
        return ran.stdout


def _body(request: BaseHTTPRequestHandler) -> bytes:
    """Git sends what is large in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


def _reply(
    request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes
) -> None:
    request.send_response(status)
    for name, value in headers:
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
