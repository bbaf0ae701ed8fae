"""`compose merge`: LoRA files become one, without a recipe, a lock or a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli.arguments import (
    NumberOption,
    dry_running,
    lora_argument,
    refuse_other_files,
    skipping,
)
from composer.cli.output_files import check_report, write_copy
from composer.cli.signals import terminable
from composer.cli.terminal import Meter
from composer.errors import UsageError
from composer.lora.hashing import Hashing
from composer.output import merge as render
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.lora import Merged


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
@click.argument("loras", nargs=-1, required=True, metavar="LORA[:SCALE]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The .safetensors file to write.",
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
    callback=_known_format,
    help="Key naming of the output file: diffusers (the default) or kohya. ComfyUI reads both.",
)
@skipping
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--json-into",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a JSON report to FILE.",
)
@dry_running
def merge_command(
    loras: tuple[str, ...],
    out: Path,
    rank: int | None,
    precision: str | None,
    format: str | None,
    skip_text_encoder: bool,
    force: bool,
    json_into: Path | None,
    dry_run: bool,
) -> int:
    """Merge LoRA files into one, without a recipe.

    \b
    Examples:
      compose merge recipes/loras/ink-lines.safetensors:0.65 \\
        recipes/loras/pixel-dust.safetensors:0.8 -o both.safetensors
      compose merge recipes/loras/ink-lines.safetensors -o small.safetensors --rank 2

    Adds the LoRAs' weight changes, each multiplied by its SCALE. SCALE is -2 to 2 and defaults
    to 1. Inputs may differ in format, rank and data type. Without --rank, the result is exact up
    to the rounding of its data type. With --rank, it is the closest LoRA of that rank. With one
    LoRA, that file is converted, reduced or scaled.
    """
    parts = [lora_argument(text) for text in loras]
    refuse_other_files(path for path, _ in parts)
    if json_into:
        check_report(json_into, [out, *(path for path, _ in parts)])
    with (
        terminable(),
        Hashing(path for path, _ in parts) as hashing,  # while the library is imported
        Meter(f"composing {out.name}") as meter,
    ):
        merged = _merging()(
            parts,
            out,
            rank=rank,
            precision=precision,
            format=format,
            skip_text_encoder=skip_text_encoder,
            force=force,
            dry_run=dry_run,
            progress=meter.say,
            hashing=hashing,
        )
    if json_into:
        write_copy(json_into, render.as_json(merged))
    click.echo(render.text(merged), nl=False)
    return 0


def _merging() -> Callable[..., Merged]:
    """`merge` of the weights library. Raises `UsageError` where what it needs is not installed."""
    try:
        from composer.lora import merge
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"merging needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    return merge
