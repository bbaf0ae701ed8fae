"""Bytes that should be an image, decoded within limits and encoded again."""

from __future__ import annotations

import io
import warnings
from typing import TypeAlias

from PIL import Image, UnidentifiedImageError

from composer.errors import TargetError

MAX_BYTES = 64 * 1024 * 1024  # of a file: more than a PNG of MAX_SIDE x MAX_SIDE of noise needs
MAX_SIDE = 4096  # pixels
FORMATS = ("PNG", "JPEG", "WEBP")  # what is decoded at all

DecodedImage: TypeAlias = Image.Image


class BadImage(TargetError):
    """Bytes that are no image, or one that is too large."""


def decode(data: bytes) -> DecodedImage:
    """The image in these bytes as RGB, without any of its metadata. Raises `BadImage`.

    Its size is checked before its pixels are decoded; of an animation the first image counts.
    """
    if len(data) > MAX_BYTES:
        raise BadImage(f"the image has {len(data):,} bytes, more than {MAX_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_SIDE is less
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image)
                return _opaque(image)
    except UnidentifiedImageError as error:
        raise BadImage("it is not an image (PNG, JPEG or WebP)") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(f"the image can't be decoded: {type(error).__name__}") from error


def as_png(data: bytes) -> bytes:
    """The image in these bytes as a PNG with the same pixels and nothing else.

    Raises `BadImage`.
    """
    written = io.BytesIO()
    decode(data).save(written, "PNG")
    return written.getvalue()


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise BadImage(f"the image has {width} x {height} pixels, more than {MAX_SIDE} on a side")


def _opaque(image: Image.Image) -> Image.Image:
    """A copy in RGB; what is transparent is white."""
    if image.mode == "RGB":
        copy = Image.new("RGB", image.size)
        copy.paste(image)
        return copy
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
