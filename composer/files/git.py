"""Asking git, so that nothing which a repository configures is run and nothing is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_OPTIONS = (
    "--no-pager",
    "--no-optional-locks",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.allow=never"),
)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What git answers in this folder. Raises `FileNotFoundError` where git isn't installed."""
    program = shutil.which("git")
    if program is None or not Path(program).is_absolute():
        raise FileNotFoundError("git")
    environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    command = [program, *_OPTIONS, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
