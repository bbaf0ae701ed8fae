"""Lock-only edits: what the lock says otherwise than its base, and no recipe asks for. Pure.

Nobody but a command has a reason to change the lock, so a reviewer wants to see these before
anything else. `compose plan --base` compares all targets' parts. What an apply may have written for
a change of the same recipe is a note only, as the lock can't tell that from a hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.model import Entry, Replaced
from composer.planner.concepts import under_pins
from composer.planner.matching import contents, match_entries
from composer.planner.plan import LockEdit
from composer.text import LOCK_NAME, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from composer.model import Lock, Recipe, TargetLock

MARKERS = LockEdit(
    LOCK_NAME, LOCK_NAME, "it has git's conflict markers: compose lock --repair resolves them"
)
_NOTHING = "nothing"


def unreadable(problem: str) -> LockEdit:
    """Where the base's lock can't be read: there is nothing to tell edits by."""
    return LockEdit(
        LOCK_NAME, LOCK_NAME, f"{problem}: it can't be read, so nothing is compared with it"
    )


def learned(before: Entry | None, after: Entry | None) -> str:
    """What an entry says now, in words: `composition nothing -> model_a, pin of Ink a -> b`."""
    if before == after or after is None:
        return ""
    was = before or Entry(after.name)
    words = [
        f"{word} {old or _NOTHING} -> {new or _NOTHING}"
        for word, old, new in (
            ("composition", was.composition, after.composition),
            ("next", _next(was), _next(after)),
            *_pins_of(was, after),
        )
        if old != new
    ]
    names = ("name", "job", "content", "tags", "protect", "replaced")
    others = [f"{name} updated" for name in names if getattr(was, name) != getattr(after, name)]
    return ", ".join(words or others)


def _pins_of(before: Entry, after: Entry) -> Iterator[tuple[str, str | None, str | None]]:
    was, now = dict(before.pins), dict(after.pins)
    return ((f"pin of {name}", was.get(name), now.get(name)) for name in sorted({*was, *now}))


@dataclass(slots=True)
class LockDiff:
    """`edits` that nobody should make by hand, and `notes` of what an apply may have written."""

    edits: list[LockEdit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare_locks(recipes: Sequence[Recipe], base: Lock, head: Lock, planned: str) -> LockDiff:
    """What differs, the `planned` target's first; another target's is told with its key.

    A lock that is new has new targets, and that alone is no edit.
    """
    diff = LockDiff()
    gone, come = ({*a.targets} - {*b.targets} for a, b in ((base, head), (head, base)))
    renamed = {
        old: new
        for old in sorted(gone)
        for new in sorted(come)
        if base.target(old).recipes == head.target(new).recipes
    }
    for key in sorted({*base.targets, *head.targets}, key=lambda key: (key != planned, key)):
        edits = _of_target(key, base, head, renamed)
        diff.edits += [LockEdit(LOCK_NAME, key, words) for words in edits]
        if key not in gone and key not in renamed.values():
            where = "" if key == planned else f"at {key}: "
            _compare(recipes, base.target(key), head.target(key), where, diff)
    return diff


def _of_target(key: str, base: Lock, head: Lock, renamed: Mapping[str, str]) -> Iterator[str]:
    """Whether the target itself is renamed, gone or new."""
    before, after = (counted(len(lock.target(key).recipes), "entry") for lock in (base, head))
    if key in renamed:
        yield f"the target is renamed to {renamed[key]}"
    elif key not in head.targets:
        yield f"the base has this target ({before}), the branch doesn't"
    elif key not in base.targets and base.targets and key not in renamed.values():
        words = f"the branch has this target ({after}), the base doesn't"
        yield f"{words}; a first apply there adds it, too"


def _compare(
    recipes: Sequence[Recipe], base: TargetLock, head: TargetLock, where: str, diff: LockDiff
) -> None:
    """One target's part: another owner first, then every entry by its recipe's path."""
    owners = f"{where}{base.owner} -> {head.owner or _NOTHING}"
    other_owner = base.owner and base.owner != head.owner
    diff.edits += [LockEdit(LOCK_NAME, "owner", owners)] if other_owner else []
    first_models: list[str] = []
    for path, recipe, before, after in _pairs(recipes, base, head):
        name = named.name if (named := recipe or after or before) else path
        compared = _Compared(recipe, before, after)
        if edits := ", ".join(compared.edits()):
            diff.edits.append(LockEdit(path, name, where + edits))
        if notes := ", ".join(compared.notes()):
            diff.notes.append(f"{where}{name} ({path}): {notes}")
        if compared.is_arrival and after is not None and after.ids:
            first_models.append(f"{name} ({', '.join(after.ids)})")
    if first_models:
        without = f"the base's lock has no model of {', '.join(first_models)}"
        diff.notes.append(f"{where}{without}; {_ARRIVAL}")


_ARRIVAL = "an apply elsewhere writes that, and so could an edit by hand"
_Pair = tuple["str", "Recipe | None", "Entry | None", "Entry | None"]


def _pairs(recipes: Sequence[Recipe], base: TargetLock, head: TargetLock) -> Iterator[_Pair]:
    """Each recipe with its entries, then what no recipe asks for, by path or else by its ids."""
    was, now = match_entries(recipes, base.recipes), match_entries(recipes, head.recipes)
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        before = base.recipes.get(was.get(recipe.path, ""))
        after = head.recipes.get(now.get(recipe.path, ""))
        yield recipe.path, recipe, before, after
    old = {path: base.recipes[path] for path in sorted({*base.recipes} - {*was.values()})}
    for path in sorted({*head.recipes} - {*now.values()}):
        after = head.recipes[path]
        same = [at for at, entry in old.items() if after.ids and entry.ids == after.ids]
        at = path if path in old or not same else same[0]
        yield path, None, old.pop(at, None), after
    yield from ((path, None, before, None) for path, before in old.items())


@dataclass(frozen=True, slots=True)
class _Compared:
    """One entry in the base's lock and in this one."""

    recipe: Recipe | None
    before: Entry | None
    after: Entry | None

    @property
    def is_arrival(self) -> bool:
        """A recipe's first model: it is as new as its entry, or was only pinned in the base."""
        return self.recipe is not None and not (self.before and self.before.ids)

    @property
    def recipe_changed(self) -> bool:
        if self.recipe is None or self.before is None:
            return False
        return under_pins(self.recipe, self.before) not in contents(self.before)

    def edits(self) -> Iterator[str]:
        before, after = self.before, self.after
        if before is None:
            if self.recipe is None and after is not None and after.ids:
                ids = ", ".join(after.ids)
                yield f"the branch has this entry ({ids}), the base and the recipes don't"
            return
        if after is None:
            if self.recipe is not None:
                yield _only_base(before)
            return
        yield from self._pins(before, after)
        if before.protect and not after.protect and (not self.recipe or self.recipe.protect):
            yield "protect true -> false"
        if not self.recipe_changed and not self.is_arrival:
            yield from _other_ids(before, after)
            yield from self._contents(before, after)

    def notes(self) -> Iterator[str]:
        before, after = self.before, self.after
        if before is not None and after is None and self.recipe is None and before.ids:
            yield f"{_only_base(before)}: a prune may have removed it"
        if before is not None and after is not None and self.recipe_changed and before.ids:
            moved = [*_other_ids(before, after)]
            if moved:
                words = f"its recipe changed, and the lock names another id: {moved[0]}"
                yield ", ".join([words, *moved[1:]])

    def _pins(self, before: Entry, after: Entry) -> Iterator[str]:
        """A recipe can't change a pin; an apply removes the pin of a name that it no longer has."""
        was, now = dict(before.pins), dict(after.pins)
        names = {ref.name for ref in self.recipe.concepts} if self.recipe else {*was}
        for name in sorted({*was, *now}):
            id, new = was.get(name), now.get(name)
            removed, added = new is None and name not in names, id is None and name in names
            if id != new and not removed and not added:
                yield f"pin of {name} {id or _NOTHING} -> {new or _NOTHING}"

    def _contents(self, before: Entry, after: Entry) -> Iterator[str]:
        """A record that differs though ids or pins, which are told already, don't say why."""
        wanted = under_pins(self.recipe, after) if self.recipe else None
        expected = [*contents(before), *([wanted] if after.pins != before.pins else [])]
        unsure = after.candidates and after.content is None  # of a conflict: not an edit
        if before.content != after.content and after.content not in expected and not unsure:
            yield "its content differs from the base's"
        coming = after.next.content if after.next else None
        if coming is not None and before.next and coming not in expected:
            yield "the content of next differs from the base's"


