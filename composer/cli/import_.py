"""`compose import`: recipes and lock entries for compositions that exist on the target."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import open_project
from composer.cli.targets import open_target
from composer.errors import UsageError
from composer.lock import Ledger, only_one
from composer.model import COMPOSITION
from composer.planner import entry_of, recipe_of
from composer.project.sources import RECIPES
from composer.recipes import parse, slug, write
from composer.targets.base import observe
from composer.text import visible

if TYPE_CHECKING:
    from pathlib import Path

    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.model import Model, Observed, Recipe

FAILED = 1


@click.command("import")
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every composition that no recipe names.")
@opt.target_options
@opt.dry_running
@opt.lock_timeout
def import_command(
    ids: tuple[str, ...], everything: bool, wish: TargetOptions, dry_run: bool, lock_timeout: float
) -> int:
    """Write recipes into recipes/, and lock entries, for compositions that exist.

    What a recipe can't express is skipped with the reason, and the exit status is 1.
    """
    if bool(ids) == everything:
        raise UsageError("name ids, or give --all, one of the two")
    project = open_project(may_be_empty=True)
    with (
        nullcontext() if dry_run else only_one(project.root, project.state, wait=lock_timeout),
        open_target(project, wish, run_jobs=False) as target,
    ):
        ledger = Ledger(project.root, target.key, project.state, write=not dry_run)
        observed = observe(target, project.recipes, ledger.memory)
        chosen = target.list_models(COMPOSITION)
        if ids:
            found = target.get_models(ids)
            missing = [id for id in ids if id not in found]
            chosen = [found[id] for id in ids if id in found]
        else:
            missing = []
        run = _Import(project, observed, ledger, dry_run=dry_run)
        for model in chosen:
            run.take(model)
        if not dry_run:
            ledger.close(handled=run.written, owner=observed.owner)
    for id in missing:
        click.echo(f"skipped {id}: the target has no such model", err=True)
    return FAILED if missing or run.skipped else 0


@dataclass(slots=True)
class _Import:
    project: Project
    observed: Observed
    ledger: Ledger
    dry_run: bool
    written: set[str] = field(default_factory=set)
    skipped: int = 0
    _names: set[str] = field(init=False)
    _paths: set[str] = field(init=False)
    _known: set[str] = field(init=False)

    def __post_init__(self) -> None:
        entries = self.ledger.memory.entries.values()
        self._names = {recipe.name for recipe in self.project.recipes}
        self._paths = {recipe.path.casefold() for recipe in self.project.recipes}
        self._known = {id for entry in entries for id in entry.ids}

    def take(self, model: Model) -> None:
        """Write one model's recipe and entry, or say why not."""
        if model.id in self._known:
            click.echo(f"= {model.id}  {visible(model.name)}: in the lock already", err=True)
            return
        try:
            recipe = self._recipe(model)
        except ValueError as why:
            self.skipped += 1
            said = f"skipped {model.id} ({visible(model.name)}): {visible(str(why))}"
            click.echo(said, err=True)
            return
        self._names.add(recipe.name)
        self._paths.add(recipe.path.casefold())
        if not self.dry_run:
            self._write(self.project.root / recipe.path, recipe)
            self.ledger.record(recipe.path, entry_of(model, recipe))
            self.written.add(recipe.path)
        click.echo(f"+ {recipe.path}  {model.id}  {visible(model.name)}")

    def _recipe(self, model: Model) -> Recipe:
        if model.name in self._names:
            raise ValueError("another recipe has this name")
        recipe = recipe_of(model, self._free_path(model.name), self.observed)
        again, problems = parse(write(recipe).encode(), file=recipe.path)
        if problems or again is None:
            raise ValueError(f"a recipe can't say it: {problems[0].message}")
        return recipe

    def _free_path(self, name: str) -> str:
        stem, n = slug(name), 1
        path = f"{RECIPES}/{stem}.yaml"
        while path.casefold() in self._paths or (self.project.root / path).exists():
            n += 1
            path = f"{RECIPES}/{stem}-{n}.yaml"
        return path

    def _write(self, file: Path, recipe: Recipe) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="\n") as out:
            out.write(write(recipe))
