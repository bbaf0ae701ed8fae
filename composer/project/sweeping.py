"""A sweep: images of a recipe's mix at several scales of one or two of its LoRAs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import ComposeError
from composer.model import SCALE_RANGE, Concept, scale_limits
from composer.planner import Verb
from composer.previews.axes import check_limits
from composer.previews.shots import shots
from composer.previews.sweeping import Places, check_size, sweep_grid
from composer.project.options import PlanOptions
from composer.project.planning import build_plan
from composer.project.promoting import remember_sweep
from composer.project.rendering import render_grids
from composer.text import visible

if TYPE_CHECKING:
    from composer.model import Recipe
    from composer.previews.report import PreviewReport
    from composer.previews.sweeping import Sweep
    from composer.project.options import SweepOptions
    from composer.project.project import Project
    from composer.project.rendering import RenderWatcher
    from composer.renderers.base import Renderer
    from composer.targets.base import Target


def sweep(
    project: Project,
    target: Target,
    renderer: Renderer,
    asked: Sweep,
    options: SweepOptions,
    watcher: RenderWatcher,
) -> PreviewReport:
    """See `Project.sweep`."""
    why = target.unsupported.get(SCALE_RANGE, "")
    check_limits(asked.axes, scale_limits(target.unsupported), why)
    rows = shots(asked.recipe, project.settings.previews, renderer.info)
    grid = sweep_grid(asked, _concepts(project, target, asked.recipe), rows)
    check_size(grid, options.limit)
    report = render_grids(project, renderer, [grid], options, watcher)
    if not (options.dry_run or report.interrupted):
        remember_sweep(project, asked.recipe, Places(asked.axes, len(rows)))
    return replace(report, target=target.key)


def _concepts(project: Project, target: Target, recipe: Recipe) -> list[Concept]:
    """The recipe's concepts by id, in its order. Raises `ComposeError` where one isn't found."""
    planned = build_plan(project, target, PlanOptions(selected=frozenset({recipe.path})))
    action = next(one for one in planned.actions if one.recipe == recipe)
    if action.content is None or action.verb is Verb.BLOCKED:
        raise ComposeError(f"{visible(recipe.path)}: {visible(action.explanation.reason)}")
    pins = dict(action.transition.pins)
    return [
        Concept(ref.model_id or pins[ref.name or ""], ref.scale, ref.epoch)
        for ref in recipe.concepts
    ]
