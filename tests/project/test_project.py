"""`Project`: the use cases as a Python program calls them, on the local target."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO, edit, samples
from support.fake_target import FakeTarget, lora

import composer
from composer import (
    ApplyOptions,
    Check,
    ComposeError,
    PlanOptions,
    Project,
    Refused,
    Selection,
    UsageError,
    Verb,
)
from composer.lock import LOCK_NAME
from composer.targets import registry
from composer.targets.kind import TargetKind
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.targets.kind import CheckRequest

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
    assert project.output("local", ROGUE).composition == ids["Pixel Rogue"]
    with pytest.raises(UsageError, match="the lock has no recipe Nobody"):
        project.output("local", "Nobody")


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


def test_it_is_quiet_and_reads_variables_in_open_target_alone(root: Path) -> None:
    """The whole way from files to ids, in a process that must neither print nor read variables.

    Left is what the system's own modules read: home directory, user name, path, temporary folder.
    """
    code = """
import os, sys
from composer import ApplyOptions, PlanOptions, Project, TargetOptions, open_target
class Guarded(dict):
    forbidden = True
    def look(self, key):
        names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "PATH", "TMPDIR")
        assert key in names or key.startswith("XDG_") or not self.forbidden, key
    def __getitem__(self, key):
        self.look(key)
        return super().__getitem__(key)
    def get(self, key, default=None):
        self.look(key)
        return super().get(key, default)
os.environ = Guarded(os.environ)
project = Project(sys.argv[1])
os.environ.forbidden = False
with open_target("local", project, env={}) as target:
    os.environ.forbidden = True
    assert project.validate() == ()
    assert project.lock(target).written
    plan = project.plan(target)
    project.apply(target, plan, ApplyOptions(locked=True))
    project.status(target)
    project.check_pins("local")
    project.repair_lock()
    project.prune(target)
    project.destroy(target, ["Pixel Rogue"])
    project.forget(target, "Castle Keep")
    assert project.doctor("local", {}, offline=True)
assert len(project.outputs()) == len(project.recipes) - 2
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "HOME": str(root.parent),
            "COMPOSE_STATE_DIR": "hostile",
            "COMPOSE_TARGET": "hostile",
            "COMPOSE_LIBRARY": "hostile",
            "SCENARIO_BASE_URL": "hostile",
        },
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


def test_the_state_folder_is_the_callers_choice(root: Path, tmp_path: Path) -> None:
    states = tmp_path.parent / "states"
    assert Project(root, state_dir=states).state.is_relative_to(states)
    assert not Project(root).state.is_relative_to(states)
    with pytest.raises(UsageError, match="inside the project"):
        assert Project(root, state_dir=root / "states").state


def test_lock_pins_without_creating(root: Path, target: Engine) -> None:
    with target:
        with pytest.raises(Refused, match="is missing in the lock"):
            Project(root).lock(target, PlanOptions(locked=True))
        with pytest.raises(Refused, match="the lock has no pin for"):
            Project(root).check_pins("local")
        assert not Project(root).lock(target, dry_run=True).written
        assert Project(root).lockfile.targets == {}
        project = Project(root)
        assert project.lockfile.targets == {}
        pinned = project.lock(target)
        assert (pinned.target, pinned.written, pinned.exit_status) == ("local", True, 0)
        assert len(pinned.pinning.pins) == 9
        assert target.list_models("flux.1-composition") == []
        project.check_pins("local")  # it reads the lock as it is now
        again = project.lock(target, PlanOptions(locked=True))
        assert (again.pinning.pins, again.written) == ((), False)
        edit(root / ROGUE, "Ink Lines", "Ink Linse")
        broken = Project(root).lock(target)
        assert (broken.exit_status, [path for path, _ in broken.pinning.problems]) == (1, [ROGUE])


