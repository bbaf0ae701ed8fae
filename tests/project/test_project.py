"""`Project`: the use cases as a Python program calls them, on the local target."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO, edit, samples

import composer
from composer import ApplyOptions, PlanOptions, Project, Refused, Selection, UsageError, Verb
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path

ROGUE = "recipes/pixel-rogue.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.fixture
def target(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tmp_path_factory.mktemp("state"), root / "recipes" / "loras")


def test_from_recipes_to_ids(root: Path, target: Engine) -> None:
    project, steps, plans = Project(root), [], []
    with target:
        plan = project.plan(target)
        assert {action.verb for action in plan.changes} == {Verb.CREATE}
        report = project.apply(target, plan, on_step=steps.append, on_plan=plans.append)
        assert project.plan(target).changes == ()
    assert report.exit_status == 0
    assert plans[0].digest == plan.digest
    assert {step.state for step in steps} >= {"creating", "trained"}
    ids = {outcome.action.name: outcome.id for outcome in report.outcomes}
    assert project.outputs() == project.outputs("local") == ids


def test_a_plan_in_every_format(root: Path, target: Engine) -> None:
    with target:
        plan = Project(root).plan(target)
    assert plan.to_markdown().startswith("## compose plan")
    assert json.loads(plan.to_json())["digest"].endswith(plan.digest)
    assert plan.digest[:8] in plan.to_text()


def test_apply_refuses_what_the_given_plan_does_not_have(root: Path, target: Engine) -> None:
    with target:
        approved = Project(root).plan(target)
        edit(root / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
        with pytest.raises(Refused, match="is not in the plan that was given"):
            Project(root).apply(target, approved)
        assert target.list_models("flux.1-composition") == []


def test_options_reach_the_planner(root: Path, target: Engine) -> None:
    with target:
        project = Project(root, Selection(include=("pixel-*",)))
        assert [action.path for action in project.plan(target).actions] == [ROGUE]
        with pytest.raises(Refused, match="new in the lock"):
            project.apply(target, options=ApplyOptions(locked=True))
        with pytest.raises(UsageError, match="no recipe has a concept named Nobody"):
            project.plan(target, PlanOptions(upgrade=frozenset({"Nobody"})))


def test_problems_are_values(root: Path) -> None:
    assert Project(root).validate() == ()
    edit(root / ROGUE, "scale: 0.6\n", "scale: 6\n")
    (problem,) = Project(root).validate()
    assert (problem.file, problem.line > 0, problem.code[0]) == (ROGUE, True, "E")


def test_it_is_quiet_and_leaves_the_environment_alone(root: Path) -> None:
    """The whole way from files to ids, in a process that can neither print nor read variables."""
    code = """
import os, sys, builtins
from composer import Project
from composer.targets.local.service import Engine
class Guarded(dict):
    def __getitem__(self, key):
        assert not key.startswith(("COMPOSE_", "SCENARIO_")), key
        raise KeyError(key)
    def get(self, key, default=None):
        assert not key.startswith(("COMPOSE_", "SCENARIO_")), key
        return default
project = Project(sys.argv[1])
with Engine(project.root / "state", project.root / "recipes" / "loras") as target:
    os.environ = Guarded()
    plan = project.plan(target)
    project.apply(target, plan)
assert len(project.outputs()) == len(project.recipes)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env={"PYTHONPATH": ":".join(sys.path), "HOME": str(root.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_every_export_is_there_and_importing_is_light() -> None:
    for name in composer.__all__:
        assert getattr(composer, name) is not None
    code = (
        "import sys, composer; from composer import Project; Project\n"
        "print([m for m in ('requests', 'numpy', 'sqlite3', 'rich', 'click') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"


def test_forget_destroy_and_prune(root: Path, target: Engine) -> None:
    with target:
        project = Project(root)
        project.apply(target)
        count, plans = len(project.outputs()), []
        shown = project.destroy(target, ["Pixel Rogue"], dry_run=True, on_plan=plans.append)
        assert (shown.outcomes, len(plans[0].changes)) == ((), 1)
        report = project.destroy(target, ["Pixel Rogue"])
        assert [outcome.state for outcome in report.outcomes] == ["deleted"]
        assert len(project.outputs()) == count - 1
        assert project.prune(target).outcomes == ()
        (forgotten,) = project.forget(target, "recipes/castle-keep.yaml")
        assert (forgotten.path, forgotten.id) == ("recipes/castle-keep.yaml", "")
        assert len(project.outputs()) == count - 2
        assert project.prune_local(target, dry_run=True) != []


def test_import_and_pull(root: Path, target: Engine, tmp_path: Path) -> None:
    with target:
        project = Project(root)
        project.apply(target)
        id = project.outputs()["Pixel Rogue"]
        project.forget(target, "Pixel Rogue")
        (root / ROGUE).unlink()
        project = Project(root)
        for dry_run in (True, False):
            (imported,) = project.import_models(target, [id], dry_run=dry_run)
            assert (imported.path, imported.skipped) == (ROGUE, False)
            assert (root / ROGUE).exists() is not dry_run
        (unknown,) = project.import_models(target, ["model_nobody"])
        assert unknown.skipped and "no such model" in unknown.reason
        (pulled,) = Project(root).pull(target, str(tmp_path / "rogue.safetensors"), "Pixel Rogue")
        assert (pulled.state, pulled.exit_status) == ("pulled", 0)
        assert (tmp_path / "rogue.safetensors").stat().st_size > 0
