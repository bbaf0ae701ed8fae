"""What happens to a project in a year of work, on the target in memory and on the real engine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from support.engine_files import free, write_lora
from support.fake_target import WRITES, FakeTarget, composition, lora
from support.model_types import COMPOSITION
from support.rehearsal import Fate, Killed, MortalLedger, Stage, recipe
from support.state import made_state, state_of

from composer.errors import InvalidInput
from composer.lock import LOCK_NAME, dump, flattened, read_conflicted, write_lock
from composer.model import (
    MARK,
    Concept,
    Content,
    Lock,
    Next,
    Recipe,
    Replaced,
    TargetLock,
)
from composer.planner import Options, Verb
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.model import Entry, Model
    from composer.targets.base import Target

LORAS = ("Ink", "Dust", "Clay")


class Counting(Engine):
    """The engine, with its writes counted."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.calls: list[str] = []
        super().__init__(*args, **more)

    def __getattribute__(self, name: str) -> Any:
        if name in WRITES:
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)


@dataclass
class Project:
    """A root with a target on it; `clone` is what a colleague checks out."""

    kind: str
    root: Path
    library: Path
    target: FakeTarget | Counting

    @property
    def stage(self) -> Stage:
        return Stage(self.root, self.target)

    @property
    def lock(self) -> bytes:
        return self.stage.lock

    def run(self, *recipes: Recipe, **more: Any) -> list[str]:
        """One apply; the writes that it sent."""
        before = len(self.writes())
        planned, report = self.stage.run(recipes, more.pop("options", None), **more)
        assert report.exit_status == 0, [
            (o.action.explanation.reason, o.error) for o in report.outcomes
        ]
        assert not self.stage.run(recipes)[0].changes
        assert planned.target == self.target.key
        return self.writes()[before:]

    def writes(self) -> list[str]:
        if isinstance(self.target, FakeTarget):
            return [verb for verb, _ in self.target.writes]
        return list(self.target.calls)

    def entry(self, path: str = "a.yaml") -> Entry:
        return self.stage.entries[path]

    def id(self, path: str = "a.yaml") -> str:
        return str(self.entry(path).composition)

    def there(self) -> dict[str, Model]:
        return {model.id: model for model in self.target.list_models(COMPOSITION)}

    def lora(self, name: str) -> str:
        return next(m.id for m in self.target.list_models("flux.1-lora") if m.name == name)


