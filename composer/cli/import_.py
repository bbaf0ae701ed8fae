"""`compose import`: recipes of compositions on the target, or of ComfyUI workflows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.project import open_project, open_target
from composer.cli.selection import output_option
from composer.cli.terminal import emit, suggest
from composer.errors import ExitStatus, UsageError
from composer.model import is_id
from composer.output import imports
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.model import Imported

_WORKFLOWS = (".json", ".png", ".webp")  # no id has a dot


@click.command("import")
@click.argument(
    "sources",
    nargs=-1,
    metavar="[MODEL_ID|WORKFLOW]...",
    shell_complete=suggestions.files(*_WORKFLOWS),
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Import every composition that the lock does not name.",
)
@click.option(
    "--name", metavar="NAME", help="Name of a workflow's recipe. The default is the file's name."
)
@opt.target_options
@output_option("text", "json")
@opt.writing_options
def import_command(
    sources: tuple[str, ...],
    everything: bool,
    name: str | None,
    target_options: TargetOptions,
    output_format: str,
    writing: opt.Writing,
) -> int:
    """Write recipes for compositions on the target, or for ComfyUI workflows.

    \b
    Examples:
      compose import --all --dry-run
      compose import workflow.json --name "Storybook Knight"

    WORKFLOW is a ComfyUI workflow (.json, as saved or as exported for the API), an image that
    ComfyUI saved (.png or .webp), or a recipe of LoRA Manager. Its LoRA loaders are matched with
    the target's LoRAs by hash, file and name. A composition also gets a lock entry; the model of a
    workflow's recipe is made by compose apply.

    Writes to recipes/. Skips what a recipe can't express, says why, and exits 1.
    """
    files = _workflows(sources, everything=everything)
    if name is not None and len(files) != 1:
        raise UsageError("--name is for one workflow", hint="import workflows one by one")
    project = open_project(may_be_empty=True)
    with (
        writing.exclusive(project),
        open_target(project, target_options, run_jobs=False, dry_run=writing.dry_run) as target,
    ):
        if files:
            imported = project.import_workflows(target, *files, name=name, dry_run=writing.dry_run)
        else:
            ids = None if everything else sources
            imported = project.import_models(target, ids, dry_run=writing.dry_run)
    if output_format == "json":
        click.echo(imports.as_json(imported), nl=False)
    else:
        emit(lambda color: imports.recipes(imported))
        emit(lambda color: imports.remarks(imported) or _nothing(imported), err=True)
        if not writing.dry_run and any(one.path for one in imported):
            suggest("compose plan")
    return ExitStatus.FAILED if any(one.skipped for one in imported) else 0


def _nothing(imported: list[Imported]) -> str:
    return "" if imported else "Nothing to import.\n"


def _workflows(sources: tuple[str, ...], *, everything: bool) -> list[Path]:
    """The files among the arguments: all of them, or none. Raises `UsageError`."""
    files = [source for source in sources if source.lower().endswith(_WORKFLOWS)]
    if sources and everything:
        given = "workflows" if files else "ids"
        raise UsageError(f"{given} can't be used with --all", hint="leave out one of the two")
    if not sources and not everything:
        raise UsageError(
            "no ids are given, and no workflow", hint="compose models lists ids; --all imports all"
        )
    for source in sources:
        if source not in files and not is_id(source):
            raise UsageError(
                f"{visible(source)} is neither a model id nor a workflow",
                hint=f"a workflow is a file that ends in {', '.join(_WORKFLOWS)}",
            )
    if files and len(files) < len(sources):
        raise UsageError("ids and workflows can't be mixed", hint="import them one after the other")
    return [Path(file) for file in files]
