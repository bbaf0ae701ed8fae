"""Opening a safetensors file, and what it says about itself, without a look at its tensors.

`compose validate` needs titles and nothing more, so this module imports little.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from composer.lora.errors import LoraFormatError
from composer.lora.untrusted_json import PARSED_LIMIT, Shortened, bounded, parsed

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

HEADER_LIMIT = 100_000_000  # bytes: safetensors' own; the captions of a data set can bring one here
CHUNK = 1024 * 1024  # bytes of a header that are read at a time

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


def opened(path: Path) -> FileIO:
    """The file, open for reading. Raises `LoraFormatError` for what is no regular file."""
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
        with opened(path) as file:
            length = int.from_bytes(file.read(8) or b"", "little")
            return file.read(min(length, HEADER_LIMIT)) or b""
    except OSError as error:
        raise LoraFormatError(f"can't be read: {error.strerror or error}") from error


def header_length(beginning: bytes, size: int) -> int:
    """Bytes of the header of a file of this size that begins so: its first 32 bytes, if there are.

    Raises `LoraFormatError` for what can't be a safetensors file.
    """
    if size == 0:
        raise LoraFormatError("is empty", hint="download or copy it again")
    length = int.from_bytes(beginning[:8], "little")
    if size < 10 or beginning[8:9] != b"{" or length > size - 8:
        raise _not_safetensors(beginning, size, length)
    if length > HEADER_LIMIT:
        raise LoraFormatError(f"claims a header of {length:,} bytes; {HEADER_LIMIT:,} is the limit")
    return length


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


def read_metadata(path: Path) -> dict[str, str]:
    """What the file says about itself; its tensors are not checked.

    Raises `LoraFormatError` where it can't be read or is no safetensors file.
    """
    try:
        with opened(path) as file:
            beginning = file.read(32) or b""
            length = header_length(beginning, os.fstat(file.fileno()).st_size)
            file.seek(8)
            raw = bytearray(file.read(length) or b"")
    except OSError as error:
        raise LoraFormatError(f"can't be read: {error.strerror or error}") from error
    if len(raw) > PARSED_LIMIT:
        text = Shortened()
        for start in range(0, len(raw), CHUNK):
            text.add(raw[start : start + CHUNK])
        raw = text.kept
    fields = parsed(bounded(raw, "its header"), "its header")
    if not isinstance(fields, dict):
        raise LoraFormatError("has a header that is not a JSON object")
    return checked_metadata(fields.get("__metadata__", {}))


def checked_metadata(raw: object) -> dict[str, str]:
    """The metadata in a header. Raises `LoraFormatError`."""
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise LoraFormatError("is broken: its __metadata__ does not map text to text")
    return raw
