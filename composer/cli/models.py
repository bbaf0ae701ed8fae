"""`compose models`: what the target has, or what LoRA files and folders are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.arguments import (
    RECIPE_ENDINGS,
    is_lora_folder,
    may_follow,
    refuse_other_files,
)
from composer.cli.extras import needing
from composer.cli.project import files_of, open_project, open_target
from composer.cli.selection import output_option, path_argument
from composer.cli.terminal import Meter, emit
from composer.errors import ExitStatus, UsageError
from composer.files.delivery import check_input_link
from composer.lora.folder import SUFFIX
from composer.output import results
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from composer.cli.options import TargetOptions
    from composer.project import Selection


def _known(context: click.Context, parameter: click.Parameter, type: str | None) -> str | None:
    from composer.lora import families

    types = [*sorted(families.lora_types()), *sorted(families.composition_types())]
    if type is not None and type not in types:
        raise click.BadParameter(f"{visible(type)!r} is not one of {', '.join(map(repr, types))}")
    return type


@click.command("models")
@path_argument
@opt.target_options
@click.option(
    "--type",
    "type_",
    metavar="TYPE",
    callback=_known,
    shell_complete=suggestions.model_types,
    help="Only models of this type.",
)
@output_option("text", "json")
def models_command(
    selection: Selection, target_options: TargetOptions, type_: str | None, output_format: str
) -> int:
    """List the LoRAs and compositions on the target, or the LoRAs in files and folders.

    \b
    Examples:
      compose models
      compose models ~/ComfyUI/models/loras -o json

    Without PATHS, or with those of recipes, which choose the project: the models of the target,
    newest first.

    With LoRA files, or folders of them: what each file is. No project, recipe or lock is needed.
    Files that can't be used come last, with the reason. The exit status is 1 if one of them was
    named itself, or if no file can be used.
    """
    if files := [path for path in selection.paths if _is_lora(path)]:
        return _list_files(selection.paths, files, type_, output_format)
    refuse_other_files(filter(_is_nothing, selection.paths), or_recipes=True)
    project = open_project(selection)
    with open_target(project, target_options, run_jobs=False) as target:
        listed, rejected = target.list_models(*([type_] if type_ else [])), target.rejected
        ids = [model.id for model in listed if not model.files] if output_format == "json" else ()
        results_here = files_of(project, target, ids)
    if output_format == "json":
        click.echo(results.models_json(listed, rejected=rejected, files=results_here), nl=False)
    else:
        emit(lambda color: results.models(listed, rejected=rejected, color=color))
    return 0


def _is_lora(path: Path) -> bool:
    """A file that is no recipe, or a folder of LoRA files."""
    if path.is_dir():
        return is_lora_folder(path)
    ending = path.suffix.lower()
    return ending == SUFFIX or (path.is_file() and ending not in RECIPE_ENDINGS)


def _is_nothing(path: Path) -> bool:
    """Neither LoRAs nor recipes: it isn't there, or is a folder without them."""
    from composer.recipes import discover

    return not path.exists() or (path.is_dir() and not discover([path], root=path))


def _list_files(
    paths: Sequence[Path], files: Sequence[Path], type: str | None, output_format: str
) -> int:
    if others := [path for path in paths if path not in files]:
        raise UsageError(
            f"{visible(str(others[0]))} is not a LoRA file or a folder of LoRA files",
            hint="name either LoRAs or recipes",
        )
    opt.refuse_all_but("a list of LoRA files", "paths", "type_", "output_format")
    with needing("listing LoRA files needs", "local"):
        from composer.lora.listing import list_loras
        from composer.output import listing as output
    refuse_other_files(path for path in files if not path.is_dir())
    for path in files:
        check_input_link(path)
    with Meter("reading LoRA files") as meter:
        listing = list_loras(files, follow=may_follow, progress=meter.say).of_type(type)
    if output_format == "json":
        click.echo(output.as_json(listing), nl=False)
    else:
        emit(lambda color: output.text(listing, color=color))
    return ExitStatus.FAILED if listing.failed else 0
