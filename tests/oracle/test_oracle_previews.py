"""Chromium judges the page of a preview or a sweep: by mouse, touch and keyboard, and on paper."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from oracle.chromium import SCHEMES, WIDTHS, grave, opened
from PIL import Image
from support.grids import cell, preview_grid, rendered, sweep_grid
from support.hostile import HOSTILE
from support.painter import paint

from composer.errors import TargetError
from composer.images.embedding import embedded
from composer.output.preview_html import preview_page
from composer.previews.cells import Look
from composer.previews.report import PreviewReport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.previews.report import GridResult

LOOK = Look(width=640, height=480)
BEFORE = {"Watercolour": 0.5, "Ink Lines": 0.2}
AFTER = {"Watercolour": 0.5, "Ink Lines": 0.9}
ROWS = [("a castle on a hill above a misty valley, soft morning light", 7), ("a road", 11)]
FAILED = TargetError("the job failed: out of memory", hint="run compose preview again")
SHOWN = """[...document.querySelectorAll(".shot")]
  .filter(one => one.querySelector(".picture, .missing").getClientRects().length)
  .map(one => one.classList[1])"""


def written(folder: Path, *results: GridResult, notes: tuple[str, ...] = ()) -> Path:
    report = PreviewReport("local", results, 8, notes=notes)
    file = folder / "index.html"
    file.write_text(preview_page(report, embedded(report)), "utf-8")
    return file


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A changed recipe with a failed cell in its second row, and a new recipe."""
    folder = tmp_path_factory.mktemp("preview")
    changed, new = (
        preview_grid(BEFORE, AFTER, ROWS, look=LOOK),
        preview_grid(None, AFTER, ROWS[:1], look=LOOK, name="Ink Rogue"),
    )
    failed = {cell(BEFORE, "a road", 11, LOOK): FAILED}
    results = rendered(changed, folder, errors=failed), rendered(new, folder)
    return written(folder, *results, notes=("recipes/a.yaml: a LoRA is missing",))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    grid = sweep_grid(("Ink Lines", [0.2, 0.5, 0.8]), ("Castle Stone", [0.3, 0.6]), look=LOOK)
    return written(folder, rendered(grid, folder))


@pytest.fixture
def page(chromium: Any, preview: Path) -> Iterator[Any]:
    shown, _ = opened(chromium, preview, 1280, "light")
    yield shown
    shown.context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["preview", "sweep"])
def test_it_can_be_read_on_every_screen(
    request: pytest.FixtureRequest, chromium: Any, axe: str, name: str, width: int, scheme: str
) -> None:
    file: Path = request.getfixturevalue(name)
    shown, said = opened(chromium, file, width, scheme)
    assert said == [file.as_uri()]  # no complaint, and no request but for the page
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    if scheme == "dark":  # what is not there at first
        change = shown.get_by_label("Side by side") if name == "preview" else None
        change.check(force=True) if change else shown.locator(".place").first.click()
    assert grave(shown, axe) == []
    shown.context.close()


# --- the slider --------------------------------------------------------------------------


def split(shown: Any) -> float:
    """Where the line is, as a share of the picture's width; the picture is cut there too."""
    row = shown.locator(".row").first
    picture = row.locator(".left .picture").bounding_box()
    line = row.locator(".line").bounding_box()
    clip = row.locator(".left .picture").evaluate("one => getComputedStyle(one).clipPath")
    share = (line["x"] + line["width"] / 2 - picture["x"]) / picture["width"]
    cut = clip.removeprefix("inset(0px ").split("%")[0].removeprefix("calc(100% - ")
    assert float(cut) / 100 == pytest.approx(share if "calc" in clip else 1 - share, abs=0.01)
    return float(share)


def test_the_slider_by_keyboard(page: Any) -> None:
    slider = page.get_by_role("slider").first
    slider.focus()
    assert split(page) == pytest.approx(0.5, abs=0.01)
    for key, share in [
        ("ArrowRight", 0.52),
        ("ArrowLeft", 0.5),
        ("Shift+ArrowRight", 0.6),
        ("End", 1.0),
        ("Home", 0.0),
        ("ArrowUp", 0.02),
    ]:
        page.keyboard.press(key)
        assert split(page) == pytest.approx(share, abs=0.01), key
    assert slider.get_attribute("aria-valuetext") == "2% before"
    assert "seed 7" in slider.get_attribute("aria-label")


def test_the_slider_by_mouse(page: Any) -> None:
    box = page.get_by_role("slider").first.bounding_box()
    y = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    assert split(page) == pytest.approx(0.8, abs=0.01)
    page.mouse.move(box["x"] - 50, y)
    page.mouse.up()
    assert split(page) == pytest.approx(0, abs=0.01)


def test_the_slider_by_touch(page: Any) -> None:
    box = page.get_by_role("slider").first.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert split(page) == pytest.approx(0.25, abs=0.01)


def test_before_is_at_its_left_and_after_at_its_right(page: Any) -> None:
    """The ellipse of Ink Lines has its middle at a quarter of the width, and grows."""
    page.evaluate("Promise.all([...document.images].map(one => one.decode()))")
    slider, colours = page.get_by_role("slider").first, []
    for key in ("Home", "End"):
        slider.press(key)
        page.wait_for_timeout(100)  # it may scroll
        place = page.locator(".row").first.locator(".right .picture").bounding_box()
        x, y = place["x"] + place["width"] * 0.35, place["y"] + place["height"] / 2
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        colours.append(image.getpixel((int(x), int(y))))
    after, before = colours
    cells = [cell(mix, *ROWS[0], LOOK) for mix in (AFTER, BEFORE)]
    for found, one in zip((after, before), cells, strict=True):
        painted = Image.open(io.BytesIO(paint(one))).convert("RGB")
        assert found == pytest.approx(painted.getpixel((int(640 * 0.35), 240)), abs=12)
    assert after != pytest.approx(before, abs=12)


