"""The project that a command is about, from its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.lock import NAME, read_lock
from composer.project import Project
from composer.project.options import ALL_RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.model import Lock
    from composer.project import Selection

__all__ = ["Project", "open_project", "warn_of_markers"]


def open_project(
    selection: Selection = ALL_RECIPES,
    *,
    read: Callable[[Path], Lock] = read_lock,
    may_be_empty: bool = False,
) -> Project:
    """The project of these paths, read. Raises `InvalidInput` with every problem of every file."""
    project = Project(".", selection, may_be_empty=may_be_empty, read_lock=read)
    assert project.recipes is not None  # read now, so that a problem in a file comes first
    return project


def warn_of_markers(lock: Lock) -> None:
    """Say on stderr that the lock holds two versions, which a plan can merge."""
    if lock.conflicted:
        click.echo(f"note: {NAME} has git's conflict markers: compose lock --repair", err=True)
