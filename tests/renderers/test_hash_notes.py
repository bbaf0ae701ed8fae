"""Hashes of large files are computed once, and again for a file that was changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from composer.lora.hashing import sha256_of
from composer.renderers import hash_notes
from composer.renderers.hash_notes import NAME, HashNotes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed; every change counts as an old one."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(hash_notes, "sha256_of", counted)
    monkeypatch.setattr(hash_notes, "RACY", -(10**18))
    return names


def large(path: Path) -> Path:
    path.write_bytes(os.urandom(hash_notes._LARGE))
    return path


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path, hashed: list[str]) -> None:
    file, notes = large(tmp_path / "weights"), HashNotes(tmp_path)
    first = notes.hash(file)
    notes.save()
    assert (notes.hash(file), HashNotes(tmp_path).hash(file)) == (first, first) and len(hashed) == 1
    large(file)
    assert HashNotes(tmp_path).hash(file) == sha256_of(file) != first
    assert len(hashed) == 2


def test_small_files_are_always_hashed_and_new_ones_not_noted(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, notes = tmp_path / "config", HashNotes(tmp_path)
    small.write_text("{}")
    assert notes.hash(small) == notes.hash(small) and len(hashed) == 2
    monkeypatch.undo()
    notes.hash(large(tmp_path / "weights"))  # another change within the clock's tick would not show
    notes.save()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"a": 7}', b'{"a": ["b"]}', b"\xff", b"null"])
def test_notes_that_are_damaged_are_no_notes(
    tmp_path: Path, hashed: list[str], text: bytes
) -> None:
    (tmp_path / NAME).write_bytes(text)
    file = large(tmp_path / "weights")
    assert HashNotes(tmp_path).hash(file) == sha256_of(file)


def test_without_a_folder_or_the_right_to_write_notes_are_in_memory(
    tmp_path: Path, hashed: list[str]
) -> None:
    file = large(tmp_path / "weights")
    for notes in (HashNotes(), HashNotes(tmp_path / "missing")):
        assert notes.hash(file) == notes.hash(file)
        notes.save()
    assert len(hashed) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
