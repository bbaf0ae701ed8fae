"""The safetensors container: opening a file, trusting nothing in it, and reading its tensors.

The header is checked before anything of the size it claims is allocated. Tensors are read with
plain reads, one at a time: a file that shrinks under a memory map would kill the process, and
Windows can't replace a mapped file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.lora.dtypes import BITS, NUMPY
from composer.lora.errors import LoraFormatError, shown
from composer.lora.untrusted_json import PARSED_LIMIT, Shortened, bounded, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import FileIO
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

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


HEADER_LIMIT = 100_000_000  # bytes: safetensors' own; the captions of a data set can bring one here
CHUNK = 1024 * 1024  # bytes of a header that are read at a time
TENSOR_LIMIT = 1024**3  # bytes; a large model's largest weight has a quarter of that
NAME_LIMIT = 1000  # characters of a tensor's name

_FIELDS = {"dtype", "shape", "data_offsets"}

# What other files begin with, and what to say about them.
_CONVERT = "convert it to .safetensors with the tool that made it"
_SIGNATURES: tuple[tuple[bytes, str, str | None], ...] = (
    (b"PK\x03\x04", "is a zip archive, most likely a PyTorch .pt or .ckpt file", _CONVERT),
    (b"PK\x05\x06", "is an empty zip archive", "download it again"),
    (b"\x80", "is a Python pickle (.pt, .ckpt, .bin), which could run code when opened", _CONVERT),
    (b"GGUF", "is a GGUF file", "name the LoRA's .safetensors file"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights", "run `git lfs pull`"),
    (b"<", "is a web page or XML, not weights", "download it again; the site may want a login"),
)


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


class Source:
    """An open safetensors file: its checked header, and its tensors as arrays, for any thread.

    Raises `LoraFormatError` where the file is not a valid safetensors file or can't be read. Once
    all is read that is needed, `check` tells whether it came from the same bytes. `expected` is
    the header that was read before: another one is a `LoraFormatError` too.
    """

    def __init__(self, path: Path, expected: Header | None = None) -> None:
        self._file = _opened(path)
        self._bytes = Positioned(self._file)
        try:
            self._file_state = _file_state(self._file)
            self.header = _header(self._bytes, self._file_state[0], expected)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """A tensor's values, in the file's own type."""
        array = np.empty(tensor.shape, _numpy(tensor))
        self.fill(tensor, array)
        return array

    def rows(self, tensor: Tensor, first: int, last: int) -> NDArray[Any]:
        """The values of the rows from `first` up to `last`, which isn't among them."""
        array = np.empty((last - first, *tensor.shape[1:]), _numpy(tensor))
        self.fill(tensor, array, first)
        return array

    def fill(self, tensor: Tensor, out: NDArray[Any], first: int = 0) -> None:
        """Put rows of a tensor, from `first` on, into an array of its type, in one piece."""
        before = first * prod(tensor.shape[1:]) * out.itemsize
        _read_into(self._bytes, tensor.start + before, out.reshape(-1).view(np.uint8).data)

    def check(self) -> None:
        """Raise `LoraFormatError` if the file was written to since it was opened."""
        if _file_state(self._file) != self._file_state:
            raise LoraFormatError(
                "was changed while it was read",
                hint="run the same command again once it no longer changes",
            )


def _numpy(tensor: Tensor) -> np.dtype[Any]:
    if tensor.dtype not in NUMPY:
        raise LoraFormatError(
            f"has {shown(tensor.name)} as {tensor.dtype}, which this version doesn't read"
        )
    return NUMPY[tensor.dtype]


def _file_state(file: FileIO) -> tuple[int, int, int]:
    """What differs once an open file was written to: size, and times in nanoseconds."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _opened(path: Path) -> FileIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a named pipe would block for ever
            raise LoraFormatError("is not a regular file")
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise LoraFormatError(f"can't be read: {error.strerror or error}") from error


def raw_header(path: Path) -> bytes:
    """The text of a file's header, unchecked, and no more of it than a header may have.

    Raises `LoraFormatError` if the file can't be read.
    """
    try:
        with _opened(path) as file:
            length = int.from_bytes(file.read(8) or b"", "little")
            return file.read(min(length, HEADER_LIMIT)) or b""
    except OSError as error:
        raise LoraFormatError(f"can't be read: {error.strerror or error}") from error


def _read_into(file: Positioned, start: int, buffer: memoryview) -> None:
    try:
        if not file.read_into(start, buffer):
            raise LoraFormatError("ends too early: it was cut short while it was read")
    except OSError as error:
        raise LoraFormatError(f"can't be read: {error.strerror or error}") from error


def _header(file: Positioned, size: int, expected: Header | None) -> Header:
    beginning = bytearray(min(size, 32))
    _read_into(file, 0, memoryview(beginning))
    if size == 0:
        raise LoraFormatError("is empty", hint="download or copy it again")
    length = int.from_bytes(beginning[:8], "little")
    if size < 10 or beginning[8:9] != b"{" or length > size - 8:
        raise _not_safetensors(bytes(beginning), size, length)
    if length > HEADER_LIMIT:
        raise LoraFormatError(f"claims a header of {length:,} bytes; {HEADER_LIMIT:,} is the limit")
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
        _read_into(file, start, memoryview(chunk))
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
    metadata = _metadata(fields.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry, base) for name, entry in fields.items()}
    _contiguous(tensors, base, size)
    return Header(tensors, metadata, size, digest)


def _not_safetensors(beginning: bytes, size: int, length: int) -> LoraFormatError:
    for signature, words, hint in _SIGNATURES:
        if beginning.startswith(signature) and beginning[8:9] != b"{":
            return LoraFormatError(f"is not a safetensors file: it {words}", hint=hint)
    if beginning[8:9] == b"{":
        return LoraFormatError(
            f"is cut short: its header claims {length:,} bytes, and the file has {size:,}",
            hint="download or copy it again",
        )
    return LoraFormatError("is not a safetensors file", hint="name a .safetensors file of a LoRA")


def _metadata(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise LoraFormatError("is broken: its __metadata__ does not map text to text")
    return raw


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
