"""A soak in small: `python tests/soak SECONDS` is the same for longer, with more targets.

A server is killed while an apply uses it; in the long run more happens by chance. At a quiet point
recipes, lock, target and results agree, and what is made to disagree is found.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from soak.edits import Recipes
from soak.run import LORAS, Soak
from soak.table import MORE, growth
from soak.targets import Usage
from support.sizes import size
from support.state import state_of

from composer import Project
from composer.lock import LOCK_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_after_a_kill_of_the_server_recipes_lock_and_target_agree(tmp_path: Path) -> None:
    soak = Soak(tmp_path, seed=7, sizes=(3, 5), faults=size(0, 20), small=True)
    with soak.running():
        soak.kill_server()
        soak.play(rounds=size(0, 10))
        assert soak.counts["restarts"] >= 1 and soak.counts["applies"] >= 2
        assert soak.usages[-1].models >= 3 and soak.usages[-1].files > 0
        target, root = soak.unsteady, soak.root
        recipes = soak.recipes.read()
        result = next((target.state / "models").iterdir())
        recipe = root / next(iter(recipes))
        for file, data, words in (
            (root / ".compose.lock.1f.compose.tmp", b"", "is left behind"),
            (state_of(root) / "journal.jsonl", b"{}\n", "the journal has"),
            (root / LOCK_NAME, b'{"version": 2, "targets": {}}', "the lock has None"),
            (root / LOCK_NAME, b'{"version": 2, "targets": {}}', "not in the lock"),
            (result, result.read_bytes()[:-1] + b"?", "has other tensors"),
            (recipe, recipe.read_bytes().replace(b"name: ", b"name: Other ", 1), "the recipe is"),
        ):
            with holding(file, data):
                found = soak.checker.problems(target, soak.recipes.read())
            assert any(words in problem for problem in found), (words, found)
        assert soak.checker.problems(target, recipes) == []


@contextmanager
def holding(file: Path, data: bytes) -> Iterator[None]:
    """The file has these bytes; afterwards it is as it was, times included."""
    before = (file.read_bytes(), file.stat()) if file.exists() else None
    file.write_bytes(data)
    yield
    if before is None:
        file.unlink()
    else:
        file.write_bytes(before[0])
        os.utime(file, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))


def test_every_edit_of_a_soak_leaves_a_valid_project(tmp_path: Path) -> None:
    recipes = Recipes(tmp_path, LORAS, random.Random(3), fewest=4, most=8)
    recipes.begin()
    seen = set()
    for number in range(size(20, 2000)):
        seen.add(recipes.edit().split()[0])
        if number % 10 == 9:
            recipes.commit(str(number))
            assert Project(tmp_path).validate() == ()
            assert len(recipes.read()) >= 4
    assert len(seen) >= 6


def test_a_server_that_grows_is_found() -> None:
    def usages(memory: int, files: int) -> list[Usage]:
        return [Usage(n, 10**8 + n * memory, 12 + n * files, 20, 40, 90) for n in range(40)]

    assert growth(usages(0, 0)) == []
    assert [words.split()[0] for words in growth(usages(MORE, 1))] == ["memory", "open"]
    assert growth(usages(MORE, 1)[:4]) == []  # too few to tell
