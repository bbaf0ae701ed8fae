"""Files that threads read and write at places of their own, whatever calls the system has."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from composer.lora import container
from composer.lora.container import Positioned

if TYPE_CHECKING:
    from pathlib import Path

PIECE, PIECES = 5000, 64


@pytest.fixture(params=[True, False], ids=["at once", "in turn"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not container.AT_ONCE:
        pytest.skip("this system has no such calls")
    monkeypatch.setattr(container, "AT_ONCE", request.param)
    return bool(request.param)


def piece(number: int) -> bytes:
    return bytes([number]) * PIECE


def test_threads_do_not_get_into_each_others_way(tmp_path: Path, at_once: bool) -> None:
    path = tmp_path / "file"
    whole = b"".join(map(piece, range(PIECES)))
    with open(path, "wb", buffering=0) as raw, ThreadPoolExecutor(8) as pool:
        output = Positioned(raw)
        output.reserve(len(whole))
        list(pool.map(lambda n: output.write(n * PIECE, memoryview(piece(n))), range(PIECES)))
    assert path.read_bytes() == whole
    with open(path, "rb", buffering=0) as raw, ThreadPoolExecutor(8) as pool:
        source = Positioned(raw)
        found = [bytearray(PIECE) for _ in range(PIECES)]
        read = pool.map(lambda n: source.read_into(n * PIECE, memoryview(found[n])), range(PIECES))
        assert all(read)
    assert b"".join(found) == whole


def test_a_file_that_ends_too_early(tmp_path: Path, at_once: bool) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    with open(tmp_path / "file", "rb", buffering=0) as raw:
        source = Positioned(raw)
        assert source.read_into(1, memoryview(bytearray(2)))
        assert source.read_into(3, memoryview(bytearray()))
        assert not source.read_into(2, memoryview(bytearray(2)))


@pytest.mark.skipif(not container.AT_ONCE, reason="this system has no such calls")
def test_a_system_that_does_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    calls = []

    def few_in(handle: int, buffers: list[Any], start: int) -> int:
        calls.append(start)
        return preadv(handle, [buffers[0][:7]], start)

    def few_out(handle: int, data: Any, start: int) -> int:
        calls.append(start)
        return pwrite(handle, data[:7], start)

    monkeypatch.setattr(os, "preadv", few_in)
    monkeypatch.setattr(os, "pwrite", few_out)
    text, found = b"what is written in pieces", bytearray(25)
    with open(tmp_path / "file", "w+b", buffering=0) as raw:
        Positioned(raw).write(3, memoryview(text))
        assert Positioned(raw).read_into(3, memoryview(found))
    assert found == text
    assert calls == 2 * [3, 10, 17, 24]
