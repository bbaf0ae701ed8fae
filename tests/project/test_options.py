"""`--expect`: an approval is of what would be made or removed, and of nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_target import FakeTarget, composition, lora
from support.rehearsal import Fate, Killed, Stage, recipe
from support.sizes import size
from support.state import state_of

from composer import ApplyOptions, Project
from composer.errors import Refused, TargetError
from composer.files.schemas import schema
from composer.lock import remember
from composer.model import MARK, ConceptRef, KnownState, Recipe, parameters
from composer.output.plan_json import as_json
from composer.output.plan_view import PlanView
from composer.output.results import report, report_json
from composer.planner import Options, Plan, plan, with_recovered
from composer.project.options import check_expected
from composer.targets.base import observe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from composer.planner import Report

CASES = size(60, 5000)
FEWER = size(25, 5000)
LORAS = {"Ink": "lora_ink", "Dust": "lora_dust", "Clay": "lora_clay"}
SEEDS = st.integers(0, 2**64 - 1)

relaxed = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=False,
)


class Case:
    """Recipes, a lock and a target that agree or don't, all drawn from one seed."""

    def __init__(self, seed: int, root: Path) -> None:
        self.chance = Random(seed)
        self.target = FakeTarget(polls=0)
        self.stage = Stage(root, self.target)
        self.target.put(*(lora(id, name) for name, id in LORAS.items()))
        self.recipes = [self.drawn(n) for n in range(self.chance.randint(1, 4))]
        self.history()
        self.options = Options(prune=self.chance.random() < 0.5)

    def drawn(self, n: int) -> Recipe:
        names = self.chance.sample(sorted(LORAS), self.chance.randint(1, 3))
        concepts = {name: self.chance.randrange(1, 20) / 20 for name in names}
        return recipe(f"{n}.yaml", f"Model {n}", concepts)

    def history(self) -> None:
        """Some of them were applied before, and then recipes or target changed."""
        applied = [one for one in self.recipes if self.chance.random() < 0.7]
        if applied:
            self.stage.run(applied)
        if applied and self.chance.random() < 0.3:
            self.recipes.remove(self.chance.choice(applied))
        for n, one in enumerate(self.recipes):
            if self.chance.random() < 0.5:
                self.recipes[n] = changed(one, self.chance.choice(["scale", "tags", "description"]))

    def memory(self) -> KnownState:
        return remember(self.stage.root, self.target.key, state_of(self.stage.root))

    def plan(self, recipes: Iterable[Recipe] | None = None) -> Plan:
        memory = self.memory()
        known = [*(self.recipes if recipes is None else recipes)]
        seen = observe(self.target, known, memory)
        return plan(known, with_recovered(memory, seen), seen, self.options)


def changed(one: Recipe, what: str) -> Recipe:
    """The recipe with one thing that somebody would have to approve."""
    first, *rest = one.concepts
    more: dict[str, Any] = {
        "scale": {"concepts": (replace(first, scale=round((first.scale + 0.5) % 1, 4)), *rest)},
        "concept": {"concepts": (*rest, ConceptRef(0.37, model_id="lora_clay"))},
        "name": {"name": f"{one.name} again"},
        "description": {"description": f"{one.description}!"},
        "tags": {"tags": tuple(sorted({*one.tags} ^ {"new"}))},
        "protect": {"protect": not one.protect},
        "training": {"training": parameters({"rank": 8} if not one.training else {})},
    }
    return replace(one, **more[what])


MEANT = ("scale", "concept", "name", "description", "tags", "protect", "training")


def is_stale(before: Plan, now: Plan) -> bool:
    """Whether the approval of one plan, by digest, is refused for another; an empty one never."""
    try:
        check_expected(now, before.digest)
        check_expected(now, f"sha256:{before.digest[:8]}")
    except Refused:
        return True
    return False


# --- stale with every change of what would be made or removed -----------------------------


@relaxed
@given(SEEDS)
def test_a_digest_goes_stale_with_every_change_that_is_meant(seed: int) -> None:
    with TemporaryDirectory() as folder:
        case = Case(seed, Path(folder))
        before = case.plan()
        if not case.recipes:
            return
        at = case.chance.randrange(len(case.recipes))
        what = case.chance.choice(MEANT)
        case.recipes[at] = changed(case.recipes[at], what)
        now = case.plan()
        path = case.recipes[at].path
        is_change = any(action.path == path for action in now.changes)
        was_change = any(action.path == path for action in before.changes)
        assert is_stale(before, now) == ((is_change or was_change) and bool(now.changes)), what


