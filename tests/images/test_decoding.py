"""Bytes from elsewhere become an image with the same pixels and nothing else, or an error."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from composer.images import decoding
from composer.images.decoding import BadImage, as_png, decode

if TYPE_CHECKING:
    from pathlib import Path

GREY = Image.new("RGB", (4, 2), (90, 91, 92))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_pixels_stay(format: str) -> None:
    picture = Image.frombytes("RGB", (3, 2), bytes(range(18)))
    again = decode(as_png(encoded(picture, format, lossless=True)))
    assert (again.size, again.tobytes()) == (picture.size, picture.tobytes())


def test_metadata_go() -> None:
    noted = PngImagePlugin.PngInfo()
    noted.add_text("prompt", "a secret https://signed.example/?token=1")
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    png = as_png(encoded(GREY, pnginfo=noted, exif=exif))
    assert b"secret" not in png
    with Image.open(io.BytesIO(png)) as image:
        assert not image.info


def test_what_is_transparent_is_white() -> None:
    assert decode(encoded(Image.new("RGBA", (1, 1), (9, 9, 9, 0)))).getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"<html>Access denied</html>", "not an image"),
        (encoded(GREY, "GIF"), "not an image"),
        (encoded(GREY, "BMP"), "not an image"),
        (encoded(Image.effect_noise((64, 64), 90))[:900], "can't be decoded"),
        (encoded(Image.new("1", (decoding.MAX_SIDE + 1, 1))), "4097 x 1 pixels"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadImage, match=message):
        as_png(data)


def test_a_file_that_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    with pytest.raises(BadImage, match="more than 10"):
        decode(encoded(GREY))


@given(st.integers(0, 70), st.integers(0, 255))
def test_a_damaged_file_is_an_image_or_refused(at: int, byte: int) -> None:
    data = bytearray(encoded(GREY))
    data[min(at, len(data) - 1)] = byte
    with suppress(BadImage):
        as_png(bytes(data))


def test_nothing_else_imports_pillow(request: pytest.FixtureRequest) -> None:
    package: Path = request.config.rootpath / "composer"
    users = {
        file.relative_to(package).parts[0]
        for file in package.rglob("*.py")
        if "from PIL" in (text := file.read_text(encoding="utf-8")) or "import PIL" in text
    }
    assert users == {"images"}
