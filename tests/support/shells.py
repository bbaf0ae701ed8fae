"""A shell in a pseudo-terminal, and a `compose` in it that says which arguments it was given.

Asked for completions, that `compose` is the real one; else it writes its arguments to a file. So a
test sees what a person gets who types a few letters, Tab and Enter.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Self

from support.cli import REPO

if TYPE_CHECKING:
    from pathlib import Path

_STUB = f"""\
#!{sys.executable}
import json, os, subprocess, sys
folder = os.path.dirname(os.path.abspath(__file__))
if "_COMPOSE_COMPLETE" in os.environ:
    real = "import sys; sys.argv[0] = 'compose'; from composer.cli import run; run()"
    done = subprocess.run([sys.executable, "-c", real, *sys.argv[1:]], capture_output=True)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(done.stderr)
    with open(folder + "/asking", "wb") as asked:
        asked.write(done.stderr + b".")
    os.rename(folder + "/asking", folder + "/asked")
else:
    with open(folder + "/new", "w") as new:
        json.dump(sys.argv[1:], new)
    os.rename(folder + "/new", folder + "/given")
"""
# What starts each shell, and what it needs first.
_START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit && compinit -u -D; "),
    "fish": (["fish", "--no-config", "--interactive"], ""),
}
_LIMIT = 20.0  # seconds


class Terminal:
    """An interactive shell in a folder."""

    def __init__(self, shell: str, folder: Path, programs: Path, script: str) -> None:
        """`programs` is an empty folder; `script` is what `compose completion` prints."""
        self._programs = programs
        self._write_stub(programs / "compose")
        (programs / "script").write_text(script, "utf-8")
        command, prepare = _START[shell]
        self._terminal, inner = pty.openpty()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=self._environment(programs),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # fish insists on it
        )
        os.close(inner)
        self.screen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.type(f"{prepare}. {programs}/script; echo rea''dy\r")
        self._wait(lambda: b"ready" in self.screen)

    @staticmethod
    def _write_stub(stub: Path) -> None:
        stub.write_text(_STUB, "utf-8")
        stub.chmod(0o755)

    @staticmethod
    def _environment(programs: Path) -> dict[str, str]:
        paths = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPO)}
        return {**os.environ, **paths, "TERM": "xterm", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        os.close(self._terminal)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def completed(self, typed: str) -> list[str]:
        """The arguments that `compose` gets after these letters, Tab and Enter."""
        asked, given = self._programs / "asked", self._programs / "given"
        asked.unlink(missing_ok=True)
        given.unlink(missing_ok=True)
        self.type(typed + "\t")
        self._wait(asked.exists)
        assert set(asked.read_bytes()) == {ord(".")}, "something was written to stderr"
        self._until_silent()
        self.type("\r")
        self._wait(given.exists)
        arguments: list[str] = json.loads(given.read_text("utf-8"))
        return arguments

    def _read(self) -> None:
        while True:
            try:
                self.screen += os.read(self._terminal, 65536)
            except OSError:
                return

    def _until_silent(self) -> None:
        """Until the shell has shown what it inserted."""
        before = None
        while before != self.screen:
            before = self.screen
            time.sleep(0.3)

    def _wait(self, is_done: object) -> None:
        end = time.monotonic() + _LIMIT
        while not is_done():  # type: ignore[operator]
            assert time.monotonic() < end, self.screen.decode("utf-8", "replace")
            time.sleep(0.01)
