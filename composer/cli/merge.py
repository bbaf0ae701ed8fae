"""`compose merge`: LoRA files become one, without a recipe, a lock or a project."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer.cli import suggestions
from composer.cli.arguments import (
    NumberOption,
    dry_running,
    refuse_other_files,
    skipping,
    swept_argument,
)
from composer.cli.extras import needing
from composer.cli.output_files import check_report, write_copy
from composer.cli.signals import terminable
from composer.cli.terminal import Meter
from composer.errors import UsageError
from composer.files.delivery import SLASHES, check_names_folder
from composer.lora.folder import SUFFIX
from composer.lora.hashing import Hashing
from composer.output import merge as render
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from composer.lora import Merged
    from composer.model import Recipe

    Parts = Sequence[tuple[Path, tuple[float, ...]]]


def _known_format(
    context: click.Context, parameter: click.Parameter, name: str | None
) -> str | None:
    """The name of an output format of some model family; `merge` knows which of them fits."""
    if name is None:
        return None
    from composer.lora import families

    known = families.output_formats()
    if name not in known:
        raise click.BadParameter(f"{visible(name)!r} is not one of {', '.join(map(repr, known))}")
    return name


@click.command("merge")
@click.argument(
    "loras",
    nargs=-1,
    required=True,
    metavar="LORA[:SCALE]...",
    shell_complete=suggestions.files(SUFFIX, scales=True),
)
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    required=True,
    metavar="FILE|DIR",
    help="The .safetensors file to write, or for several scales a folder. End the path with / to "
    "create the folder.",
)
@click.option(
    "--rank",
    cls=NumberOption,
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum rank per layer (1 or more).",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Data type of the weights. The default is the LoRAs' own.",
)
@click.option(
    "--format",
    metavar="FORMAT",
    shell_complete=suggestions.output_formats,
    callback=_known_format,
    help="Key naming of the output file: diffusers (the default) or kohya. ComfyUI reads both.",
)
@skipping
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option(
    "--save-recipe",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also keep the merge as a recipe in FILE, as recipes/both.yaml. Its LoRAs must be in the "
    "project's library.",
)
@click.option(
    "--json-into",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a JSON report to FILE.",
)
@dry_running
def merge_command(
    loras: tuple[str, ...],
    out: str,
    rank: int | None,
    precision: str | None,
    format: str | None,
    skip_text_encoder: bool,
    force: bool,
    save_recipe: Path | None,
    json_into: Path | None,
    dry_run: bool,
) -> int:
    """Merge LoRA files into one, without a recipe.

    \b
    Examples:
      compose merge recipes/loras/ink-lines.safetensors:0.65 \\
        recipes/loras/pixel-dust.safetensors:0.8 -o both.safetensors
      compose merge recipes/loras/ink-lines.safetensors:0.4..1.0/0.2 -o sweep/

    Adds the LoRAs' weight changes, each multiplied by its SCALE. SCALE is -2 to 2 and defaults
    to 1. Inputs may differ in format, rank and data type. Without --rank, the result is exact up
    to the rounding of its data type. With --rank, it is the closest LoRA of that rank. With one
    LoRA, that file is converted, reduced or scaled.

    SCALE may also be a range with a step, as 0.4..1.0/0.2: a file is written for each scale, or
    for every combination, at most 100. (In compose sweep, the number after / is how many.) Each
    is named by its LoRAs and scales.

    With --save-recipe, compose apply makes a model of the same weights.
    """
    parts = [swept_argument(text) for text in loras]
    _check(parts, out, save_recipe, json_into)
    options: dict[str, object] = {
        "rank": rank,
        "precision": precision,
        "format": format,
        "skip_text_encoder": skip_text_encoder,
        "force": force,
    }
    merged, recipe = _merge(parts, out, options, save_recipe, dry_run=dry_run)
    if json_into:
        write_copy(json_into, render.as_json(merged, recipe))
    click.echo(render.text(merged, recipe), nl=False)
    return 0


def _count(parts: Parts) -> int:
    """How many files there will be."""
    return prod(len(scales) for _, scales in parts)


def _check(parts: Parts, out: str, save_recipe: Path | None, json_into: Path | None) -> None:
    """Raise `UsageError` for what can be seen before the weights library is imported."""
    paths, count = [path for path, _ in parts], _count(parts)
    refuse_other_files(paths)
    if json_into:
        check_report(json_into, [Path(out), *paths])
    if count > 1:
        check_names_folder(out, many=f"{count:,} merges", one="one merge")
    if count > 1 and save_recipe:
        raise UsageError(
            f"--save-recipe is for one merge, not for {count:,}",
            hint="choose scales, and merge again with --save-recipe",
        )


def _merge(
    parts: Parts,
    out: str,
    options: Mapping[str, object],
    save_recipe: Path | None,
    *,
    dry_run: bool,
) -> tuple[Merged | list[Merged], Recipe | None]:
    """Write the files, and the recipe. All that can be wrong is said before the first is there."""
    count, is_folder = _count(parts), out.endswith(SLASHES) or _count(parts) > 1
    name = counted(count, "file") if is_folder else Path(out).name
    with (
        terminable(),
        Hashing(path for path, _ in parts) as hashing,  # while the library is imported
        Meter(f"composing {name}") as meter,
        _saving(save_recipe, force=bool(options["force"]), dry_run=dry_run) as save,
    ):
        run = partial(
            _function("sweep" if is_folder else "merge"),
            parts if is_folder else [(path, scale) for path, (scale,) in parts],
            out,
            progress=meter.say,
            hashing=hashing,
            **options,
        )
        if save and not dry_run:
            save(run(dry_run=True), dry_run=True)
        merged = run(dry_run=dry_run)
        return merged, save(merged, dry_run=dry_run) if save else None


@contextmanager
def _saving(
    file: Path | None, *, force: bool, dry_run: bool
) -> Iterator[Callable[..., Recipe] | None]:
    """What keeps a merge as a recipe of the project that the working folder is in."""
    if file is None:
        yield None
        return
    from composer.cli.project import open_local, open_project
    from composer.targets.kind import TargetOptions

    project = open_project(may_be_empty=True)
    with open_local(project, TargetOptions(), run_jobs=False, dry_run=dry_run) as target:

        def save(merged: Merged | list[Merged], *, dry_run: bool) -> Recipe:
            one = merged[0] if isinstance(merged, list) else merged
            return project.save_recipe(target, one, file, force=force, dry_run=dry_run)

        yield save


def _function(name: str) -> Callable[..., Any]:
    """One of the weights library. Raises `UsageError` where what it needs is not installed."""
    with needing("merging needs", "local"):
        from composer import lora

        function: Callable[..., Any] = getattr(lora, name)
    return function
