"""A renderer that paints instead of asking a model: the same picture each time for a cell, another
one for every other cell. It counts what it made, may charge, and fails or is killed where told.

`tests/renderers/test_painter.py` shows what it promises. `as_plugin` offers it to
`--renderer painter` in process; a started process has to find an entry point of its own.
"""

from __future__ import annotations

import io
import os
import signal
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from composer.errors import UsageError
from composer.previews.cells import Cell, RendererInfo
from composer.renderers import registry
from composer.renderers.base import Rendered, RendererKind, Rendering, RenderRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    import pytest

    from composer.errors import ComposeError
    from composer.renderers.base import Keep

INFO = RendererInfo("painter", "1", "canvas")
MAX_PROMPT = 2048
# A compose.toml for images that are made in no time.
SMALL_IMAGES = '[previews]\nprompts = ["a fox"]\nwidth = 128\nheight = 128\n'


def paint(cell: Cell) -> bytes:
    """The cell as a PNG of its size: the prompt and seed are the colours, each LoRA an ellipse that
    grows with its scale, and two lines of pixels hold the cell's digest."""
    size = (cell.look.width, cell.look.height)
    plain = Cell.of([], cell.prompt, cell.seed, cell.look, cell.renderer)
    sky, ground, *_ = _colours(plain.digest)
    image = Image.linear_gradient("L").resize(size)
    image = Image.composite(Image.new("RGB", size, ground), Image.new("RGB", size, sky), image)
    draw = ImageDraw.Draw(image)
    for number, concept in enumerate(cell.concepts):
        middle = size[0] * (2 * number + 1) // (2 * len(cell.concepts))
        radius = abs(concept.scale) * size[0] / (2 * len(cell.concepts) + 2)
        box = (middle - radius, size[1] / 2 - radius, middle + radius, size[1] / 2 + radius)
        draw.ellipse(box, fill=_colours(concept.model_id.encode().hex().ljust(48, "7"))[2])
    for place, byte in enumerate(bytes.fromhex(cell.digest)):
        image.putpixel((place % 16, place // 16), (byte, byte, byte))
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def _colours(digits: str) -> list[tuple[int, int, int]]:
    values = bytes.fromhex(digits[:48])
    return [(values[i], values[i + 1], values[i + 2]) for i in range(0, 24, 3)]


@dataclass
class Painter:
    """A `Renderer`. `each` is the price of an image; None: nothing is charged.

    `fails` has errors by the number of the cell that is painted, from 1; before cell number
    `dies_at` the process is killed. `made` are the cells whose image was kept, in order, `asked`
    those whose price was asked. With a `log`, a line with each cell's digest is written there, so
    that a test can count over several processes.
    """

    each: float | None = None
    info: RendererInfo = INFO
    fails: Mapping[int, ComposeError] = field(default_factory=dict)
    dies_at: int | None = None
    log: Path | None = None
    made: list[Cell] = field(default_factory=list)
    asked: list[Cell] = field(default_factory=list)
    closed: int = 0

    @property
    def charges(self) -> bool:
        return self.each is not None

    def check(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if not 0 < len(cell.prompt) <= MAX_PROMPT:
                raise UsageError(f"the prompt has {len(cell.prompt)} characters")
            if bad := [c for c in cell.concepts if not 0 <= c.scale <= 2]:
                raise UsageError(f"the painter takes scales from 0 to 2, not {bad[0].scale}")

    def price(self, cells: Sequence[Cell]) -> float | None:
        self.asked += cells
        return None if self.each is None else self.each * len(cells)

    def render(
        self,
        cells: Sequence[Cell],
        keep: Keep,
        *,
        max_cost: float | None = None,
        tell: Callable[[Rendering], None] = lambda rendering: None,
    ) -> Rendered:
        assert not (cells and self.charges) or max_cost is not None, "nobody said how much"
        errors: dict[Cell, ComposeError] = {}
        spent = 0.0
        for number, cell in enumerate(dict.fromkeys(cells), start=1):
            if number == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            tell(Rendering(cell, "painting"))
            if number in self.fails:
                errors[cell] = self.fails[number]
                tell(Rendering(cell, "failed", error=errors[cell]))
                continue
            assert max_cost is None or spent + (self.each or 0) <= max_cost
            spent += self.each or 0
            self._keep(cell, keep)
            tell(Rendering(cell, "painted", cost=self.each))
        return Rendered(errors, spent if self.charges else None)

    def _keep(self, cell: Cell, keep: Keep) -> None:
        if self.log:
            with self.log.open("a", encoding="utf-8") as lines:
                lines.write(f"{cell.digest}\n")
        keep(cell, paint(cell))
        self.made.append(cell)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def kind_of(painter: Painter, *, name: str = "painter") -> RendererKind:
    """A kind that opens this very painter, for any target."""

    def open_it(request: RenderRequest) -> Painter:
        assert request.state.is_dir() or request.dry_run
        if request.base_model:
            painter.info = RendererInfo(painter.info.name, painter.info.version, request.base_model)
        return painter

    return RendererKind(name, open_it, lambda target: True)


def as_plugin(monkeypatch: pytest.MonkeyPatch, painter: Painter) -> None:
    """Offer this painter as `--renderer painter`, as another distribution would."""
    monkeypatch.setattr(f"{__name__}.KIND", kind_of(painter))
    point = EntryPoint("painter", f"{__name__}:KIND", registry.GROUP)

    def points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        if group != registry.GROUP:
            return list(entry_points(group=group, **({"name": name} if name else {})))
        return [point] if name in (None, point.name) else []

    monkeypatch.setattr("composer.plugins.entry_points", points)


KIND = kind_of(Painter())
