"""`compose preview`: images of what recipes change, before and after."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import open_project
from composer.cli.rendering import image_options, rendered
from composer.cli.selection import output_option, selection_options
from composer.project.options import PreviewOptions

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.cli.rendering import ImageOptions
    from composer.project import Selection


@click.command("preview")
@selection_options
@click.option(
    "--base",
    metavar="GIT_REF",
    help="Show the recipes whose mix differs from this git revision, and compare with that. The "
    "default is what apply would change, compared with what the lock and the target have.",
)
@opt.target_options
@image_options
@output_option("text", "json", "markdown")
@opt.dry_running
def preview_command(
    selection: Selection,
    base: str | None,
    target_options: TargetOptions,
    images: ImageOptions,
    output_format: str,
    dry_run: bool,
) -> int:
    """Show what recipes change, in images: without LoRA, before, and after.

    \b
    Examples:
      compose preview --dry-run
      compose preview --base main --out preview/ --max-cost 100

    Makes an image for each prompt and seed of [previews] in compose.toml and of the recipe. Images
    that this machine has are not made again.

    PATHS are recipe files or folders, which are shown even if they don't change. The default is
    what changes in the folder recipes/.
    """
    project = open_project(selection)
    options = PreviewOptions(images.max_cost, dry_run, images.lock_timeout, base)
    make = partial(project.preview, options=options)
    return rendered(project, target_options, images, output_format, make, dry_run=dry_run)
