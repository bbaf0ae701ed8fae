"""Where two images differ, and how much: as numbers, and as a layer that people see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image
from support.colours import contrast

from composer.images.difference import HEAT, STRONGEST, heat, mean_difference
from composer.output.pages import page

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (80, 60)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return saved(tmp_path / "grey.png", Image.new("RGB", SIZE, (100, 100, 100)))


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def test_equal_images_differ_nowhere(grey: Path) -> None:
    assert mean_difference(grey, grey) == 0
    assert heat(grey, grey).getchannel("A").getextrema() == (0, 0)


def test_the_mean_is_over_pixels_and_channels(grey: Path, tmp_path: Path) -> None:
    image = Image.new("RGB", SIZE, (100, 100, 100))
    image.paste((202, 100, 100), (0, 0, 40, 60))  # in half of the pixels a third of the channels
    other = saved(tmp_path / "other.png", image)
    assert mean_difference(grey, other) == pytest.approx(102 / 255 / 6)
    assert mean_difference(grey, other) == mean_difference(other, grey)


def test_black_and_white_differ_most(tmp_path: Path) -> None:
    black = saved(tmp_path / "black.png", Image.new("RGB", SIZE, "black"))
    white = saved(tmp_path / "white.png", Image.new("RGB", SIZE, "white"))
    assert mean_difference(black, white) == 1
    assert heat(black, white).getchannel("A").getextrema() == (STRONGEST, STRONGEST)


def test_the_layer_marks_where_they_differ(grey: Path, tmp_path: Path) -> None:
    image = Image.new("RGB", SIZE, (100, 100, 100))
    image.paste((100, 100, 180), (0, 0, 40, 60))  # one channel is enough
    layer = heat(grey, saved(tmp_path / "other.png", image))
    assert (layer.mode, layer.size) == ("RGBA", SIZE)
    marked, bare = layer.getpixel((20, 30)), layer.getpixel((70, 30))
    assert isinstance(marked, tuple)
    assert isinstance(bare, tuple)
    assert marked[:3] == HEAT
    assert (marked[3] > 100, bare[3]) == (True, 0)


def test_an_image_of_another_size_is_compared_in_the_size_of_the_second(
    grey: Path, tmp_path: Path
) -> None:
    large = saved(tmp_path / "large.png", Image.new("RGB", (160, 120), (100, 100, 100)))
    assert mean_difference(grey, large) == 0
    assert heat(grey, large).size == (160, 120)


def test_its_colour_is_the_pages_own() -> None:
    colour = "#" + bytes(HEAT).hex()
    assert f"--heat: {colour};" in page("base.html", title="")
    assert contrast(colour, "#ffffff") > 4.5
