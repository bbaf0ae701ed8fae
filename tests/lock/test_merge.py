"""Two branches' locks: merged as values by compose, or as lines by git, and healed by one apply."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.fake_target import FakeTarget
from support.lock_branches import (
    KEY,
    Branches,
    content_of,
    git_merge,
    union,
)
from support.rehearsal import Stage
from support.sizes import size

from composer.errors import InvalidInput
from composer.lock import LOCK_NAME, dump, flattened, merge_locks, parse, read_merged
from composer.model import Candidate, Entry, Lock, Model, Replaced, TargetLock
from composer.planner import is_exact_match

ENTRIES = 50
PAIRS = size(40, 1000)
POOLS = 8
MIX = ("add", "edit", "remove")
CROWDED = ("edit", "edit", "edit", "add", "remove")
STYLES = ((), ("--diff3",))
SEEDS = st.integers(0, 2**64 - 1)

relaxed = settings(
    max_examples=PAIRS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=False,
)


def branches(seed: int, entries: int, *, most: int, kinds: tuple[str, ...]) -> Branches:
    """Two branches that make one to `most` changes each."""
    drawn = Branches(Random(seed), entries, pool=seed % POOLS)
    for side in (drawn.ours, drawn.theirs):
        for _ in range(drawn.chance.randint(1, most)):
            drawn.change(side, kinds)
    return drawn


def merged(drawn: Branches, folder: Path, *options: str) -> tuple[bool, str]:
    return git_merge(folder, drawn.base.text, drawn.ours.text, drawn.theirs.text, *options)


# --- merges as values --------------------------------------------------------------------


@relaxed
@given(SEEDS)
def test_edits_of_different_recipes_merge_to_what_both_say(seed: int) -> None:
    drawn = Branches(Random(seed), ENTRIES, pool=seed % POOLS)
    touched = {drawn.change(drawn.ours, ["edit"]) for _ in range(drawn.chance.randint(1, 9))}
    for _ in range(drawn.chance.randint(1, 9)):
        drawn.change(drawn.theirs, ["edit"], spare=touched)
    lock = by_values(drawn)
    assert dump(lock) == union(drawn.base, drawn.ours, drawn.theirs).text
    with TemporaryDirectory() as folder:
        clean, text = merged(drawn, Path(folder))
    assert clean and parse(text) == lock, "git's merge of lines says the same"


def by_values(drawn: Branches) -> Lock:
    base, ours, theirs = (parse(side.text) for side in (drawn.base, drawn.ours, drawn.theirs))
    return merge_locks(ours, theirs, base)


@settings(relaxed, max_examples=size(30, 3000))
@given(SEEDS)
def test_one_apply_heals_every_merge_as_values(seed: int) -> None:
    """A few recipes that both branches change again and again."""
    drawn = branches(seed, 3, most=4, kinds=CROWDED)
    is_healed(drawn, flattened(by_values(drawn)))
    swapped = parse(drawn.theirs.text), parse(drawn.ours.text), parse(drawn.base.text)
    is_healed(drawn, flattened(merge_locks(*swapped)))


@settings(relaxed, max_examples=size(30, 3000))
@given(SEEDS)
def test_one_apply_heals_a_merge_of_moved_recipes(seed: int) -> None:
    drawn = branches(seed, 3, most=3, kinds=("move", "move", "edit", "edit", "remove", "add"))
    is_healed(drawn, flattened(by_values(drawn)))
    swapped = parse(drawn.theirs.text), parse(drawn.ours.text), parse(drawn.base.text)
    is_healed(drawn, flattened(merge_locks(*swapped)))


@settings(relaxed, max_examples=size(30, 1000))
@given(SEEDS)
def test_one_apply_heals_every_merge_without_a_base(seed: int) -> None:
    """What one branch removed comes back as an entry that no recipe asks for."""
    drawn = branches(seed, 3, most=4, kinds=CROWDED)
    ours, theirs = (parse(side.text) for side in (drawn.ours, drawn.theirs))
    is_healed(drawn, flattened(merge_locks(ours, theirs)))


@settings(relaxed, max_examples=size(30, 1000))
@given(SEEDS)
@example(281360)  # the composition of one branch under the name of the other, without a record
def test_one_apply_heals_what_is_between_gits_markers(seed: int) -> None:
    drawn = branches(seed, 3, most=3, kinds=CROWDED)
    with TemporaryDirectory() as folder:
        for style in STYLES:
            clean, text = merged(drawn, Path(folder), *style)
            if clean:
                continue
            try:
                lock = read_merged(text, LOCK_NAME)
            except InvalidInput as bad:  # git mixed both sides' lines: it says what helps
                assert "git checkout --ours compose.lock" in str(bad.hint)
                continue
            is_healed(drawn, flattened(lock), mixed=True)


@settings(relaxed, max_examples=size(30, 3000))
@given(SEEDS)
def test_one_apply_heals_what_git_merges_without_a_conflict(seed: int) -> None:
    """Without the driver git merges lines: what is no lock then is refused, with what helps."""
    drawn = branches(seed, 4, most=2, kinds=MIX)
    with TemporaryDirectory() as folder:
        clean, text = merged(drawn, Path(folder))
    if not clean:
        return
    try:
        lock = parse(text, source=LOCK_NAME)
    except InvalidInput as bad:
        assert "git checkout" in str(bad.hint) and "compose apply" in str(bad.hint)
    else:
        is_healed(drawn, lock, mixed=True)


def is_healed(drawn: Branches, lock: Lock, *, mixed: bool = False) -> None:
    """One apply, and each entry names one trained composition of its recipe's content.

    Nothing is made that a side had, and a second apply has nothing to do. Where git has `mixed`
    the sides' lines, a record may be wrong, so one more composition may be made.
    """
    assert parse(dump(lock)) == lock, "the file can say it"
    recipes, target = drawn.recipes(), FakeTarget(polls=0, team="team_ours")
    target.put(*drawn.target.models.values())
    before = {*target.compositions()}
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / LOCK_NAME).write_text(dump(lock), encoding="utf-8")
        stage = Stage(root, target)
        stage.run(recipes)
        made = {*target.compositions()} - before
        used: list[str] = []
        for recipe in recipes:
            entry = stage.entries[recipe.path]
            model = target.compositions()[entry.composition or ""]
            content = content_of(recipe, entry)
            assert model.trained and entry.next is None and entry.content == content
            assert is_exact_match(model, content, None)
            used.append(model.id)
            if not mixed and model.id in made:
                assert not had(drawn, recipe.path, model), "made, though a side had one"
        assert len({*used}) == len(used) and (mixed or made <= {*used})
        planned, report = stage.run(recipes)
        assert not planned.changes and not planned.blocked and not report.lock_changed


def had(drawn: Branches, path: str, made: Model) -> list[Model]:
    """The models of this content that a side's entry named, trained or on its way."""
    origins = {side.origin(path) for side in (drawn.ours, drawn.theirs)} - {path} or {path}
    ids = {
        id
        for side in (drawn.ours, drawn.theirs)
        for at, entry in side.entries.items()
        if side.origin(at) in origins
        for id in entry.ids
    }
    models = [model for id, model in drawn.target.compositions().items() if id in ids]
    return [m for m in models if (m.concepts, m.parameters) == (made.concepts, made.parameters)]


