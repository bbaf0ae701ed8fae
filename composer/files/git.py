"""Asking git about a repository, as it may come from a stranger.

Git runs nothing that the repository configures, and fetches nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_GIT_OPTIONS = (
    "--no-pager",
    "--no-optional-locks",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.allow=never"),
    *("-c", "diff.external="),
)
# A repository may allow single protocols; the variable also overrides those. None has this name.
_GIT_VARIABLES = MappingProxyType(
    {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",  # messages in English, which callers look at
        "LANGUAGE": "",
    }
)


def git(
    folder: Path,
    *arguments: str,
    variables: Mapping[str, str] = MappingProxyType({}),
    given: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run git in this folder, with these variables added to the environment; its output.

    `given` is what it reads from its standard input.
    Raises `FileNotFoundError` if git is not installed.
    """
    program = find_git(folder)
    if program is None:
        raise FileNotFoundError("git")
    environment = {**os.environ, **_GIT_VARIABLES, **variables}
    command = [program, *_GIT_OPTIONS, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, check=False, input=given
    )


def find_git(folder: Path) -> str | None:
    """The absolute path of git; None if it isn't installed.

    It is taken neither from the current folder, where Windows looks first, nor from `folder`.
    """
    ours = {os.path.realpath(folder), os.path.realpath(os.curdir)}
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(place) and os.path.realpath(place) not in ours:
            program = shutil.which(os.path.join(place, "git.exe" if os.name == "nt" else "git"))
            if program is not None:
                return program
    return None


def is_safe(root: Path) -> bool:
    """Whether git's `safe.directory` lists this folder; a repository's own settings don't count."""
    try:
        command = ("config", "--null", "--type=path", "--get-all", "safe.directory")
        answer = git(root, *command, variables={"GIT_DIR": os.devnull})
    except FileNotFoundError:
        return False
    safe = False
    for entry in os.fsdecode(answer.stdout).split("\0")[:-1]:
        folder, below = entry.removesuffix("/*"), entry.endswith("/*")
        is_listed = Path(os.path.realpath(folder)) in (root.parents if below else (root,))
        safe = bool(entry) and (safe or entry == "*" or is_listed)  # an empty one resets the list
    return safe
