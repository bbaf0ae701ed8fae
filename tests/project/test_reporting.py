"""`Project.report` tells what recipes, lock, git, target and image cache say of a project."""

from __future__ import annotations

import io
import subprocess
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.cli import KNIGHT, ROGUE, edit, samples

from composer import Project, open_target
from composer.files import git as git_module
from composer.output.gallery import Pages
from composer.output.gallery_view import Composition, State
from composer.previews.cells import Cell, Look, RendererInfo
from composer.project.reporting import MOST_IMAGES, by_name
from composer.renderers.cache import FOLDER, CellCache

if TYPE_CHECKING:
    from pathlib import Path

    from composer.project.reporting import ProjectReport

INFO = RendererInfo("test", "1", "base")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples(tmp_path_factory.mktemp("reported"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = samples(tmp_path)
    (root / ".git").rmdir()
    run = ("git", "-c", "user.name=Maya", "-c", "user.email=m@x.org")
    for step in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "First mixes"]):
        subprocess.run([*run, *step], cwd=root, check=True, capture_output=True)
    opened = Project(root)
    with open_target("local", opened) as target:
        opened.apply(target)
    return root


def reported(root: Path, *, compare: bool = True) -> ProjectReport:
    project = Project(root)
    with open_target("local", project, run_jobs=False) as target:
        return project.report(target, compare=compare)


def by_path(report: ProjectReport) -> dict[str, Composition]:
    return {one.path: one for one in report.compositions}


def test_each_recipe_is_there_with_all_that_is_known(project: Path) -> None:
    report = reported(project)
    assert (report.title, report.target, report.asked) == (project.name, "local", True)
    knight = by_path(report)[KNIGHT]
    recipe = next(one for one in Project(project).recipes if one.path == KNIGHT)
    assert (knight.name, knight.tags, knight.description) == (
        recipe.name,
        recipe.tags,
        recipe.description,
    )
    assert (knight.state, knight.is_usable, knight.reason) == (State.SYNCED, True, "up to date")
    assert knight.id == Project(project).outputs("local")[recipe.name]
    assert [(report.loras[p.lora].name, p.scale) for p in knight.parts] == [
        (ref.name, ref.scale) for ref in recipe.concepts
    ]
    assert [(one.subject, one.author) for one in knight.revisions] == [("First mixes", "Maya")]
    lora = report.loras[knight.parts[0].lora]
    assert (lora.id, lora.file.endswith(".safetensors")) == (lora.key, True)
    assert lora.facts


