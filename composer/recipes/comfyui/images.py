"""The texts in PNG and WebP images, where ComfyUI and its extensions keep workflows.

Read with the standard library: the container formats are a few lines, Pillow would be a dependency
of every installation, and it refuses texts of more than 1 MiB, as large workflows have. No pixel is
decoded. Every length is checked, and only what is wanted is expanded, up to a limit.
"""

from __future__ import annotations

import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Text: TypeAlias = "tuple[str, Callable[[], str | None]]"  # its key, and what reads it

PNG, RIFF, WEBP = b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
MAX_TEXT = 8 * 1024 * 1024  # bytes of one text, once expanded
_EXIF_HEADER = b"Exif\0\0"  # some programs write it before the EXIF data of a WebP
_ENTRIES = 1000  # of one EXIF directory
_EXIF_FOLDER, _USER_COMMENT = 0x8769, 0x9286  # tags
_BYTES, _ASCII, _UNDEFINED = 1, 2, 7  # types of values
COMMENT = "comment"  # the key of EXIF's user comment
KEYS = frozenset({"prompt", "workflow", "parameters", COMMENT})  # of the texts that are read
_LONGEST_KEY = 32
_CHUNKS = 100_000  # of one image; large PNGs have a few thousand


class DamagedImage(ValueError):
    """The image is not what its format says; the message says what is wrong."""


def is_image(data: bytes) -> bool:
    """Whether this is a PNG or a WebP, by its first bytes."""
    return data.startswith(PNG) or (data.startswith(RIFF) and data[8:12] == WEBP)


def texts(data: bytes) -> dict[str, str]:
    """The texts of `KEYS` in a PNG or WebP. Raises `DamagedImage`.

    Keys may have any case. Of several texts with one key, the first is taken.
    """
    found: dict[str, str] = {}
    for key, read in _png(data) if data.startswith(PNG) else _webp(data):
        if (key := key.lower()) in KEYS and key not in found and (text := read()) is not None:
            found[key] = text
    return found


# --- PNG ---------------------------------------------------------------------------------


def _png(data: bytes) -> Iterator[_Text]:
    at = len(PNG)
    for _ in range(_CHUNKS):
        length, kind = _unpack(">I4s", data, at)
        body = _slice(data, at + 8, length)
        if kind in _TEXTS:
            key, _, rest = body.partition(b"\0")
            (checksum,) = _unpack(">I", data, at + 8 + length)
            yield key.decode("latin-1"), partial(_chunk_text, kind, body, rest, checksum)
        if kind == b"IEND":
            return
        at += 12 + length
    raise DamagedImage(f"it has more than {_CHUNKS:,} chunks")


def _chunk_text(kind: bytes, body: bytes, rest: bytes, checksum: int) -> str | None:
    if zlib.crc32(kind + body) != checksum:
        raise DamagedImage("the checksum of a text in it is wrong")
    raw = _TEXTS[kind](rest)
    return None if raw is None else _decoded(raw)


def _plain(rest: bytes) -> bytes:
    return rest


def _compressed(rest: bytes) -> bytes | None:
    """A zTXt: a byte for the method, of which there is one."""
    return _expanded(rest[1:]) if rest[:1] == b"\0" else None


def _international(rest: bytes) -> bytes | None:
    """An iTXt: whether it is compressed, the method, a language, a translated key."""
    flags, (_, found, tail) = rest[:2], rest[2:].partition(b"\0")
    _, found_too, text = tail.partition(b"\0")
    if not (found and found_too):
        return None
    return {b"\0": _plain, b"\1": _expanded}.get(flags[:1], _plain)(text)


# ComfyUI keeps the texts of an animated PNG in chunks of its own kind, `comf`.
_TEXTS = {b"tEXt": _plain, b"comf": _plain, b"zTXt": _compressed, b"iTXt": _international}