@settings(relaxed, max_examples=FEWER)
@given(SEEDS)
def test_a_digest_goes_stale_with_what_would_be_removed(seed: int) -> None:
    with TemporaryDirectory() as folder:
        case = Case(seed, Path(folder))
        case.options = Options(prune=True)
        before = case.plan()
        there = [entry for entry in case.memory().entries.values() if entry.composition]
        kept = [one for one in case.recipes if one.name in {entry.name for entry in there}]
        if not kept:
            return
        gone = case.chance.choice(kept)
        now = case.plan([one for one in case.recipes if one is not gone])
        removed = {id for action in now.changes for id in action.transition.deletes}
        if removed - {id for action in before.changes for id in action.transition.deletes}:
            assert is_stale(before, now)
        else:  # another recipe of this content takes the entry over
            assert any(action.moved_from == gone.path for action in now.actions)


# --- and never otherwise ------------------------------------------------------------------


@relaxed
@given(SEEDS)
def test_a_digest_stays_good_through_what_changes_nothing(seed: int) -> None:
    """Reading order, others' models, a POST that arrived, a training that began: no change."""
    with TemporaryDirectory() as folder:
        case = Case(seed, Path(folder))
        before = case.plan()
        case.chance.shuffle(case.recipes)
        assert case.plan().digest == before.digest
        stranger = composition("stranger", "Somebody's", {"lora_ink": 0.5})
        case.target.put(stranger)
        assert case.plan().digest == before.digest
        made = [a for a in before.changes if a.verb in ("create", "replace") and a.content]
        for n, action in enumerate(made):
            assert action.content is not None
            status = case.chance.choice(["new", "failed", "trained"])
            concepts = {c.model_id: c.scale for c in action.content.concepts}
            by_us = frozenset({MARK}) if case.chance.random() < 0.5 else frozenset[str]()
            tags = frozenset({*by_us, *(action.recipe.tags if action.recipe else ())})
            twin = composition(f"arrived_{n}", action.name, concepts, status, tags=tags)
            described = action.recipe.description if action.recipe else None
            case.target.put(replace(twin, description=described or ""))
            now = case.plan()
            assert now.digest == before.digest, (action.path, status)
            assert now.changes[before.changes.index(action)].verb != action.verb


# --- nothing is deleted that no plan lists ------------------------------------------------

KNIGHT = "name: Knight\nconcepts: [{name: Ink, scale: 0.5}]\n"
CHANGED = KNIGHT.replace("0.5", "0.9")


class EditedLock:
    """An applied recipe, and a lock whose `next` names an untrained composition of others."""

    def __init__(self, root: Path) -> None:
        self.root, self.target = root, FakeTarget(polls=0)
        self.target.put(*(lora(id, name) for name, id in LORAS.items()))
        self.target.put(
            composition("theirs", "Knight", {"lora_ink": 0.7}, "new", tags=frozenset({MARK}))
        )
        (root / ".git").mkdir()
        (root / "recipes").mkdir()
        self.write(KNIGHT)
        assert self.apply().exit_status == 0
        self.approved = root / "approved.json"
        self.approve()

    def write(self, text: str) -> None:
        (self.root / "recipes/knight.yaml").write_text(text, encoding="utf-8")

    def approve(self) -> None:
        self.approved.write_text(Project(self.root).plan(self.target).to_json(), encoding="utf-8")

    def apply(self, **options: Any) -> Report:
        return Project(self.root).apply(self.target, options=ApplyOptions(**options))

    def edit(self, *, alone: bool = False, state: str = "created") -> None:
        """Write `theirs` into the lock as the entry's `next`; `alone`: with no composition."""
        lock = json.loads((self.root / "compose.lock").read_text(encoding="utf-8"))
        (entry,) = lock["targets"]["fake"]["recipes"].values()
        content = json.loads(json.dumps(entry["content"]))
        content["concepts"][0]["scale"] = 0.7
        entry["next"] = {"composition": "theirs", "content": content, "state": state}
        for key in ("composition", "content", "job") if alone else ():
            entry.pop(key, None)
        (self.root / "compose.lock").write_text(json.dumps(lock), encoding="utf-8")

    def names_theirs(self) -> bool:
        return '"theirs"' in (self.root / "compose.lock").read_text(encoding="utf-8")


@pytest.fixture
def edited(tmp_path: Path) -> EditedLock:
    return EditedLock(tmp_path)


@pytest.mark.parametrize("state", ["created", "mismatch"])
@pytest.mark.parametrize("recipe", ["kept", "renamed", "gone", "gone, no composition"])
def test_an_approved_plan_deletes_nothing_that_a_hand_edited_lock_names(
    recipe: str, state: str, edited: EditedLock
) -> None:
    if recipe.startswith("gone"):
        (edited.root / "recipes/knight.yaml").unlink()
        (edited.root / "recipes/rogue.yaml").write_text(KNIGHT.replace("Knight", "Rogue"))
    elif recipe == "renamed":
        (edited.root / "recipes/knight.yaml").rename(edited.root / "recipes/king.yaml")
    edited.approve()
    edited.edit(alone="composition" in recipe, state=state)
    edited.target.calls.clear()
    assert edited.apply(expect=str(edited.approved)).exit_status == 0
    assert "theirs" in edited.target.models
    assert "delete" not in [verb for verb, _ in edited.target.writes]
    assert edited.names_theirs()


