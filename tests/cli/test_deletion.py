"""`compose forget`, `destroy` and `prune`: what they delete, and what they spare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.cli import KNIGHT, ROGUE, compose, edit, ids
from support.state import state_of

if TYPE_CHECKING:
    from pathlib import Path


def test_forget_then_apply_adopts(applied: Path) -> None:
    before = ids(applied)
    assert compose("forget", "Pixel Rogue", at=applied).status == 0
    assert set(ids(applied)) == {*before} - {"Pixel Rogue"}
    adopting = compose("apply", at=applied)
    assert "adopted  Pixel Rogue" in adopting.out
    assert "adopted  Pixel Rogue" in adopting.err and "trained" not in adopting.err
    assert ids(applied) == before
    assert compose("forget", "nobody", at=applied).status == 64


def test_destroy_spares_what_is_protected(applied: Path) -> None:
    refused = compose("destroy", "Storybook Knight", at=applied)
    assert (refused.status, "is protected" in refused.err) == (3, True)
    edit(applied / KNIGHT, "protect: true", "protect: false")
    assert "updated" in compose("apply", at=applied).out
    assert compose("destroy", "Storybook Knight", "--dry-run", at=applied).status == 0
    assert "Storybook Knight" in ids(applied)
    done = compose("destroy", "Storybook Knight", at=applied)
    assert (done.status, "Done: 1 deleted." in done.out) == (0, True)
    assert "Storybook Knight" not in ids(applied)
    assert compose("destroy", at=applied).status == 64


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
