"""Makes the pictures in `docs/images/`: a contact sheet, and pages as Chromium shows them.

    PYTHONPATH=.:tests python -m support.make_pictures [FOLDER]

It needs Chromium and `playwright`, of the extra `oracle`. What a model would paint comes from
`support.artist`; all the rest is what `compose` makes of it.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image
from support import artist
from support.exhibition import exhibition
from support.grids import preview_grid, rendered, sweep_grid

from composer.images.embedding import embedded
from composer.images.lettering import FONTS
from composer.images.sheets import sheet
from composer.output.preview_html import preview_page
from composer.previews.cells import Look
from composer.previews.report import GridResult, PreviewReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.previews.grid import Grid

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PROMPT = "a knight's castle on a hill above a misty valley, soft morning light, storybook"
DUSK = "the same castle at dusk, lanterns in every window, a long road through the pines"
BEFORE = {"Watercolour Wash": 0.45, "Ink Lines": 0.4, "Castle Stone": 0.5}
AFTER = {**BEFORE, "Ink Lines": 0.75}
WIDTH = 1280  # pixels of a picture
# Chromium's own fonts would be those of this machine.
FONT_CONFIG = f"""<fontconfig><dir>{FONTS}</dir><dir>/usr/share/fonts</dir>
<alias binding="same"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<alias binding="same"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
</fontconfig>"""


def main(folder: Path = IMAGES) -> None:
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as name:
        preview = result(preview_grid(BEFORE, AFTER, [(PROMPT, 7), (DUSK, 7)], look=Look()), name)
        sweep = result(
            sweep_grid(
                ("Ink Lines", [0.2, 0.4, 0.6, 0.8]),
                ("Watercolour Wash", [0.2, 0.5, 0.8]),
                look=Look(),
                prompt=PROMPT,
            ),
            name,
        )
        save(folder / "contact-sheet.webp", sheet(preview, "png"))
        with_chromium(Path(name), lambda browser: pages(browser, folder, name, preview, sweep))


def result(grid: Grid, folder: str) -> GridResult:
    return rendered(grid, Path(folder), paint=artist.paint)


def pages(browser: Any, folder: Path, place: str, preview: GridResult, sweep: GridResult) -> None:
    for one, scheme, name, height in [
        (preview, "light", "preview-page", 1040),
        (sweep, "dark", "sweep-page", 900),
    ]:
        report = PreviewReport("local", (one,), len(one.images))
        file = Path(place) / f"{name}.html"
        file.write_text(preview_page(report, embedded(report)), "utf-8")
        save(folder / f"{name}.webp", screenshot(browser, file, scheme, height))
    site = Path(place) / "site"
    site.mkdir()
    save(folder / "gallery-page.webp", screenshot(browser, exhibition(site), "light", 900))


def screenshot(browser: Any, file: Path, scheme: str, height: int) -> bytes:
    """The page's first view, and nothing below it."""
    size = {"width": WIDTH, "height": height}
    context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1.5)
    shown = context.new_page()
    shown.goto(file.as_uri())
    shown.evaluate(
        "Promise.all([...document.images].filter(one => one.src).map(one => one.decode()))"
    )
    shown.wait_for_timeout(200)
    picture: bytes = shown.screenshot()
    context.close()
    return picture


def save(file: Path, data: bytes) -> None:
    """As WebP, small enough for a README."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if image.width > 1.5 * WIDTH:
        height = round(image.height * 1.5 * WIDTH / image.width)
        image = image.resize((int(1.5 * WIDTH), height), Image.Resampling.LANCZOS)
    image.save(file, "WEBP", quality=84, method=6)
    print(f"{file} {file.stat().st_size:,}")


def with_chromium(folder: Path, use: Callable[[Any], None]) -> None:
    from playwright.sync_api import sync_playwright

    config = folder / "fonts.conf"
    config.write_text(FONT_CONFIG, "utf-8")
    path = shutil.which("chromium")
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=path,
            args=["--no-sandbox"],
            env={**os.environ, "FONTCONFIG_FILE": str(config)},
        )
        use(browser)
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
