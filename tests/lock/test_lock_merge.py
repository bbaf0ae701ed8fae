"""What git makes of two branches' locks: merges that say what both say, or a repair that does."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_target import FakeTarget
from support.lock_branches import (
    KEY,
    NEWER,
    Branches,
    NoUnion,
    Side,
    content_of,
    essence,
    git_merge,
    union,
)
from support.rehearsal import Stage
from support.sizes import size
from support.state import state_of

from composer.executor import repair
from composer.lock import NAME, Ledger, dump, parse, read_lock, remember, salvage
from composer.planner import Options, Verb, is_exact_match, known_ids, plan
from composer.targets.base import observe

if TYPE_CHECKING:
    from composer.model import Recipe
    from composer.planner import Action

ENTRIES = 50
PAIRS = size(400, 1000)
REPAIRS = size(6, PAIRS)  # of the conflicts at 50 entries; each reads a large lock many times
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


# --- merges without a conflict -----------------------------------------------------------


@relaxed
@given(SEEDS)
def test_edits_of_different_recipes_always_merge_cleanly(seed: int) -> None:
    drawn = Branches(Random(seed), ENTRIES, pool=seed % POOLS)
    touched = {drawn.change(drawn.ours, ["edit"]) for _ in range(drawn.chance.randint(1, 9))}
    for _ in range(drawn.chance.randint(1, 9)):
        drawn.change(drawn.theirs, ["edit"], spare=touched)
    with TemporaryDirectory() as folder:
        clean, text = merged(drawn, Path(folder))
    assert clean, text
    assert text == union(drawn.base, drawn.ours, drawn.theirs).text


def test_mixes_merge_cleanly_nine_times_in_ten_and_the_rest_is_repaired(tmp_path: Path) -> None:
    outcomes: list[bool] = []

    @relaxed
    @given(SEEDS)
    def each(seed: int) -> None:
        drawn = branches(seed, ENTRIES, most=2, kinds=MIX)
        clean, text = merged(drawn, tmp_path)
        outcomes.append(clean)
        if clean:
            says_what_both_say(drawn, text)
        elif outcomes.count(False) <= REPAIRS:
            is_repaired(drawn, text)
            is_repaired(drawn, merged(drawn, tmp_path, "--diff3")[1])

    each()
    assert sum(outcomes) >= 0.9 * len(outcomes), f"{sum(outcomes)} of {len(outcomes)}"


@settings(relaxed, max_examples=size(80, 2000))
@given(SEEDS)
def test_crowded_branches_are_merged_right_or_repaired(seed: int) -> None:
    """A few recipes that both branches change again and again: most of it conflicts."""
    drawn = branches(seed, 3, most=4, kinds=CROWDED)
    with TemporaryDirectory() as folder:
        for style in STYLES:
            clean, text = merged(drawn, Path(folder), *style)
            if clean:
                says_what_counts(drawn, text)
            else:
                is_repaired(drawn, text)


def says_what_both_say(drawn: Branches, text: str) -> None:
    """A clean merge reads as the union of both sides' changes."""
    try:
        both = union(drawn.base, drawn.ours, drawn.theirs)
    except NoUnion:
        pytest.fail(f"merged what can't be merged:\n{text}")
    assert text == both.text or parse(text) == parse(both.text)  # git may change the order


def says_what_counts(drawn: Branches, text: str) -> None:
    """The same where everybody changes the same few lines: nothing is made of anything wrong.

    Where one side takes a recipe's place for another one, the other side's `protect: true`, tags
    or earlier composition may end up there. The recipe says what is right, and `prune` finds it.
    """
    both = union(*(essence(side) for side in (drawn.base, drawn.ours, drawn.theirs)))
    found = Side({}, dict(parse(text).target(KEY).recipes))
    assert essence(found).entries == both.entries
    earlier = {old.id for entry in found.entries.values() for old in entry.replaced}
    lost = {old.id for side in (drawn.ours, drawn.theirs) for old in side.replaced} - earlier
    assert not lost & {*drawn.target.compositions()}


# --- conflicts, and their repair ---------------------------------------------------------


def is_repaired(drawn: Branches, text: str) -> None:
    """After a repair the lock is whole, its plan is right, and one apply does the rest."""
    recipes, target = drawn.recipes(), FakeTarget(polls=0, team="team_ours")
    target.put(*drawn.target.models.values())
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / NAME).write_text(text, encoding="utf-8")
        salvaged = salvage(text)
        assert not salvaged.lost
        ledger = Ledger(root, KEY, state_of(root), lock=salvaged.lock)
        repair(recipes, target, ledger, Options(), torn=salvaged.torn)
        assert not target.writes, "a repair writes nothing on the target"
        lock = (root / NAME).read_text(encoding="utf-8")
        assert lock == dump(parse(lock))
        nothing_is_forgotten(drawn, root)
        the_plan_is_right(drawn, recipes, root)
        assert not repair(recipes, target, Ledger(root, KEY, state_of(root)), Options()).changed
        stage = Stage(root, target)
        stage.run(recipes)
        planned, report = stage.run(recipes)
        assert not planned.changes and not planned.blocked and not report.lock_changed


def nothing_is_forgotten(drawn: Branches, root: Path) -> None:
    memory = remember(root, KEY, state_of(root))
    there = drawn.named_and_there()
    assert there <= known_ids(memory), there - known_ids(memory)
    for entry in memory.entries.values():
        model = drawn.target.models.get(entry.composition or "")
        if model is not None and entry.content is not None:
            assert entry.content.concepts == model.concepts, "the record is another model's"


def the_plan_is_right(drawn: Branches, recipes: list[Recipe], root: Path) -> None:
    memory = remember(root, KEY, state_of(root))
    planned = plan(recipes, memory, observe(drawn.target, recipes, memory))
    assert not planned.blocked, planned.blocked
    for action in planned.actions:
        if action.recipe is not None:
            judge(drawn, action)


MADE = (Verb.CREATE, Verb.REPLACE)
HELD = (Verb.KEEP, Verb.WAIT, Verb.TRAIN)


def judge(drawn: Branches, action: Action) -> None:
    """What is on the target is kept; what isn't there yet is made, of pins that a side had."""
    assert action.recipe is not None and action.content is not None
    sides = [s.entries[action.path] for s in (drawn.ours, drawn.theirs) if action.path in s.entries]
    pins, known = (
        {id for _, id in action.transition.pins},
        {id for side in sides for _, id in side.pins},
    )
    assert pins <= known | {*NEWER.values()}
    if not pins <= known:  # git has dropped its line: the name was looked up, as for a new recipe
        return
    ids = {id for side in sides for id in side.ids}
    models = [model for id, model in drawn.target.compositions().items() if id in ids]
    wanted = {action.content} | (
        {content_of(action.recipe, sides[0])} if len({side.pins for side in sides}) == 1 else set()
    )
    there = [m for m in models if any(is_exact_match(m, content, None) for content in wanted)]
    assert action.verb in (HELD if there else MADE), (action.verb, action.explanation.reason, there)


def test_an_upgrade_on_one_side_survives_where_git_wrote_the_base(tmp_path: Path) -> None:
    drawn = Branches(Random(1), 1)
    (path,) = drawn.base.recipes
    drawn.edit(drawn.ours, path, "scale")
    drawn.edit(drawn.theirs, path, "upgrade")
    clean, text = merged(drawn, tmp_path, "--diff3")
    assert not clean
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    entry = read_lock(tmp_path).target(KEY).recipes[path]
    assert entry.pins == drawn.theirs.entries[path].pins != drawn.ours.entries[path].pins
