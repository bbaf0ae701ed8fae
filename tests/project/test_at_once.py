"""Two commands that write at once: one waits for the other, and a plain apply brings all right.

In threads both have read the recipes before either has the project alone; in processes that is left
to chance. The default size takes some pairs, `.ci/soak` takes all.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, spawned
from support.engine_files import write_lora
from support.fake_target import FakeTarget, composition, lora
from support.sizes import size, soak_factor
from support.state import state_of

from composer import Project
from composer.errors import Refused, UsageError
from composer.lock import LOCK_NAME, dump, read_lock
from composer.model import MARK, Entry, Lock, TargetLock
from composer.project.options import ApplyOptions, PlanOptions
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from composer.planner import Report

PATIENCE = 60.0  # seconds to wait for the other command
OTHER = TargetLock("team_other", {"recipes/other.yaml": Entry("Other", composition="model_other")})
ALLOWED = {"allow_empty": True, "allow_large_change": True}
LOOSE = "loose"  # the id of a composition that no lock names


def write(root: Path, name: str, scale: float, loras: tuple[str, ...] = ("Ink",)) -> None:
    concepts = ", ".join(f"{{name: {one}, scale: {scale}}}" for one in loras)
    (root / "recipes").mkdir(exist_ok=True)
    (root / f"recipes/{name.lower()}.yaml").write_text(f"name: {name}\nconcepts: [{concepts}]\n")


def begin(root: Path) -> FakeTarget:
    """A project with a recipe that is up to date, one to create, one to replace and one whose file
    is gone; a composition of compose's that no lock names, and a LoRA that was replaced."""
    target = FakeTarget(remote=True)
    target.put(lora("lora_ink", "Ink"), lora("lora_dust", "Dust"))
    (root / ".git").mkdir(parents=True)
    for name in ("Kept", "Replaced", "Gone"):
        write(root, name, 0.5, ("Ink", "Dust") if name == "Kept" else ("Ink",))
    apply(Project(root), target)
    (root / "recipes/gone.yaml").unlink()
    write(root, "Replaced", 0.6)
    write(root, "Created", 0.7)
    marked = frozenset({MARK})
    target.put(composition(LOOSE, "Loose", {"lora_ink": 0.8}, tags=marked))
    target.lose("lora_dust")
    target.put(lora("lora_dust_2", "Dust"))
    add_other(root)
    return target


def add_other(root: Path) -> None:
    """The lock has entries of another target, too."""
    lock = read_lock(root)
    (root / LOCK_NAME).write_text(dump(Lock({**lock.targets, "https://other.example": OTHER})))


def apply(project: Project, target: FakeTarget, *, prune: bool = False) -> Report:
    options = ApplyOptions(poll_interval=0.001, prune=prune, **ALLOWED)
    return project.apply(target, options=options)


COMMANDS: Mapping[str, Callable[[Project, FakeTarget], object]] = {
    "apply": apply,
    "apply --prune": partial(apply, prune=True),
    "prune": lambda project, target: project.prune(target, PlanOptions(**ALLOWED)),
    "forget": lambda project, target: project.forget(target, "Kept"),
    "lock": lambda project, target: project.lock(target),
    "lock --upgrade": lambda project, target: project.lock(target, PlanOptions(upgrade_all=True)),
    "import": lambda project, target: project.import_models(target, [LOOSE]),
    "destroy": lambda project, target: project.destroy(
        target, ["Replaced"], PlanOptions(**ALLOWED)
    ),
}
PAIRS = list(itertools.combinations_with_replacement(COMMANDS, 2))
SMALL = [
    ("apply", "apply"),
    ("apply", "forget"),
    ("apply", "lock --upgrade"),
    ("apply --prune", "import"),
    ("prune", "import"),
    ("prune", "lock"),
    ("destroy", "apply"),
    ("destroy", "import"),
]


@pytest.mark.parametrize("names", PAIRS if soak_factor() else SMALL, ids=" + ".join)
def test_a_pair_of_commands_at_once(tmp_path: Path, names: tuple[str, str]) -> None:
    for number in range(size(1, 8)):
        root, chance = tmp_path / str(number), random.Random(f"{names} {number}")
        target = begin(root)
        problems = at_once(root, target, names, chance)
        report = apply(Project(root), target)
        assert report.exit_status == 0, (problems, report)
        check(root, target, destroyed="destroy" in names)


