"""Writing a file tensor by tensor: the disk takes it meanwhile, and what it refuses is told."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from composer.lora import writer
from composer.lora.writer import Spec, writing

if TYPE_CHECKING:
    from pathlib import Path

SPECS = [Spec(f"tensor {n}", "F32", (1000,)) for n in range(9)]


def write(path: Path) -> None:
    with writing(path, SPECS, {}) as output:
        for number, spec in enumerate(SPECS):
            output.put(spec.name, np.full(spec.shape, number, np.float32))


def test_a_large_file_is_synced_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread of its own, and the bytes are the same."""
    syncing: list[int] = []

    def sync(file: int) -> None:
        os.fsync(file)
        syncing.append(threading.get_ident())

    monkeypatch.setattr(writer, "sync", sync)
    write(tmp_path / "without")
    assert not syncing
    monkeypatch.setattr(writer, "AHEAD", 8000)
    write(tmp_path / "with")
    assert syncing and threading.get_ident() not in syncing
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


def test_an_error_of_such_a_sync_is_raised_and_the_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later sync would not report it again."""
    failed: list[int] = []

    def sync(file: int) -> None:
        failed.append(file)
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(writer, "sync", sync)
    monkeypatch.setattr(writer, "AHEAD", 30_000)
    with pytest.raises(OSError, match="the disk is broken"):
        write(tmp_path / "file")
    assert failed and not (tmp_path / "file").exists()
