"""`compose init`: a new project, or what an existing one lacks."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import LOCAL, chosen_key, open_local, open_project, open_target
from composer.cli.selection import output_option
from composer.cli.terminal import emit
from composer.errors import ComposeError, UsageError
from composer.files import comfyui
from composer.files.library import LIBRARY
from composer.files.repository import home_directory
from composer.output import init as render
from composer.text import visible

if TYPE_CHECKING:
    from pathlib import Path

    from composer.cli.options import TargetOptions
    from composer.project import Project


@click.command("init")
@opt.target_options
@click.option(
    "--from",
    "source",
    type=click.Choice(["comfyui"]),
    help="Use ComfyUI's folder models/loras as the library [env: COMFYUI_PATH].",
)
@click.option(
    "--workflow", type=click.Choice(["github", "gitlab"]), help="Also write CI workflows."
)
@output_option("text", "json")
@opt.dry_running
def init_command(
    target_options: TargetOptions,
    source: str | None,
    workflow: str | None,
    output_format: str,
    dry_run: bool,
) -> int:
    """Create recipes/ with a first recipe, and what else a project needs.

    \b
    Examples:
      compose init --library ~/loras
      compose init --from comfyui --workflow github

    The recipe mixes two of the LoRAs in the library, or on Scenario. Also written: the recipes'
    schema for editors, lines of .gitignore and .gitattributes, the lock's merge driver in git's
    settings of this clone, and pre-commit hooks.

    Keeps every file that is there, and only adds missing lines, so it can be run again. Remembers
    the library: in compose.toml, or on this machine if it is outside the project.
    """
    library = _library(target_options, source)
    project = open_project(may_be_empty=True)
    project.check_init(library)
    named = replace(target_options, library=library)
    is_local = library is not None and not named.target
    opened = open_local if is_local else open_target
    with opened(project, named, run_jobs=False, dry_run=dry_run) as target:
        setup = project.init(target, library=library, workflow=workflow, dry_run=dry_run)
    flags = _flags(project, target_options, library)
    if output_format == "json":
        click.echo(render.as_json(setup, flags=flags), nl=False)
    else:
        emit(lambda color: render.text(setup, flags=flags, color=color))
    return 0


def _flags(project: Project, options: TargetOptions, library: Path | None) -> str:
    """What the next command needs to be about the same target; the library is remembered."""
    given = replace(options, library=None)
    if library is not None and not options.target:
        with suppress(ComposeError):
            if chosen_key(project, given) == LOCAL:
                return given.flags
        given = replace(given, target=LOCAL)
    return given.flags


def _library(options: TargetOptions, source: str | None) -> Path | None:
    """The folder that is to be remembered. Raises `UsageError`."""
    if options.library is not None and source:
        raise UsageError("--library can't be used with --from", hint="leave out one of the two")
    if source:
        return comfyui.lora_folder(os.environ, home_directory(), otherwise="use --library DIR")
    library = options.library
    if isinstance(library, str):
        raise UsageError(
            "only a folder can be remembered",
            hint=f"set {LIBRARY} to the URL, and run compose init without --library",
        )
    if library is not None and not library.is_dir():
        raise UsageError(
            f"the library {visible(str(library))} is not a folder", hint="check --library"
        )
    return library
