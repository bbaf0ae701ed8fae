"""`compose forget`, `destroy` and `prune`: what they delete, and what they spare."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING

import pytest
from support.cli import KNIGHT, ROGUE, compose, edit, ids, samples, snapshot
from support.state import state_of

from composer.cli.main import guarded
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_forget_then_apply_adopts(applied: Path) -> None:
    before = ids(applied)
    assert compose("forget", "Pixel Rogue", at=applied).status == 0
    assert set(ids(applied)) == {*before} - {"Pixel Rogue"}
    adopting = compose("apply", "--verbose", at=applied)
    assert "adopted  Pixel Rogue" in adopting.out
    assert "adopted  Pixel Rogue" in adopting.err and "trained" not in adopting.err
    assert ids(applied) == before
    assert compose("forget", "nobody", at=applied).status == 64


@pytest.mark.parametrize(("before", "after"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_is_found_in_every_unicode_form(before: str, after: str, project: Path) -> None:
    name, other = (unicodedata.normalize(form, "Café Ḗtude") for form in (before, after))
    edit(project / ROGUE, "name: Pixel Rogue", f"name: {name}")
    assert compose("apply", ROGUE, at=project).status == 0
    assert compose("output", other, at=project).out.startswith("model_")
    edit(project / ROGUE, f"name: {name}", f"name: {other}")
    ran = compose("plan", ROGUE, at=project)
    assert "name in other code points (U+" in ran.out and "renamed" not in ran.out, ran
    for command in (["destroy", "--dry-run"], ["forget"]):
        assert compose(*command, other, at=project).status == 0
    assert name not in ids(project)


def test_destroy_spares_what_is_protected(applied: Path) -> None:
    spared = compose("destroy", "Storybook Knight", "Pixel Rogue", at=applied)
    assert (spared.status, "is protected" in spared.out) == (1, True)
    assert f"set protect: false in {KNIGHT} and run compose apply\n" in spared.out
    assert "Done: 1 blocked, 1 deleted." in spared.out
    assert "Pixel Rogue" not in ids(applied)
    edit(applied / KNIGHT, "protect: true", "protect: false")
    assert "updated" in compose("apply", at=applied).out
    assert compose("destroy", "Storybook Knight", "--dry-run", at=applied).status == 0
    assert "Storybook Knight" in ids(applied)
    done = compose("destroy", "Storybook Knight", at=applied)
    assert (done.status, "Done: 1 deleted." in done.out) == (0, True)
    assert "Storybook Knight" not in ids(applied)
    assert compose("destroy", at=applied).status == 64


def test_destroy_all_leaves_a_protected_one_whose_recipe_is_gone(applied: Path) -> None:
    knight = ids(applied)["Storybook Knight"]
    (applied / KNIGHT).unlink()
    ran = compose("destroy", "--all", "--allow-large-change", at=applied)
    assert (ran.status, "Done: 3 deleted, 1 blocked." in ran.out) == (1, True), ran
    assert f"restore {KNIGHT} with protect: false" in ran.out
    assert ids(applied) == {"Storybook Knight": knight}


def test_prune_deletes_earlier_models(applied: Path) -> None:
    old = ids(applied)["Pixel Rogue"]
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    assert old in compose("models", at=applied).out
    assert compose("prune", at=applied).status == 0
    assert old not in compose("models", at=applied).out
    assert old not in (applied / "compose.lock").read_text()


@pytest.mark.parametrize(
    "flags", [[ROGUE], ["--allow-empty"], ["--allow-large-change"], ["--exclude", "x*"]]
)
def test_prune_local_refuses_what_means_nothing_there(flags: list[str], applied: Path) -> None:
    ran = compose("prune", "--local", *flags, at=applied)
    assert (ran.status, "--local can't be used with" in ran.err) == (64, True)


def test_prune_local_frees_what_no_lock_names(applied: Path) -> None:
    rogue = ids(applied)["Pixel Rogue"]
    compose("forget", "Pixel Rogue", at=applied)
    assert (
        f"Would delete 1 local result: {rogue}."
        in compose("prune", "--local", "--dry-run", at=applied).out
    )
    assert f"Deleted 1 local result: {rogue}." in compose("prune", "--local", at=applied).out
    assert not (state_of(applied) / f"models/{rogue}.safetensors").exists()


def test_prune_says_when_there_is_nothing_to_delete(applied: Path) -> None:
    assert compose("prune", at=applied).out == "Nothing to delete.\n"
    rehearsed = compose("prune", "--dry-run", at=applied).out
    assert rehearsed.splitlines()[1:] == ["Nothing to delete."]


def _unprotected(project: Path) -> None:
    edit(project / KNIGHT, "protect: true", "protect: false")
    compose("apply", at=project)


def _no_recipe_left(project: Path) -> None:
    for file in (project / "recipes").rglob("*.yaml"):
        file.unlink()


@pytest.mark.parametrize(
    ("change", "arguments", "status"),
    [
        (lambda at: (at / KNIGHT).unlink(), ["prune"], 1),  # protected
        (lambda at: (at / ROGUE).unlink(), ["prune"], 0),
        (_no_recipe_left, ["prune"], 3),
        (_no_recipe_left, ["prune", "--allow-empty"], 3),
        (_no_recipe_left, ["prune", "--allow-empty", "--allow-large-change"], 1),
        (lambda at: None, ["destroy", "Storybook Knight"], 1),
        (lambda at: (at / KNIGHT).unlink(), ["destroy", "--all"], 3),
        (lambda at: (at / KNIGHT).unlink(), ["destroy", "--all", "--allow-large-change"], 1),
        (_unprotected, ["destroy", "--all"], 3),
        (_no_recipe_left, ["apply"], 3),
        (_no_recipe_left, ["apply", "--allow-empty", "--prune"], 3),
        (_no_recipe_left, ["apply", "--allow-empty"], 0),
    ],
)
def test_a_dry_run_ends_with_the_status_of_the_run(
    change: Callable[[Path], None], arguments: list[str], status: int, applied: Path
) -> None:
    change(applied)
    before = snapshot(applied)
    dry = compose(*arguments, "--dry-run", at=applied)
    assert snapshot(applied) == before
    real = compose(*arguments, at=applied)
    assert (dry.status, real.status) == (status, status), (dry, real)


def test_a_danger_is_told_once_and_all_dangers_together(applied: Path) -> None:
    _no_recipe_left(applied)
    both = "there are no recipes, but the lock has 4 entries (is recipes/ the right folder?)"
    both += "; 3 of 4 compositions would be replaced or deleted"
    for arguments in (["prune"], ["apply", "--prune"]):
        for more in ([], ["--dry-run"]):
            ran = compose(*arguments, *more, at=applied)
            shown = ran.out + ran.err
            assert f"compose: {both}\n  allow it with --allow-empty --allow-large-change\n" in shown
            assert shown.count("there are no recipes") == 1
    planned = compose("plan", "--prune", at=applied)
    assert (planned.status, planned.out.count("apply would refuse:")) == (0, 2)


def test_pruning_says_what_it_does_and_what_only_leaves_the_lock(applied: Path) -> None:
    old = ids(applied)["Pixel Rogue"]
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    compose("prune", "--local", at=applied)  # keeps it: the lock names it
    with Engine(state_of(applied), applied / "recipes/loras") as engine:
        engine.delete(old)
    done = compose("prune", "--verbose", at=applied)
    assert "forget" not in done.out + done.err
    assert "clean up  Pixel Rogue\n" in done.err
    gone = "earlier compositions: 0 on the target, 1 no longer there"
    assert done.out.startswith("cleaned up  Pixel Rogue") and gone in done.out
    assert old not in (applied / "compose.lock").read_text()


def test_a_training_that_ends_is_progress_and_what_was_made_of_it_the_result(
    project: Path,
) -> None:
    compose("apply", "--no-wait", at=project)
    ran = compose("apply", at=project)
    states = [line.split("  ")[0] for line in ran.out.splitlines() if "model_" in line]
    assert len(states) == 4 and {*states} <= {"trained", "updated in the lock"}, ran.out
    assert "trained" not in ran.err  # some had ended before this apply looked
    first = compose("apply", "--verbose", at=samples(project.parent / "another"))
    assert "finished  Pixel Rogue" in first.err and "trained" not in first.err


# --- asking --------------------------------------------------------------------------------


def _one_to_prune(at: Path) -> None:
    """A recipe changes, so that the model before is left over."""
    edit(at / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", at=at).status == 0


def _in_a_terminal(at: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command in a terminal, answer its question; its status and what was shown."""
    ours, theirs = pytest.importorskip("pty").openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "composer", *arguments],
        cwd=at,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, answer.encode() + b"\n")
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    return child.wait(), shown.decode()