@pytest.mark.parametrize("recipe", ["kept", "changed", "gone"])
@pytest.mark.parametrize("bare", [False, True])
def test_nor_does_a_plan_that_a_program_gives(
    recipe: str, edited: EditedLock, *, bare: bool
) -> None:
    if recipe == "changed":
        edited.write(CHANGED)
    elif recipe == "gone":
        (edited.root / "recipes/knight.yaml").unlink()
        (edited.root / "recipes/rogue.yaml").write_text(KNIGHT.replace("Knight", "Rogue"))
    edited.edit()
    plan = Project(edited.root).plan(edited.target)
    assert Project(edited.root).apply(edited.target, plan.plan if bare else plan).exit_status == 0
    assert "theirs" in edited.target.models
    assert edited.names_theirs()


@pytest.mark.parametrize("how", ["file", "digest"])
def test_nor_does_an_approved_change(how: str, edited: EditedLock) -> None:
    edited.write(CHANGED)
    edited.edit()
    edited.approve()
    digest = Project(edited.root).plan(edited.target).digest
    done = edited.apply(expect=digest if how == "digest" else str(edited.approved))
    assert [outcome.state for outcome in done.outcomes] == ["replaced"]
    assert "theirs" in edited.target.models
    assert edited.names_theirs()


@pytest.mark.parametrize(
    ("recipe", "state"), [("kept", "cleaned up"), ("changed", "replaced"), ("gone", "forgotten")]
)
def test_without_an_approval_it_is_deleted_and_plan_and_result_say_so(
    recipe: str, state: str, edited: EditedLock
) -> None:
    if recipe == "changed":
        edited.write(CHANGED)
    elif recipe == "gone":
        (edited.root / "recipes/knight.yaml").unlink()
        (edited.root / "recipes/rogue.yaml").write_text(KNIGHT.replace("Knight", "Rogue"))
    edited.edit(alone=recipe == "gone")
    note = "theirs was never trained and is not needed: it is deleted"
    plan = Project(edited.root).plan(edited.target)
    assert all(note in shown for shown in (plan.to_text(), plan.to_json(), plan.to_markdown()))
    done = edited.apply()
    assert "theirs" not in edited.target.models
    (line,) = [line for line in report(done).splitlines() if line.startswith(state)]
    assert line.endswith("deleted theirs, which was never trained")
    assert "No changes" not in report(done)
    outcomes = json.loads(report_json(done))["outcomes"]
    assert ["theirs"] in [outcome.get("deletedUntrained") for outcome in outcomes]
    jsonschema.validate(json.loads(report_json(done)), json.loads(schema("outcomes")))


def test_what_the_journal_of_this_machine_created_is_deleted(edited: EditedLock) -> None:
    """A run that was killed after its POST: the plan was approved, and then the recipe changed."""
    edited.write(CHANGED)
    edited.target.fail("train", TargetError("the training can't start"))
    edited.target.fail("tag", TargetError("no tag, so that the journal keeps its record"))
    edited.apply()
    (unused,) = [id for id in edited.target.made if edited.target.models[id].untrained]
    edited.write(KNIGHT)
    edited.approve()
    assert edited.apply(expect=str(edited.approved)).exit_status == 0
    assert unused not in edited.target.models


# --- a plan's JSON lets an interrupted apply go on ----------------------------------------


@settings(relaxed, max_examples=FEWER)
@given(SEEDS)
def test_a_plan_s_json_lets_an_interrupted_apply_go_on_and_nothing_more(seed: int) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        case = Case(seed, root)
        approved = root / "plan.json"
        approved.write_text(as_json(PlanView(case.plan())), encoding="utf-8")
        fate = Fate(case.chance.randint(1, 60))
        case.target.watch = fate.watch
        try:
            case.stage.run(case.recipes, case.options, fate=fate)
        except Killed:
            pass
        finally:
            case.target.watch = lambda verb, when: None
        rest = case.plan()
        check_expected(rest, str(approved))
        at = case.chance.randrange(len(case.recipes)) if case.recipes else None
        if at is not None:
            more = [*case.recipes]
            more[at] = replace(more[at], name="Nobody approved this")
            now = case.plan(more)
            assert now.changes
            with pytest.raises(Refused):
                check_expected(now, str(approved))
        case.stage.run(case.recipes, case.options)
        assert not case.plan().changes
