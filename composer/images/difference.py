"""Where two images differ, and how much. What people see of it is a layer in one colour."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter, ImageStat

from composer.images.decoding import decode

if TYPE_CHECKING:
    from pathlib import Path

HEAT = (209, 21, 107)  # as --heat in the pages' style
UNSEEN = 8  # of 255: smaller differences are not marked
FULL = 110  # of 255: this difference, and any greater one, gets the strongest mark
STRONGEST = 215  # of 255: the opacity of the strongest mark
PALE = 0.6  # how much white is mixed into the image under the marks


def mean_difference(before: Path, after: Path) -> float:
    """The mean over all pixels and channels, from 0 (equal) to 1. Raises `BadImage`, `OSError`."""
    pair = _pair(before, after)
    channels = ImageStat.Stat(ImageChops.difference(*pair)).mean
    return sum(channels) / len(channels) / 255


def heat(before: Path, after: Path) -> Image.Image:
    """What to lay over either image: one colour, the more opaque the more they differ there.

    Each pixel counts with its channel that differs most; fine grain is smoothed, so that areas
    stand out. Raises `BadImage`, `OSError`.
    """
    red, green, blue = ImageChops.difference(*_pair(before, after)).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    smooth = most.filter(ImageFilter.BoxBlur(max(most.size) / 200))
    layer = Image.new("RGBA", most.size, HEAT)
    layer.putalpha(smooth.point([_opacity(value) for value in range(256)]))
    return layer


def difference_picture(before: Path, after: Path) -> Image.Image:
    """The second image, pale and grey, with `heat` on it. Raises `BadImage`, `OSError`."""
    grey = decode(after.read_bytes()).convert("L").convert("RGB")
    pale = Image.blend(grey, Image.new("RGB", grey.size, "white"), PALE)
    layer = heat(before, after)
    pale.paste(layer, mask=layer)
    return pale


def _opacity(difference: int) -> int:
    share = max(0.0, min(1.0, (difference - UNSEEN) / (FULL - UNSEEN)))
    return round(STRONGEST * math.sqrt(share))


def _pair(before: Path, after: Path) -> tuple[Image.Image, Image.Image]:
    """Both, in the size of the second one."""
    first, second = decode(before.read_bytes()), decode(after.read_bytes())
    if first.size != second.size:
        first = first.resize(second.size, Image.Resampling.LANCZOS)
    return first, second
