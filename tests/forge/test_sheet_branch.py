"""Contact sheets are pushed to a branch of their own, by git over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.git_server import GitServer, run_git

from composer.forge.api import ForgeError
from composer.forge.sheet_branch import BRANCH, Remote, digest_of, push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-secret-token"
SHEETS = {"fox.webp": b"a fox", "owl.webp": b"an owl" * 300_000}  # more than git sends at once


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "forge", "studio/models", TOKEN) as server:
        yield server


def remote(server: GitServer, token: str = TOKEN) -> Remote:
    return Remote(f"{server.url}/studio/models.git", token)


def test_the_branch_begins_without_history_and_grows(server: GitServer) -> None:
    assert push(remote(server), SHEETS)
    folder = digest_of(SHEETS)
    assert server.branch(BRANCH) == [f"{folder}/fox.webp", f"{folder}/owl.webp"]
    assert push(remote(server), {"fox.webp": b"another fox"})
    assert len(server.branch(BRANCH)) == 3
    assert run_git(server.repository, "rev-list", "--count", BRANCH) == "2"
    shown = run_git(server.repository, "show", f"{BRANCH}:{folder}/fox.webp")
    assert shown == "a fox"


def test_what_is_there_is_not_pushed_again(server: GitServer) -> None:
    push(remote(server), SHEETS)
    tip = run_git(server.repository, "rev-parse", BRANCH)
    server.seen.clear()
    assert not push(remote(server), SHEETS)
    assert run_git(server.repository, "rev-parse", BRANCH) == tip
    assert not [line for line in server.seen if "receive-pack" in line]


def test_a_push_of_another_run_is_kept(server: GitServer) -> None:
    """It comes between our look at the branch and our push, twice."""
    push(remote(server), {"fox.webp": b"a first fox"})
    others = [{"cat.webp": b"1"}, {"cat.webp": b"2"}]

    def meanwhile() -> None:
        if others:
            push(remote(server), others.pop())

    server.before_push = meanwhile
    assert push(remote(server), SHEETS)
    assert not others
    assert len(server.branch(BRANCH)) == 5


def test_a_branch_that_never_rests_is_given_up(server: GitServer) -> None:
    count = 0
    inside = False

    def meanwhile() -> None:
        nonlocal count, inside
        if not inside:
            inside, count = True, count + 1
            push(remote(server), {"cat.webp": str(count).encode()})
            inside = False

    server.before_push = meanwhile
    with pytest.raises(ForgeError, match="changed 5 times meanwhile"):
        push(remote(server), SHEETS)
    assert count == 5


def test_a_refusal_is_told_without_the_token(server: GitServer) -> None:
    with pytest.raises(ForgeError, match=r"git ls-remote \(compose-previews\): fatal: .*403") as e:
        push(remote(server, "a-wrong-token"), SHEETS)
    assert "wrong-token" not in str(e.value)
    assert "a-secret-token" not in repr(remote(server))


def test_a_push_that_is_refused_is_told(server: GitServer) -> None:
    hook = server.repository / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    with pytest.raises(ForgeError, match="remote: protected"):
        push(remote(server), SHEETS)


def test_the_token_goes_to_its_own_host_alone(server: GitServer, tmp_path: Path) -> None:
    variables = remote(server).variables
    assert variables["GIT_CONFIG_KEY_0"] == f"http.{server.url}/.extraHeader"
    assert variables["GIT_ALLOW_PROTOCOL"] == "http"
    assert TOKEN not in "".join(variables.values())
