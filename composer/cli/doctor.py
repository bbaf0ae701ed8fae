"""`compose doctor`: checks a project and this machine, and says how to fix a problem."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.doctor_checks import credentials, environment, library, project_of, store
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.errors import ComposeError
from composer.lock import remember
from composer.model import LORA
from composer.output import doctor as render
from composer.output.doctor import NOTE, OK, SKIPPED, WRONG, Check
from composer.planner import Verb, orphans, plan, with_found
from composer.project.options import PLAN_DEFAULTS
from composer.targets.base import observe
from composer.text import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.model import KnownState, Model, Observed
    from composer.planner import Action, Plan

GRAVEST_FIRST = (77, 69, 3, 1)
TARGET, ORPHANS = "lock against target", "orphans"


@click.command("doctor")
@opt.target_options
@opt.output_option("text", "json")
@click.option("--offline", is_flag=True, help="Ask no target.")
def doctor_command(wish: TargetOptions, form: str, offline: bool) -> int:
    """Look at environment, credentials, project, library, store and target for what is wrong.

    Nothing is changed. Each problem comes with the command that fixes it.
    """
    statuses = {0}
    checks = [*environment(), *credentials(wish)]
    project, found = project_of(statuses)
    checks += found
    if project is not None:
        checks += [*library(project, wish), *store(project, wish)]
        checks += _offline() if offline else _asked(project, wish, statuses)
    if form == "json":
        click.echo(render.as_json(checks), nl=False)
    else:
        emit(lambda color: render.text(checks, color=color))
    statuses |= {1} if any(check.state == WRONG for check in checks) else set()
    known = [status for status in GRAVEST_FIRST if status in statuses]
    return known[0] if known else 0


def _offline() -> list[Check]:
    return [Check(TARGET, SKIPPED, "not asked: --offline")]


def _asked(project: Project, wish: TargetOptions, statuses: set[int]) -> list[Check]:
    """What the target says; an error is a finding too, and the rest has been looked at by then."""
    try:
        with open_target(project, wish, run_jobs=False) as target:
            memory = remember(project.root, target.key, project.state)
            observed = observe(target, project.recipes, memory, grace=target.grace)
    except ComposeError as error:
        statuses.add(error.exit_status)
        return [Check(TARGET, WRONG, error.message, error.hint or "")]
    memory = with_found(memory, observed)
    planned = plan(project.recipes, memory, observed, project.options(PLAN_DEFAULTS))
    statuses |= {guard.error.exit_status for guard in planned.guards if guard.flag is None}
    found = _orphans(planned, memory, observed, project, wish)
    return [*_agreement(planned, observed), *found]


def _agreement(planned: Plan, observed: Observed) -> Iterator[Check]:
    loras = sum(model.type == LORA for model in observed.models.values())
    others = counted(len(observed.models) - loras, "composition")
    words = f"{planned.target} answers: {counted(loras, 'LoRA')}, {others}"
    yield Check(TARGET, OK, words)
    for guard in planned.guards:
        state, hint = (WRONG, "") if guard.flag is None else (NOTE, f"allow it with {guard.flag}")
        yield Check(TARGET, state, f"apply would refuse: {guard.message}", hint)
    for action in planned.actions:
        yield from _disagreement(action)
    if planned.changes:
        words = f"waiting to be applied: {counted(len(planned.changes), 'change')}"
        yield Check(TARGET, NOTE, words, "compose plan shows it")


def _disagreement(action: Action) -> Iterator[Check]:
    where = f"{action.name} ({action.path})"
    explanation = action.explanation
    if explanation.drift:
        drifted = f"{where} drifted: {explanation.drift}"
        yield Check(TARGET, WRONG, drifted, "compose plan, then apply")
    if action.verb is Verb.BLOCKED:
        yield Check(TARGET, WRONG, f"{where} is blocked: {explanation.reason}")
    for note in explanation.notes:
        yield Check(TARGET, NOTE, f"{where}: {note}")


def _orphans(
    planned: Plan, memory: KnownState, observed: Observed, project: Project, wish: TargetOptions
) -> Iterator[Check]:
    found = orphans(memory, observed)
    asked_for = {a.model.id: a.path for a in planned.actions if a.model and a.verb is Verb.ADOPT}
    names = {recipe.name for recipe in project.recipes}
    for model in found:
        words = f"{model.id} ({model.name}, {model.status})"
        delete = f"delete it: compose destroy {model.id}{wish.flags}"
        adopt = _adopting(model, asked_for.get(model.id), names, wish.flags)
        yield Check(ORPHANS, NOTE, words, f"{adopt}; {delete}" if adopt else delete)
    if found and observed.remote:
        yield Check(ORPHANS, NOTE, _NOT_ALONE)
    elif not found:
        yield Check(ORPHANS, OK, "the lock names every composition with our tag")


_NOT_ALONE = "another repository may have made them: look before you delete"


def _adopting(model: Model, recipe: str | None, names: Collection[str], flags: str) -> str:
    """What adopts it: the recipe that asks for it, or one that is written for it.

    Only a trained one can become a recipe, and no recipe has the name of another.
    """
    if recipe is not None:
        return f"adopt it: compose apply {shlex.quote(recipe)}{flags}"
    if model.trained and model.name not in names:
        return f"adopt it: compose import {model.id}{flags}"
    return ""
