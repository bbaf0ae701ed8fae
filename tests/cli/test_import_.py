"""`compose import`: recipes of compositions on the target, and of ComfyUI workflows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.cli import ROGUE, compose, edit, ids, snapshot
from support.workflows import api, as_bytes, editors, loader, png, text_chunk

if TYPE_CHECKING:
    from pathlib import Path


def test_import_writes_recipes_whose_plan_is_empty(applied: Path) -> None:
    before = ids(applied)
    (applied / "compose.lock").unlink()
    for file in (applied / "recipes").rglob("*.yaml"):
        file.unlink()
    done = compose("import", "--all", at=applied)
    assert (done.status, done.out.count("+ recipes/")) == (0, 4)
    assert "No changes" in compose("apply", at=applied).out
    assert ids(applied) == before
    again = compose("import", "--all", at=applied)
    assert (again.status, again.out) == (0, "")


def test_a_dry_run_of_import_makes_no_folder(applied: Path) -> None:
    (applied / "old").mkdir()
    for name in ("recipes", "compose.lock"):
        (applied / name).rename(applied / "old" / name)
    folders = set(applied.rglob("*"))
    shown = compose("import", "--all", "--dry-run", "--library", "old/recipes/loras", at=applied)
    assert (shown.status, shown.out.count("+ recipes/")) == (0, 4), shown.err
    assert set(applied.rglob("*")) == folders
    empty = applied / "empty"
    (empty / ".git").mkdir(parents=True)
    assert compose("import", "--all", "--dry-run", at=empty).status == 0
    assert [path.name for path in empty.iterdir()] == [".git"]


def test_import_skips_a_second_model_of_one_name(applied: Path) -> None:
    compose("forget", "Pixel Rogue", at=applied)
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    done = compose("import", "--all", at=applied)
    assert done.status == 1
    assert "another recipe has this name" in done.err
    missing = compose("import", "model_nope", at=applied)
    assert (missing.status, "no such model" in missing.err) == (1, True)


def test_a_workflow_is_imported_and_planned(project: Path) -> None:
    stack = [{"on": True, "lora": "pixel-dust.safetensors", "strength": 0.5, "strengthTwo": None}]
    loaders = (
        ("LoraLoader", ["style\\ink-lines.safetensors", 0.7, 1]),
        ("Power Lora Loader (rgthree)", stack),
    )
    (project / "knight.json").write_bytes(as_bytes(editors(*loaders)))
    before = snapshot(project)
    shown = compose("import", "knight.json", "--dry-run", "--name", "Knight", at=project)
    assert (shown.status, snapshot(project)) == (0, before)
    done = compose("import", "knight.json", "--name", "Knight", at=project)
    assert done.status == 0
    assert shown.out == f"Dry run: nothing is written.\n{done.out}"
    assert done.out.splitlines() == [
        "+ recipes/knight.yaml  knight.json  Knight",
        "    0.70  Ink Lines   node 10 (LoraLoader): style\\ink-lines.safetensors",
        "    0.50  Pixel Dust  node 11 (Power Lora Loader (rgthree)): pixel-dust.safetensors",
    ]
    assert "its CLIP strength 1 has no effect" in done.err
    assert "+ create  Knight" in compose("plan", "recipes/knight.yaml", at=project).out


def test_an_image_is_imported_as_json(project: Path) -> None:
    prompt = json.dumps(api(loader("ink-lines.safetensors", 0.7), loader("gone\x1b[2J", 1)))
    (project / "Image.PNG").write_bytes(png(text_chunk("prompt", prompt)))
    ran = compose("import", "Image.PNG", "-o", "json", at=project)
    assert ran.status == 1
    (one,) = json.loads(ran.out)["imported"]
    assert (one["file"], one["name"], "recipe" in one) == ("Image.PNG", "Image", False)
    assert [(lora["name"], lora["scale"]) for lora in one["loras"]] == [("Ink Lines", 0.7)]
    assert "the target has no such LoRA" in one["problems"][0]
    text = compose("import", "Image.PNG", at=project)
    assert (text.status, text.out, "\x1b" in text.err) == (1, "", False)
    assert text.err.splitlines()[-1].startswith("skipped Image.PNG (Image): node 11 (LoraLoader)")


def test_models_are_imported_as_json(applied: Path) -> None:
    (id,) = [id for name, id in ids(applied).items() if name == "Pixel Rogue"]
    (kept,) = json.loads(compose("import", id, "-o", "json", at=applied).out)["imported"]
    assert (kept["modelId"], kept["notes"]) == (id, ["in the lock already"])
    compose("forget", "Pixel Rogue", at=applied)
    (applied / ROGUE).unlink()
    (new,) = json.loads(compose("import", id, "-o", "json", at=applied).out)["imported"]
    assert (new["recipe"], new["problems"], new["notes"]) == (ROGUE, [], [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no ids are given, and no workflow"),
        (["knight.jpg"], "knight.jpg is neither a model id nor a workflow"),
        (["recipes/loras"], "recipes/loras is neither a model id nor a workflow"),
        (["model_a", "knight.json"], "ids and workflows can't be mixed"),
        (["knight.json", "--all"], "workflows can't be used with --all"),
        (["model_a", "--name", "Knight"], "--name is for one workflow"),
        (["a.json", "b.json", "--name", "Knight"], "--name is for one workflow"),
        (["a.json"], "a.json does not exist"),
    ],
)
def test_an_argument_is_an_id_or_a_workflow(
    project: Path, arguments: list[str], words: str
) -> None:
    ran = compose("import", *arguments, at=project)
    assert (ran.status, words in ran.err) == (64, True), ran.err


def test_a_workflow_behind_a_link_out_of_the_project_is_not_read(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "knight.json"
    outside.write_bytes(as_bytes(api(loader("ink-lines.safetensors", 0.7))))
    (project / "link.json").symlink_to(outside)
    ran = compose("import", "link.json", at=project)
    assert (ran.status, "leads out of" in ran.err) == (64, True)
    assert compose("import", str(outside), at=project).status == 0


def test_scales_of_the_extended_range_are_applied_and_imported(applied: Path) -> None:
    recipe = applied / ROGUE
    edit(recipe, "scale: 0.6\n", "scale: -1.5\n")
    refused = compose("validate", at=applied)
    assert (refused.status, "E104" in refused.out, "scaleRange" in refused.out) == (65, True, True)
    recipe.write_text(recipe.read_text(encoding="utf-8") + "scaleRange: extended\n", "utf-8")
    shown = compose("plan", at=applied)
    assert "scale of Pixel Dust 0.6 -> -1.5" in shown.out
    assert compose("apply", at=applied).status == 0
    made = ids(applied)["Pixel Rogue"]
    recipe.unlink()
    compose("forget", "Pixel Rogue", at=applied)
    assert compose("import", made, at=applied).status == 0
    assert "scaleRange: extended\n" in recipe.read_text(encoding="utf-8")
    assert "No changes" in compose("apply", at=applied).out
    assert ids(applied)["Pixel Rogue"] == made
