"""Closing a ledger: what is written to the lock, and what stays as it is."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, NoReturn

import pytest
from support.lock_samples import KEY, KNIGHT, OWNER, SAMPLE, lock_of
from support.model_types import COMPOSITION
from support.state import made_state, state_of

from composer.lock import LOCK_NAME, Ledger, read_lock, remember
from composer.model import Concept, Content, Entry, Next, Replaced

if TYPE_CHECKING:
    from pathlib import Path


def test_equal_locks_leave_bytes_and_mtime(tmp_path: Path) -> None:
    path = tmp_path / LOCK_NAME
    for data in (SAMPLE.encode(), SAMPLE.replace("\n", "\r\n").encode()):
        path.write_bytes(data)
        os.utime(path, (1, 1))
        assert not Ledger(tmp_path, KEY, state_of(tmp_path)).close(handled=[], owner=OWNER)
        assert path.read_bytes() == data and path.stat().st_mtime == 1


def test_other_targets_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(SAMPLE, encoding="utf-8")
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.record("a.yaml", Entry("Knight"))
    assert ledger.close(handled=["a.yaml"])
    lock = read_lock(tmp_path)
    assert lock.target(KEY) == lock_of(KNIGHT).target(KEY)
    assert lock.target("local").recipes == {"a.yaml": Entry("Knight")}


def test_an_id_that_becomes_current_leaves_replaced(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.record("a.yaml", Entry("A", composition="one", replaced=(Replaced("two", "A"),)))
    ledger.record("b.yaml", Entry("B", composition="two"))
    ledger.close(handled=["a.yaml", "b.yaml"])
    assert read_lock(tmp_path).target("local").recipes["a.yaml"].replaced == ()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_event_whose_sync_failed_is_not_folded_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is in the journal though this run does not count it, and names a model without our tag."""
    content = Content.of(COMPOSITION, [Concept("lora_ink", 0.5)])
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    intents = {path: ledger.intend(path, "Knight", content) for path in ("a.yaml", "b.yaml")}

    def failing(descriptor: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        entry = Entry("Knight", next=Next("comp", content, "created"))
        with pytest.raises(OSError, match=os.strerror(number)):
            ledger.record("a.yaml", entry, closes=intents["a.yaml"], made="comp")
    ledger.record("b.yaml", Entry("Rogue"), closes=intents["b.yaml"], made="other")
    ledger.marked("other")
    ledger.close(handled=["a.yaml", "b.yaml"])
    memory = remember(tmp_path, "local", state_of(tmp_path))
    assert list(memory.made) == ["comp"] and set(memory.entries["a.yaml"].ids) == {"comp"}
    assert list(read_lock(tmp_path).target("local").recipes) == ["b.yaml"]


def test_temporary_files_of_the_lock_and_the_journal_are_removed_at_once(tmp_path: Path) -> None:
    """A killed run left them; who holds the file lock knows that no other writes these files."""
    state = made_state(tmp_path)
    mine = (tmp_path / ".compose.lock.1.compose.tmp", state / ".journal.jsonl.2.compose.tmp")
    others = (tmp_path / ".compose.html.3.compose.tmp", tmp_path / ".ink.safetensors.4.compose.tmp")
    for path in (*mine, *others):
        path.touch()
    Ledger(tmp_path, "local", state, write=False)
    assert all(path.exists() for path in (*mine, *others))
    Ledger(tmp_path, "local", state)
    assert [path.exists() for path in (*mine, *others)] == [False, False, True, True]


@pytest.mark.parametrize("seed", range(4))
def test_which_recipe_s_entry_names_an_id_is_known_after_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the disk is not what is tested
    rng = random.Random(seed)
    paths, ids = [f"{n}.yaml" for n in range(5)], [f"comp_{n}" for n in range(6)]
    content = Content.of(COMPOSITION, [Concept("lora_ink", 0.5)])
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    for _ in range(60):
        path, (one, two, three) = rng.choice(paths), rng.sample(ids, 3)
        change = rng.choice(("record", "record", "forget", "move", "refresh"))
        if change == "record":
            coming = rng.choice((None, Next(two, content, "created")))
            old = (Replaced(three, "A"),)
            ledger.record(path, Entry("A", composition=one, next=coming, replaced=old))
        elif change == "forget":
            ledger.forget(path)
        elif change == "move":
            first, second = rng.sample(paths, 2)
            ledger.move({first: second, second: first})
        elif not ledger.known_state.entries:
            ledger.refresh()
        for id in ids:
            naming = {p for p in paths if (entry := ledger.entry(p)) and id in entry.ids}
            for path in paths:
                assert ledger.is_of_another(id, path) == bool(naming - {path})