ASKING = (["prune"], ["prune", "--local"], ["destroy", "Pixel Rogue"])


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_where_nobody_can_be_asked_deleting_needs_yes(command: list[str], applied: Path) -> None:
    _one_to_prune(applied)
    if "--local" in command:
        compose("forget", "Pixel Rogue", at=applied)
    before = compose("models", at=applied).out
    with contextlib.chdir(applied), contextlib.redirect_stdout(io.StringIO()) as out:
        assert guarded(command) == 3
    assert compose("models", at=applied).out == before
    if "--local" not in command:
        assert "Pixel Rogue" in out.getvalue()  # it lists what would go
    assert compose(*command, at=applied).status == 0  # with --yes
    assert compose("models", at=applied).out != before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
@pytest.mark.parametrize(("answer", "status"), [("", 3), ("n", 3), ("y", 0)])
def test_a_terminal_asks_and_only_yes_deletes(answer: str, status: int, applied: Path) -> None:
    _one_to_prune(applied)
    before = compose("models", at=applied).out
    ended, shown = _in_a_terminal(applied, answer, "prune")
    assert (ended, "Delete 1 model for good?" in shown) == (status, True)
    assert "Pixel Rogue" in shown
    assert (compose("models", at=applied).out == before) == (status == 3)


def test_nothing_to_delete_asks_nothing(applied: Path) -> None:
    with contextlib.chdir(applied):
        assert guarded(["prune"]) == 0
        assert guarded(["prune", "--local"]) == 0
