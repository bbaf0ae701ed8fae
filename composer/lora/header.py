"""The header of a safetensors file: read and checked, trusting nothing in it. No arrays.

It is checked before anything of the size it claims is allocated. Files are read with plain reads:
one that shrinks under a memory map would kill the process, and Windows can't replace a mapped file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.errors import LoraFormatError, shown
from composer.lora.opening import CHUNK, checked_metadata, header_length
from composer.lora.untrusted_json import PARSED_LIMIT, Shortened, bounded, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import FileIO

# Bits of one value, by the name in the header (the safetensors format's own list).
BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}

AT_ONCE = hasattr(os, "preadv") and hasattr(os, "pwrite")  # Windows has neither


class Positioned:
    """An open, unbuffered file."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._turn = threading.Lock()  # elsewhere a file has one place, which every call moves

    def reserve(self, size: int) -> None:
        """Tell the system how large the file will be: writing takes a third less time if it
        allocates the space at once. Errors are left to `write`."""
        if hasattr(os, "posix_fallocate"):
            with suppress(OSError):
                os.posix_fallocate(self._file.fileno(), 0, size)

    def read_into(self, start: int, buffer: memoryview) -> bool:
        """Fill the buffer from the byte `start` on; False where the file ends too early."""
        while (count := self._read(start, buffer)) < len(buffer):
            if not count:
                return False
            start, buffer = start + count, buffer[count:]
        return True

    def write(self, start: int, data: memoryview) -> None:
        """Write all of the data from the byte `start` on. Raises `OSError`."""
        while (count := self._write(start, data)) < len(data):
            start, data = start + count, data[count:]

    def _read(self, start: int, buffer: memoryview) -> int:
        if AT_ONCE:
            return os.preadv(self._file.fileno(), [buffer], start)
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(buffer) or 0

    def _write(self, start: int, data: memoryview) -> int:
        if AT_ONCE:
            return os.pwrite(self._file.fileno(), data, start)
        with self._turn:
            self._file.seek(start)
            return self._file.write(data) or 0


TENSOR_LIMIT = 1024**3  # bytes; a large model's largest weight has a quarter of that
NAME_LIMIT = 1000  # characters of a tensor's name

_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a file: `start` and `stop` are file offsets in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself; `digest` is the hash of its text."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    size: int  # of the whole file, in bytes
    digest: bytes


def file_state(file: FileIO) -> tuple[int, int, int]:
    """What differs once an open file was written to: size, and times in nanoseconds."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_exactly(file: Positioned, start: int, buffer: memoryview) -> None:
    """Fill the buffer from the byte `start` on. Raises `LoraFormatError`."""
    try:
        if not file.read_into(start, buffer):
            raise LoraFormatError("ends too early: it was cut short while it was read")
    except OSError as error:
        raise LoraFormatError(f"can't be read: {error.strerror or error}") from error


def checked_header(file: Positioned, size: int, expected: Header | None) -> Header:
    """What the header of an open file says; `expected` is the one that was read before."""
    beginning = bytearray(min(size, 32))
    read_exactly(file, 0, memoryview(beginning))
    length = header_length(bytes(beginning), size)
    hashed = hashlib.sha256()
    raw = _header_text(file, length, hashed.update)
    digest = hashed.digest()
    if expected is not None:
        if (expected.size, expected.digest) != (size, digest):
            raise LoraFormatError(
                "was changed after it was read", hint="run the same command again"
            )
        return expected
    return _parsed(raw, 8 + length, size, digest)


def _header_text(file: Positioned, length: int, see: Callable[[bytearray], None]) -> bytearray:
    """The header to parse: all of it, or if that is too much without its long texts. `see` gets
    every byte."""
    text = Shortened() if length > PARSED_LIMIT else None
    whole = bytearray()
    for start in range(8, 8 + length, CHUNK):
        chunk = bytearray(min(CHUNK, 8 + length - start))
        read_exactly(file, start, memoryview(chunk))
        see(chunk)
        if text:
            text.add(chunk)
        else:
            whole += chunk
    return text.kept if text else whole


def _parsed(raw: bytearray, base: int, size: int, digest: bytes) -> Header:
    """The header's values. The bytes are freed before the text is parsed, which takes as much."""
    text = bounded(raw, "its header")
    raw.clear()
    fields = parsed(text, "its header")
    if not isinstance(fields, dict):
        raise LoraFormatError("has a header that is not a JSON object")
    metadata = checked_metadata(fields.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry, base) for name, entry in fields.items()}
    _contiguous(tensors, base, size)
    return Header(tensors, metadata, size, digest)


def _tensor(name: str, entry: object, base: int) -> Tensor:
    if len(name) > NAME_LIMIT:
        raise LoraFormatError(f"is broken: {shown(name)} is a name of {len(name):,} characters")
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise LoraFormatError(
            f"is broken: {shown(name)} needs dtype, shape and data_offsets, no more or less"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        text = dtype if isinstance(dtype, str) else type(dtype).__name__
        raise LoraFormatError(f"is broken: {shown(name)} has the unknown dtype {shown(text)}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise LoraFormatError(
            f"is broken: {shown(name)} has a shape or offsets that are not whole numbers"
        )
    bits = BITS[dtype]
    for dimension in shape:
        bits *= dimension
    if bits != 8 * (offsets[1] - offsets[0]):
        raise LoraFormatError(
            f"is broken: {shown(name)}, {dtype} of shape {shown(str(shape))}, doesn't fill"
            f" the bytes {offsets[0]} to {offsets[1]}"
        )
    if bits > 8 * TENSOR_LIMIT:
        raise LoraFormatError(f"has {shown(name)} of {bits // 8:,} bytes: no LoRA is that large")
    return Tensor(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _counts(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 8
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
    )


def _contiguous(tensors: Mapping[str, Tensor], base: int, size: int) -> None:
    end = base
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != end:
            kind = (
                "overlaps the tensor before it" if tensor.start < end else "leaves a gap before it"
            )
            raise LoraFormatError(f"is broken: {shown(tensor.name)} {kind}")
        end = tensor.stop
    if end > size:
        raise LoraFormatError(
            f"is cut short: {size:,} bytes of {end:,} are there", hint="download or copy it again"
        )
    if end < size:
        raise LoraFormatError(
            f"is broken: {size - end:,} bytes after the last tensor belong to none"
        )
