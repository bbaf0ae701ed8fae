"""Copies for pages are smaller, and nothing but the image."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageStat

from composer.images.copies import web_copies
from composer.images.decoding import BadImage


def picture(width: int, height: int) -> bytes:
    written = io.BytesIO()
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    image.save(written, "PNG", pnginfo=None, exif=b"Exif\0\0secret")
    return written.getvalue()


def test_each_copy_has_its_width_and_never_more() -> None:
    data = picture(1000, 500)
    copies = [Image.open(io.BytesIO(copy)) for copy in web_copies(data, (1280, 500, 3))]
    assert [copy.size for copy in copies] == [(1000, 500), (500, 250), (3, 2)]
    assert {copy.format for copy in copies} == {"WEBP"}
    means = [ImageStat.Stat(copy.convert("L")).mean[0] for copy in copies[:2]]
    assert abs(means[0] - means[1]) < 2


def test_metadata_stays_behind() -> None:
    (copy,) = web_copies(picture(40, 30), (400,))
    assert b"secret" not in copy
    assert not Image.open(io.BytesIO(copy)).getexif()


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(BadImage):
        web_copies(b"<svg/>", (100,))
