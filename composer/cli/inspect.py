"""`compose inspect`: what LoRAs are, and what they do to each other in a mix."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.arguments import (
    RECIPE_ENDINGS,
    is_lora_folder,
    lora_argument,
    may_follow,
    refuse_other_files,
    skipping,
)
from composer.cli.extras import needing
from composer.cli.output_files import check_page, write_copy
from composer.cli.project import open_local, open_project
from composer.cli.selection import output_option
from composer.cli.terminal import Meter, columns, emit
from composer.errors import ComposeError, UsageError
from composer.files.delivery import check_input_link
from composer.lora.folder import SUFFIX
from composer.output.inspect import UNLIMITED, text
from composer.output.inspect_html import page
from composer.output.inspect_json import as_json
from composer.project import Selection
from composer.project.sources import find
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora.inspection import Inspection
    from composer.lora.listing import Listing


@click.command("inspect")
@click.argument(
    "what",
    nargs=-1,
    required=True,
    metavar="RECIPE|FILE[:SCALE]|DIR...",
    shell_complete=suggestions.files(SUFFIX, *RECIPE_ENDINGS, scales=True),
)
@opt.library
@click.option(
    "--all", "everything", is_flag=True, help="Show every LoRA's file and notes, and every pair."
)
@skipping
@output_option("text", "json")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write an HTML page to FILE.",
)
def inspect_command(
    what: tuple[str, ...],
    library: Path | str | None,
    everything: bool,
    skip_text_encoder: bool,
    output_format: str,
    html: Path | None,
) -> int:
    """Show what LoRAs contain, and whether they interfere.

    \b
    Examples:
      compose inspect recipes/pixel-rogue.yaml
      compose inspect recipes/loras/ink-lines.safetensors:0.65 \\
        recipes/loras/pixel-dust.safetensors:0.8

    RECIPE is a recipe file or folder, or a model's name; LoRAs are read from the library. All
    FILEs, and those in DIR, a folder of LoRAs, are judged together, as the LoRAs of one
    composition. SCALE is -2 to 2 and defaults to 1. Files that can't be used are told last, with
    the reason; the exit status is 1 if one of them was named itself, or if no file can be used.

    What to know comes first: which LoRAs are near duplicates, which interfere, and scales to try.
    Then how similar each two are, each LoRA's share of the combined change, and the similar pairs
    block by block. A LoRA alone is shown with its format, trigger words, training notes, and the
    blocks that it changes.
    """
    if html:
        check_page(html)
    recipes, files = _sorted_out([_file_of(text) for text in what])
    if recipes and skip_text_encoder:
        raise UsageError(
            "--skip-text-encoder is for LoRA files; a recipe's LoRAs are composed whole",
            hint="write files without it: compose merge --skip-text-encoder",
        )
    inspections, listing = _of_recipes(recipes, library), None
    if files:
        listing, mixes = _of_files(files, skip_text_encoder)
        inspections += mixes
    if html:
        write_copy(html, page(inspections, everything=everything))
    if output_format == "json":
        click.echo(as_json(inspections, listing), nl=False)
    else:
        wide = columns(sys.stdout) or UNLIMITED
        emit(lambda color: text(inspections, listing, wide, color=color, everything=everything))
    if listing and listing.failed:
        raise listing.error()
    return 0


def _file_of(text: str) -> str:
    """The file of the recipe whose model has this name, as `output` and `pull` take it too.

    Whatever may be a path is left as it is.
    """
    if os.path.lexists(text) or text.lower().endswith(RECIPE_ENDINGS) or SUFFIX in text.lower():
        return text
    with suppress(ComposeError):
        project = open_project()
        named = [recipe.path for recipe in project.recipes if recipe.name == text]
        return os.path.relpath(project.root / named[0]) if named else text
    return text


def _sorted_out(what: Sequence[str]) -> tuple[list[Path], list[tuple[Path, float]]]:
    """Recipes and folders of recipes; LoRA files and folders of LoRA files, with their scales."""
    folders = [path for text in what if is_lora_folder(path := Path(text))]
    recipes = [path for text in what if _is_recipe(path := Path(text)) and path not in folders]
    files = [lora_argument(text) for text in what if not _is_recipe(Path(text))]
    if scaled := [path for path, _ in files if path.is_dir()]:
        raise UsageError(
            f"{visible(str(scaled[0]))} is a folder, which has no scale",
            hint="name its files, each with its scale",
        )
    unusable = [path for path in recipes if not path.exists() or _lacks_recipes(path)]
    refuse_other_files([*unusable, *(path for path, _ in files)], or_recipes=True)
    for folder in folders:
        check_input_link(folder)
    return recipes, [*files, *((folder, 1.0) for folder in folders)]


def _is_recipe(path: Path) -> bool:
    return path.suffix.lower() in RECIPE_ENDINGS or path.is_dir()


def _lacks_recipes(path: Path) -> bool:
    return path.is_dir() and not find(Selection((path,)), Path.cwd()).chosen


def _of_files(
    paths: Sequence[tuple[Path, float]], skip_text_encoder: bool
) -> tuple[Listing, tuple[Inspection, ...]]:
    """Files and folders of them, as one mix; raises `BadLora` if none can be used."""
    with needing("inspecting needs", "local"):
        from composer.lora.listing import list_loras
    with Meter("reading LoRA files") as meter:
        listing = list_loras(
            paths,
            for_composing=False,
            skip_text_encoder=skip_text_encoder,
            follow=may_follow,
            progress=meter.say,
        )
    if not listing.loras:
        raise listing.error()
    with Meter("comparing LoRAs") as meter:
        return listing, listing.compare(meter.say)


def _of_recipes(recipes: Sequence[Path], library: Path | str | None) -> list[Inspection]:
    if not recipes:
        return []
    project = open_project(Selection(tuple(recipes)))
    options = opt.TargetOptions(library=library)
    with (
        open_local(project, options, run_jobs=False) as target,
        Meter("comparing LoRAs") as meter,
    ):
        return project.inspect(target, meter.say)
