"""Two branches that change one project's lock, for tests of git's merges: drawn from one seed.

A `Branches` has a base, two sides that changed recipes and applied them, and the target that both
applied to. `git_merge` is git's own; `union` is what a right merge must say.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import TYPE_CHECKING, Any

from support.fake_target import FakeTarget, composition, lora
from support.model_types import COMPOSITION
from support.rehearsal import recipe

from composer.lock import dump
from composer.model import (
    MARK,
    Concept,
    Content,
    Entry,
    Lock,
    Next,
    Recipe,
    Replaced,
    TargetLock,
    parameters,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

KEY = "fake"
# Each name meant an id once, which the base pins, and means another since.
LORAS = {f"Lora {n}": f"lora_{n}" for n in range(9)}
NEWER = {name: f"{id}_newer" for name, id in LORAS.items()}
EDITS = ("scale", "scale", "scale", "training", "upgrade", "tags", "protect", "rename", "coming")
TAGS = ("arcade", "castle", "knights", "tutorial")


@dataclass
class Side:
    """Recipes, and the lock's entries after their apply."""

    recipes: dict[str, Recipe]
    entries: dict[str, Entry]
    moves: dict[str, str] = field(default_factory=dict)  # path in the base -> path now

    def copy(self) -> Side:
        return Side(dict(self.recipes), dict(self.entries))

    def origin(self, path: str) -> str:
        """The path in the base of the recipe that is at this path now."""
        return next((old for old, new in self.moves.items() if new == path), path)

    @property
    def by_origin(self) -> dict[str, Recipe]:
        return {self.origin(path): recipe for path, recipe in self.recipes.items()}

    @property
    def text(self) -> str:
        """The lock's text."""
        return dump(Lock({KEY: TargetLock("team_ours", dict(self.entries))}))

    @property
    def replaced(self) -> list[Replaced]:
        return [old for entry in self.entries.values() for old in entry.replaced]

    @property
    def ids(self) -> set[str]:
        return {id for entry in self.entries.values() for id in entry.ids}


