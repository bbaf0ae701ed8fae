"""`compose lock`: pin the ids of LoRAs without applying; merge a lock that git could not."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import lock_repair as repairing
from composer.cli import options as opt
from composer.cli.project import open_project, state_of
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.errors import Refused, UsageError
from composer.lock import only_one, remember, write_lock
from composer.model import Lock, TargetLock
from composer.output import lock as render
from composer.planner import other_owner, outdated_pins, pinned, unpinned
from composer.project import PlanOptions
from composer.project.sources import find
from composer.targets.base import observe
from composer.targets.selection import offline_choice
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.model import KnownState, Observed
    from composer.planner import Options, Pinning
    from composer.project import Selection
    from composer.targets.base import Target

FAILED = 1
_PATH_ENDINGS = ("/", os.sep, ".yaml", ".yml")
_COMMIT = "compose lock writes it; commit compose.lock"


@click.command("lock")
@opt.selection_options
@opt.target_options
@opt.output_option("text", "json")
@click.option("--locked", is_flag=True, help="Write nothing; refuse if a pin is missing or moves.")
@click.option("--offline", is_flag=True, help="Ask no target: only check that all is pinned.")
@click.option(
    "--upgrade",
    is_flag=False,
    flag_value="",
    multiple=True,
    metavar="[NAME]",
    help="Look names up anew: this one (repeatable), or all; with --dry-run, list what changed.",
)
@click.option("--repair", is_flag=True, help="Merge both sides of a git conflict in the lock.")
@click.option(
    "--merge",
    nargs=3,
    type=click.Path(path_type=Path),
    metavar="BASE OURS THEIRS",
    help="Merge these lock files into OURS, as a git merge driver.",
)
@opt.dry_running
@opt.lock_timeout
def lock_command(
    selection: Selection,
    wish: TargetOptions,
    form: str,
    locked: bool,
    offline: bool,
    upgrade: tuple[str, ...],
    repair: bool,
    merge: tuple[Path, Path, Path] | None,
    dry_run: bool,
    lock_timeout: float,
) -> int:
    """Look up the LoRAs that recipes name, and pin their ids in compose.lock. Nothing is made.

    PATHS are recipe files or folders; without any, the folder recipes/.
    """
    if upgrade and (offline or repair):
        raise UsageError("--upgrade asks the target what names mean: alone, or with --dry-run")
    if repair and locked:
        raise UsageError("--locked writes nothing, and --repair does: one of the two")
    selection, upgrade = _paths_apart(selection, upgrade)
    if merge is not None:
        return repairing.merge_files(*merge)
    if repair:
        root, _ = find(selection, Path.cwd())
        state = state_of(root)
        with nullcontext() if dry_run else only_one(root, state, wait=lock_timeout):
            return repairing.repair_lock(root, form, dry_run=dry_run)
    project = open_project(selection)
    options = _options(project, upgrade)
    if offline:
        return _offline(project, wish, options)
    reads = dry_run or locked
    with (
        _alone(project, wait=lock_timeout, reads=reads),
        open_target(project, wish, run_jobs=False) as target,
    ):
        look = _Look(project, target, options)
        if dry_run and upgrade:
            return _tell_news(look, form)
        if locked:
            return _refuse_to_move(look)
        return _pin(look, form, dry_run=dry_run)


def _paths_apart(
    selection: Selection, upgrade: tuple[str, ...]
) -> tuple[Selection, tuple[str, ...]]:
    """In `--upgrade recipes/` the value is a path, and all names of its recipes are meant."""
    paths = [value for value in upgrade if value.endswith(_PATH_ENDINGS) and Path(value).exists()]
    names = tuple("" if value in paths else value for value in upgrade)
    return replace(selection, paths=(*selection.paths, *map(Path, paths))), names


def _options(project: Project, upgrade: tuple[str, ...]) -> Options:
    """`--upgrade` without a name means all. Raises `UsageError` for a name that no recipe has."""
    names = frozenset(name for name in upgrade if name)
    return project.options(PlanOptions(upgrade=names, upgrade_all="" in upgrade))


def _alone(project: Project, *, wait: float, reads: bool) -> AbstractContextManager[None]:
    return nullcontext() if reads else only_one(project.root, project.state, wait=wait)


class _Look:
    """One look at lock and target, and the pins that come of it."""

    def __init__(self, project: Project, target: Target, options: Options) -> None:
        self.key, self.root, self.options = target.key, project.root, options
        self.recipes = project.recipes
        self.lock = project.lock
        self.memory: KnownState = remember(project.root, target.key, project.state)
        self.observed: Observed = observe(target, project.recipes, self.memory)
        stranger = other_owner(self.memory, self.observed)
        if stranger is not None:
            raise stranger.error(stranger.message)
        mine = self.lock.target(self.key)
        self.pinning: Pinning = pinned(project.recipes, mine, self.memory, self.observed, options)

    def write(self) -> bool:
        """The lock with these pins; True if its bytes changed."""
        if not self.pinning.pins:
            return False
        owner = self.memory.owner or self.observed.owner
        targets = {**self.lock.targets, self.key: TargetLock(owner, self.pinning.recipes)}
        return write_lock(self.root, Lock(targets))


def _pin(look: _Look, form: str, *, dry_run: bool) -> int:
    written = not dry_run and look.write()
    pinning = look.pinning
    if form == "json":
        click.echo(render.pins_json(pinning, target=look.key, written=written), nl=False)
    else:
        emit(lambda color: render.pins(pinning, would=dry_run, color=color))
    return FAILED if pinning.problems else 0


def _tell_news(look: _Look, form: str) -> int:
    told = outdated_pins(look.recipes, look.lock.target(look.key), look.observed, look.options)
    if form == "json":
        printed = render.pins_json(look.pinning, told, target=look.key, written=False)
        click.echo(printed, nl=False)
    else:
        emit(lambda color: render.outdated(told, look.pinning, color=color))
    return FAILED if look.pinning.problems else 0


def _refuse_to_move(look: _Look) -> int:
    for pin in look.pinning.pins:
        how = f"moves from {pin.before}" if pin.before else "is missing in the lock"
        raise Refused(f"--locked: the pin of {pin.name} ({pin.path}) {how}", hint=_COMMIT)
    for path, words in look.pinning.problems:
        click.echo(f"{visible(path)}: {visible(words)}", err=True)
    return FAILED if look.pinning.problems else 0


def _offline(project: Project, wish: TargetOptions, options: Options) -> int:
    lock = project.lock
    key, reason = offline_choice(wish, lock.targets, os.environ)
    click.echo(f"Target: {visible(key)} ({reason}), not asked: --offline", err=True)
    missing = unpinned(project.recipes, lock.target(key), options)
    if missing:
        listed = ", ".join(f"{name} ({path})" for path, name in missing)
        raise Refused(f"the lock has no pin for {listed}", hint=_COMMIT)
    return 0
