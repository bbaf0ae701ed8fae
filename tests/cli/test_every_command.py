"""What holds of several commands: dry runs write nothing, and broken recipes stop them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from support.cli import KNIGHT, ROGUE, compose, edit, ids, snapshot
from support.rights import closed
from support.state import state_of

from composer.lora import signature

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "arguments",
    [
        ["apply"],
        ["lock"],
        ["lock", "--upgrade"],
        ["import", "--all"],
        ["forget", "Pixel Rogue"],
        ["destroy", "Pixel Rogue"],
        ["prune"],
        ["prune", "--local"],
        ["pull", "-o", "dist/"],
        ["report", "--out", "site"],
        ["sweep", KNIGHT, "--axis", "Ink Lines=0.5", "--promote", "B1"],
    ],
    ids=" ".join,
)
def test_every_dry_run_says_so_and_writes_nothing(applied: Path, arguments: list[str]) -> None:
    before = snapshot(applied)
    shown = compose(*arguments, "--dry-run", at=applied)
    assert (shown.status, shown.out.splitlines()[0]) == (0, "Dry run: nothing is written.")
    assert snapshot(applied) == before


def test_a_dry_run_notes_nothing_of_the_files_that_it_reads(
    applied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other commands note what a LoRA holds once it is two seconds old: here, at once."""
    monkeypatch.setattr(signature, "RACY", 0)
    for file in (applied / "recipes/loras").iterdir():
        os.utime(file)  # what has been noted of it before holds no more
    before = snapshot(applied)
    for arguments in (
        ["apply"],
        ["import", "--all"],
        ["prune"],
        ["prune", "--local"],
        ["destroy", "Pixel Rogue"],
        ["pull", "-o", "dist/"],
        ["report", "--out", "site"],
        ["lock"],
    ):
        assert compose(*arguments, "--dry-run", at=applied).status == 0
        assert snapshot(applied) == before, arguments
    assert compose("lock", "--locked", at=applied).status == 0
    assert snapshot(applied) == before
    compose("plan", at=applied)
    assert snapshot(applied) != before


def test_a_dry_run_makes_no_state_folder(project: Path) -> None:
    for arguments in (
        ["apply"],
        ["prune"],
        ["prune", "--local"],
        ["import", "--all"],
        ["report", "--out", "site"],
    ):
        compose(*arguments, "--dry-run", at=project)
    assert not state_of(project).exists()


