"""`compose preview`: what it writes, prints, refuses and asks, with a renderer that paints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.cli import Ran, compose, edit, samples, snapshot
from support.painter import Painter, as_plugin, kind_of
from support.repositories import commit, git
from support.rights import closed
from support.state import state_of

from composer.cli.signals import Interruption
from composer.errors import Stopped, TargetError
from composer.images.decoding import decode
from composer.previews.cells import Look

if TYPE_CHECKING:
    from pathlib import Path

    from composer.renderers.base import Rendered, RenderRequest

SETTINGS = '[previews]\nprompts = ["a fox", "a cat"]\nwidth = 128\nheight = 128\n'
ROGUE = "recipes/pixel-rogue.yaml"
FILES = ["index.html", "pixel-rogue.png", "pixel-rogue.webp", "preview.md", "previews.json"]


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Painter:
    painter = Painter()
    as_plugin(monkeypatch, painter)
    return painter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = samples(tmp_path)
    (root / "compose.toml").write_text(SETTINGS, encoding="utf-8")
    for file in (root / "recipes").rglob("*.yaml"):
        if file.name != "pixel-rogue.yaml":
            file.unlink()
    return root


def preview(root: Path, *arguments: str) -> Ran:
    return compose("preview", "--target", "local", "--renderer", "painter", *arguments, at=root)


def listed(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_options_reach_the_renderer(
    root: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RenderRequest] = []
    kind = kind_of(painter)
    opening = replace(kind, open=lambda request: (seen.append(request), kind.open(request))[1])
    monkeypatch.setattr("support.painter.KIND", opening)
    options = ("--batch", "4", "--base-model", "folder")
    assert preview(root, "--dry-run", *options).status == 0
    assert (seen[0].batch, seen[0].base_model) == (4, "folder")
    ran = preview(root, "--batch", "17")
    assert ran.status == 64 and "17 must be 1 to 16" in ran.err


# --- what comes out ----------------------------------------------------------------------


def test_a_change_is_shown_with_all_files(root: Path, painter: Painter) -> None:
    assert compose("apply", at=root).status == 0
    edit(root / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    ran = preview(root, "--out", "out/")
    assert ran.status == 0, ran.err
    assert listed(root / "out") == FILES
    first, *mix, _, result = ran.out.splitlines()
    assert first.startswith(f"Pixel Rogue  {ROGUE}  out/pixel-rogue.png  differs by ")
    assert mix == ["    0.25          Ink Lines", "    0.60 -> 0.70  Pixel Dust"]
    assert result == "6 images: 6 made."
    assert "6 images: 6 to make.\n" in ran.err
    assert ran.err.endswith("Next: open out/index.html in a browser\n")
    for ending in ("png", "webp"):
        assert min(decode((root / f"out/pixel-rogue.{ending}").read_bytes()).size) > 128
    page = (root / "out/index.html").read_text("utf-8")
    assert "Pixel Rogue" in page and "data:image/webp;base64," in page and "http:" not in page
    assert len(painter.made) == 6


def test_json_and_markdown_are_the_files(root: Path, painter: Painter) -> None:
    ran = preview(root, "--out", "out", "-o", "json")
    assert ran.out == (root / "out/previews.json").read_text("utf-8")
    plain = json.loads(ran.out)
    assert plain["images"] == {"missing": 4, "reused": 0, "made": 4, "failed": 0}
    (recipe,) = plain["recipes"]
    assert recipe["sheets"] == ["pixel-rogue.png", "pixel-rogue.webp"]
    assert [row["title"] for row in recipe["rows"]] == ["a fox", "a cat"]
    assert {cell["digest"] for row in recipe["rows"] for cell in row["cells"]} == {
        cell.digest for cell in painter.made
    }
    assert str(root) not in ran.out and str(state_of(root)) not in ran.out
    ran = preview(root, "--out", "out", "-o", "markdown")
    assert ran.out == (root / "out/preview.md").read_text("utf-8")
    assert "![pixel-rogue](pixel-rogue.webp)" in ran.out
    assert preview(root, "--out", "out", "-o", "json").out == (
        (root / "out/previews.json").read_text("utf-8")
    )


def test_images_at_an_address(root: Path, painter: Painter) -> None:
    where = "https://example.com/a/b"
    ran = preview(root, "--out", "out", "-o", "markdown", "--image-url", where)
    assert f"![pixel-rogue]({where}/pixel-rogue.webp)" in ran.out
    for wrong in ("ftp://a/b", "https://u:p@a/", "https://a/?x=1", "https://a/)", "a b", ""):
        ran = preview(root, "--out", "out", "--image-url", wrong)
        assert (ran.status, "is not a plain URL" in ran.err) == (64, True), wrong


def test_compared_with_a_revision(root: Path, painter: Painter) -> None:
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root)
    ran = preview(root, "--base", "main", "--out", "out")
    assert ran.out == "No recipe changed its mix.\n"
    assert listed(root / "out") == ["index.html", "preview.md", "previews.json"]
    edit(root / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert "0.60 -> 0.70  Pixel Dust" in preview(root, "--base", "main", "--out", "out").out
    ran = preview(root, "--base", "nowhere", "--out", "out")
    assert (ran.status, "--base: nowhere is not a git revision" in ran.err) == (64, True)


def test_a_failed_image_is_told_and_the_others_are_there(root: Path, painter: Painter) -> None:
    painter.fails = {2: TargetError("the paint was spilt", hint="clean up")}
    ran = preview(root, "--out", "out")
    assert ran.status == 1
    assert "1 image failed: the paint was spilt (clean up)\n" in ran.out
    assert ran.out.endswith("4 images: 3 made, 1 failed.\n")
    assert "`1 image failed: the paint was spilt" in (root / "out/preview.md").read_text("utf-8")
    painter.fails = {}
    assert preview(root, "--out", "out").out.endswith("4 images: 1 made, 3 already there.\n")


# --- money -------------------------------------------------------------------------------


def test_nothing_is_rendered_without_a_limit(root: Path, painter: Painter) -> None:
    painter.each = 9.0
    for limit in ((), ("--max-cost", "35")):
        ran = preview(root, "--out", "out/", *limit)
        assert (ran.status, ran.out) == (3, "")
        assert "rendering 4 images costs 36" in ran.err and "--max-cost 36" in ran.err
    assert painter.made == [] and not (root / "out").exists()
    ran = preview(root, "--out", "out/", "--max-cost", "36")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "4 images: 4 made; cost 36.")
    assert preview(root, "--out", "out/").out.endswith("4 images: 4 already there; cost 0.\n")


def test_a_dry_run_says_the_price_and_writes_nothing(root: Path, painter: Painter) -> None:
    painter.each = 2.5
    before = snapshot(root)
    ran = preview(root, "--dry-run")
    assert ran.status == 0 and ran.out.startswith("Dry run: nothing is written.\n")
    assert ran.out.endswith("4 images: 4 to make; price 10.\n")
    assert "with --out preview/ --max-cost 10 instead of --dry-run" in ran.err
    assert json.loads(preview(root, "--dry-run", "-o", "json").out)["price"] == 10
    assert snapshot(root) == before and not state_of(root).exists()


# --- the folder --------------------------------------------------------------------------


def test_files_of_others_are_never_overwritten(root: Path, painter: Painter) -> None:
    (root / "out").mkdir()
    (root / "out/index.html").write_text("mine")
    ran = preview(root, "--out", "out")
    assert (ran.status, "out/index.html already exists" in ran.err) == (3, True)
    assert painter.made == []  # found before anything is paid for
    (root / "out/index.html").unlink()
    (root / "out/pixel-rogue.png").write_text("mine")
    assert "out/pixel-rogue.png already exists" in preview(root, "--out", "out").err
    assert (root / "out/pixel-rogue.png").read_text() == "mine"
    assert listed(root / "out") == ["pixel-rogue.png"]
    assert preview(root, "--out", "out", "--force").status == 0
    assert listed(root / "out") == FILES


def test_own_files_are_replaced_unless_somebody_changed_them(root: Path, painter: Painter) -> None:
    (root / "out").mkdir()
    (root / "out/notes.txt").write_text("mine")
    assert preview(root, "--out", "out").status == 0
    edit(root / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert preview(root, "--out", "out/").status == 0
    (root / "out/preview.md").write_text("my words")
    ran = preview(root, "--out", "out")
    assert (ran.status, "out/preview.md already exists" in ran.err) == (3, True)
    assert (root / "out/preview.md").read_text() == "my words"
    assert (root / "out/notes.txt").read_text() == "mine"


def test_a_sheet_of_an_earlier_run_is_no_stranger(root: Path, painter: Painter) -> None:
    text = "name: Ink\nconcepts: [{name: Ink Lines, scale: 1}]\n"
    (root / "recipes/ink.yaml").write_text(text)
    assert preview(root, "--out", "out").status == 0
    assert preview(root, "--out", "out", ROGUE).status == 0
    edit(root / "recipes/ink.yaml", "scale: 1", "scale: 0.5")
    (root / "out/pixel-rogue.webp").unlink()
    assert preview(root, "--out", "out").status == 0
    assert "ink.png" in listed(root / "out")


def test_a_run_that_was_killed_while_it_wrote_is_no_stranger(
    root: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from composer.project import preview_files

    assert preview(root, "--out", "out").status == 0
    edit(root / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    write, written = preview_files._write, []

    def dying(file: Path, data: bytes) -> None:
        written.append(file.name)
        if len(written) == 3:
            raise SystemExit
        write(file, data)

    monkeypatch.setattr(preview_files, "_write", dying)
    with pytest.raises(SystemExit):
        preview(root, "--out", "out")
    monkeypatch.setattr(preview_files, "_write", write)
    assert preview(root, "--out", "out").status == 0


@pytest.mark.parametrize("out", ["link", "link/deeper", "file", "file/x", ""])
def test_what_can_be_no_folder(root: Path, painter: Painter, out: str) -> None:
    outside = root.parent / "outside"
    outside.mkdir(exist_ok=True)
    (root / "link").symlink_to(outside)
    (root / "file").write_text("mine")
    ran = preview(root, "--out", out)
    assert (ran.status, painter.made) == (64, []), ran
    assert not [*outside.iterdir()] and (root / "file").read_text() == "mine"


def test_a_link_in_the_folder_is_not_followed(root: Path, painter: Painter) -> None:
    (root / "out").mkdir()
    (root / "mine.html").write_text("mine")
    (root / "out/index.html").symlink_to(root / "mine.html")
    assert preview(root, "--out", "out").status == 3
    assert preview(root, "--out", "out", "--force").status == 0
    assert (root / "mine.html").read_text() == "mine"
    assert not (root / "out/index.html").is_symlink()


def test_a_folder_without_rights_is_found_before_anything_is_made(
    root: Path, painter: Painter
) -> None:
    (root / "shut").mkdir()
    with closed(root / "shut"):
        ran = preview(root, "--out", "shut/out")
    assert (ran.status, "shut/out can't be written" in ran.err) == (64, True)
    assert painter.made == []


def test_a_folder_is_needed(root: Path, painter: Painter) -> None:
    ran = preview(root)
    assert (ran.status, "Missing option '--out'" in ran.err) == (64, True)
    assert painter.made == []


# --- other people's text -----------------------------------------------------------------

EVIL = '<img src=x onerror=alert(1)>"|`[a](http://evil.example) @all #1'


def test_hostile_names_and_prompts_are_inert(root: Path, painter: Painter) -> None:
    text = json.dumps(EVIL)
    (root / ROGUE).write_text(
        f"name: {text}\nconcepts: [{{name: Ink Lines, scale: 1}}]\n"
        f"preview: {{prompts: [{text}, '../../etc/passwd', '::error::x', '##vso[x]y']}}\n"
    )
    ran = preview(root, "--out", "out")
    assert ran.status == 0, ran.err
    stem = "img-src-x-onerror-alert-1-a-http-evil-example-all-1"
    assert listed(root / "out")[:2] == [f"{stem}.png", f"{stem}.webp"]
    assert not any(line.startswith(("::", "##")) for line in ran.out.splitlines())
    written = preview(root, "--out", "out", "-o", "markdown").out
    assert "<img" not in outside_code(written) and "@all" not in outside_code(written)
    assert "evil.example)" not in outside_code(written)
    page = (root / "out/index.html").read_text("utf-8")
    assert "<img src=x" not in page and "&lt;img src=x" in page
    shown = preview(root, "--out", "out", "-o", "json").out
    assert json.loads(shown)["recipes"][0]["name"] == EVIL and "##vso" not in shown


def outside_code(text: str) -> str:
    """Markdown without its code spans, as the renderer of forges finds them."""
    from markdown_it import MarkdownIt

    def plain(tokens: list[object]) -> str:
        inner = [token for token in tokens if token.type != "code_inline"]  # type: ignore[attr-defined]
        return "".join(
            f"{token.content if not token.children else ''}{plain(token.children or [])}"  # type: ignore[attr-defined]
            for token in inner
            if token.type != "inline" or token.children is not None  # type: ignore[attr-defined]
        )

    return plain(MarkdownIt("commonmark").enable("table").parse(text))


def test_two_recipes_with_one_file_name(root: Path, painter: Painter) -> None:
    for name, file in (("Ink!", "a"), ("Ink?", "b"), ("Ink 2", "c")):
        text = f"name: '{name}'\nconcepts: [{{name: Ink Lines, scale: 1}}]\n"
        (root / f"recipes/{file}.yaml").write_text(text)
    assert preview(root, "--out", "out").status == 0
    assert [name for name in listed(root / "out") if name.endswith(".png")] == [
        "ink-2-2.png",
        "ink-2.png",
        "ink.png",
        "pixel-rogue.png",
    ]


# --- being interrupted, and what is missing ----------------------------------------------


def test_an_interruption_writes_nothing_and_keeps_the_images(
    root: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = Painter.render

    def stopped(self: Painter, cells: list[object], *arguments: object, **more: object) -> Rendered:
        render(self, cells[:3], *arguments, **more)  # type: ignore[arg-type]
        raise Stopped

    monkeypatch.setattr(Painter, "render", stopped)
    ran = preview(root, "--out", "out")
    assert ran.status == 130
    assert ran.out.startswith("4 images: 3 made, 1 not made.\nInterrupted. The images")
    assert not (root / "out").exists()
    monkeypatch.setattr(Painter, "render", render)
    assert preview(root, "--out", "out").out.endswith("4 images: 1 made, 3 already there.\n")


def test_an_interruption_while_files_are_written_leaves_nothing_unknown(
    root: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []

    def stopping(self: Interruption, seconds: float) -> None:
        written.append(seconds)
        if len(written) == 2:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "sleep", stopping)
        ran = preview(root, "--out", "out")
    assert (ran.status, ran.out, ran.err.splitlines()[-1]) == (130, "", "interrupted")
    assert listed(root / "out") == ["pixel-rogue.png", "pixel-rogue.webp"]
    assert preview(root, "--out", "out").out.endswith("4 images: 4 already there.\n")


def test_an_installation_without_pillow_says_what_to_install(root: Path) -> None:
    program = (
        "import sys; sys.modules['PIL'] = None; from composer.cli.main import guarded;"
        "sys.exit(guarded(['preview', '--dry-run']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 64
    assert "previews need PIL\n  pip install 'lora-compose[preview]'\n" in ran.stderr


def test_the_command_line_starts_without_what_images_need() -> None:
    program = (
        "import sys; import composer.cli.preview, composer.cli.validate, composer.cli.main;"
        "assert not {'PIL', 'jinja2'} & {*sys.modules}"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_blocked_recipes_are_notes(root: Path, painter: Painter) -> None:
    edit(root / ROGUE, "Pixel Dust", "Pixel Must")
    ran = preview(root, "--out", "out")
    assert ran.status == 0
    assert ran.out.startswith("note: Pixel Rogue (recipes/pixel-rogue.yaml) is left out: no LoRA")
    assert ran.out.endswith("\nNothing to show.\n")
    for file in ("preview.md", "index.html"):
        text = (root / "out" / file).read_text("utf-8")
        assert "did you mean Pixel Dust" in text
        assert "othing to show" in text and "o recipe changed" not in text


def test_the_size_is_that_of_the_settings(root: Path, painter: Painter) -> None:
    preview(root, "--out", "out", "--base-model", "mine")
    assert {cell.look for cell in painter.made} == {replace(Look(), width=128, height=128)}
    assert {cell.renderer.base_model for cell in painter.made} == {"mine"}
