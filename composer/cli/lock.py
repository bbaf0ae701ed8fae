"""`compose lock`: pin the ids of LoRAs without applying; merge a lock that git could not."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.project import offline_target, open_project, open_target
from composer.cli.selection import gathered, output_option, selection_options
from composer.cli.terminal import emit, suggest, tell
from composer.errors import UsageError
from composer.lock import LOCK_NAME
from composer.output import lock as render
from composer.project import PlanOptions
from composer.project.locking import merge_lock_files
from composer.text import counted, visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.project import Project, Selection
    from composer.project.locking import MergedLock, Pinned

_PATH_ENDINGS = ("/", os.sep, ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Mode:
    """What `compose lock` does, instead of or besides pinning what is missing."""

    locked: bool
    offline: bool
    upgrade: tuple[str, ...]
    repair: bool
    merge: tuple[Path, Path, Path] | None


mode_options = gathered(
    Mode,
    "mode",
    click.option(
        "--locked", is_flag=True, help="Refuse if a pin is missing or would change. Writes nothing."
    ),
    click.option(
        "--offline",
        is_flag=True,
        help="Check that the lock has every pin, without contacting the target.",
    ),
    click.option(
        "--upgrade",
        is_flag=False,
        flag_value="",
        multiple=True,
        metavar="[NAME]",
        shell_complete=suggestions.lora_names,
        help="Look up all names again, or only NAME. Put PATHS before this option. Repeatable.",
    ),
    click.option(
        "--repair", is_flag=True, help="Merge both versions in a git conflict of the lock."
    ),
    click.option(
        "--merge",
        nargs=3,
        type=click.Path(path_type=Path),
        metavar="BASE OURS THEIRS",
        help="Merge three lock files into OURS. For use as a git merge driver.",
    ),
)


@click.command("lock")
@selection_options
@opt.target_options
@output_option("text", "json")
@mode_options
@opt.writing_options
def lock_command(
    selection: Selection,
    target_options: TargetOptions,
    output_format: str,
    mode: Mode,
    writing: opt.Writing,
) -> int:
    """Record the ids of the LoRAs in the recipes.

    \b
    Examples:
      compose lock
      compose lock --upgrade "Ink Lines" --dry-run

    Looks up each LoRA's name on the target and pins its id in compose.lock. Builds nothing.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    if mode.merge is not None:
        opt.refuse_all_but("--merge", "merge")
        return _print_merge(merge_lock_files(*mode.merge))
    if mode.repair:
        opt.refuse_all_but(
            "--repair", "repair", "paths", "output_format", "dry_run", "lock_timeout"
        )
        project = open_project(selection, check=False)
        with writing.exclusive(project):
            return _print_repair(project.repair_lock(dry_run=writing.dry_run), output_format)
    if mode.offline and mode.upgrade:
        raise UsageError(
            "--upgrade can't be used with --offline",
            hint="--upgrade asks the target for LoRAs: leave out --offline",
        )
    selection, options = _pin_options(selection, mode)
    project = open_project(selection)
    if mode.offline:
        return _check_offline(project, target_options, options)
    writes_nothing = mode.locked or writing.dry_run
    with (
        nullcontext() if mode.locked else writing.exclusive(project),
        open_target(project, target_options, run_jobs=False, dry_run=writes_nothing) as target,
    ):
        pinned = project.lock(target, options, dry_run=writing.dry_run)
    _print_pins(pinned, output_format, mode, dry_run=writing.dry_run)
    return pinned.exit_status


def _pin_options(selection: Selection, mode: Mode) -> tuple[Selection, PlanOptions]:
    """In `--upgrade recipes/` the value is a path, and stands for all names of its recipes."""
    values = mode.upgrade
    paths = [value for value in values if value.endswith(_PATH_ENDINGS) and Path(value).exists()]
    names = frozenset(value for value in values if value and value not in paths)
    upgrade_all = len(names) < len(set(values))
    options = PlanOptions(upgrade=names, upgrade_all=upgrade_all, locked=mode.locked)
    return replace(selection, paths=(*selection.paths, *map(Path, paths))), options


def _print_pins(pinned: Pinned, output_format: str, mode: Mode, *, dry_run: bool) -> None:
    pinning = pinned.pinning
    if mode.locked:  # nothing was written: show the problems alone
        for path, words in pinning.problems:
            tell(f"{visible(path)}: {visible(words)}", err=True)
    elif output_format == "json":
        printed = render.pins_json(
            pinning, pinned.outdated, target=pinned.target, written=pinned.written
        )
        click.echo(printed, nl=False)
    elif mode.upgrade and dry_run:
        emit(lambda color: render.outdated(pinned.outdated, pinning, color=color))
    else:
        emit(lambda color: render.pins(pinning, would=dry_run, color=color))
        if pinned.written and pinning.pins and not pinning.problems:
            suggest(f"commit {LOCK_NAME}; compose plan shows what an apply would do")


def _check_offline(project: Project, target_options: TargetOptions, options: PlanOptions) -> int:
    project.check_pins(offline_target(project, target_options), options)
    return 0


def _print_repair(merged: MergedLock, output_format: str) -> int:
    entries = merged.undecided
    if output_format == "json":
        click.echo(render.repair_json(entries, written=merged.written), nl=False)
    else:
        text = render.repair(entries, conflict=merged.conflict, written=merged.written)
        emit(lambda color: text)
    return 0


def _print_merge(merged: MergedLock) -> int:
    if merged.undecided:
        count = counted(len(merged.undecided), "entry")
        tell(f"{LOCK_NAME}: both sides changed {count}; next: compose apply", err=True)
    for _, path, entry in merged.undecided:
        tell(f"  {visible(entry.name)}  {visible(path)}", err=True)
    return 0
