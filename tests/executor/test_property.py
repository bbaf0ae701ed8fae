"""Whatever happens to recipes, lock, target and process, one undisturbed apply brings it right.

Histories are drawn: edits, reverts, renames, moves, kills at any instant, lost answers, strangers
on the target, branches of git and their merges. Then one apply runs in peace, and is judged.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_target import FakeTarget, composition, lora
from support.model_types import COMPOSITION
from support.rehearsal import Fate, Killed, Stage, recipe
from support.sizes import size

from composer.errors import Ambiguous, ComposeError, InvalidInput, TargetError, Unreachable
from composer.lock import LOCK_NAME, flattened, has_markers, read_conflicted, write_lock
from composer.model import Content, Recipe
from composer.planner import Options, Plan, Report, is_exact_match

if TYPE_CHECKING:
    from composer.model import Model

LORAS = {"Ink": "lora_ink", "Dust": "lora_dust", "Clay": "lora_clay"}
NAMES = ("Knight", "Rogue", "Slime", "Keep")
FILES = ("a.yaml", "b.yaml", "c.yaml", "d/e.yaml")
SCALES = (0.5, 0.6, 0.7)
TRAININGS: tuple[dict[str, Any], ...] = ({}, {"rank": 8})


@dataclass(frozen=True)
class Op:
    """One thing that happens; `a` and `b` choose among what there is."""

    what: str
    a: int = 0
    b: int = 0
    torn: float = 0.0


def ops(*what: str, most: int = 7) -> st.SearchStrategy[Op]:
    return st.builds(Op, st.sampled_from(what), st.integers(0, most), st.integers(0, most))


EDITS = ops("add", "scale", "lora", "training", "rename", "tags", "describe", "protect")
MOVES = ops("swap names", "move", "swap files", "remove")
RUNS = ops("apply", "apply one", "no wait", "prune", "failing", "lost", "late loss", "refused")
KILLS = st.builds(
    Op, st.just("kill"), st.integers(1, 60), st.integers(0, 1), st.sampled_from((0.0, 0.5, 0.99))
)
STRANGERS = ops("delete there", "change there", "rename there", "untag there", "twin")
GIT = ops("branch", "switch", "merge")
HISTORIES = st.lists(
    st.one_of(EDITS, EDITS, MOVES, RUNS, RUNS, KILLS, KILLS, STRANGERS, GIT),
    min_size=4,
    max_size=size(12, 20),
)


class Project:
    """A project through its history: recipes by path, a lock, a target, and another branch."""

    def __init__(self, root: Path, target: FakeTarget) -> None:
        self.root = root
        self.target = target
        self.stage = Stage(root, target, grace=target.grace)
        self.recipes: dict[str, Recipe] = {}
        self.touched: set[str] = set()  # changed behind our back since the last whole apply
        self.base: tuple[dict[str, Recipe], bytes] | None = None
        self.other: tuple[dict[str, Recipe], bytes] | None = None
        self.branched = False
        self.twinned = False
        self.strangers: set[str] = set()
        self.blocked = False
        target.put(*(lora(id, name) for name, id in LORAS.items()))
        self.add(0, 0)

    # --- what people write ---------------------------------------------------------------

    def pick(self, n: int) -> Recipe | None:
        paths = sorted(self.recipes)
        return self.recipes[paths[n % len(paths)]] if paths else None

    def free(self, pool: tuple[str, ...], used: set[str], n: int) -> str | None:
        left = [item for item in pool if item not in used]
        return left[n % len(left)] if left else None

    def add(self, a: int, b: int) -> None:
        path = self.free(FILES, set(self.recipes), a)
        name = self.free(NAMES, {r.name for r in self.recipes.values()}, b)
        if path and name:
            self.recipes[path] = recipe(path, name, {"Ink": SCALES[b % 3]})

    def put(self, before: Recipe, **fields: Any) -> None:
        del self.recipes[before.path]
        after = replace(before, **fields)
        self.recipes[after.path] = after

    def edit(self, op: Op) -> None:
        mine = self.pick(op.a)
        if op.what == "add":
            self.add(op.a, op.b)
        elif mine is None:
            return
        elif op.what == "scale":
            first, *rest = mine.concepts
            self.put(mine, concepts=(replace(first, scale=SCALES[op.b % 3]), *rest))
        elif op.what == "lora":
            chosen = sorted(LORAS)[: 1 + op.b % 3]
            self.put(mine, concepts=recipe("", "", dict.fromkeys(chosen, 0.5)).concepts)
        elif op.what == "training":
            self.put(mine, training=recipe("", "", {}, training=TRAININGS[op.b % 2]).training)
        elif op.what == "rename":
            name = self.free(NAMES, {r.name for r in self.recipes.values()}, op.b)
            self.put(mine, name=name or mine.name)
        elif op.what == "tags":
            self.put(mine, tags=(("x",), ("x", "y"), ())[op.b % 3])
        elif op.what == "describe":
            self.put(mine, description=("one", "two", None)[op.b % 3])
        elif op.what == "protect":
            self.put(mine, protect=not mine.protect)

    def rearrange(self, op: Op) -> None:
        mine, other = self.pick(op.a), self.pick(op.b)
        if mine is None or other is None:
            return
        if op.what == "remove":
            del self.recipes[mine.path]
        elif op.what == "move":
            self.put(mine, path=self.free(FILES, set(self.recipes), op.b) or mine.path)
        elif mine is not other:
            del self.recipes[mine.path], self.recipes[other.path]
            if op.what == "swap names":
                names = (other.name, mine.name)
                pair = (replace(mine, name=names[0]), replace(other, name=names[1]))
            else:
                pair = (replace(mine, path=other.path), replace(other, path=mine.path))
            self.recipes.update({one.path: one for one in pair})

    # --- what others do on the target ----------------------------------------------------

    def interfere(self, op: Op) -> None:
        there = sorted(set(self.target.compositions()) - self.touched)
        if op.what == "twin":
            self.twinned = True
            self.make_twin(op)
        elif there:
            self.meddle(op, there[op.a % len(there)])

    def make_twin(self, op: Op) -> None:
        """Somebody makes the very composition of a recipe.

        Not where new models are seen late: while ours is, theirs would pass for it.
        """
        mine = self.pick(op.a)
        if mine is not None and len(self.strangers) < 3 and not self.target.late:
            id = f"theirs_{len(self.strangers)}"
            concepts = {LORAS[c.name or ""]: c.scale for c in mine.concepts}
            status = ("trained", "new", "failed")[op.b % 3]
            training = mine.training if status == "trained" else None
            more: dict[str, Any] = {"parameters": training, "created_at": self.target.now()}
            self.target.put(composition(id, mine.name, concepts, status, **more))
            self.strangers.add(id)

    def meddle(self, op: Op, id: str) -> None:
        self.touched.add(id)
        if op.what == "delete there":
            self.target.lose(id)
        elif op.what == "change there":
            made_of = composition("", "", {"lora_clay": SCALES[op.b % 3]}).concepts
            self.target.change(id, concepts=made_of)
        elif op.what == "rename there":
            self.target.change(id, name=f"Other {op.b}")
        elif op.what == "untag there":
            self.target.change(id, tags=frozenset())

    # --- git -----------------------------------------------------------------------------

    def git(self, op: Op) -> None:
        here = (dict(self.recipes), self.stage.lock)
        if op.what == "branch":
            self.base, self.other, self.branched = here, here, True
        elif self.other is None or self.base is None:
            return
        elif op.what == "switch":
            self.recipes, lock = dict(self.other[0]), self.other[1]
            self.other = here
            self.write_lock(lock)
        else:
            merged = _git_merge(here[1], self.base[1], self.other[1])
            self.write_lock(merged)
            if has_markers(merged.decode()):
                self.repair_lock(ours=here[1])
            self.merge_recipes(self.other[0])
            self.base = self.other = None

    def repair_lock(self, *, ours: bytes) -> None:
        """As `compose lock --repair` does, or `git checkout --ours`, which it names where a side
        can't be read."""
        try:
            write_lock(self.root, flattened(read_conflicted(self.root)))
        except InvalidInput as error:
            assert "git checkout --ours" in str(error)
            self.write_lock(ours)

    def write_lock(self, data: bytes) -> None:
        path = self.root / LOCK_NAME
        if data:
            path.write_bytes(data)
        else:
            path.unlink(missing_ok=True)

    def merge_recipes(self, theirs: dict[str, Recipe]) -> None:
        """Ours, and of theirs what is new here: as a person resolves it."""
        for path, other in theirs.items():
            if path not in self.recipes and other.name not in {
                r.name for r in self.recipes.values()
            }:
                self.recipes[path] = other

    # --- runs ----------------------------------------------------------------------------

    def run(self, options: Options | None = None, **more: Any) -> tuple[Plan, Report] | None:
        """One apply; None if it was killed or refused as a whole."""
        try:
            return self.stage.run(self.recipes.values(), options, **more)
        except (Killed, ComposeError):
            return None
        finally:
            self.target.watch = lambda verb, when: None
            self.target.faults.clear()
            self.target.failing.clear()

    def apply(self, op: Op) -> None:
        match op.what:
            case "kill":
                fate = Fate(op.a, op.torn)
                self.target.watch = fate.watch
                self.run(Options(prune=bool(op.b)), fate=fate)
            case "apply one":
                mine = self.pick(op.a)
                self.run(Options(selected=frozenset({mine.path} if mine else ())))
            case "no wait":
                self.run(no_wait=True)
            case "prune":
                self.run(Options(prune=True))
            case "failing":
                self.target.failing = {*NAMES[op.a % 4 :]}
                self.run()
            case "lost":
                self.target.fail("create", Ambiguous("no answer"), nth=1 + op.a % 2)
                self.run()
            case "late loss":
                self.target.fail("create", Ambiguous("no answer"), nth=1 + op.a % 2, after=True)
                self.run()
            case "refused":
                verbs = ("get_models", "list_models", "train", "tag", "delete", "update", "create")
                error = (Unreachable("gone"), TargetError("no"))[op.b % 2]
                self.target.fail(verbs[op.a % 7], error, nth=1 + op.b, times=1 + op.b % 3)
                self.run()
            case _:
                self.run()

    def happen(self, op: Op) -> None:
        groups: tuple[tuple[str, Any], ...] = (
            ("add scale lora training rename tags describe protect", self.edit),
            ("swap names move swap files remove", self.rearrange),
            ("delete there change there rename there untag there twin", self.interfere),
            ("branch switch merge", self.git),
        )
        for words, do in groups:
            if op.what in words:
                do(op)
                return
        self.apply(op)

    # --- the judge -----------------------------------------------------------------------

    def wanted(self, mine: Recipe) -> Content:
        refs = zip(mine.concepts, (LORAS[c.name or ""] for c in mine.concepts), strict=True)
        made_of = composition("", "", {id: ref.scale for ref, id in refs}).concepts
        return Content.of(COMPOSITION, made_of or (), mine.training)

    def judge(self) -> None:
        """One apply in peace, and everything is as it should be."""
        before = self.target.shown()
        asked = len(self.target.calls)
        ran = self.run()
        assert ran is not None, "an undisturbed apply ends"
        planned, report = ran
        blocked = {action.path for action in planned.blocked}
        for action in planned.blocked:
            self.excused(action.explanation.reason)
        assert all(o.exit_status == 0 for o in report.outcomes if o.action.path not in blocked)
        self.no_needless_post(before, asked, planned)
        for path, mine in self.recipes.items():
            if path not in blocked:
                self.judge_recipe(path, mine)
        self.nothing_lost_or_left()
        self.nothing_more_to_do(blocked)
        self.touched.clear()

    def excused(self, reason: str) -> None:
        """A model that was renamed and changed behind our back is not taken for ours."""
        assert "compose forget" in reason and self.touched, reason

    def no_needless_post(self, before: dict[str, Model], asked: int, planned: Plan) -> None:
        posts = [what for verb, what in self.target.calls[asked:] if verb == "create"]
        entries = self.stage.entries
        named = {e.composition: path for path, e in entries.items()}
        recorded = {old.id: old.training for e in entries.values() for old in e.replaced}
        for action in planned.actions:
            if action.model is not None or action.recipe is None or action.content is None:
                continue
            if (action.name, action.content.concepts) not in posts:
                continue
            others = [a.entry for a in planned.actions if a.recipe and a.path != action.path]
            in_use = {entry.composition for entry in others if entry}
            for model in before.values():
                if model.id in in_use:  # another recipe's, until its successor is trained
                    continue
                alike = model.type == COMPOSITION and model.name == action.name
                if alike and is_exact_match(model, action.content, recorded.get(model.id)):
                    assert named.get(model.id, action.path) != action.path, (
                        f"a needless POST: {model}"
                    )

    def judge_recipe(self, path: str, mine: Recipe) -> None:
        entry = self.stage.entries[path]
        assert entry.next is None and entry.composition is not None and entry.name == mine.name
        model = self.target.models[entry.composition]
        assert (model.type, model.name, model.status) == (COMPOSITION, mine.name, "trained")
        # A trained twin of another branch or hand, whose parameters nobody can see, is a match.
        blind = (self.branched or self.twinned) and "parameters" in self.target.hides
        training = mine.training if blind else model.parameters or ()
        made_of = Content.of(COMPOSITION, model.concepts or (), training)
        assert made_of == self.wanted(mine) == entry.content
        assert mine.description in (None, model.description)
        assert set(mine.tags) <= set(model.tags or ())
        if model.id in self.target.made and model.id not in self.touched:
            assert "managed-by:compose" in (model.tags or ()), "ours has lost its mark"

    def nothing_lost_or_left(self) -> None:
        """All that we made is in a lock, and trained if it is in use or was."""
        listed = {old.id for e in self.stage.entries.values() for old in e.replaced}
        named = {id for entry in self.stage.entries.values() for id in entry.ids}
        used = [e.composition for e in self.stage.entries.values() if e.composition]
        assert len(used) == len(set(used)), "two recipes share a composition"
        assert not listed & set(used)
        if self.branched:
            return
        for id in sorted({*self.target.made} - self.touched):
            if (model := self.target.compositions().get(id)) is not None:
                assert id in named, f"{id} ({model.name}, {model.status}) is in no lock any more"

    def nothing_more_to_do(self, blocked: set[str]) -> None:
        lock, asked = self.stage.lock, len(self.target.writes)
        stamp = (self.root / LOCK_NAME).stat().st_mtime_ns if lock else 0
        ran = self.run()
        assert ran is not None
        planned, report = ran
        assert not planned.changes, [
            (a.shown, a.path, a.explanation.reason) for a in planned.changes
        ]
        assert {action.path for action in planned.blocked} == blocked
        assert not self.target.writes[asked:], self.target.writes[asked:]
        assert self.stage.lock == lock and not report.lock_changed
        assert not lock or (self.root / LOCK_NAME).stat().st_mtime_ns == stamp
        assert blocked or not self.stage.journal, self.stage.journal


