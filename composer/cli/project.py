"""The project that a command is about, from its options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from composer.files.state import VARIABLE
from composer.lock import read_lock
from composer.project import Project
from composer.project.options import ALL_RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.model import Lock
    from composer.project import Selection

__all__ = ["Project", "open_project"]


def open_project(
    selection: Selection = ALL_RECIPES,
    *,
    read: Callable[[Path], Lock] = read_lock,
    may_be_empty: bool = False,
    check: bool = True,
) -> Project:
    """The project of these paths. Raises `InvalidInput` with every problem of every file.

    With `check` false no file is read yet, and no problem raised.
    """
    project = Project(
        ".",
        selection,
        may_be_empty=may_be_empty,
        read_lock=read,
        state_dir=os.environ.get(VARIABLE),
    )
    if os.path.lexists(project.root / ".compose"):
        click.echo("note: .compose/ is ignored: compose keeps its state elsewhere", err=True)
    assert not check or project.recipes is not None  # so that a problem in a file comes first
    return project
