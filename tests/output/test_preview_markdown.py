"""A preview as a comment: inert, within its budget, and without an address that a service gave."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.plans import knight
from support.sizes import size

from composer.errors import TargetError
from composer.model import Concept
from composer.output.markdown import COMMENT, Budget
from composer.output.preview_json import as_json
from composer.output.preview_markdown import markdown
from composer.output.preview_text import text
from composer.output.preview_view import PreviewView
from composer.previews.cells import PreviewSettings, RendererInfo
from composer.previews.comparison import Mix, preview_grid
from composer.previews.report import CellImage, GridResult, PreviewReport, Price
from composer.previews.shots import shots

INFO = RendererInfo("test", "1", "base", "https://api.example.com/v1")


def result(name: str = "Knight", path: str = "a.yaml", prompt: str = "a fox") -> GridResult:
    recipe = replace(knight(), name=name, path=path)
    before, after = (
        Mix((Concept("lora_ink", scale),), (f"{scale:.2f}  {name} Ink",)) for scale in (0.5, 0.7)
    )
    grid = preview_grid(recipe, shots(recipe, PreviewSettings((prompt,)), INFO), before, after)
    return GridResult(grid, {cell.digest: CellImage() for cell in grid}, (0.0421,))


def view(*results: GridResult, budget: Budget = COMMENT) -> PreviewView:
    report = PreviewReport("local", results, 3, Price(3, 1, 27.0), 27.0)
    stems = {one.grid.path: f"sheet-{n}" for n, one in enumerate(results)}
    return PreviewView(report, stems, "out/", budget=budget)


def test_a_change_reads_well() -> None:
    assert markdown(view(result())) == (
        "## compose preview: 1 recipe, 4 images\n\n"
        "Target: `local`\n\n"
        "| recipe | file | mix | differs by |\n|---|---|---|---:|\n"
        "| `Knight` | `a.yaml` | 0.50 -> 0.70 `Knight Ink` | 4.2% |\n\n"
        "### Contact sheets\n\n#### `Knight`\n\n![sheet-0](sheet-0.webp)\n"
    )


def test_failures_come_first_and_notes_last() -> None:
    one = result()
    pictures = {digest: CellImage(error=TargetError("spilt |x|")) for digest in one.images}
    shown = view(replace(one, images=pictures))
    report = replace(shown.report, made=0, notes=("Fox is left out: <b>",))
    document = markdown(replace(shown, report=report))
    assert document.index("- `3 images failed: spilt |x|`") < document.index("| `Knight`")
    assert document.endswith("### Notes\n\n- `Fox is left out: <b>`\n")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(name=NAMES, path=NAMES, prompt=NAMES)
@settings(max_examples=size(40, 3_000), deadline=None)
def test_whatever_the_names_nothing_but_our_images_is_there(
    name: str, path: str, prompt: str
) -> None:
    shown = view(result(name, path, prompt))
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(shown))
    inner = [child for token in tokens for child in token.children or [token]]
    assert {token.type for token in inner} & {"html_block", "html_inline", "link_open"} <= {
        "html_inline"
    }
    assert {t.content for t in inner if t.type == "html_inline"} <= {"<br>"}
    (image,) = [token for token in inner if token.type == "image"]
    assert image.attrs["src"] == "sheet-0.webp"
    for document in (markdown(shown), text(shown), as_json(shown)):
        assert "api.example.com" not in document
        assert not any(c in document for c in "\x1b\u202e\x00")


def test_a_long_document_is_cut_sheets_before_rows() -> None:
    results = [result(f"Knight {n}", f"{n}.yaml") for n in range(60)]
    whole = markdown(view(*results, budget=Budget(1_000_000)))
    assert whole.count("![") == 60
    cut = markdown(view(*results, budget=Budget(6_500)))
    assert len(cut) <= 6_500 and "The whole: `index.html`" in cut
    assert 0 < cut.count("![") < 60 == cut.count("| `Knight")
    assert "of 60 contact sheets" in cut
