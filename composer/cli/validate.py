"""`compose validate`: recipes checked without a target, a lock entry or a network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from composer.cli.selection import (
    change_selection_options,
    library_option,
    output_option,
    refuse_nothing,
)
from composer.cli.terminal import emit, tell
from composer.errors import ExitStatus, InvalidInput
from composer.output import problems
from composer.project import Project
from composer.text import STATE_VARIABLE, visible

if TYPE_CHECKING:
    from pathlib import Path

    from composer.project import Selection


@click.command("validate")
@change_selection_options
@library_option
@output_option("text", "json", "github", "sarif")
def validate_command(selection: Selection, library: Path | str | None, output_format: str) -> int:
    """Check recipes for problems, without contacting a target.

    \b
    Examples:
      compose validate
      compose validate recipes/tutorial -o json

    Lists every problem in every file, with its line and the fix. LoRAs' names are looked up in the
    lock, and in the library, if there is one and a plan would use it.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    project = Project(".", selection, state_dir=os.environ.get(STATE_VARIABLE))
    try:
        listed, files = project.validate(), project.checked_files
        names = project.check_names(library, env=os.environ)
        listed = tuple(sorted([*listed, *names.problems]))
    except InvalidInput as bad:
        if output_format != "text":
            from composer.output.plan_formats import invalid

            click.echo(invalid(bad, output_format), nl=False)
        raise
    refuse_nothing(project, files if selection.since is None else project.files)
    if selection.since is not None and project.left_out.recipes:
        tell(visible(project.left_out.words), err=True)
    for note in names.notes:
        tell(f"note: {note}", err=True)
    if output_format == "text":
        emit(lambda color: problems.text(listed, files=len(files), color=color))
    else:
        from composer.output import problem_formats as formats

        render = {"json": formats.as_json, "github": formats.github, "sarif": formats.sarif}
        click.echo(render[output_format](listed), nl=False)
    return ExitStatus.INVALID if listed else 0