@pytest.fixture(params=["fake", "engine"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    library = tmp_path / "loras"
    for seed, name in enumerate(LORAS):
        write_lora(library / f"{name.lower()}.safetensors", seed, title=name)
    with opened(request.param, tmp_path / "work", library) as found:
        yield found


class opened:
    """A project in this root; its target starts empty but for the LoRAs."""

    def __init__(self, kind: str, root: Path, library: Path) -> None:
        root.mkdir()
        self.found = Project(kind, root, library, _target(kind, root, library))

    def __enter__(self) -> Project:
        return self.found

    def __exit__(self, *_: object) -> None:
        self.found.target.close()


def _target(kind: str, root: Path, library: Path) -> FakeTarget | Counting:
    if kind == "engine":
        return Counting(made_state(root), library, poll_interval=0.005, free_space=free)
    target = FakeTarget(key="local", grants_ids=True)
    target.put(*(lora(f"lora_{name.lower()}", name) for name in LORAS))
    return target


def knight(scale: float = 0.5, path: str = "a.yaml", **more: Any) -> Recipe:
    return recipe(path, "Knight", {"Ink": scale}, **more)


def rogue(scale: float = 0.4, path: str = "b.yaml", **more: Any) -> Recipe:
    return recipe(path, "Rogue", {"Dust": scale}, **more)


# --- edits ---------------------------------------------------------------------------------


def test_a_revert_gives_the_old_model_back(project: Project) -> None:
    project.run(knight(0.5))
    old = project.id()
    project.run(knight(0.7))
    new = project.id()
    assert "create" not in project.run(knight(0.5))
    assert project.id() == old
    assert [one.id for one in project.entry().replaced] == [new]


def test_two_swapped_names_are_two_renames(project: Project) -> None:
    one, two = knight(), rogue()
    project.run(one, two)
    ids = project.id("a.yaml"), project.id("b.yaml")
    writes = project.run(replace(one, name="Rogue"), replace(two, name="Knight"))
    assert writes == ["update", "update"]
    assert (project.id("a.yaml"), project.id("b.yaml")) == ids
    assert project.there()[ids[0]].name == "Rogue"


def test_two_swapped_files_are_two_moves(project: Project) -> None:
    one, two = knight(), rogue()
    project.run(one, two)
    ids = project.id("a.yaml"), project.id("b.yaml")
    assert project.run(replace(one, path="b.yaml"), replace(two, path="a.yaml")) == []
    assert (project.id("b.yaml"), project.id("a.yaml")) == ids


def test_a_move_and_an_edit_in_one_change(project: Project) -> None:
    project.run(knight(0.5))
    old = project.id()
    planned, _ = project.stage.run([knight(0.6, "sub/knight.yaml")])
    assert planned.actions[0].verb is Verb.REPLACE
    assert planned.actions[0].moved_from == "a.yaml"
    assert list(project.stage.entries) == ["sub/knight.yaml"]
    assert [one.id for one in project.entry("sub/knight.yaml").replaced] == [old]


def test_a_recipe_moves_to_where_a_removed_one_was(project: Project) -> None:
    """The removed one's composition is not lost from the lock."""
    project.run(knight(), rogue())
    ids = {project.id("a.yaml"), project.id("b.yaml")}
    assert project.run(rogue(path="a.yaml")) == []
    assert {id for entry in project.stage.entries.values() for id in entry.ids} == ids
    assert project.entry("a.yaml").name == "Rogue"
    project.run(rogue(path="a.yaml"), options=Options(prune=True))
    assert list(project.stage.entries) == ["a.yaml"]
    assert [model.name for model in project.there().values()] == ["Rogue"]


def test_protection_taken_off_after_a_replacement(project: Project) -> None:
    project.run(knight(0.5, protect=True))
    project.run(knight(0.6, protect=True))
    assert all(one.protect for one in project.entry().replaced)
    project.run(knight(0.6))
    assert not any(one.protect for one in project.entry().replaced)
    project.run(rogue(), options=Options(prune=True))
    assert [model.name for model in project.there().values()] == ["Rogue"]


def test_protected_ones_outlive_their_recipe(project: Project) -> None:
    project.run(knight(0.5, protect=True), rogue())
    project.run(rogue(), options=Options(prune=True))
    assert project.id("a.yaml") in project.there()


# --- locks that are late, switched, tampered with ------------------------------------------


def test_a_lock_that_is_late_by_two_runs(project: Project) -> None:
    """Another clone's lock comes back from git after two more applies."""
    project.run(knight(0.5))
    late, first = project.lock, project.id()
    project.run(knight(0.6))
    project.run(knight(0.7))
    newest = project.id()
    (project.root / LOCK_NAME).write_bytes(late)
    assert "create" not in project.run(knight(0.7))
    assert project.id() == newest
    assert [one.id for one in project.entry().replaced] == [first]


def test_a_switch_of_branch_after_a_kill(project: Project) -> None:
    """The journal tells of another branch: its untrained model is dropped, nothing is made."""
    project.run(knight(0.5))
    lock, first = project.lock, project.id()
    kill(project, "create", [knight(0.6)])
    assert len(project.there()) == 2
    (project.root / LOCK_NAME).write_bytes(lock)
    assert "create" not in project.run(knight(0.5))
    assert list(project.there()) == [first]
    assert project.lock == lock and project.stage.journal == ""


def kill(project: Project, verb: str, recipes: list[Recipe]) -> None:
    """Die once the answer of this verb is in the journal."""
    fate = Fate()

    class Dying(MortalLedger):
        def record(self, *args: Any, **more: Any) -> None:
            super().record(*args, **more)
            if more.get("made"):
                fate.last = fate.instants + 1
                fate.instant()

    ledger, stage = Dying, project.stage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.rehearsal.MortalLedger", ledger)
        with pytest.raises(Killed):
            stage.run(recipes, fate=fate)


def test_one_of_forty_with_prune(project: Project) -> None:
    forty = [recipe(f"r{n}.yaml", f"N{n}", {"Ink": 0.5}) for n in range(40)]
    project.run(*forty[:6])
    removed, *rest = forty[:6]
    before = {path: entry for path, entry in project.stage.entries.items() if path != removed.path}
    chosen = Options(selected=frozenset({"r1.yaml"}), prune=True)
    planned, _ = project.stage.run([*rest, *forty[6:]], chosen)
    assert [(a.verb, a.path) for a in planned.actions] == [
        (Verb.DELETE, "r0.yaml"),
        (Verb.KEEP, "r1.yaml"),
    ]
    assert project.stage.entries == before


@pytest.mark.parametrize("field", ["composition", "replaced", "next"])
@pytest.mark.parametrize("whose", ["another's", "a LoRA"])
def test_a_tampered_id_is_touched_by_nothing(project: Project, field: str, whose: str) -> None:
    project.run(knight(), recipe("z.yaml", "Their Best", {"Clay": 0.9}))
    id = project.id("z.yaml") if whose == "another's" else project.lora("Dust")
    entry = project.entry()
    tampered = {
        "composition": replace(entry, composition=id),
        "replaced": replace(entry, replaced=(Replaced(id, "Knight"),)),
        "next": replace(
            entry, next=Next(id, Content.of(COMPOSITION, [Concept("x", 1.0)]), "created")
        ),
    }
    lock = Lock({"local": TargetLock(None, {"a.yaml": tampered[field]})})
    (project.root / LOCK_NAME).write_text(dump(lock), encoding="utf-8")
    before = len(project.writes())
    for options in (Options(), Options(prune=True)):
        project.stage.run([knight(0.5)], options)
        project.stage.run([rogue()], options)
    assert project.target.get_models([id])[id].name in ("Their Best", "Dust")
    assert "update" not in project.writes()[before:]


# --- the world behind our back -------------------------------------------------------------


def test_a_locked_lora_is_overwritten(tmp_path: Path) -> None:
    """The lock pins the bytes: other bytes under the same name are another LoRA."""
    library = tmp_path / "loras"
    write_lora(library / "ink.safetensors", 1, title="Ink")
    with opened("engine", tmp_path / "work", library) as project:
        project.run(knight(0.5))
        write_lora(library / "ink.safetensors", 2, title="Ink")
        planned, report = project.stage.run([knight(0.5)])
        (note,) = planned.actions[0].explanation.notes
        assert report.exit_status == 0 and "--upgrade 'Ink'" in note
        planned, report = project.stage.run([knight(0.6)])
        assert (
            report.exit_status == 1 and "--upgrade 'Ink'" in planned.blocked[0].explanation.reason
        )
        writes = project.run(knight(0.6), options=Options(upgrade=frozenset({"Ink"})))
        assert writes.count("create") == 1


def test_a_composition_deleted_behind_our_back_comes_back_under_its_id(project: Project) -> None:
    project.run(knight())
    lock = project.lock
    project.target.delete(project.id())
    project.run(knight())
    assert project.lock == lock


def test_a_model_that_exists_already_is_adopted(project: Project) -> None:
    made = project.target.create("Knight", project_content(project), type=COMPOSITION)
    before = len(project.writes())
    project.run(knight())
    assert project.id() == made.id
    assert project.writes()[before:] == ["train"]
    assert MARK not in (project.there()[made.id].tags or ())


def project_content(project: Project) -> tuple[Any, ...]:
    return composition("", "", {project.lora("Ink"): 0.5}).concepts or ()


def test_a_fresh_clone_leaves_the_lock_as_it_is(project: Project, tmp_path: Path) -> None:
    """After a rename, a revert and a replacement, every id comes back on an empty target."""
    project.run(knight(0.5), rogue())
    project.run(recipe("a.yaml", "Paladin", {"Ink": 0.5}), rogue(0.6))
    project.run(recipe("a.yaml", "Paladin", {"Ink": 0.7}), rogue(0.4))
    final = [recipe("a.yaml", "Paladin", {"Ink": 0.5}), rogue(0.6), knight(0.5, "k.yaml")]
    project.run(*final)
    lock = project.lock
    with opened(project.kind, tmp_path / "clone", project.library) as clone:
        (clone.root / LOCK_NAME).write_bytes(lock)
        writes = clone.run(*final, parallelism=4)
        assert writes.count("create") == 3
        assert clone.lock == lock
        assert {entry.composition for entry in clone.stage.entries.values()} == {*clone.there()}


def test_two_branches_that_made_the_same_recipe_merge(project: Project, tmp_path: Path) -> None:
    """The side that matches wins, the other goes to `replaced`."""
    project.run(knight(0.5))
    base = project.lock
    project.run(knight(0.6))
    ours = project.lock
    (project.root / LOCK_NAME).write_bytes(base)
    project.run(knight(0.7))
    theirs, newest = project.lock, project.id()
    paths = [tmp_path / name for name in ("ours", "base", "theirs")]
    for path, data in zip(paths, (ours, base, theirs), strict=True):
        path.write_bytes(data)
    merged = subprocess.run(["git", "merge-file", "-p", *map(str, paths)], capture_output=True)
    assert merged.returncode > 0 and b"<<<<<<<" in merged.stdout
    (project.root / LOCK_NAME).write_bytes(merged.stdout)
    with pytest.raises(InvalidInput, match="git conflict markers"):
        project.run(knight(0.7))
    write_lock(project.root, flattened(read_conflicted(project.root)))
    assert "create" not in project.run(knight(0.7))
    assert project.id() == newest and len(project.entry().replaced) == 2
    assert b"<<<<<<<" not in project.lock


# --- hostile text --------------------------------------------------------------------------

HOSTILE = ["../../etc/passwd", "a?b#c", "a/b", "", "x" * 65, "é", "a b", "..", "%2e%2e", "a\nb"]


@pytest.mark.parametrize("id", HOSTILE)
def test_hostile_ids_in_the_lock_are_refused(project: Project, id: str) -> None:
    project.run(knight())
    text = project.lock.decode().replace(f'"{project.id()}"', json.dumps(id))
    (project.root / LOCK_NAME).write_text(text, encoding="utf-8")
    before = len(project.writes())
    with pytest.raises(InvalidInput, match=r"compose\.lock"):
        project.stage.run([knight()])
    assert len(project.writes()) == before


@pytest.mark.parametrize("id", HOSTILE)
def test_hostile_ids_in_the_journal_are_refused(project: Project, id: str) -> None:
    kill(project, "create", [knight()])
    journal = state_of(project.root) / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    events[-1]["made"] = id
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    before = len(project.writes())
    with pytest.raises(InvalidInput, match=r"journal\.jsonl:2"):
        project.stage.run([knight()])
    assert len(project.writes()) == before


@pytest.mark.parametrize("path", ["../x.yaml", "/etc/x.yaml", "C:\\x.yaml", "a/../../x.yaml"])
def test_hostile_paths_in_the_lock_are_refused(project: Project, path: str) -> None:
    project.run(knight())
    text = project.lock.decode().replace('"a.yaml"', json.dumps(path))
    (project.root / LOCK_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match="path inside the project"):
        project.stage.run([knight()])


def test_the_engine_speaks_the_whole_protocol(tmp_path: Path) -> None:
    with opened("engine", tmp_path / "work", tmp_path / "none") as project:
        target: Target = project.target
        assert target.key == "local" and not target.remote and target.grace == 0