def at_once(
    root: Path, target: FakeTarget, names: tuple[str, str], chance: random.Random
) -> list[str]:
    """Run both commands in threads, each with a project of its own; what was refused."""
    both_have_read = threading.Barrier(2)
    delays = [chance.choice((0.0, 0.005)) for _ in names]

    def run(name: str, delay: float) -> str:
        project = Project(root)
        assert project.recipes
        both_have_read.wait(PATIENCE)
        time.sleep(delay)
        try:
            with project.exclusive(PATIENCE):
                COMMANDS[name](project, target)
        except (Refused, UsageError) as error:
            return f"{name}: {error}"
        return ""

    with ThreadPoolExecutor(2) as pool:
        return list(filter(None, pool.map(run, names, delays)))


def check(root: Path, target: FakeTarget, *, destroyed: bool) -> None:
    """Each recipe has one trained composition, which the lock names, and no other of its content
    was ever made, unless it was destroyed."""
    lock, there = read_lock(root), target.compositions()
    assert lock.target("https://other.example") == OTHER
    entries, recipes = lock.target(target.key).recipes, Project(root).recipes
    for recipe in recipes:
        entry = entries[recipe.path]
        assert (entry.name, entry.next) == (recipe.name, None) and entry.content is not None
        model = there[entry.composition or ""]
        assert model.trained and MARK in (model.tags or ())
        made_of = (recipe.name, entry.content.concepts)
        assert [m.id for m in there.values() if (m.name, m.concepts) == made_of] == [model.id]
        posts = target.calls.count(("create", made_of))
        assert posts == (model.id != LOOSE) or (destroyed and recipe.name == "Replaced"), posts
    assert (LOOSE in there) and ("Loose" not in {r.name for r in recipes} or named(entries, LOOSE))
    assert not [*root.rglob("*.tmp"), *state_of(root).rglob("*.tmp")]
    assert not (state_of(root) / "journal.jsonl").exists()


def named(entries: Mapping[str, Entry], id: str) -> bool:
    return any(entry.composition == id for entry in entries.values())


# --- on the command line -----------------------------------------------------------------

LINES = {
    "apply": ("apply", "--allow-large-change"),
    "apply --prune": ("apply", "--prune", "--allow-large-change"),
    "prune": ("prune", "--allow-large-change"),
    "forget": ("forget", "Kept"),
    "lock": ("lock",),
    "lock --upgrade": ("lock", "--upgrade"),
    "import": ("import", "--all"),
    "destroy": ("destroy", "Replaced"),
    "pull": ("pull", "-o", "out/"),
}
CLI_PAIRS = list(itertools.combinations_with_replacement(LINES, 2))


@pytest.mark.parametrize(
    "names", CLI_PAIRS if soak_factor() else [("prune", "import")], ids=" + ".join
)
def test_a_pair_of_processes_at_once(tmp_path: Path, names: tuple[str, str]) -> None:
    """The same on the local target; there, an earlier command that waits says so and ends."""
    root = tmp_path / "project"
    local(root)
    wait = ("--lock-timeout", "60")
    lines = [(*LINES[name], *(() if name == "pull" else wait)) for name in names]
    for process in [spawned(*line, at=root) for line in lines]:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 1, 3, 64, 75), (names, out, err)
        assert "Traceback" not in err and "internal error" not in err, err
    plain = compose("apply", "--allow-large-change", at=root)
    assert plain.status == 0, plain
    assert read_lock(root).target("https://other.example") == OTHER
    entries = read_lock(root).target("local").recipes
    with Engine(state_of(root), root / "recipes/loras", run_jobs=False) as engine:
        models = {record.id: record for record in engine.records()}
        assert engine.store.problems() == []
    for recipe in Project(root).recipes:
        entry = entries[recipe.path]
        assert entry.next is None and models[entry.composition or ""].status == "trained"
        made_of = (recipe.name, models[entry.composition or ""].concepts)
        assert [(m.name, m.concepts) for m in models.values()].count(made_of) == 1
    again = compose("apply", at=root)
    assert (again.status, again.out.startswith("No changes")) == (0, True), again
    assert not [*root.rglob("*.tmp"), *state_of(root).rglob("*.tmp")]


def local(root: Path) -> None:
    """The same project on the local target; its loose composition is of a forgotten recipe."""
    (root / ".git").mkdir(parents=True)
    for seed, name in enumerate(("Ink", "Dust")):
        write_lora(root / "recipes/loras" / f"{name}.safetensors", seed, title=name)
    for name in ("Kept", "Replaced", "Gone", "Loose"):
        write(root, name, 0.5, ("Ink", "Dust") if name == "Kept" else ("Ink",))
    assert compose("apply", "--target", "local", at=root).status == 0
    assert compose("forget", "Loose", at=root).status == 0
    for name in ("gone", "loose"):
        (root / f"recipes/{name}.yaml").unlink()
    write(root, "Replaced", 0.6)
    write(root, "Created", 0.7)
    add_other(root)
