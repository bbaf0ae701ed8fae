"""A file of events: each on disk before the next thing is done, and read with care."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from composer.files.event_file import EventFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def event_file(folder: Path) -> EventFile:
    return EventFile(folder / "events.jsonl", "move the file away")


def test_each_event_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    log = event_file(tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(log.path.read_bytes()))
    log.append({"event": "one"})
    log.append({"event": "two"})
    assert [data.count(b"\n") for data in synced] == [1, 2]


def test_events_of_several_threads_share_a_sync_and_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    log = event_file(tmp_path)

    def slow(descriptor: int) -> None:
        data = log.path.read_bytes()
        time.sleep(0.005)
        synced.append(data)

    def add(number: int) -> bool:
        """Whether the event is on disk once it was added."""
        log.append({"event": f"number {number}"})
        return b'"number %d"' % number in synced[-1]

    monkeypatch.setattr("os.fsync", slow)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(add, range(80)))
    assert {event["event"] for event in log.read()} == {f"number {n}" for n in range(80)}
    assert 10 <= len(synced) < 40 and len(log.read()) == 80


def test_where_a_shared_sync_fails_it_fails_for_each_event_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = event_file(tmp_path)
    batches: list[set[bytes]] = []

    def every_third_fails(descriptor: int) -> None:
        before = set().union(*batches)
        batches.append({*log.path.read_bytes().splitlines()} - before)
        time.sleep(0.002)
        if len(batches) % 3 == 0:
            raise OSError(5, os.strerror(5))

    def add(number: int) -> bool:
        try:
            log.append({"event": f"number {number}"})
        except OSError:
            return False
        return True

    monkeypatch.setattr("os.fsync", every_third_fails)
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, range(80)))
    failed = set().union(*batches[2::3])
    assert {n for n in range(80) if not added[n]} == {
        n for n in range(80) if json.dumps({"event": f"number {n}"}).encode() in failed
    }
    assert 0 < added.count(False) < 80
