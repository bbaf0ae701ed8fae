"""An editor's side of the Language Server Protocol, enough to ask yaml-language-server."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = {
    "completion": True,
    "hover": True,
    "validate": True,
    "schemaStore": {"enable": False},  # no network
}


class Editor:
    """Recipes that are open in an editor; `|` in a text is where the cursor is."""

    def __init__(self, modules: Path, folder: Path, schema: Path) -> None:
        server = modules / "yaml-language-server" / "bin" / "yaml-language-server"
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(["node", server, "--stdio"], stdin=pipe, stdout=pipe)
        self._numbers = itertools.count(1)
        self._folder, self._schema = folder, schema
        snippets = {"completion": {"completionItem": {"snippetSupport": True}}}
        capable = {"textDocument": snippets, "workspace": {"configuration": True}}
        self._ask("initialize", processId=None, rootUri=folder.as_uri(), capabilities=capable)
        self._tell("initialized")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.kill()
        self._server.communicate()

    def completions(self, text: str) -> dict[str, str]:
        """What is offered at the cursor: labels, and what each inserts."""
        found = self._ask("textDocument/completion", **self._at(text))
        items = found["items"] if isinstance(found, dict) else found
        return {item["label"]: item["insertText"] for item in items}

    def hover(self, text: str) -> str:
        """What is shown for what the cursor points to."""
        return str(self._ask("textDocument/hover", **self._at(text))["contents"]["value"])

    def problems(self, text: str) -> list[str]:
        """What is reported of a file."""
        uri = self._open(text)
        while True:
            message = self._read()
            published = message.get("method") == "textDocument/publishDiagnostics"
            if published and message["params"]["uri"] == uri:
                return [found["message"] for found in message["params"]["diagnostics"]]

    def _at(self, text: str) -> dict[str, Any]:
        before = text.partition("|")[0]
        position = {"line": before.count("\n") + 1, "character": len(before.rpartition("\n")[2])}
        return {"textDocument": {"uri": self._open(text)}, "position": position}

    def _open(self, text: str) -> str:
        uri = (self._folder / f"recipe{next(self._numbers)}.yaml").as_uri()
        line = f"# yaml-language-server: $schema={self._schema.as_uri()}\n"
        document = {"uri": uri, "languageId": "yaml", "version": 1}
        opened = {**document, "text": line + text.replace("|", "", 1)}
        self._tell("textDocument/didOpen", textDocument=opened)
        return uri

    def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == number and "method" not in message:
                return message["result"]

    def _tell(self, method: str, **params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._server.stdin.flush()

    def _read(self) -> dict[str, Any]:
        """The next message; what the server asks is answered."""
        assert self._server.stdout is not None
        length = 0
        while line := self._server.stdout.readline().strip():
            if line.lower().startswith(b"content-length"):
                length = int(line.partition(b":")[2])
        assert length, "the server ended"
        message: dict[str, Any] = json.loads(self._server.stdout.read(length))
        if "id" in message and "method" in message:
            items = message.get("params", {}).get("items", [])
            answer = [_SETTINGS if item.get("section") == "yaml" else None for item in items]
            self._send({"id": message["id"], "result": answer or None})
        return message
