"""Where the state folder of a test's project lies, and copying a project with its state."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from composer.files.state import ROOT_FILE, prepare_state, state_dir

if TYPE_CHECKING:
    from pathlib import Path


def state_of(root: Path) -> Path:
    """The state folder of the project in `root`; it may not exist."""
    return state_dir(root, os.environ)


def made_state(root: Path) -> Path:
    """The same, created if it is missing."""
    return prepare_state(state_of(root), root)


def copy_project(source: Path, to: Path) -> Path:
    """A copy of a project's folder, with a copy of its state as the copy's own."""
    shutil.copytree(source, to, dirs_exist_ok=True)
    if state_of(source).is_dir():
        not_its_own = shutil.ignore_patterns(ROOT_FILE)
        shutil.copytree(state_of(source), made_state(to), ignore=not_its_own, dirs_exist_ok=True)
    return to