@dataclass
class Branches:
    """A base and what two branches made of it; `chance` draws all but the base.

    There are few bases, each of its own `pool`, as drawing many would take longer than merging.
    """

    chance: Random
    size: int
    pool: int = 0
    target: FakeTarget = field(default_factory=lambda: FakeTarget(polls=0, team="team_ours"))

    def __post_init__(self) -> None:
        self.target.put(*(lora(id, f"{name} before") for name, id in LORAS.items()))
        self.target.put(*(lora(id, name) for name, id in NEWER.items()))
        self.base = Side({}, {})
        drawn, self.chance = self.chance, Random(self.pool)
        for _ in range(self.size):
            self.add(self.base)
        self.chance = drawn
        self.ours, self.theirs = self.base.copy(), self.base.copy()

    def change(self, side: Side, kinds: Collection[str], *, spare: Collection[str] = ()) -> str:
        """One change of one recipe, applied; its path."""
        kind = self.chance.choice([*kinds])
        free = [path for path in sorted(side.recipes) if path not in spare]
        if kind == "add" or not free:
            return self.add(side)
        path = self.chance.choice(free)
        if kind == "remove":
            self.remove(side, path)
        elif kind == "move":
            self.move(side, path)
        else:
            self.edit(side, path, self.chance.choice(EDITS))
        return path

    # --- single changes ------------------------------------------------------------------

    def id(self, kind: str = "model") -> str:
        return f"{kind}_{self.chance.getrandbits(80):x}"

    def scale(self) -> float:
        return self.chance.randrange(1, 20) / 20

    def add(self, side: Side) -> str:
        path = f"recipes/{self.chance.getrandbits(40):x}.yaml"
        names = self.chance.sample(sorted(LORAS), self.chance.randint(1, 4))
        wanted = recipe(path, f"Model {path[8:-5]}", {name: self.scale() for name in names})
        wanted = replace(wanted, tags=self.tags())
        pins = tuple(sorted((name, LORAS[name]) for name in names))
        side.recipes[path] = wanted
        side.entries[path] = self.trained(wanted, Entry(wanted.name, pins, tags=wanted.tags))
        return path

    def tags(self) -> tuple[str, ...]:
        return tuple(sorted(self.chance.sample(TAGS, self.chance.randint(0, 2))))

    def remove(self, side: Side, path: str) -> None:
        """The file goes, and with it the model: `apply --prune`."""
        del side.recipes[path]
        for id in side.entries.pop(path).ids:
            if id in self.target.models:
                self.target.lose(id)

    def move(self, side: Side, path: str) -> None:
        new, origin = f"recipes/{self.chance.getrandbits(40):x}.yaml", side.origin(path)
        side.recipes[new] = replace(side.recipes.pop(path), path=new)
        side.entries[new] = side.entries.pop(path)
        side.moves[origin] = new

    def edit(self, side: Side, path: str, kind: str) -> None:
        wanted, entry = side.recipes[path], side.entries[path]
        match kind:
            case "tags":
                wanted = replace(wanted, tags=self.tags())
                entry = replace(entry, tags=wanted.tags)
            case "protect":
                wanted = replace(wanted, protect=not wanted.protect)
                entry = replace(entry, protect=wanted.protect)
            case "rename":
                wanted = replace(wanted, name=f"{wanted.name[:30]} {self.chance.randrange(99)}")
                entry = replace(entry, name=wanted.name)
                if entry.composition in self.target.models:
                    self.target.change(entry.composition, name=wanted.name)
            case _:
                wanted, entry = self.remade(wanted, entry, kind)
        side.recipes[path], side.entries[path] = wanted, entry

    def remade(self, wanted: Recipe, entry: Entry, kind: str) -> tuple[Recipe, Entry]:
        refs = list(wanted.concepts)
        at = self.chance.randrange(len(refs))
        if kind in ("scale", "coming"):
            refs[at] = replace(refs[at], scale=(refs[at].scale * 20 + 1) % 20 / 20)
            wanted = replace(wanted, concepts=tuple(refs))
        elif kind == "training":
            wanted = replace(wanted, training=parameters({"rank": self.chance.randint(1, 9)}))
        else:
            name = refs[at].name or ""
            entry = replace(
                entry, pins=tuple(sorted({**dict(entry.pins), name: NEWER[name]}.items()))
            )
        return wanted, self.trained(wanted, entry, wait=kind != "coming")

    def trained(self, wanted: Recipe, entry: Entry, *, wait: bool = True) -> Entry:
        """The entry after an apply that makes this recipe's model."""
        content = content_of(wanted, entry)
        if content == entry.content:
            return entry
        id, job = self.id(), self.id("job")
        made_of = {c.model_id: c.scale for c in content.concepts}
        status = "trained" if wait else "training"
        model = composition(id, wanted.name, made_of, status, parameters=content.training, job=job)
        ours = frozenset({MARK, *wanted.tags})
        self.target.put(replace(model, tags=ours, created_at=self.target.now()))
        if not wait:
            return replace(entry, next=Next(id, content, "training", job))
        old = entry.composition
        training = entry.content.training if entry.content else ()
        before = [Replaced(old, entry.name, training, entry.protect)] if old else []
        replaced = tuple(sorted((*entry.replaced, *before), key=lambda old: old.id))
        return replace(entry, composition=id, job=job, content=content, replaced=replaced)

    def named_and_there(self) -> set[str]:
        """The compositions that a side's lock names, and that the target has."""
        return (self.ours.ids | self.theirs.ids) & {*self.target.compositions()}

    # --- their merge ---------------------------------------------------------------------

    def recipes(self) -> list[Recipe]:
        """The recipes as a person merges them; where both changed one thing, ours."""
        base, ours, theirs = (side.by_origin for side in (self.base, self.ours, self.theirs))
        merged = (
            _merged_recipe(base.get(path), ours.get(path), theirs.get(path))
            for path in sorted({*ours, *theirs})
        )
        return [recipe for recipe in merged if recipe]