# --- what a merge says -------------------------------------------------------------------


def entry_of(id: str, *replaced: str, **more: object) -> Entry:
    old = tuple(Replaced(one, "A") for one in replaced)
    return Entry("A", composition=id, replaced=old, **more)  # type: ignore[arg-type]


def merged_entry(ours: Entry, theirs: Entry, base: Entry | None) -> Entry:
    locks = [
        Lock({KEY: TargetLock(None, {"a.yaml": one} if one else {})})
        for one in (ours, theirs, base)
    ]
    return merge_locks(*locks).target(KEY).recipes["a.yaml"]


def test_a_composition_that_one_side_replaced_leads() -> None:
    base, ours = entry_of("x"), entry_of("x", tags=("new",))
    theirs = entry_of("y", "x")
    for one, other in ((ours, theirs), (theirs, ours)):
        entry = merged_entry(one, other, base)
        assert (entry.composition, entry.tags, entry.candidates) == ("y", ("new",), ())
        assert [old.id for old in entry.replaced] == ["x"]


def test_two_compositions_that_both_replaced_one_are_candidates() -> None:
    entry = merged_entry(entry_of("y", "x"), entry_of("z", "x"), entry_of("x"))
    assert entry.composition == "y" and [old.id for old in entry.replaced] == ["x"]
    assert entry.candidates == (Candidate("z", "A", used=True),)
    assert entry.all_ids == ("y", "x", "z")
    kept = flattened(Lock({KEY: TargetLock(None, {"a.yaml": entry})})).target(KEY)
    assert [old.id for old in kept.recipes["a.yaml"].replaced] == ["x", "z"]