def _only_base(entry: Entry) -> str:
    ids = ", ".join(entry.ids) or "no model"
    return f"the base has this entry ({ids}), the branch doesn't"


def _other_ids(before: Entry, after: Entry) -> Iterator[str]:
    before = _arrived(before, after)
    for word, old, new in (
        ("composition", before.composition, after.composition),
        ("next", _next(before), _next(after)),
    ):
        if old != new:
            yield f"{word} {old or _NOTHING} -> {new or _NOTHING}"
    for other in after.candidates:
        if other.id not in before.ids:
            yield f"a git conflict also names {other.id}"
    was, now = {old.id for old in before.replaced}, {old.id for old in after.replaced}
    yield from (f"{id} is added to replaced" for id in sorted(now - was))
    yield from (f"{id} is removed from replaced" for id in sorted(was - now))


def _next(entry: Entry) -> str | None:
    return entry.next.composition if entry.next else None


def _arrived(before: Entry, after: Entry) -> Entry:
    """What the base's lock had on its way has arrived: that is progress, and no edit."""
    if before.next is None or after.composition != before.next.composition:
        return before
    old = [Replaced(before.composition, before.name)] if before.composition else []
    return replace(
        before,
        composition=before.next.composition,
        content=before.next.content,
        next=None,
        replaced=(*before.replaced, *old),
    )
