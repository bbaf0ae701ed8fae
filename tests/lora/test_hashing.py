"""Hashes that are computed in threads: of the bytes as they are when they are asked for."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest
from support.lora_files import Spec, write

from composer.lora import hashing, merge
from composer.lora.hashing import Hashing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_a_hash_is_that_of_all_blocks(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "BLOCK", 100)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    with Hashing([path]) as begun:
        assert begun.sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_was_changed_since_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with Hashing([path]) as begun:
        begun.sha256_of(path)
        path.write_bytes(b"afterwards")
        assert begun.sha256_of(path) == hashlib.sha256(b"afterwards").hexdigest()


def test_what_can_not_be_hashed_says_so_when_it_is_asked_for(tmp_path: Path) -> None:
    """A pipe is not opened, which would wait for ever."""
    pipe, missing = tmp_path / "pipe", tmp_path / "missing"
    os.mkfifo(pipe)
    with Hashing([pipe, missing, tmp_path]) as begun:
        for path in (missing, tmp_path):
            with pytest.raises(OSError, match=path.name):
                begun.sha256_of(path)


def test_hashing_stops_when_its_context_ends(tmp_path: Path) -> None:
    """Of two files, one of which has not been begun yet where there is one core."""
    large = [tmp_path / "1", tmp_path / "2"]
    for path in large:
        path.touch()
        os.truncate(path, 1 << 36)  # takes half a minute to hash, and no space
    start = time.monotonic()
    with Hashing(large):
        pass
    assert time.monotonic() - start < 5


def test_merge_takes_hashes_that_were_begun_before(tmp_path: Path) -> None:
    """Also of a file that was replaced meanwhile: it names the bytes that it used."""
    specs = [Spec(False, "F32", {"transformer_blocks.0.attn.to_q": 2}, seed=n) for n in range(3)]
    paths = [write(spec, tmp_path / f"{spec.seed}.safetensors") for spec in specs]
    with Hashing(paths) as begun:
        before = begun.sha256_of(paths[0])
        os.replace(paths[2], paths[0])
        merged = merge(paths[:2], tmp_path / "out.safetensors", hashing=begun)
    digests = [part.fingerprint.hashes.weights for part in merged.parts]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[:2]]
    assert before not in (tmp_path / "out.safetensors").read_bytes().decode("latin-1")
