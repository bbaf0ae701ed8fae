"""`compose pull`: a recipe's trained result, as a file where the user wants it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.output import find_path
from composer.cli.project import open_project
from composer.cli.targets import LOCAL, open_engine
from composer.errors import ComposeError, UsageError
from composer.lock import remember
from composer.output.style import aligned
from composer.planner import match_entries
from composer.recipes import slug
from composer.targets.selection import choose
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.model import Entry
    from composer.targets.local.service import Engine

REFUSED, FAILED, TRAINING = 3, 1, 75
SUFFIX, SLASHES = ".safetensors", ("/", os.sep)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A recipe's name, its entry in the lock if there is one, and where its result is to go."""

    name: str
    entry: Entry | None
    out: Path


@click.command("pull")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    metavar="FILE|DIR",
    help="Where to: a .safetensors file, or a folder; one that ends in / is made.",
)
@click.option("--force", is_flag=True, help="Replace files that have other bytes.")
@opt.target_options
@opt.dry_running
def pull_command(
    recipes: tuple[str, ...], out: str, force: bool, wish: TargetOptions, dry_run: bool
) -> int:
    """Put the trained results of recipes (by path or name; all without any) where you want them.

    In a folder they are named after their recipes. Where the file system can, a file shares its
    blocks with the engine's, or is another name of it, and costs no room; else it is a copy.
    """
    project = open_project()
    key = choose(wish, project.lock.targets, os.environ).key
    if key != LOCAL:
        raise UsageError(
            f"pull knows the local target's results alone, not those of {visible(key)}",
            hint="--target local, or that target's own way to download a model",
        )
    found = _found(project, remember(project.root, key, project.state).entries, recipes)
    wanted = _placed(found, out, alone=len(recipes) == 1)
    if out.endswith(SLASHES) and not dry_run:
        _make_folder(Path(out))
    with open_engine(project, wish, run_jobs=False) as engine:
        done = [_pulled(engine, one, force=force, dry_run=dry_run) for one in wanted]
    click.echo("\n".join(aligned([row for row, _ in done])))
    statuses = {status for _, status in done}
    return next((status for status in (REFUSED, FAILED, TRAINING) if status in statuses), 0)


def _make_folder(place: Path) -> None:
    from composer.files.delivery import unwritable

    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(place, error) from error


def _found(
    project: Project, entries: Mapping[str, Entry], recipes: Sequence[str]
) -> list[tuple[str, Entry | None]]:
    """Names and entries of the recipes that are meant. Raises `UsageError`."""
    if recipes:
        paths = dict.fromkeys(find_path(entries, recipe) for recipe in recipes)
        return [(entries[path].name, entries[path]) for path in paths]
    met = match_entries(project.recipes, entries)
    if not project.recipes:
        raise UsageError("there are no recipes", hint="compose pull [RECIPE]... -o FILE|DIR")
    return [(recipe.name, entries.get(met.get(recipe.path, ""))) for recipe in project.recipes]


def _placed(found: Sequence[tuple[str, Entry | None]], out: str, *, alone: bool) -> list[_Wanted]:
    """Each with its own file. Raises `UsageError`."""
    place = Path(out)
    if alone and place.suffix.lower() == SUFFIX and not place.is_dir():
        ((name, entry),) = found
        return [_Wanted(name, entry, place)]
    if not place.is_dir() and not out.endswith(SLASHES):
        raise UsageError(
            f"{visible(out)} is no folder",
            hint=f"end it with / to have it made; one recipe may go to a {SUFFIX} file",
        )
    files: dict[str, str] = {}
    for name, _ in found:
        other = files.setdefault(slug(name), name)
        if other != name:
            raise UsageError(
                f"{visible(other)} and {visible(name)} would both be {slug(name)}{SUFFIX}",
                hint="pull them one by one, to files",
            )
    return [_Wanted(name, entry, place / f"{slug(name)}{SUFFIX}") for name, entry in found]


def _pulled(engine: Engine, one: _Wanted, *, force: bool, dry_run: bool) -> tuple[list[str], int]:
    """A line that says what came of it, and its exit status."""
    from composer.files.delivery import THERE, deliver

    name, out = visible(one.name), visible(str(one.out))
    try:
        source = _result(engine, one.entry)
        if source is None:
            return ["training", name, "compose apply waits for it"], TRAINING
        how = deliver(source, one.out, force=force, dry_run=dry_run, held=engine.holds)
    except ComposeError as error:
        status = error.exit_status if error.exit_status == REFUSED else FAILED
        return ["not pulled", name, visible(str(error))], status
    except OSError as error:
        return ["not pulled", name, f"{out}: {error.strerror or error}"], FAILED
    newer = "; a newer one is on its way" if one.entry and one.entry.next else ""
    return ["kept" if how == THERE else "pulled", name, f"{out} ({how}{newer})"], 0


def _result(engine: Engine, entry: Entry | None) -> Path | None:
    """The composed file; None while it is in training. Raises `ComposeError` if there is none."""
    coming = entry.next.composition if entry and entry.next else None
    id = (entry.composition if entry else None) or coming
    if id is None:
        raise ComposeError("it has no model yet", hint="compose apply")
    record = engine.record(id)
    if record is None:
        raise ComposeError(f"{id} is not on this machine", hint="compose apply makes it")
    return None if record.status == "training" else engine.result(id)
