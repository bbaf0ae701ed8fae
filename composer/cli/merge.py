"""`compose merge`: LoRA files become one, without a recipe, a lock or a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.lora_argument import weighted
from composer.cli.output_files import check_report, write_copy
from composer.cli.signals import terminable
from composer.cli.terminal import Meter
from composer.errors import UsageError
from composer.output import merge as render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora import Merged


@click.command("merge")
@click.argument("loras", nargs=-1, required=True, metavar="LORA[:SCALE]...")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT",
    help="The file to write: OUT.safetensors.",
)
@click.option(
    "--rank", type=click.IntRange(min=1), metavar="R", help="The most that a layer's rank may be."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="The number type of the weights; by default the LoRAs' own.",
)
@click.option(
    "--format",
    type=click.Choice(["diffusers", "kohya"]),
    default="diffusers",
    show_default=True,
    help="Whose names the keys have. ComfyUI reads both.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@click.option(
    "--json-into", type=click.Path(path_type=Path), metavar="FILE", help="Write a report as JSON."
)
@opt.dry_running
def merge_command(
    loras: tuple[str, ...],
    out: Path,
    rank: int | None,
    precision: str | None,
    format: str,
    force: bool,
    json_into: Path | None,
    dry_run: bool,
) -> int:
    """Write the weighted sum of LoRA files to OUT, as one LoRA; 1 is the SCALE if none is given.

    Exact, of any mix of formats, ranks and types; with --rank, the best there is of that rank. One
    LoRA alone is converted, reduced or scaled. No recipe, lock or project is read or written.
    """
    parts = [weighted(text) for text in loras]
    if json_into:
        check_report(json_into, [out, *(path for path, _ in parts)])
    try:
        from composer.lora import merge
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"merging needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    with terminable(), Meter(f"composing {out.name}") as meter:
        done = merge(
            parts,
            out,
            rank=rank,
            precision=precision,
            format=format,
            force=force,
            dry_run=dry_run,
            progress=meter.say,
        )
    made = _made(done, [path for path, _ in parts], out, format, dry_run=dry_run)
    if json_into:
        write_copy(json_into, render.as_json(made))
    click.echo(render.text(made), nl=False)
    return 0


def _made(
    done: Merged, order: Sequence[Path], out: Path, format: str, *, dry_run: bool
) -> render.MergedFile:
    """What came of it, with the LoRAs in the order in which they were named."""
    parts = [
        render.Part(
            file=str(file.path),
            id=part.id,
            sha256=part.reading.hashes.weights,
            scale=part.scale,
            format=file.format,
            kinds=file.kinds,
            ranks=file.ranks,
            alphas=file.alphas,
            dtypes=file.dtypes,
            modules=len(file.modules),
        )
        for part, file in sorted(
            zip(done.parts, done.files, strict=True), key=lambda pair: order.index(pair[1].path)
        )
    ]
    report = done.report
    return render.MergedFile(
        out=str(out),
        format=format,
        dtype=report.dtype,
        ranks=report.ranks,
        size=done.size,
        kept=report.kept,
        notes=done.notes,
        parts=tuple(parts),
        dry_run=dry_run,
    )
