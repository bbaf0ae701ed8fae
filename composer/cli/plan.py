"""`compose plan`: what apply would do, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.planning import check_locked, looked_at, options_of
from composer.cli.project import open_project
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.render import plan as render

if TYPE_CHECKING:
    from composer.cli.options import Selection, Wish
    from composer.plan import Plan
    from composer.target import Target

CHANGES, BLOCKED = 2, 1


def _prices(planned: Plan, target: Target) -> dict[str, float]:
    """What the trainings of models that exist would cost, by recipe; a remote target knows."""
    prices = {}
    for action in planned.changes if target.remote else ():
        if action.model is not None and action.content is not None and action.model.untrained:
            price = target.price(action.model.id, action.content.training)
            if price is not None:
                prices[action.path] = price
    return prices


@click.command("plan")
@opt.selection_options
@opt.target_options
@opt.output_option("text", "json")
@click.option(
    "--json-into", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON here too."
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there are changes.")
@click.option("--locked", is_flag=True, help="Refuse if a pin would be added or moved.")
@opt.upgrading
@opt.pruning
@opt.allowing
@opt.allowing_large
def plan_command(
    selection: Selection,
    wish: Wish,
    form: str,
    json_into: Path | None,
    detailed_exitcode: bool,
    locked: bool,
    upgrade: tuple[str, ...],
    prune: bool,
    allow_empty: bool,
    allow_large: bool,
) -> int:
    """Show what apply would do for every recipe, and why. Nothing is written.

    PATHS are recipe files or folders; without any, the folder recipes/.
    """
    project = open_project(selection)
    allowed = opt.allowed(allow_empty=allow_empty, allow_large=allow_large)
    with open_target(project, wish, run_jobs=False) as target:
        planned = looked_at(project, target, options_of(project, upgrade=upgrade, prune=prune))
        prices = _prices(planned, target)
    printed = render.as_json(planned, allowed=allowed, prices=prices)
    if json_into:
        json_into.write_text(printed, encoding="utf-8")
    if form == "json":
        click.echo(printed, nl=False)
    else:
        emit(lambda color: render.text(planned, allowed=allowed, color=color, prices=prices))
    if locked:
        check_locked(planned)
    if planned.blocked:
        return BLOCKED
    return CHANGES if detailed_exitcode and planned.changes else 0
