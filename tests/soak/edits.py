"""The repository of a soak, and what people do to its recipes: every edit leaves them valid.

Each edit is drawn from a seeded generator and returns a few words for the log; empty if nothing in
the repository allows it.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

NAMES = tuple(
    f"{kind} {being}"
    for kind in ("Storybook", "Pixel", "Castle", "Tutorial", "Winter", "Ink", "Harbour", "Desert")
    for being in ("Knight", "Rogue", "Slime", "Keep", "Owl", "Smith", "Baker", "Fox", "Golem")
)
FOLDERS = ("", "bosses/", "tutorial/", "tutorial/first/")
TAGS = ("boss", "draft", "knights", "tutorial", "winter")
TRAININGS: tuple[Mapping[str, Any] | None, ...] = (
    None,
    None,
    None,
    {"rank": 16},
    {"rank": 32},
)
WHO = ("-c", "user.name=Soak", "-c", "user.email=soak@example.com", "-c", "gc.auto=0")
REVERTABLE = 12  # of the latest commits

Written = dict[str, Any]  # a recipe as its file has it


class Recipes:
    """The recipes of the repository at `root`; `loras` are the names that they may use.

    There are never fewer than `fewest`, nor, but by a revert, more than `most`.
    """

    def __init__(
        self, root: Path, loras: Sequence[str], chance: random.Random, *, fewest: int, most: int
    ) -> None:
        self.root = root
        self.loras = tuple(loras)
        self.chance = chance
        self.fewest, self.most = fewest, most

    def begin(self) -> None:
        """A repository with the middle number of recipes, committed."""
        (self.root / "recipes").mkdir(parents=True)
        self.git("init", "-q")
        for _ in range((self.fewest + self.most) // 2):
            self.add()
        self.commit("Begin")

    # --- files ---------------------------------------------------------------------------

    def read(self) -> dict[str, Written]:
        """All recipes by path."""
        files = sorted((self.root / "recipes").rglob("*.yaml"))
        return {
            file.relative_to(self.root).as_posix(): yaml.safe_load(file.read_text("utf-8"))
            for file in files
        }

    def write(self, path: str, recipe: Written) -> None:
        """In one step: an apply may be reading it."""
        file, beside = self.root / path, self.root / ".git" / "written.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        os.replace(beside, file)

    def git(self, *arguments: str) -> str:
        command = ["git", *WHO, *arguments]
        done = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self, words: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", words)

    # --- edits ---------------------------------------------------------------------------

    def edit(self) -> str:
        """One edit by chance; what it was."""
        edits: dict[Callable[[], str], int] = {
            self.rescale: 8,
            self.change_loras: 3,
            self.rename: 3,
            self.swap_names: 1,
            self.move: 3,
            self.swap_files: 1,
            self.remove: 3,
            self.add: 4,
            self.retag: 2,
            self.describe: 2,
            self.protect: 2,
            self.change_training: 1,
            self.revert: 1,
        }
        return self.chance.choices([*edits], [*edits.values()])[0]() or self.rescale()

    def pick(self) -> tuple[str, Written]:
        return self.chance.choice([*self.read().items()])

    def two(self) -> list[tuple[str, Written]]:
        return self.chance.sample([*self.read().items()], 2)

    def free_name(self) -> str:
        used = {recipe["name"] for recipe in self.read().values()}
        return self.chance.choice([name for name in NAMES if name not in used])

    def free_path(self) -> str:
        used, free = self.read(), ""
        while not free or free in used:
            number = self.chance.randrange(2 * self.most)
            free = f"recipes/{self.chance.choice(FOLDERS)}r{number:03}.yaml"
        return free

    def scale(self) -> float:
        """One of few, so that an earlier content often comes back."""
        return self.chance.randint(1, 8) / 8

    def concepts(self) -> list[Written]:
        chosen = self.chance.sample(self.loras, self.chance.randint(1, min(5, len(self.loras))))
        return [{"name": name, "scale": self.scale()} for name in chosen]

    def add(self) -> str:
        if len(self.read()) >= self.most:
            return ""
        path = self.free_path()
        self.write(path, {"name": self.free_name(), "concepts": self.concepts()})
        return f"new {path}"

    def remove(self) -> str:
        """A protected one is released first: what it made would stay for ever."""
        there = self.read()
        path, recipe = self.pick()
        if recipe.get("protect") or len(there) <= self.fewest:
            return ""
        (self.root / path).unlink()
        return f"remove {path}"

    def rescale(self) -> str:
        path, recipe = self.pick()
        self.chance.choice(recipe["concepts"])["scale"] = self.scale()
        self.write(path, recipe)
        return f"scale in {path}"

    def change_loras(self) -> str:
        path, recipe = self.pick()
        self.write(path, recipe | {"concepts": self.concepts()})
        return f"LoRAs of {path}"

    def change_training(self) -> str:
        path, recipe = self.pick()
        training = self.chance.choice(TRAININGS)
        recipe.pop("training", None)
        self.write(
            path, recipe | ({"training": {"parameters": dict(training)}} if training else {})
        )
        return f"training of {path}"

    def rename(self) -> str:
        path, recipe = self.pick()
        self.write(path, recipe | {"name": self.free_name()})
        return f"rename in {path}"

    def swap_names(self) -> str:
        (path, one), (other_path, other) = self.two()
        self.write(path, one | {"name": other["name"]})
        self.write(other_path, other | {"name": one["name"]})
        return f"swap names of {path} and {other_path}"

    def move(self) -> str:
        path, recipe = self.pick()
        to = self.free_path()
        (self.root / path).unlink()
        self.write(to, recipe)
        return f"move {path} to {to}"

    def swap_files(self) -> str:
        (path, one), (other_path, other) = self.two()
        self.write(path, other)
        self.write(other_path, one)
        return f"swap {path} and {other_path}"

    def retag(self) -> str:
        path, recipe = self.pick()
        tags = sorted(self.chance.sample(TAGS, self.chance.randint(0, 3)))
        recipe.pop("tags", None)
        self.write(path, recipe | ({"tags": tags} if tags else {}))
        return f"tags of {path}"

    def describe(self) -> str:
        path, recipe = self.pick()
        self.write(path, recipe | {"description": f"Version {self.chance.randint(1, 3)}."})
        return f"description of {path}"

    def protect(self) -> str:
        """Take protection away more often than it is given, so that few are protected."""
        there = self.read()
        held = [path for path, recipe in there.items() if recipe.get("protect")]
        path = self.chance.choice(held if len(held) > 2 else [*there])
        self.write(path, there[path] | {"protect": not there[path].get("protect", False)})
        return f"protection of {path}"

    def revert(self) -> str:
        """The recipes, not the lock, as an earlier commit has them."""
        commits = self.git("rev-list", f"--max-count={REVERTABLE}", "HEAD").split()
        commit = self.chance.choice(commits)
        self.git("add", "-A")
        self.git("restore", f"--source={commit}", "--staged", "--worktree", "--", "recipes")
        return f"revert to {commit[:8]}"

    def release(self, names: Mapping[str, str]) -> list[str]:
        """Bring back files that are gone, unprotected; by path, the names they had."""
        brought = []
        for path, name in names.items():
            there = self.read()
            if path not in there and name not in {recipe["name"] for recipe in there.values()}:
                self.write(path, {"name": name, "concepts": self.concepts(), "protect": False})
                brought.append(path)
        return brought