def _expanded(raw: bytes) -> bytes:
    """Raises `DamagedImage` for what is not compressed, or expands to more than `MAX_TEXT`."""
    try:
        text = zlib.decompressobj().decompress(raw, MAX_TEXT + 1)
    except zlib.error:
        raise DamagedImage("a compressed text in it can't be read") from None
    if len(text) > MAX_TEXT:
        raise DamagedImage(f"a text in it has more than {MAX_TEXT:,} bytes")
    return text


# --- WebP --------------------------------------------------------------------------------


def _webp(data: bytes) -> Iterator[_Text]:
    at = 12
    for _ in range(_CHUNKS):
        if at >= len(data):
            return
        kind, length = _unpack("<4sI", data, at)
        if kind == b"EXIF":
            yield from _exif(_slice(data, at + 8, length).removeprefix(_EXIF_HEADER))
            return
        at += 8 + length + length % 2
    raise DamagedImage(f"it has more than {_CHUNKS:,} chunks")


def _exif(data: bytes) -> Iterator[_Text]:
    """`key:text` of every string, whatever its tag is, and the user comment as `comment`."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise DamagedImage("its EXIF data has no byte order")
    (start,) = _unpack(order + "I", data, 4)
    inner = 0
    for tag, kind, count, at in _directory(data, order, start):
        if tag == _EXIF_FOLDER:
            (inner,) = _unpack(order + "I", data, at)
        elif kind == _ASCII:
            key, colon, _ = _value(data, order, min(count, _LONGEST_KEY), count, at).partition(b":")
            if colon:
                yield key.decode("latin-1"), partial(_exif_text, data, order, count, at)
    for tag, kind, count, at in _directory(data, order, inner) if inner else ():
        if tag == _USER_COMMENT and kind in (_BYTES, _ASCII, _UNDEFINED):
            yield COMMENT, partial(_exif_comment, data, order, count, at)


def _exif_text(data: bytes, order: str, count: int, at: int) -> str:
    text = _decoded(_value(data, order, count, count, at))
    return text.partition(":")[2].rstrip("\0")


def _exif_comment(data: bytes, order: str, count: int, at: int) -> str:
    raw = _value(data, order, count, count, at)
    return _comment(raw[8:], raw[:8])


def _comment(raw: bytes, charset: bytes) -> str:
    """UTF-16 in either order: programs don't agree which one a comment has."""
    if charset != b"UNICODE\0":
        return _decoded(raw if charset.endswith(b"\0") else charset + raw)
    readings = [raw.decode(codec, "replace") for codec in ("utf-16-be", "utf-16-le")]
    return max(readings, key=lambda text: sum(character < "\x7f" for character in text))


def _directory(data: bytes, order: str, start: int) -> Iterator[tuple[int, int, int, int]]:
    """The entries of a directory: tag, type, count, and where the value or its place is."""
    (count,) = _unpack(order + "H", data, start)
    if count > _ENTRIES:
        raise DamagedImage(f"a directory of its EXIF data has {count:,} entries")
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = _unpack(order + "HHI", data, at)
        yield tag, kind, length, at + 8


def _value(data: bytes, order: str, wanted: int, count: int, at: int) -> bytes:
    """The first bytes of an entry's value, which stand in the entry if all of them fit."""
    if wanted > MAX_TEXT:
        raise DamagedImage(f"a text in it has more than {MAX_TEXT:,} bytes")
    if count > 4:
        (at,) = _unpack(order + "I", data, at)
    return _slice(data, at, wanted)


# --- bytes -------------------------------------------------------------------------------


def _unpack(format: str, data: bytes, at: int) -> tuple[Any, ...]:
    return struct.unpack(format, _slice(data, at, struct.calcsize(format)))


def _slice(data: bytes, at: int, length: int) -> bytes:
    part = data[at : at + length]
    if len(part) < length:
        raise DamagedImage("it ends too early")
    return part


def _decoded(raw: bytes) -> str:
    """UTF-8, which every program writes; Latin-1, which PNG prescribes, where it is none."""
    if len(raw) > MAX_TEXT:
        raise DamagedImage(f"a text in it has more than {MAX_TEXT:,} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
