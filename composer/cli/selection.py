"""Options that say which recipes a command is about, and how it prints.

They are apart from the others so that `compose validate` starts without the planner.
"""

from __future__ import annotations

import functools
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer.errors import UsageError
from composer.files.library import as_library
from composer.project import Selection
from composer.text import RECIPES_FOLDER, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from composer.project import Project

    Command = Callable[..., Any]


def gathered(
    cls: type, name: str, *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """A decorator that adds these options, and hands them over as one value."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(**given: Any) -> Any:
            names = [field.name for field in fields(cls) if field.name in given]
            values = {name: given.pop(name) for name in names}
            return command(**{name: cls(**values)}, **given)

        decorated: Command = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


_paths = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
path_argument = gathered(Selection, "selection", _paths)
_selecting = (
    _paths,
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Only recipe files that match this pattern. Repeatable.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Skip recipe files that match this pattern. Repeatable.",
    ),
)
selection_options = gathered(Selection, "selection", *_selecting)
change_selection_options = gathered(
    Selection,
    "selection",
    *_selecting,
    click.option(
        "--since",
        metavar="GIT_REF",
        help="Only recipe files that differ from this git revision, committed or not. A recipe "
        "whose LoRAs alone changed is left out.",
    ),
)


def named_library(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> Path | str | None:
    """Raise `UsageError` for "", which would mean the current folder."""
    if value == "":
        raise UsageError("--library is empty", hint="name a folder, or leave it out")
    return as_library(value)


library_option = click.option(
    "--library",
    type=click.Path(file_okay=False),
    callback=named_library,
    metavar="DIR",
    help="Folder with your LoRA files, or s3://BUCKET/FOLDER [env: COMPOSE_LIBRARY].",
)


def refuse_nothing(project: Project, files: Collection[Path]) -> None:
    """Raise `UsageError` if there are no files: a pattern or folder may be wrong.

    A hook may name files that the settings exclude.
    """
    if files or project.settings_exclude:
        return
    selection = project.selection
    paths = selection.paths or (project.root / RECIPES_FOLDER,)
    where = ", ".join(visible(str(path)) for path in paths)
    given = [f"--include {visible(glob)!r}" for glob in selection.include]
    given += [f"--exclude {visible(glob)!r}" for glob in selection.exclude]
    raise UsageError(
        f"no recipes found in {where}" + (f" with {' '.join(given)}" if given else ""),
        hint=f"patterns match paths such as {RECIPES_FOLDER}/tutorial/ink.yaml"
        if given
        else "name a folder of .yaml or .yml files; compose init creates a first recipe",
    )


def output_option(*formats: str) -> Callable[[Command], Command]:
    """`-o`: how data is printed; the first is the default."""
    return click.option(
        "-o",
        "--output",
        "output_format",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Output format.",
    )
