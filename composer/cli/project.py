"""The project that a command is about, from its options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from composer.files.state import state_dir
from composer.lock import read_lock
from composer.project import Project
from composer.project.options import ALL_RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.model import Lock
    from composer.project import Selection

__all__ = ["Project", "open_project", "state_of"]


def open_project(
    selection: Selection = ALL_RECIPES,
    *,
    read: Callable[[Path], Lock] = read_lock,
    may_be_empty: bool = False,
) -> Project:
    """The project of these paths, read. Raises `InvalidInput` with every problem of every file."""
    project = Project(".", selection, may_be_empty=may_be_empty, read_lock=read)
    state_of(project.root)  # says that an old folder is ignored
    assert project.recipes is not None  # read now, so that a problem in a file comes first
    return project


def state_of(root: Path) -> Path:
    """The state folder of the project at `root`; notes once that a `.compose/` is ignored."""
    context = click.get_current_context(silent=True)
    noted = context.find_root().meta if context else {}
    if os.path.lexists(root / ".compose") and not noted.setdefault("composer.ignored", False):
        noted["composer.ignored"] = True
        click.echo("note: .compose/ is ignored: compose keeps its state elsewhere", err=True)
    return state_dir(root, os.environ)