# --- views -------------------------------------------------------------------------------


def test_each_view_shows_its_pictures(page: Any) -> None:
    """The second row's `before` failed: that row is side by side, and says why."""
    failed = ["none", "before", "after"]
    assert page.evaluate(SHOWN) == ["before", "after", *failed, "none", "after"]
    page.get_by_label("no LoRA", exact=True).check(force=True)
    assert page.evaluate(SHOWN) == ["none", "after"] * 3
    page.get_by_label("Side by side").check(force=True)
    assert page.evaluate(SHOWN) == [*failed, "difference", *failed, "none", "after"]
    page.get_by_label("Difference").check(force=True)
    assert page.evaluate(SHOWN) == ["difference", *failed, "none", "after"]
    assert page.get_by_text("the job failed: out of memory", exact=True).is_visible()


def test_a_new_recipe_alone_has_no_before_to_choose(chromium: Any, tmp_path: Path) -> None:
    grid = preview_grid(None, AFTER, ROWS[:1], look=LOOK, name="Ink Rogue")
    shown, said = opened(chromium, written(tmp_path, rendered(grid, tmp_path)), 1280, "light")
    assert shown.evaluate(SHOWN) == ["none", "after"]
    assert shown.locator("input[type=radio]").count() == 2
    assert shown.locator(".slides .split").count() == 1
    shown.get_by_label("Side by side").check(force=True)
    assert shown.evaluate(SHOWN) == ["none", "after"] and not said[1:]
    shown.context.close()


def test_the_view_is_chosen_by_keyboard(page: Any) -> None:
    page.get_by_label("Slider", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(SHOWN)[:4] == ["none", "before", "after", "difference"]


def test_a_recipe_is_chosen_from_the_list(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")  # it scrolls at once
    page.get_by_label("Go to a recipe").select_option("recipe-2")
    assert page.evaluate("scrollY") > 300
    assert page.locator("#recipe-2 h2").bounding_box()["y"] < 800


def test_without_javascript_all_is_side_by_side(chromium: Any, preview: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(preview.as_uri())
    pictures = shown.locator(".shot .picture")
    assert [one.is_visible() for one in pictures.all()] == [True] * 8
    assert not shown.locator("#view").is_visible()
    context.close()


def test_on_paper_all_is_side_by_side(page: Any) -> None:
    page.emulate_media(media="print")
    assert len(page.evaluate(SHOWN)) == 9
    assert not page.locator(".split").first.is_visible()
    assert not page.locator(".bar-top").is_visible()
    assert page.pdf(format="A4", landscape=True, print_background=True)[:5] == b"%PDF-"


# --- a sweep -----------------------------------------------------------------------------


def test_a_place_opens_large_with_its_command(chromium: Any, sweep: Path) -> None:
    shown, _ = opened(chromium, sweep, 1280, "light")
    shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.locator(".place").nth(2).focus()
    shown.keyboard.press("Enter")
    assert shown.locator("#large-name").inner_text() == "C1: Ink Lines 0.5, Castle Stone 0.3"
    shown.keyboard.press("ArrowRight")
    assert shown.locator("#large-name").inner_text().startswith("D1: ")
    command = shown.locator("#large-command code").inner_text()
    assert command.startswith("compose sweep recipes/storybook-knight.yaml ")
    assert command.endswith(" --promote D1")
    shown.get_by_role("button", name="Copy").click()
    shown.get_by_text("Copied").first.wait_for()
    assert shown.evaluate("navigator.clipboard.readText()") == command
    shown.keyboard.press("ArrowRight")  # the next one is without LoRA: there is nothing to take
    assert not shown.locator("#large-command").is_visible()
    shown.keyboard.press("Escape")
    assert not shown.locator("#large").is_visible()
    # The dialog's event `close` comes a moment later.
    shown.wait_for_function("document.activeElement.dataset.name?.startsWith('A2: no LoRA')")
    shown.context.close()


# --- what a stranger wrote ---------------------------------------------------------------


def test_a_strangers_words_do_nothing(chromium: Any, tmp_path: Path) -> None:
    grids = [
        preview_grid({words: 0.5}, {words: 0.7}, [(words, 3)], name=words) for words in HOSTILE
    ]
    file = written(tmp_path, *(rendered(one, tmp_path) for one in grids), notes=tuple(HOSTILE))
    shown, said = opened(chromium, file, 1280, "light")
    assert said == [file.as_uri()]
    assert shown.locator("section.part").count() == len(HOSTILE)
    assert shown.locator("img").count() == 4 * len(HOSTILE)
    shown.context.close()


def test_its_policy_is_in_force(chromium: Any, preview: Path, tmp_path: Path) -> None:
    more = '<style>p { color: red }</style><script>document.title = "it ran"</script>'
    picture = '<img src="https://127.0.0.1:9/x.png" onerror="document.title = 1">'
    file = tmp_path / "page.html"
    file.write_text(preview.read_text("utf-8").replace("</h1>", f"</h1>{more}{picture}", 1))
    shown, said = opened(chromium, file, 1280, "light")
    assert sum("Content Security Policy" in line for line in said) >= 3
    assert shown.title() == "Preview of 2 recipes"
    shown.context.close()
