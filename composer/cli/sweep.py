"""`compose sweep`: images of a recipe at several scales, and the scales of one into the recipe."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.arguments import RECIPE_ENDINGS, NumberOption
from composer.cli.project import open_project
from composer.cli.rendering import image_options, rendered
from composer.cli.selection import output_option
from composer.cli.terminal import emit, suggest
from composer.errors import UsageError
from composer.output import promotion
from composer.previews.axes import EXAMPLE, parse_axes
from composer.previews.sweeping import Sweep
from composer.project import Selection
from composer.project.options import SWEEP_DEFAULTS, SweepOptions
from composer.project.sources import find_recipe
from composer.recipes import relative

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.cli.rendering import ImageOptions
    from composer.previews.sweeping import Promoted
    from composer.project import Project


@click.command("sweep")
@click.argument("recipe", shell_complete=suggestions.recipes)
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=SCALES",
    shell_complete=suggestions.axes,
    help="A LoRA of the recipe and its scales: 0.2..0.8/4 for 4 scales from 0.2 to 0.8, or a list "
    "as 0.2,0.5,0.8. Give a second one for a grid of two LoRAs.",
)
@click.option(
    "--promote",
    "place",
    metavar="PLACE",
    help="Write the scales of a place of the last sweep, as B3, into the recipe. Nothing is "
    "rendered.",
)
@click.option(
    "--limit",
    cls=NumberOption,
    type=click.IntRange(min=1),
    default=SWEEP_DEFAULTS.limit,
    show_default=True,
    metavar="N",
    help="Refuse a sweep of more than N images.",
)
@opt.target_options
@image_options
@output_option("text", "json", "markdown")
@opt.dry_running
def sweep_command(
    recipe: str,
    axes: tuple[str, ...],
    place: str | None,
    limit: int,
    target_options: TargetOptions,
    images: ImageOptions,
    output_format: str,
    dry_run: bool,
) -> int:
    """Try a recipe with one or two LoRAs at several scales, in images.

    \b
    Examples:
      compose sweep "Pixel Rogue" --axis "Ink Lines=0.2..0.8/4" --out sweep/
      compose sweep "Pixel Rogue" --promote C1

    Each column is a scale of the first LoRA, and the first column is without LoRA. With a second
    --axis, each row is a scale of that LoRA. Each image has a place, as B3. --promote writes the
    scales of a place into the recipe, and changes no other character of the file.

    RECIPE is a recipe's path or the name of its model. In --axis, the number after / says how many
    scales there are; in compose merge it is the step from one to the next.

    With --promote and --axis, the place is that of the sweep with these axes.
    """
    scales = parse_axes(axes)
    project, name = _opened(recipe)
    if place is not None:
        promoted = project.promote(name, place, scales, dry_run=dry_run)
        _show(promoted, output_format, dry_run=dry_run)
        return 0
    if not axes:
        raise UsageError("Missing option '--axis', or '--promote'", hint=f"write {EXAMPLE}")
    Sweep.of(find_recipe(project.recipes, name), scales)  # wrong words are told first
    options = SweepOptions(images.max_cost, dry_run, images.lock_timeout, limit)
    make = partial(project.sweep, recipe=name, axes=scales, options=options)
    return rendered(project, target_options, images, output_format, make, dry_run=dry_run)


def _opened(recipe: str) -> tuple[Project, str]:
    """The project of a recipe's file, else of the working folder; and its path or name."""
    if not os.path.isfile(recipe) and not recipe.lower().endswith(RECIPE_ENDINGS):
        return open_project(), recipe
    project = open_project(Selection((Path(recipe),)))
    return project, relative(Path(recipe), project.root) or recipe


def _show(promoted: Promoted, output_format: str, *, dry_run: bool) -> None:
    if output_format == "json":
        click.echo(promotion.as_json(promoted, dry_run=dry_run), nl=False)
    elif output_format == "markdown":
        click.echo(promotion.as_markdown(promoted), nl=False)
    else:
        emit(lambda color: promotion.text(promoted, color=color))
        if promoted.changes and not dry_run:
            suggest("compose plan")
