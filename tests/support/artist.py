"""Pictures that look like something: landscapes with a castle, in the style of the LoRAs of a cell.

They stand for a model's images where a person judges sheets and pages, and in the docs. The prompt
and the seed decide the scenery, each LoRA a trait of the style, the more the larger its scale.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from composer.previews.cells import Cell

PALETTES = (  # sky above, sky below, sun, and hills from far to near
    ("#31507e", "#f3b98a", "#ffe9b8", "#7d86ab", "#57638c", "#36446b", "#1c2745"),
    ("#7fb4cf", "#f6ead2", "#fff6dc", "#a9c3bd", "#7ba393", "#4d7a6a", "#2b5148"),
    ("#3a2a56", "#e06f6b", "#ffd08a", "#8b4f78", "#623c6e", "#40295a", "#231a3d"),
    ("#9cc3e6", "#fdf3e3", "#ffffff", "#c3cfdf", "#94a9c6", "#6682a8", "#3d5780"),
    ("#17324a", "#6fb7b0", "#f2f7d5", "#3f7f8c", "#2c6075", "#1f465c", "#122e42"),
)


class Scene:
    """One image of a size; everything it does follows from the name and is the same each time."""

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        self.size, self.random = size, np.random.default_rng(seed)
        self.palette = PALETTES[seed % len(PALETTES)]

    def paint(self, tower: float) -> Image.Image:
        width, height = self.size
        image = _gradient(self.size, self.palette[0], self.palette[1])
        self._sun(image)
        for depth in range(4):
            ridge = self._ridge(depth)
            if depth == 2:
                self._castle(image, ridge, tower)
            draw = ImageDraw.Draw(image)
            points = [(x, float(ridge[x])) for x in range(width)]
            draw.polygon([*points, (width, height), (0, height)], fill=self.palette[3 + depth])
            self._trees(draw, ridge, depth)
        return image

    def _sun(self, image: Image.Image) -> None:
        width, height = self.size
        x, y = self.random.uniform(0.2, 0.8) * width, self.random.uniform(0.18, 0.4) * height
        radius = height * self.random.uniform(0.05, 0.09)
        glow = Image.new("L", self.size, 0)
        ImageDraw.Draw(glow).ellipse(_circle(x, y, radius * 3), fill=120)
        glow = glow.filter(ImageFilter.GaussianBlur(radius * 1.5))
        ImageDraw.Draw(glow).ellipse(_circle(x, y, radius), fill=255)
        image.paste(Image.new("RGB", self.size, self.palette[2]), mask=glow)

    def _ridge(self, depth: int) -> NDArray[np.float64]:
        """The height of the hills at each x."""
        width, height = self.size
        x = np.arange(width) / width
        line = np.zeros(width)
        for octave in range(5):
            strength = height * 0.09 / 2**octave * (1.3 - 0.2 * depth)
            frequency = (1.2 + depth * 0.5) * 2**octave
            line += strength * np.sin(x * frequency * 6.28 + self.random.uniform(0, 6.28))
        return height * (0.5 + 0.13 * depth) + line

    def _castle(self, image: Image.Image, ridge: NDArray[np.float64], tower: float) -> None:
        width, height = self.size
        draw, colour = ImageDraw.Draw(image), self.palette[5]
        middle = int(self.random.uniform(0.3, 0.7) * width)
        unit = height * (0.03 + 0.035 * tower)
        for step, tall in ((-2.2, 2.0), (-1.1, 3.2), (0.0, 4.6), (1.1, 2.8), (2.2, 1.8)):
            x, base = middle + step * unit, ridge[middle] + 2 * unit
            top = ridge[middle] - tall * unit
            draw.rectangle((x - unit * 0.48, top, x + unit * 0.48, base), fill=colour)
            roof = [(x - unit * 0.6, top), (x + unit * 0.6, top), (x, top - unit * 1.3)]
            draw.polygon(roof, fill=self.palette[6])
            light = (x - unit * 0.1, top + unit * 0.5, x + unit * 0.1, top + unit * 0.9)
            draw.rectangle(light, fill=self.palette[2])

    def _trees(self, draw: ImageDraw.ImageDraw, ridge: NDArray[np.float64], depth: int) -> None:
        if depth < 2:
            return
        width, height = self.size
        for x in self.random.integers(0, width, 26 - 5 * depth):
            tall = height * self.random.uniform(0.04, 0.08) * (depth - 0.8)
            base = float(ridge[x]) + tall * 0.2
            points = [(x - tall * 0.22, base), (x + tall * 0.22, base), (int(x), base - tall)]
            draw.polygon(points, fill=self.palette[3 + depth])


def paint(cell: Cell) -> bytes:
    """The cell as a PNG."""
    scene = Scene(f"{cell.prompt}\n{cell.seed}", (cell.look.width, cell.look.height))
    scales = {concept.model_id: concept.scale for concept in cell.concepts}
    image = plain = scene.paint(scales.get("model_castle", 0.0))
    if scale := scales.get("model_watercolour"):
        image = watercolour(image, scale, scene.random)
    if scale := scales.get("model_ink"):
        image = ink(image, scale, plain)
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def watercolour(image: Image.Image, scale: float, random: np.random.Generator) -> Image.Image:
    """Soft areas, paper that shines through, edges where the colour dried."""
    width, height = image.size
    soft = image.filter(ImageFilter.MedianFilter(9)).filter(ImageFilter.GaussianBlur(2 + 4 * scale))
    clouds = np.zeros((height, width))
    for parts in (6, 14, 40, 160):
        noise = Image.fromarray((random.random((parts, parts)) * 255).astype(np.uint8))
        clouds += np.asarray(noise.resize(image.size, Image.Resampling.BICUBIC)) / 255
    clouds = clouds / 4 - 0.5
    pixels = np.asarray(soft).astype(float)
    pixels += (255 - pixels) * 0.35 * scale
    pixels *= (1 + 0.5 * scale * clouds)[..., None]
    pixels *= (1 - np.minimum(0.5, 2.5 * scale * np.asarray(_edges(soft)) / 255))[..., None]
    washed = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return Image.blend(image, washed, min(1.0, 0.3 + scale))


def ink(image: Image.Image, scale: float, plain: Image.Image) -> Image.Image:
    """Dark lines where the areas of the plain picture meet, and hatching in its shadows."""
    edges = _edges(plain.filter(ImageFilter.GaussianBlur(1)))
    lines = edges.point([min(235, int(max(0, value - 8) * 18 * scale)) for value in range(256)])
    if scale > 0.5:
        lines = lines.filter(ImageFilter.MaxFilter(3))
    hatching = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(hatching)
    for x in range(-image.height, image.width, 8):
        draw.line((x, image.height, x + image.height, 0), fill=int(120 * scale), width=2)
    shadows = plain.convert("L").filter(ImageFilter.GaussianBlur(3))
    shadows = shadows.point([255 if value < 58 else 0 for value in range(256)])
    lines = ImageChops.lighter(lines, ImageChops.multiply(hatching, shadows))
    lines = lines.filter(ImageFilter.GaussianBlur(0.7))
    result = image.copy()
    result.paste("#141822", mask=lines)
    return result


def _edges(image: Image.Image) -> Image.Image:
    """Where areas meet; at the image's own border is no edge."""
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES)
    inner = edges.crop((2, 2, image.width - 2, image.height - 2))
    framed = Image.new("L", image.size, 0)
    framed.paste(inner, (2, 2))
    return framed


def _gradient(size: tuple[int, int], above: str, below: str) -> Image.Image:
    share = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, below), Image.new("RGB", size, above), share)


def _circle(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius
