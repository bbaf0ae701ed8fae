"""`compose lock --repair`: a conflicted, torn or edited lock, brought right by the target."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from composer.apply import repair
from composer.cli.planning import options_of
from composer.cli.project import find, open_project
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.entities import Lock
from composer.lockfile import (
    NAME,
    Ledger,
    Salvaged,
    flat,
    lock_text,
    only_one,
    salvage,
    state_dir,
    write_atomically,
    write_lock,
)
from composer.plan import Mending
from composer.render import locking as render

if TYPE_CHECKING:
    from pathlib import Path

    from composer.cli.options import Selection, Wish

FAILED = 1
_KEPT = f"{NAME}.broken"


@dataclass(frozen=True, slots=True)
class How:
    """What a repair is told; `form` is text or json."""

    form: str
    offline: bool
    dry_run: bool
    lock_timeout: float


def repair_lock(selection: Selection, wish: Wish, how: How) -> int:
    """Read what can be read, ask the target what is true, and write the lock anew."""
    root, _ = find(selection)
    with nullcontext() if how.dry_run else only_one(root, wait=how.lock_timeout):
        text = lock_text(root) or ""
        salvaged = salvage(text)
        if salvaged.lost and not how.dry_run:
            _keep(root, text)
        if how.offline:
            key, mending = "", _sides_together(root, salvaged, dry_run=how.dry_run)
        else:
            key, mending = _asked(selection, wish, salvaged, dry_run=how.dry_run)
    if how.form == "json":
        printed = render.mending_json(mending, salvaged.lost, target=key)
        click.echo(printed, nl=False)
    else:
        emit(lambda color: render.mending(mending, salvaged.lost, would=how.dry_run))
    return FAILED if mending.blocked else 0


def _keep(root: Path, text: str) -> None:
    """Nothing that somebody wrote is lost, even what we can't read."""
    state = state_dir(root, create=True)
    write_atomically(state / _KEPT, text.encode(), through=state)
    click.echo(f"the lock as it was is in {state / _KEPT}", err=True)


def _sides_together(root: Path, salvaged: Salvaged, *, dry_run: bool) -> Mending:
    """All that the text says, in one lock; which of two ids is right is left to an apply."""
    together = Lock({key: flat(target) for key, target in salvaged.lock.targets.items()})
    return Mending((), (), not dry_run and write_lock(root, together))


def _asked(
    selection: Selection, wish: Wish, salvaged: Salvaged, *, dry_run: bool
) -> tuple[str, Mending]:
    project = open_project(selection, read=lambda root: salvaged.lock)
    with open_target(project, wish, run_jobs=False) as target:
        ledger = Ledger(project.root, target.key, lock=salvaged.lock, write=not dry_run)
        options = options_of(project)
        mending = repair(
            project.recipes, target, ledger, options, torn=salvaged.torn, dry_run=dry_run
        )
        return target.key, mending