def _git_merge(ours: bytes, base: bytes, theirs: bytes) -> bytes:
    """As git merges a file, conflicts left in it."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("ours", "base", "theirs")]
        for path, data in zip(paths, (ours, base, theirs), strict=True):
            path.write_bytes(data)
        merged = subprocess.run(
            ["git", "merge-file", "-p", "--diff3", *map(str, paths)], capture_output=True
        )
        assert 0 <= merged.returncode < 128, merged.stderr
        return merged.stdout


def play(history: list[Op], *, target: FakeTarget | None = None) -> None:
    with TemporaryDirectory() as folder:
        project = Project(Path(folder), target or FakeTarget())
        for op in history:
            project.happen(op)
        project.judge()


relaxed = settings(
    max_examples=size(60, 1000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=False,
)


@relaxed
@given(HISTORIES)
def test_one_undisturbed_apply_brings_any_history_right(history: list[Op]) -> None:
    play(history)


@settings(relaxed, max_examples=size(30, 400))
@given(HISTORIES)
def test_the_same_where_requested_ids_are_granted(history: list[Op]) -> None:
    play(history, target=FakeTarget(grants_ids=True, polls=2))


@settings(relaxed, max_examples=size(30, 400))
@given(HISTORIES)
def test_the_same_on_a_remote_target(history: list[Op]) -> None:
    play(history, target=FakeTarget(remote=True, polls=0, list_hides=frozenset({"concepts"})))


@settings(relaxed, max_examples=size(25, 1500))
@given(HISTORIES)
def test_the_same_where_training_parameters_are_not_returned(history: list[Op]) -> None:
    play(history, target=FakeTarget(remote=True, polls=3, hides=frozenset({"parameters"})))


@settings(relaxed, max_examples=size(15, 500))
@given(HISTORIES)
def test_the_same_where_new_models_are_seen_late(history: list[Op]) -> None:
    play(history, target=FakeTarget(remote=True, late=0.03, grace=0.2))


# Histories that once went wrong, each for a reason of its own.
REMEMBERED: tuple[tuple[list[Op], dict[str, Any]], ...] = (
    ([Op("apply"), Op("move"), Op("delete there"), Op("kill", 8)], {}),
    ([Op("kill", 6), Op("move")], {}),
    ([Op("kill", 18, 0, 0.5), Op("remove", 1)], {}),
    ([Op("lost", 7, 6), Op("rename", 7, 5), Op("training", 0, 3), Op("kill", 26)], {}),
    ([Op("kill", 23, 1), Op("change there", 0, 5), Op("move", 6, 2), Op("refused", 0, 2)], {}),
    (
        [
            Op("add", 4, 7),
            Op("kill", 20, 1),
            Op("training", 1, 7),
            Op("apply one", 4, 5),
            Op("kill", 15, 1),
        ],
        {},
    ),
    (
        [
            Op("protect", 0, 2),
            Op("apply"),
            Op("lora", 4, 6),
            Op("kill", 10),
            Op("remove"),
            Op("kill", 39, 1),
        ],
        {"grants_ids": True, "polls": 2},
    ),
    (
        [Op("failing", 2, 3), Op("add", 2), Op("remove", 2, 7), Op("kill", 9, 1), Op("remove", 1)],
        {"grants_ids": True, "polls": 2},
    ),
    ([Op("failing", 4, 6), Op("remove", 2, 3), Op("refused", 4)], {}),
    (
        [
            Op("add", 6, 4),
            Op("no wait"),
            Op("change there", 7, 1),
            Op("swap files", 5),
            Op("kill", 19),
        ],
        {"remote": True, "late": 0.03, "grace": 0.2},
    ),
    ([Op("add", 4), Op("kill", 19), Op("move", 3, 7), Op("kill", 34), Op("remove", 3, 2)], {}),
    (
        [
            Op("training", 1, 1),
            Op("lost", 6, 2),
            Op("delete there", 1, 1),
            Op("kill", 22, 1),
            Op("training", 7),
        ],
        {"remote": True, "polls": 3, "hides": frozenset({"parameters"})},
    ),
)


@pytest.mark.parametrize(("history", "options"), REMEMBERED)
def test_histories_that_once_went_wrong(history: list[Op], options: dict[str, Any]) -> None:
    play(history, target=FakeTarget(**options))
