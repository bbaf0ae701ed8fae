"""`compose lock --repair`: a conflicted, torn or edited lock, brought right by the target."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli.project import open_project, state_of
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.errors import InvalidInput
from composer.executor import repair
from composer.files.atomic import write_atomically
from composer.files.state import prepare_state
from composer.lock import (
    NAME,
    Ledger,
    Salvaged,
    flat,
    lock_text,
    only_one,
    read_lock,
    salvage,
    write_lock,
)
from composer.model import Lock
from composer.output import locking as render
from composer.planner import RepairedEntry, RepairReport
from composer.project.options import PLAN_DEFAULTS
from composer.project.sources import find

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.project import Selection

FAILED = 1
_KEPT = f"{NAME}.broken"


@dataclass(frozen=True, slots=True)
class How:
    """What a repair is told; `form` is text or json."""

    form: str
    offline: bool
    dry_run: bool
    lock_timeout: float


def repair_lock(selection: Selection, wish: TargetOptions, how: How) -> int:
    """Read what can be read, ask the target what is true, and write the lock anew.

    Raises `InvalidInput`, and writes nothing, where an entry of a target that isn't asked is lost.
    """
    root, _ = find(selection, Path.cwd())
    with nullcontext() if how.dry_run else only_one(root, state_of(root), wait=how.lock_timeout):
        text = lock_text(root) or ""
        salvaged = salvage(text)
        if how.offline:
            key, missed = "", False
            _spare(salvaged, key)
            _keep(root, text, salvaged, how)
            mending = _sides_together(root, salvaged, dry_run=how.dry_run)
        else:
            key, mending, missed = _asked(selection, wish, salvaged, text, how)
    lost = [loss.words for loss in salvaged.lost]
    lost += ["what stood below the last line, which has no end"] if salvaged.cut else []
    if how.form == "json":
        click.echo(render.mending_json(mending, lost, target=key), nl=False)
    else:
        emit(lambda color: render.mending(mending, lost, would=how.dry_run))
    return FAILED if mending.blocked or missed or salvaged.cut else 0


def _spare(salvaged: Salvaged, asked: str) -> None:
    """Only what the target that is asked has can be found again; all else must not get lost."""
    others = [loss.words for loss in salvaged.lost if loss.target and loss.target != asked]
    if others:
        who = "without asking" if not asked else f"at {asked}"
        raise InvalidInput(
            f"{NAME}: could not be read, and can't be found again {who}: {'; '.join(others)}",
            hint="nothing was written: mend these lines by hand or restore them from git, or run "
            "compose lock --repair with the --target and --project that they are of",
        )


def _keep(root: Path, text: str, salvaged: Salvaged, how: How) -> None:
    """Nothing that somebody wrote is lost, even what we can't read."""
    if how.dry_run or not (salvaged.lost or salvaged.cut):
        return
    kept = prepare_state(state_of(root), root) / _KEPT
    write_atomically(kept, text.encode())
    click.echo(f"the lock as it was is in {kept}", err=True)


def _sides_together(root: Path, salvaged: Salvaged, *, dry_run: bool) -> RepairReport:
    """All that the text says, in one lock; which of two ids is right is left to an apply."""
    targets = salvaged.lock.targets
    mended = tuple(
        RepairedEntry(path, entry.name, entry.composition, f"{key}: every side's ids are kept")
        for key, target in targets.items()
        for path, entry in target.recipes.items()
        if entry.candidates
    )
    together = Lock({key: flat(target) for key, target in targets.items()})
    return RepairReport(mended, (), not dry_run and write_lock(root, together))


def _asked(
    selection: Selection, wish: TargetOptions, salvaged: Salvaged, text: str, how: How
) -> tuple[str, RepairReport, bool]:
    """The target's key, what was mended, and whether something lost was not found again."""
    project = open_project(selection, read=lambda root: salvaged.lock)
    with open_target(project, wish, run_jobs=False) as target:
        _spare(salvaged, target.key)
        _keep(project.root, text, salvaged, how)
        ledger = Ledger(
            project.root, target.key, project.state, lock=salvaged.lock, write=not how.dry_run
        )
        options = project.options(PLAN_DEFAULTS)
        mending = repair(
            project.recipes, target, ledger, options, torn=salvaged.torn, dry_run=how.dry_run
        )
        missed = not how.dry_run and _is_missed(salvaged, project, target.key)
        return target.key, mending, missed


def _is_missed(salvaged: Salvaged, project: Project, key: str) -> bool:
    """Whether an entry that was lost has no id now; one of no known path may be any recipe's."""
    recipes = read_lock(project.root).target(key).recipes
    whole = {path for path, entry in recipes.items() if entry.ids}
    every = {recipe.path for recipe in project.recipes}
    lost = [loss for loss in salvaged.lost if loss.target == key]
    return any(loss.path not in whole if loss.path else not every <= whole for loss in lost)
