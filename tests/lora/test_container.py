"""Broken and hostile safetensors files: refused with a reason, quickly, in little memory."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import lora_oracle as oracle
from support.lora_files import Spec, write
from support.sizes import size

from composer.errors import BadLora
from composer.lora import header, read
from composer.lora.container import Source
from composer.lora.header import Positioned
from composer.lora.untrusted_json import NOTE_LIMIT, PARSED_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOWN = "transformer.proj_out.lora_A.weight"
UP = "transformer.proj_out.lora_B.weight"
GOOD: dict[str, Any] = {
    DOWN: {"dtype": "F16", "shape": [1, 3072], "data_offsets": [0, 6144]},
    UP: {"dtype": "F16", "shape": [64, 1], "data_offsets": [6144, 6272]},
}


def file(path: Path, header: bytes, data: int = 6272, *, length: int | None = None) -> Path:
    claimed = len(header) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + header + bytes(data))
    return path


def changed(key: str, **fields: object) -> bytes:
    return json.dumps({**GOOD, key: {**GOOD[key], **fields}}).encode()


def refused(path: Path, reason: str) -> None:
    with pytest.raises(BadLora) as raised:
        read(path)
    assert path.name in raised.value.message
    assert reason in raised.value.message, raised.value.message


def test_the_good_header_is_good(tmp_path: Path) -> None:
    assert read(file(tmp_path / "a.safetensors", json.dumps(GOOD).encode())).modules == (
        "proj_out",
    )


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (changed(UP, data_offsets=[6142, 6270]), "overlaps"),
        (changed(UP, data_offsets=[6146, 6274]), "gap"),
        (changed(DOWN, data_offsets=[-6144, 0]), "not whole numbers"),
        (changed(DOWN, data_offsets=[0, 2**70]), "not whole numbers"),
        (changed(DOWN, data_offsets=[0, 2**62]), "doesn't fill"),
        (changed(DOWN, data_offsets=[6144, 0]), "doesn't fill"),
        (changed(DOWN, data_offsets=[0]), "not whole numbers"),
        (changed(DOWN, data_offsets=[0.0, 6144.0]), "not whole numbers"),
        (changed(DOWN, data_offsets=[False, 6144]), "not whole numbers"),
        (changed(DOWN, data_offsets="ab"), "not whole numbers"),
        (changed(DOWN, dtype="F32"), "doesn't fill"),
        (changed(DOWN, dtype="F17"), "unknown dtype F17"),
        (changed(DOWN, dtype=["F16"]), "unknown dtype"),
        (changed(DOWN, shape=[-1, -3072]), "not whole numbers"),
        (changed(DOWN, shape=[1e3, 3072]), "not whole numbers"),
        (changed(DOWN, shape=[2**40] * 8), "doesn't fill"),
        (changed(DOWN, shape=[1] * 9), "not whole numbers"),
        (changed(DOWN, more=1), "no more or less"),
        (json.dumps({**GOOD, "x": 1}).encode(), "no more or less"),
        (json.dumps({**GOOD, "__metadata__": {"a": 1}}).encode(), "map text to text"),
        (json.dumps({**GOOD, "__metadata__": []}).encode(), "map text to text"),
        (json.dumps(GOOD).encode()[:-1] + b',"' + DOWN.encode() + b'":{}}', "twice"),
        (b'{"__metadata__":{"a":"b","a":"c"}}', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b"{}{}", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[{}]", "not a safetensors file"),
        (b"", "not a safetensors file"),
    ],
)
def test_broken_headers(tmp_path: Path, header: bytes, reason: str) -> None:
    refused(file(tmp_path / "broken.safetensors", header), reason)


def test_files_that_end_too_early_or_too_late(tmp_path: Path) -> None:
    header = json.dumps(GOOD).encode()
    refused(file(tmp_path / "short.safetensors", header, 6271), "is cut short")
    refused(file(tmp_path / "long.safetensors", header, 6273), "belong to none")
    refused(file(tmp_path / "cut.safetensors", header[:40], 0, length=len(header)), "is cut short")
    refused(file(tmp_path / "zero.safetensors", b"{}", 0), "has no tensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    refused(tmp_path / "empty.safetensors", "is empty")
    (tmp_path / "tiny.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{")
    refused(tmp_path / "tiny.safetensors", "is cut short")
    refused(tmp_path / "missing.safetensors", "can't be read")
    refused(tmp_path, "is not a regular file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    refused(tmp_path / "pipe.safetensors", "is not a regular file")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_zip, "zip archive"),
        (lambda path: path.write_bytes(pickle.dumps({"lora": list(range(99))})), "pickle"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(99)), "GGUF"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>login</html>"), "web page"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
        (lambda path: path.write_bytes(bytes(99)), "not a safetensors file"),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    make(tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", reason)


def _sparse(path: Path, header: int) -> None:
    with open(path, "wb") as out:
        out.write(header.to_bytes(8, "little") + b'{"a":[')
        out.truncate(8 * 2**30)


BOMBS: dict[str, Callable[[Path], object]] = {
    "a header of 7 GB": lambda path: _sparse(path, 7 * 2**30),
    "a header of 2^64 - 1": lambda path: _sparse(path, 2**64 - 1),
    "a header at the limit, of zeros": lambda path: _sparse(path, PARSED_LIMIT),
    "lists": lambda path: file(path, b'{"a":[' + b"[]," * (PARSED_LIMIT // 3 - 9) + b"1]}"),
    "objects": lambda path: file(path, b'{"a":[' + b"{}," * (PARSED_LIMIT // 3 - 9) + b"1]}"),
    "numbers": lambda path: file(path, b'{"a":[' + b"777," * (PARSED_LIMIT // 4 - 9) + b"1]}"),
    "quotes": lambda path: file(path, b'{"' + b'\\"' * (PARSED_LIMIT // 2 - 9)),
    "a backslash at the end": lambda path: file(path, b'{"' + b'\\"' * 999_999 + b"\\"),
    "tensors": lambda path: file(
        path,
        b"{%s}"
        % b",".join(
            b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n for n in range(200_000)
        ),
    ),
    "a tensor of 10^18 values": lambda path: file(
        path, b'{"a":{"dtype":"U8","shape":[1000000000000000000],"data_offsets":[0,%d]}}' % 10**18
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_quickly_and_in_little_memory(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.safetensors"
    BOMBS[bomb](path)
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(BadLora, match=r"bomb\.safetensors"):
        read(path)
    taken, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    path.unlink()  # not every file system keeps 8 GB of zeros for nothing
    assert taken < 5
    assert peak < 8 * PARSED_LIMIT


@pytest.mark.parametrize("tail", [b"", b"\\\\", b'\\"', b'\\\\\\"', b"\\u0041", "\u00e9".encode()])
@pytest.mark.parametrize("before", [0, 1])
def test_of_a_header_that_is_too_long_the_long_texts_are_left_out(
    tmp_path: Path, before: int, tail: bytes
) -> None:
    """Wherever a piece of it ends: within an escape, a character, or before a quote."""
    title = "k" * before
    long = b"x" * (PARSED_LIMIT - before) + tail * 200_000
    notes = b'"ss_output_name":"%s\\"n\\\\","ss_tag_frequency":"%s","z":"%s"' % (
        title.encode(),
        long,
        b"y" * NOTE_LIMIT,
    )
    rest = json.dumps(GOOD).encode()[1:]
    with Source(file(tmp_path / "a.safetensors", b'{"__metadata__":{' + notes + b"}," + rest)) as a:
        assert a.header.metadata["ss_output_name"] == title + '"n\\'
        assert a.header.metadata["ss_tag_frequency"] == f"({len(long)} bytes, left out)"
        assert a.header.metadata["z"] == "y" * NOTE_LIMIT
        assert a.header.tensors.keys() == GOOD.keys() - {"__metadata__"}
    again = read(tmp_path / "a.safetensors")
    with Source(again.path, again.header) as b:
        assert b.header is again.header


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=size(150, 5000), suppress_health_check=list(HealthCheck), database=None)
@given(
    st.sampled_from([DOWN, UP, "__metadata__"]),
    st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), json_values)
    | json_values,
)
@example(DOWN, {"dtype": "F16", "shape": [], "data_offsets": [0, 2]})
def test_no_header_is_too_strange_for_words(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    entry = {**GOOD[key], **value} if key in GOOD and isinstance(value, dict) else value
    header = json.dumps({**GOOD, key: entry}).encode()
    path = file(tmp_path_factory.getbasetemp() / "fuzz.safetensors", header)
    try:
        read(path)
    except BadLora as error:
        assert "fuzz.safetensors" in error.message


@settings(max_examples=size(150, 5000), suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 700), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "byte.safetensors"
    raw = bytearray(
        file(path, json.dumps({**GOOD, "__metadata__": {"a": "b"}}).encode()).read_bytes()
    )
    raw[place] = value
    path.write_bytes(raw)
    try:
        read(path)
    except BadLora as error:
        assert "byte.safetensors" in error.message


def test_rows_of_a_tensor(tmp_path: Path) -> None:
    path = write(Spec(False, "BF16", {"proj_out": 3}), tmp_path / "a.safetensors")
    with Source(path) as source:
        up = source.header.tensors[UP]
        whole = source.array(up)
        assert whole.shape == (64, 3)
        assert (source.rows(up, 7, 11) == whole[7:11]).all()
    assert (whole.astype(float) == oracle.deltas(path)["proj_out"][0][0]).all()


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    name = "transformer.\x1b[31mred\u202e" + "x" * 500
    header = json.dumps({name: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    with pytest.raises(BadLora) as raised:
        read(file(tmp_path / "a.safetensors", header, 0))
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 300


# --- files that several threads read and write at once -----------------------------------

PIECE, PIECES = 5000, 64


@pytest.fixture(params=[True, False], ids=["at once", "in turn"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not header.AT_ONCE:
        pytest.skip("this system has no such calls")
    monkeypatch.setattr(header, "AT_ONCE", request.param)
    return bool(request.param)


def piece(number: int) -> bytes:
    return bytes([number]) * PIECE


def test_threads_do_not_interfere(tmp_path: Path, at_once: bool) -> None:
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


@pytest.mark.skipif(not header.AT_ONCE, reason="this system has no such calls")
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