def content_of(wanted: Recipe, entry: Entry) -> Content:
    refs = [(entry.pin(ref.name or "") or "", ref.scale) for ref in wanted.concepts]
    return Content.of(COMPOSITION, [Concept(id, scale) for id, scale in refs], wanted.training)


def _merged_recipe(
    base: Recipe | None, ours: Recipe | None, theirs: Recipe | None
) -> Recipe | None:
    if base is None or ours == base or theirs == base:
        return (ours or theirs) if base is None else theirs if ours == base else ours
    if ours is None or theirs is None:
        return ours or theirs
    concepts = [
        mine if mine != before else other
        for before, mine, other in zip(base.concepts, ours.concepts, theirs.concepts, strict=True)
    ]
    rest = {
        f.name: getattr(theirs if getattr(ours, f.name) == getattr(base, f.name) else ours, f.name)
        for f in fields(Recipe)
        if f.name != "concepts"
    }
    return Recipe(**rest, concepts=tuple(concepts))


class NoUnion(Exception):
    """Both sides changed one thing, each in its own way: git must not merge that."""


def union(base: Side, ours: Side, theirs: Side) -> Side:
    """All that both sides changed. Raises `NoUnion`."""
    entries = _three_ways(base.entries, ours.entries, theirs.entries, _entry)
    return Side({}, entries)


def essence(side: Side) -> Side:
    """Without the lines that many entries have alike, which git may take for another's."""
    return Side({}, {path: _plainest(entry) for path, entry in side.entries.items()})


def _plainest(entry: Entry) -> Entry:
    return replace(entry, replaced=(), protect=False, tags=())


def _three_ways(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], inner: Any
) -> dict[str, Any]:
    merged = {}
    for key in sorted({*ours, *theirs}):
        found = _three(base.get(key), ours.get(key), theirs.get(key), inner)
        if found is not None:
            merged[key] = found
    return merged


def _three(base: Any, ours: Any, theirs: Any, inner: Any) -> Any:
    if ours in (base, theirs):
        return theirs
    if theirs == base:
        return ours
    if inner is None or None in (base, ours, theirs):
        raise NoUnion
    return inner(base, ours, theirs)


def _entry(base: Entry, ours: Entry, theirs: Entry) -> Entry:
    plain = {}
    for one in fields(Entry):
        before, mine, other = (getattr(side, one.name) for side in (base, ours, theirs))
        plain[one.name] = _three(before, mine, other, _INNER.get(one.name))
    return Entry(**plain)


def _pins(*sides: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    base, ours, theirs = (dict(side) for side in sides)
    return tuple(sorted(_three_ways(base, ours, theirs, None).items()))


def _replaced(*sides: tuple[Replaced, ...]) -> tuple[Replaced, ...]:
    base, ours, theirs = ({old.id: old for old in side} for side in sides)
    merged = _three_ways(base, ours, theirs, None)
    return tuple(merged[id] for id in sorted(merged))


_INNER: dict[str, Any] = {"pins": _pins, "replaced": _replaced}


def git_merge(folder: Path, base: str, ours: str, theirs: str, *options: str) -> tuple[bool, str]:
    """As git merges a file: whether it was clean, and the text, with any conflict in it."""
    paths = [folder / name for name in ("ours", "base", "theirs")]
    for path, text in zip(paths, (ours, base, theirs), strict=True):
        path.write_text(text, encoding="utf-8", newline="\n")
    ran = subprocess.run(
        ["git", "merge-file", "-p", *options, *map(str, paths)], capture_output=True, check=False
    )
    assert 0 <= ran.returncode < 128, ran.stderr
    return ran.returncode == 0, ran.stdout.decode()