def test_what_one_side_pruned_stays_away_and_a_removed_entry_too() -> None:
    entry = merged_entry(entry_of("y"), entry_of("y", "x", tags=("t",)), entry_of("y", "x"))
    assert entry.replaced == ()
    lock = Lock({KEY: TargetLock(None, {"a.yaml": entry_of("x")})})
    assert merge_locks(lock, Lock(), lock) == merge_locks(Lock(), lock, lock) == Lock()
    assert merge_locks(lock, Lock()) == merge_locks(Lock(), lock) == lock


def test_a_pin_that_one_side_moved_is_as_it_says() -> None:
    base, ours = entry_of("x", pins=(("Ink", "old"),)), entry_of("y", pins=(("Ink", "old"),))
    theirs = entry_of("z", pins=(("Ink", "new"),))
    for one, other in ((ours, theirs), (theirs, ours)):
        assert merged_entry(one, other, base).pins == (("Ink", "new"),)
    drawn = Branches(Random(1), 1)
    (path,) = drawn.base.recipes
    drawn.edit(drawn.ours, path, "scale")
    drawn.edit(drawn.theirs, path, "upgrade")
    pins = by_values(drawn).target(KEY).recipes[path].pins
    assert pins == drawn.theirs.entries[path].pins != drawn.ours.entries[path].pins


@pytest.mark.parametrize("also_changed", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_move_on_one_branch_meets_a_change_on_the_other(
    also_changed: bool, swapped: bool
) -> None:
    """The change is found at the new path; nothing is left at the old one."""
    base = {"a.yaml": entry_of("x"), "z.yaml": entry_of("z")}
    there = entry_of("w", "x", tags=("new",)) if also_changed else entry_of("x")
    moved = {"b.yaml": there, "z.yaml": entry_of("z")}
    changed = {"a.yaml": entry_of("y", "x"), "z.yaml": entry_of("z")}
    sides = [moved, changed][:: -1 if swapped else 1]
    locks = [Lock({KEY: TargetLock(None, recipes)}) for recipes in (*sides, base)]
    lock = merge_locks(*locks).target(KEY)
    assert {*lock.recipes} == {"b.yaml", "z.yaml"}
    entry = lock.recipes["b.yaml"]
    assert {*entry.all_ids} == ({"w", "x", "y"} if also_changed else {"x", "y"})
    if also_changed:
        assert entry.tags == ("new",) and len(entry.candidates) == 1
    else:
        assert entry == changed["a.yaml"]


def test_a_recipe_that_one_branch_moved_and_the_other_removed_is_gone() -> None:
    base, moved = ({path: entry_of("x")} for path in ("a.yaml", "b.yaml"))
    sides = [Lock({KEY: TargetLock(None, recipes)}) for recipes in (moved, {}, base)]
    assert merge_locks(*sides) == merge_locks(sides[1], sides[0], sides[2]) == Lock()


def test_a_recipe_that_both_branches_moved_is_at_one_path() -> None:
    base, ours, theirs = ({path: entry_of("x")} for path in ("a.yaml", "b.yaml", "c.yaml"))
    for other in (ours, theirs):
        sides = [Lock({KEY: TargetLock(None, recipes)}) for recipes in (ours, other, base)]
        lock = merge_locks(*sides).target(KEY)
        assert lock.recipes == other


def test_a_strangers_id_in_a_side_is_never_used_or_deleted(tmp_path: Path) -> None:
    drawn = Branches(Random(2), 2)
    path, other = sorted(drawn.base.recipes)
    (stranger,) = (id for id in [drawn.base.entries[other].composition] if id)
    drawn.target.change(stranger, name="Somebody Else's")
    for side in (drawn.base, drawn.ours, drawn.theirs):
        del side.recipes[other], side.entries[other]
    drawn.edit(drawn.ours, path, "scale")
    theirs = drawn.theirs.entries[path]
    for bad in (
        Entry(theirs.name, theirs.pins, stranger, content=theirs.content),
        Entry(theirs.name, theirs.pins, theirs.composition, replaced=(Replaced(stranger, "x"),)),
    ):
        drawn.theirs.entries[path] = bad
        (tmp_path / LOCK_NAME).write_text(dump(flattened(by_values(drawn))), encoding="utf-8")
        stage = Stage(tmp_path, drawn.target)
        stage.run(drawn.recipes())
        assert stage.entries[path].composition not in (None, stranger)
        model = drawn.target.compositions()[stranger]
        assert model.name == "Somebody Else's"