def test_states_are_those_of_a_plan(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    new = project / "recipes" / "new.yaml"
    new.write_text((project / KNIGHT).read_text("utf-8").replace("Storybook Knight", "New"))
    (project / KNIGHT).rename(project / "recipes" / "knight.yaml.gone")
    found = {one.name: one for one in reported(project).compositions}
    assert found["Pixel Rogue"].state is State.CHANGED
    assert found["Pixel Rogue"].reason == "scale of Pixel Dust 0.6 -> 0.7"
    assert found["New"].id  # the old one's, renamed
    new.unlink()
    gone = {one.name: one for one in reported(project).compositions}["Storybook Knight"]
    assert (gone.state, len(gone.parts) > 0) == (State.NO_RECIPE, True)


def test_without_a_target_lock_and_recipes_are_told(project: Path) -> None:
    report = Project(project).report()
    online = reported(project)
    assert (report.asked, report.target) == (False, "local")
    for one, other in zip(report.compositions, online.compositions, strict=True):
        assert (one.path, one.id, one.parts) == (other.path, other.id, other.parts)
        assert (one.state, one.revisions) == (State.SYNCED, other.revisions)
        details = report.details(one)
        assert (details.usages, details.mix) == ({}, None)
    assert {lora.name for lora in report.loras.values()} == {
        lora.name for lora in online.loras.values()
    }


def test_before_anything_was_looked_up_loras_go_by_their_names(sample: Path) -> None:
    report = Project(sample).report("local")
    assert {one.state for one in report.compositions} == {State.NEW}
    assert all(lora.id == "" for lora in report.loras.values())
    names = {ref.name for recipe in Project(sample).recipes for ref in recipe.concepts}
    assert {lora.name for lora in report.loras.values()} == names


def test_licence_and_trigger_words_are_those_of_the_metadata(tmp_path: Path) -> None:
    root = samples(tmp_path)
    file = root / "recipes/loras/ink-lines.safetensors"
    said = {"modelspec.license": "CC-BY-4.0", "modelspec.trigger_phrase": "inkline"}
    save_file(load_file(file), file, metadata={"modelspec.title": "Ink Lines", **said})
    opened = Project(root)
    with open_target("local", opened, run_jobs=False) as target:
        report = opened.report(target)
        pages = {page.name: page.text() for page in Pages(report, report.details)}
    licences = {lora.name: lora.licence for lora in report.loras.values()}
    assert {name: said for name, said in licences.items() if said} == {"Ink Lines": "CC-BY-4.0"}
    (ink,) = (lora for lora in report.loras.values() if lora.name == "Ink Lines")
    assert ink.triggers == ("inkline",)
    assert "CC-BY-4.0" in pages["loras.html"] and "inkline" in pages["loras.html"]


def test_details_are_how_to_use_it_and_how_its_loras_interact(project: Path) -> None:
    opened = Project(project)
    with open_target("local", opened, run_jobs=False) as target:
        report = opened.report(target)
        knight = by_path(report)[KNIGHT]
        details = report.details(knight)
        inspected = {one.source: one.mix for one in opened.inspect(target)}
        plain = opened.report(target, compare=False)
        assert plain.details(knight).mix is None
    assert details.mix is not None
    assert details.mix.names == inspected[KNIGHT].names
    assert details.mix.cosine(0, 1) == inspected[KNIGHT].cosine(0, 1)
    assert '"storybook-knight.safetensors"' in details.usages["diffusers"]
    assert str(opened.state) not in "".join(details.usages.values())


def keep(root: Path, path: str, *cells: tuple[str, int]) -> None:
    project = Project(root)
    entry, cache = project.entries("local")[path], CellCache(project.state / FOLDER)
    assert entry.content
    cache.folder.mkdir(exist_ok=True)
    written = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(written, "PNG")
    for prompt, seed in cells:
        cell = Cell.of(entry.content.concepts, prompt, seed, Look(), INFO)
        cache.keep(cell, written.getvalue())


def test_images_are_those_of_the_mix(project: Path) -> None:
    keep(project, KNIGHT, ("a fox", 7), ("a cat", 7))
    report = reported(project)
    knight, rogue = (by_path(report)[path] for path in (KNIGHT, ROGUE))
    assert {(one.prompt, one.seed) for one in knight.images} == {("a fox", 7), ("a cat", 7)}
    assert rogue.images == ()
    assert {*report.files} == {one.digest for one in knight.images}
    assert all(file.is_file() for file in report.files.values())
    edit(project / KNIGHT, "scale: 0.65", "scale: 0.64")
    assert by_path(reported(project))[KNIGHT].images == ()


def test_of_many_images_the_newest_are_shown(project: Path) -> None:
    keep(project, KNIGHT, *(("a fox", seed) for seed in range(MOST_IMAGES + 3)))
    images = by_path(reported(project))[KNIGHT].images
    assert len(images) == MOST_IMAGES
    assert images[0].seed == MOST_IMAGES + 2


def test_images_of_the_prompts_of_previews_come_first(project: Path) -> None:
    keep(project, KNIGHT, ("wanted", 7), ("of the recipe", 7), *(("other", n) for n in range(20)))
    (project / "compose.toml").write_text('[previews]\nprompts = ["wanted"]\n', "utf-8")
    edit(project / KNIGHT, "concepts:", 'preview: {prompts: ["of the recipe"]}\nconcepts:')
    images = by_path(reported(project))[KNIGHT].images
    assert [one.prompt for one in images[:3]] == ["wanted", "of the recipe", "other"]


def test_names_are_in_the_order_in_which_people_sort(sample: Path) -> None:
    names = ["Fox 10", "fox 2", "Fox", "fox", "9", "10", "Éclair", "²", "fox " + "9" * 30]
    ordered = sorted(names, key=by_name)
    assert ordered == sorted(reversed(names), key=by_name)
    assert [name for name in ordered if name in ("Fox 10", "fox 2", "9", "10")] == [
        *("9", "10", "fox 2", "Fox 10")
    ]


def test_it_says_why_there_is_no_history(sample: Path) -> None:
    (note,) = Project(sample).report("local").notes
    assert note == "no history: the project is not in a git repository"


def test_git_is_started_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    real = subprocess.run
    monkeypatch.setattr(
        git_module.subprocess, "run", lambda *a, **k: ran.append(a) or real(*a, **k)
    )
    reported(project)
    assert len(ran) == 1
