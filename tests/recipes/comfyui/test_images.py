"""The texts in PNG and WebP images, whole and damaged."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size
from support.workflows import png, text_chunk, webp

from composer.recipes.comfyui.images import MAX_TEXT, PNG, DamagedImage, texts


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iTXz", b"comf"])
def test_a_text_of_every_kind_of_chunk(kind: bytes) -> None:
    image = png(text_chunk("Prompt", '{"é": 1}', kind), text_chunk("prompt", "second"))
    assert texts(image) == {"prompt": '{"é": 1}'}


def test_latin_1_is_read_where_a_text_is_not_utf_8() -> None:
    assert texts(png((b"tEXt", b"prompt\0caf\xe9"))) == {"prompt": "café"}


def test_what_is_no_text_is_passed_over() -> None:
    chunks = [(b"zTXt", b"prompt\0\7rest"), (b"iTXt", b"prompt\0\0\0en"), (b"gAMA", b"\0\1\2\3")]
    assert texts(png(*chunks)) == {}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_texts_of_a_webp(order: str, prefix: bytes) -> None:
    """As ComfyUI writes them (`key:text` in the tags of the camera), and as LoRA Manager does."""
    comment = b"UNICODE\0" + "a knight: é".encode("utf-16-be")
    image = webp(
        (0x110, 'prompt:{"a": 1}'),
        (0x10F, "Workflow:{}"),
        (0x131, "no colon"),
        order=order,
        comment=comment,
        prefix=prefix,
    )
    assert texts(image) == {"prompt": '{"a": 1}', "workflow": "{}", "comment": "a knight: é"}


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (b"UNICODE\0" + "knight".encode("utf-16-le"), "knight"),
        (b"ASCII\0\0\0knight", "knight"),
        (b"\0\0\0\0\0\0\0\0knight", "knight"),
        (b"a bare text of a knight", "a bare text of a knight"),
    ],
)
def test_a_comment_in_every_charset(comment: bytes, expected: str) -> None:
    assert texts(webp(comment=comment)) == {"comment": expected}


def test_a_compressed_text_is_expanded_up_to_a_limit() -> None:
    bomb = zlib.compress(bytes(MAX_TEXT + 1))
    with pytest.raises(DamagedImage, match="more than 8,388,608 bytes"):
        texts(png((b"zTXt", b"prompt\0\0" + bomb)))
    with pytest.raises(DamagedImage, match="can't be read"):
        texts(png((b"zTXt", b"prompt\0\0no zlib")))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (PNG, "ends too early"),
        (PNG + struct.pack(">I4s", 2**31, b"tEXt"), "ends too early"),
        (png(text_chunk("prompt", "{}")).replace(b"{}", b"{]"), "checksum"),
        (webp((0x110, "prompt:{}"))[:-4], "ends too early"),
        (webp((0x110, "prompt:{}")).replace(b"II*", b"XX*"), "no byte order"),
    ],
)
def test_damage_is_said_in_words(image: bytes, words: str) -> None:
    with pytest.raises(DamagedImage, match=words):
        texts(image)


WHOLE = [
    png(text_chunk("workflow", "{}"), text_chunk("prompt", "{}", b"zTXt")),
    webp((0x110, "prompt:{}"), (0x10F, "workflow:{}"), comment=b"ASCII\0\0\0x"),
]


@settings(max_examples=size(30, 5000), deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_any_damage_is_read_or_refused(whole: bytes, data: st.DataObject) -> None:
    image = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(12, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        texts(bytes(image[: data.draw(st.integers(12, len(image)))]))
    except DamagedImage as damage:
        assert str(damage)


def test_many_texts_take_no_time() -> None:
    """Each expands to megabytes, but of each key one is read; and values may share their bytes."""
    bombs = [(b"zTXt", b"k\0\0" + zlib.compress(bytes(MAX_TEXT)))] * 2000
    assert texts(png(*bombs, text_chunk("prompt", "{}"), *[text_chunk("prompt", "x")] * 2000)) == {
        "prompt": "{}"
    }
    empty = PNG + (struct.pack(">I", 0) + b"gAMA" + bytes(4)) * 100_001
    with pytest.raises(DamagedImage, match="more than 100,000 chunks"):
        texts(empty)
    with pytest.raises(DamagedImage, match="more than 100,000 chunks"):
        texts(b"RIFF\0\0\0\0WEBP" + b"ICCP\0\0\0\0" * 100_001)
    tag = struct.pack("<HHII", 0x110, 2, MAX_TEXT, 8 + 2 + 12 * 1000)
    shared = b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + tag * 1000
    exif = shared + b"prompt:{}" + bytes(MAX_TEXT)
    image = b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", len(exif)) + exif
    assert texts(image) == {"prompt": "{}"}