def test_a_broken_recipe_stops_everything(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", "scale: 1.6\n")
    for command in ("plan", "apply"):
        ran = compose(command, KNIGHT, at=project)
        assert (ran.status, f"{ROGUE}:" in ran.err, "E104" in ran.err) == (65, True, True)
    assert not (project / "compose.lock").exists()


@pytest.mark.parametrize("wish", ["rank: 0", "rank: 2.5", "rank: x", "precision: int8"])
def test_a_rank_or_precision_that_cant_be_stops_everything(project: Path, wish: str) -> None:
    with (project / ROGUE).open("a", encoding="utf-8") as file:
        file.write(f"training: {{parameters: {{{wish}}}}}\n")
    for command in ("plan", "apply"):
        ran = compose(command, at=project)
        assert (ran.status, f"training.parameters.{wish.split(':')[0]}" in ran.err) == (65, True)
    assert not (project / "compose.lock").exists()


def test_names_from_the_lock_are_made_visible(applied: Path) -> None:
    edit(applied / "compose.lock", '"Pixel Rogue"', '"\\u202ePixel \\u001b[31mRogue"')
    for arguments in (["output"], ["forget", ROGUE, "--dry-run"]):
        ran = compose(*arguments, at=applied)
        assert not {"\u202e", "\x1b"} & {*ran.out, *ran.err}
        assert "Pixel" in ran.out


@pytest.mark.parametrize("broken", ["rights", "bytes", "both"])
def test_a_name_that_may_be_a_title_in_a_file_out_of_reach_is_said_with_that_file(
    project: Path, broken: str
) -> None:
    loras = project / "recipes/loras"
    why = "1 LoRA file can't be used: ink-lines.safetensors: can't be read: Permission denied"
    if broken == "bytes":
        (loras / "ink-lines.safetensors").write_bytes(b"cut off")
        why = "1 LoRA file can't be used: ink-lines.safetensors: is not"
    if broken == "both":
        (loras / "aaa.pt").touch()
        why = why.replace("1 LoRA file can't be used", "2 LoRA files can't be used, one of them")
    with closed(loras / "ink-lines.safetensors", 0o644 if broken == "bytes" else 0):
        for command in (["plan"], ["apply"], ["lock"], ["inspect", KNIGHT], ["doctor"]):
            ran = compose(*command, at=project)
            assert ran.status == 1, ran
            said = " ".join((ran.out + ran.err).split())
            assert re.search(rf"no LoRA is named Ink Lines in .{{9,60}}; {re.escape(why)}", said), (
                ran
            )


def test_what_may_come_next_is_one_line_and_only_where_there_is_something(applied: Path) -> None:
    def after(*arguments: str) -> list[str]:
        ran = compose(*arguments, at=applied)
        assert ran.status == 0 and "Next:" not in ran.out
        return [line for line in ran.err.splitlines() if line.startswith("Next: ")]

    assert after("apply") == after("status") == after("plan") == after("output") == []
    edit(applied / ROGUE, "scale: 0.6", "scale: 0.7")
    assert after("status") == ["Next: compose plan shows what an apply would do"]
    assert after("status", "-o", "json") == after("apply", "--dry-run") == []
    use = "compose pull -o DIR/ writes the LoRA files"
    assert after("apply") == [f"Next: commit compose.lock; {use}"]
    git = applied / ".git"
    git.rename(applied / "git")  # an artist's folder: there is nothing to commit to
    edit(applied / ROGUE, "scale: 0.7", "scale: 0.8")
    assert after("apply") == [f"Next: {use}"]
    (applied / "git").rename(git)
    forgotten = "Next: delete {}, or the next compose apply sees new recipes"
    assert after("forget", "Pixel Rogue", "--dry-run") == []
    assert after("forget", "Pixel Rogue") == [forgotten.format(ROGUE)]
    commit = "Next: commit compose.lock; compose plan shows what an apply would do"
    assert after("lock") == [commit]
    id = ids(applied)["Storybook Knight"]
    assert after("forget", KNIGHT) == [forgotten.format(KNIGHT)]
    (applied / KNIGHT).unlink()
    assert after("import", id) == ["Next: compose plan"]


def test_apply_ends_with_ids_and_the_files_that_have_them(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6", "scale: 0.7")
    *_, made, file, last = compose("apply", at=applied).out.splitlines()
    id = made.split()[-1]
    assert file == f"file: {state_of(applied) / 'models' / id}.safetensors"
    assert last == "Done: 1 replaced, 3 kept."
    for path in (KNIGHT, ROGUE):
        edit(applied / path, "scale: 0.", "scale: 0.0")
    *_, files, last = compose("apply", at=applied).out.splitlines()
    assert files == f"files: {state_of(applied) / 'models'}/ID.safetensors".replace("/", os.sep)
    edit(applied / ROGUE, "scale: 0.0", "scale: 0.3")
    shown = compose("apply", at=applied)
    assert "To apply exactly" not in shown.out + shown.err


def test_a_moved_recipe_is_counted_as_moved(applied: Path) -> None:
    (applied / ROGUE).rename(applied / "recipes/tutorial/rogue.yaml")
    counted = "4 recipes: 3 in sync, 1 moved."
    shown = compose("status", at=applied).out
    assert counted in shown and f"moved from {ROGUE}" in shown
    assert "1 moved" in compose("plan", at=applied).out
    assert compose("apply", at=applied).out.endswith("\nNo changes: 1 moved, 3 kept.\n")
