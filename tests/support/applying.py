"""A target in memory with two LoRAs, and short words for the tests of the executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.fake_target import FakeTarget, lora
from support.rehearsal import Fate, Stage, recipe

if TYPE_CHECKING:
    from pathlib import Path

    from composer.model import Model, Recipe
    from composer.planner import Report


INK, DUST = lora("lora_ink", "Ink"), lora("lora_dust", "Dust")


def stage(
    root: Path, *models: Model, grace: float = 0.0, **options: Any
) -> tuple[Stage, FakeTarget]:
    target = FakeTarget(grace=grace, **options)
    target.put(INK, DUST, *models)
    return Stage(root, target, grace=grace), target


def knight(scale: float = 0.5, **more: Any) -> Recipe:
    return recipe("a.yaml", "Knight", {"Ink": scale}, **more)


def verbs(target: FakeTarget) -> list[str]:
    return [verb for verb, _ in target.calls]


def state_of(report: Report, path: str = "a.yaml") -> str:
    return next(outcome.state for outcome in report.outcomes if outcome.action.path == path)


def kill_after_post(project: Stage, target: FakeTarget, recipes: list[Recipe]) -> None:
    """Die right after the POST took effect, before its answer is read."""
    fate = Fate()

    def watch(verb: str, when: str) -> None:
        if (verb, when) == ("create", "after"):
            fate.last = fate.instants + 1
        fate.instant()

    target.watch = watch
    try:
        project.run(recipes, fate=fate)
    finally:
        target.watch = lambda verb, when: None


def created_only(root: Path, **options: Any) -> tuple[Stage, FakeTarget, str]:
    """A project whose training failed: `next` is untrained."""
    project, target = stage(root, **options)
    target.failing = {"Knight"}
    project.run([knight(0.5)])
    target.failing = set()
    return project, target, target.made[0]
