"""`compose import`: recipes of the compositions that are on the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.cli import ROGUE, compose, edit, ids

if TYPE_CHECKING:
    from pathlib import Path


def test_import_writes_recipes_whose_plan_is_empty(applied: Path) -> None:
    before = ids(applied)
    (applied / "compose.lock").unlink()
    for file in (applied / "recipes").rglob("*.yaml"):
        file.unlink()
    done = compose("import", "--all", at=applied)
    assert (done.status, done.out.count("+ recipes/")) == (0, 4)
    assert "No changes" in compose("apply", at=applied).out
    assert ids(applied) == before
    again = compose("import", "--all", at=applied)
    assert (again.status, again.out) == (0, "")


def test_a_dry_run_of_import_makes_no_folder(applied: Path) -> None:
    (applied / "old").mkdir()
    for name in ("recipes", "compose.lock"):
        (applied / name).rename(applied / "old" / name)
    folders = set(applied.rglob("*"))
    shown = compose("import", "--all", "--dry-run", "--library", "old/recipes/loras", at=applied)
    assert (shown.status, shown.out.count("+ recipes/")) == (0, 4), shown.err
    assert set(applied.rglob("*")) == folders
    empty = applied / "empty"
    (empty / ".git").mkdir(parents=True)
    assert compose("import", "--all", "--dry-run", at=empty).status == 0
    assert [path.name for path in empty.iterdir()] == [".git"]


def test_import_skips_a_second_model_of_one_name(applied: Path) -> None:
    compose("forget", "Pixel Rogue", at=applied)
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    done = compose("import", "--all", at=applied)
    assert done.status == 1
    assert "another recipe has this name" in done.err
    missing = compose("import", "model_nope", at=applied)
    assert (missing.status, "no such model" in missing.err) == (1, True)
