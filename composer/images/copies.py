"""Copies of an image for pages: smaller, and in a format that browsers load fast."""

from __future__ import annotations

import io

from PIL import Image

from composer.images.decoding import decode

QUALITY = 86


def web_copies(data: bytes, widths: tuple[int, ...]) -> tuple[bytes, ...]:
    """The image in these bytes as WebP, at most so many pixels wide each. Raises `BadImage`."""
    image = decode(data)
    return tuple(webp(narrowed(image, width)) for width in widths)


def narrowed(image: Image.Image, width: int) -> Image.Image:
    """The image, at most so many pixels wide."""
    if image.width <= width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def webp(image: Image.Image, quality: int = QUALITY) -> bytes:
    """The image as a WebP file."""
    written = io.BytesIO()
    image.save(written, "WEBP", quality=quality, method=2)
    return written.getvalue()
