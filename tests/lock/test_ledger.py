"""Closing a ledger: what is written to the lock, and what stays as it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from support.lock_samples import KEY, KNIGHT, OWNER, SAMPLE, lock_of
from support.state import state_of

from composer.lock import LOCK_NAME, Ledger, read_lock
from composer.model import Entry, Replaced

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
