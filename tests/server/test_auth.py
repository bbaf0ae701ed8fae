"""Credentials: who gets in, where they come from, and who is shown them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support import serving
from support.engine_files import PATIENCE
from support.serving import basic
from support.shapes import refused
from support.state import made_state, state_of

from composer.errors import CredentialsError, TargetError
from composer.server.auth import credentials

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Served


POSIX = os.name == "posix"
ENV = {"SCENARIO_SDK_API_KEY": "", "SCENARIO_SDK_API_SECRET": ""}


def test_only_the_key_and_the_secret_get_in(served: Served) -> None:
    key, secret = served.key, served.secret
    wrong: list[dict[str, str]] = [
        {},
        basic(key, secret + "x"),
        basic(key, ""),
        basic(secret, key),
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic"},
        {"Authorization": "Digest " + secret},
        {"Authorization": key + ":" + secret},
    ]
    for headers in wrong:
        for path in ("/models", "/nothing", "/../etc/passwd"):
            answer = served.call("GET", path, auth=None, headers=headers)
            assert "key" in refused(answer, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
            assert secret not in answer.text
    right = {"Authorization": "basic   " + basic(key, secret)["Authorization"][6:]}
    assert served.call("GET", "/models", auth=None, headers=right).status_code == 200


def test_a_bearer_token_is_refused_in_words(served: Served) -> None:
    answer = served.call("GET", "/models", auth=None, headers={"Authorization": "Bearer x.y.z"})
    assert "not a bearer token" in refused(answer, 401)


def test_credentials_come_from_the_environment_else_from_a_file_made_once(root: Path) -> None:
    state = made_state(root)
    env = {"SCENARIO_SDK_API_KEY": "k", "SCENARIO_SDK_API_SECRET": "s"}
    assert (credentials(env, state).key, credentials(env, state).secret) == ("k", "s")
    assert not (state / "serve.json").exists()
    with pytest.raises(CredentialsError, match="only one"):
        credentials({"SCENARIO_SDK_API_KEY": "k"}, state)
    made, kept = credentials({}, state), credentials({}, state)
    assert (made.made, kept.made) == (True, False)
    assert (made.key, made.secret) == (kept.key, kept.secret)
    assert made.key != made.secret and len(made.secret) >= 32
    assert made.secret not in repr(made)
    if POSIX:
        file = state / "serve.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o644)
        credentials({}, state)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "k"}', b'{"key": 1, "secret": 2}'])
def test_a_damaged_file_of_credentials_is_said(root: Path, content: bytes) -> None:
    (root / "serve.json").write_bytes(content)
    with pytest.raises(TargetError, match=r"serve\.json is damaged"):
        credentials({}, root)


@pytest.mark.skipif(not POSIX, reason="links need rights on Windows")
def test_a_file_of_credentials_that_is_a_link_is_not_followed(root: Path) -> None:
    (root / "elsewhere").write_text('{"key": "k", "secret": "s"}')
    (root / "serve.json").symlink_to(root / "elsewhere")
    with pytest.raises(TargetError, match="is a link"):
        credentials({}, root)


def test_credentials_that_were_made_are_in_the_file_and_not_in_the_output(root: Path) -> None:
    with serving.process(root, env=ENV) as served:
        made = json.loads((state_of(root) / "serve.json").read_text())
        served.key, served.secret = made["key"], made["secret"]
        assert len(served.loras()) == 1
    output = "\n".join(served.lines)
    assert "serve.json" in output
    assert made["key"] not in output and made["secret"] not in output


def _all_shown(terminal: int) -> str:
    """What was written to a pseudo-terminal, now that nobody writes to it any more."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, suppress(OSError):  # EIO is its end
        while part := file.read(65536):
            shown += part
    return shown.decode()


@pytest.mark.skipif(not POSIX, reason="pseudo-terminals are POSIX")
def test_a_terminal_is_shown_them_once(root: Path) -> None:
    import pty  # Windows has none

    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = []
    for _ in range(2):
        ours, theirs = pty.openpty()
        server = subprocess.Popen(
            [sys.executable, "-m", "composer", "serve", "--port", "0"],
            cwd=root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        assert server.stdout is not None
        server.stdout.readline()
        server.terminate()
        server.wait(PATIENCE)
        server.stdout.close()
        shown.append(_all_shown(ours))
    secret = json.loads((state_of(root) / "serve.json").read_text())["secret"]
    assert [secret in text for text in shown] == [True, False]
