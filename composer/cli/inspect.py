"""`compose inspect`: what LoRAs are, and what they do to each other in a mix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.options import lora_argument
from composer.cli.output_files import check_page, write_copy
from composer.cli.project import open_local, open_project
from composer.cli.terminal import emit
from composer.errors import UsageError
from composer.output.inspect import as_json, text
from composer.output.inspect_html import page
from composer.project.options import Selection
from composer.project.sources import find
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora.inspection import Inspection

RECIPE_ENDINGS = (".yaml", ".yml")


@click.command("inspect")
@click.argument("what", nargs=-1, required=True, metavar="RECIPE|FILE[:SCALE]...")
@click.option(
    "--library",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with your LoRA files [env: COMPOSE_LIBRARY].",
)
@opt.output_option("text", "json")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write an HTML page to FILE.",
)
def inspect_command(
    what: tuple[str, ...], library: Path | None, output_format: str, html: Path | None
) -> int:
    """Show what LoRAs contain, and whether they interfere.

    \b
    Examples:
      compose inspect recipes/pixel-rogue.yaml
      compose inspect recipes/loras/ink-lines.safetensors:0.65 \\
        recipes/loras/pixel-dust.safetensors:0.8

    RECIPE is a recipe file or folder; its LoRAs are read from the library. All FILEs are
    judged together, as the LoRAs of one composition. SCALE is -2 to 2 and defaults to 1.

    For each LoRA: its format, trigger words, training notes, and how much of the combined
    change comes from it. For each pair: how similar they are in each block, and whether that
    matters.
    """
    if html:
        check_page(html)
    recipes = [Path(text) for text in what if _is_recipe(Path(text))]
    files = [lora_argument(text) for text in what if not _is_recipe(Path(text))]
    for path in [*recipes, *(path for path, _ in files)]:
        if not path.exists():
            raise UsageError(
                f"{visible(str(path))} does not exist", hint="name recipes or .safetensors files"
            )
        if path.is_dir() and not find(Selection((path,)), Path.cwd())[1]:
            raise UsageError(
                f"there are no recipes in {visible(str(path))}",
                hint="name recipes or .safetensors files",
            )
    inspections = [*_of_recipes(recipes, library), *_of_files(files)]
    if html:
        write_copy(html, page(inspections))
    if output_format == "json":
        click.echo(as_json(inspections), nl=False)
    else:
        emit(lambda color: text(inspections, color=color))
    return 0


def _is_recipe(path: Path) -> bool:
    return path.suffix.lower() in RECIPE_ENDINGS or path.is_dir()


def _of_files(files: Sequence[tuple[Path, float]]) -> list[Inspection]:
    if not files:
        return []
    try:
        from composer.lora import inspect
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"inspecting needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    return [inspect(files)]


def _of_recipes(recipes: Sequence[Path], library: Path | None) -> list[Inspection]:
    if not recipes:
        return []
    project = open_project(Selection(tuple(recipes)))
    with open_local(project, opt.TargetOptions(library=library), run_jobs=False) as target:
        return project.inspect(target)