def test_inspect_takes_a_target_that_can_read_loras(root: Path, target: Engine) -> None:
    project = Project(root, Selection(include=("pixel-*",)))
    with target:
        (inspection,) = project.inspect(target)
        assert (inspection.title, inspection.source) == ("Pixel Rogue", ROGUE)
        edit(root / ROGUE, "Ink Lines", "Ink Linse")
        with pytest.raises(ComposeError, match=ROGUE):
            Project(root).inspect(target)
    with pytest.raises(UsageError, match="can't read LoRA files"):
        project.inspect(FakeTarget())


def test_repair_merges_a_conflict(root: Path, target: Engine) -> None:
    with target:
        Project(root).lock(target)
    text = (root / LOCK_NAME).read_text()
    other = text.replace('"Pixel Dust": "', '"Pixel Dust": "x')
    (root / LOCK_NAME).write_text(f"<<<<<<< HEAD\n{text}=======\n{other}>>>>>>> x\n")
    assert Project(root).repair_lock(dry_run=True).written is False
    merged = Project(root).repair_lock()
    assert (merged.conflict, merged.written) == (True, True)
    assert Project(root).repair_lock().conflict is False


def test_doctor_tells_problems_as_values(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Project(root).doctor("local", {})
    assert {check.state for check in checks} <= {"ok", "note"}
    assert any(check.words.startswith("usable LoRAs: ") for check in checks)
    edit(root / ROGUE, "scale: 0.6\n", "scale: 6\n")
    (wrong,) = [c for c in Project(root).doctor("local", {}, offline=True) if c.state == "wrong"]
    assert (wrong.section, wrong.exit_status) == ("project", 1)
    env = {"SCENARIO_BASE_URL": "http://127.0.0.1:9/v1", "SCENARIO_SDK_JWT": "token"}
    (wrong,) = [c for c in Project(root).doctor("scenario", env) if c.wrong_status == 69]
    assert (wrong.section, wrong.state, wrong.exit_status) == ("lock against target", "wrong", 69)


def test_doctor_asks_every_kind_of_target(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def checks(request: CheckRequest) -> Iterator[Check]:
        yield Check("shelf", "note", f"asked for {request.asked_for}", request.options.flags)
        raise UsageError("the shelf is gone")

    kind = TargetKind("shelf", lambda request: pytest.fail("opened"), checks=checks)
    names = registry.kind_names()
    monkeypatch.setattr("composer.project.doctor.kind_names", lambda: [*names, "shelf"])
    monkeypatch.setattr(
        "composer.project.doctor.find_kind",
        lambda name: kind if name == "shelf" else registry.find_kind(name),
    )
    shelf = [c for c in Project(root).doctor("local", {}, offline=True) if "shelf" in c.section]
    assert [check.words for check in shelf] == ["asked for local", "the shelf is gone"]


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


@pytest.mark.parametrize(("connections", "at_once"), [(None, 3), (3, 6), (2, 3)])
def test_a_target_with_connections_gets_more_threads_than_those(
    connections: int | None, at_once: int, tmp_path: Path
) -> None:
    """So that some can write to the journal while others use the connections."""
    target = FakeTarget(polls=0)
    target.put(lora("lora_ink", "Ink"))
    if connections is not None:
        vars(target)["connections"] = connections
    inside: set[int] = set()
    most = [0]

    def watch(verb: str, when: str) -> None:
        if verb == "create" and when == "before":
            inside.add(threading.get_ident())
            time.sleep(0.05)
            most[0] = max(most[0], len(inside))
            inside.discard(threading.get_ident())

    target.watch = watch
    for n in range(9):
        text = f"name: N{n}\nconcepts: [{{name: Ink, scale: 0.{n + 1}}}]\n"
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / f"recipes/{n}.yaml").write_text(text, encoding="utf-8")
    report = Project(tmp_path).apply(target, options=ApplyOptions(parallelism=3))
    assert (report.exit_status, len(target.made)) == (0, 9)
    assert 1 < most[0] <= at_once and (most[0] > 3) is (at_once > 3)
