"""Every JSON for programs has a published schema that describes it, and describes it narrowly.

`cli.compose` holds the output of every test's commands to them; here are those that it can't see.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from support.cli import REPO, compose, edit, samples, validator

from composer.cli.schema import SCHEMAS
from composer.files.schemas import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

INK, STONE = "recipes/loras/ink-lines.safetensors", "recipes/loras/castle-stone.safetensors"


def test_all_of_them_are_printed() -> None:
    shipped = {file.name.removesuffix(".schema.json") for file in (REPO / "schemas").iterdir()}
    assert shipped == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_describes_every_field_and_admits_no_other(name: str) -> None:
    whole = json.loads(schema(name))
    jsonschema.Draft7Validator.check_schema(whole)
    for rule in ("if", "then", "else"):  # on fields that are described above
        whole.pop(rule, None)
        whole.get("definitions", {}).get("concept", {}).pop(rule, None)
    objects = [part for part in parts(whole) if "properties" in part and "type" in part]
    assert objects
    for part in objects:
        assert part["additionalProperties"] is False, part
        undescribed = [key for key, value in part["properties"].items() if not told(value)]
        assert undescribed == []


def parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parts(inner)


def told(value: dict[str, Any]) -> bool:
    return bool(value.get("description")) or "$ref" in value or "const" in value


def test_what_merge_writes(tmp_path: Path) -> None:
    samples(tmp_path)
    for flags in (["--dry-run"], ["--format", "kohya"], ["--rank", "2"]):
        arguments = ["merge", f"{INK}:0.5", STONE, "-o", "k.safetensors", "--force", *flags]
        ran = compose(*arguments, "--json-into", "merged.json", at=tmp_path)
        assert ran.status == 0, ran.err
        written = json.loads((tmp_path / "merged.json").read_text("utf-8"))
        validator("merge").validate(written)
    assert written["kept"]
    arguments = ["merge", f"{INK}:0.5..1/0.5", "-o", "out/", "--json-into", "merged.json"]
    assert compose(*arguments, at=tmp_path).status == 0
    written = json.loads((tmp_path / "merged.json").read_text("utf-8"))
    validator("merge").validate(written)
    assert len(written["merges"]) == 2


def test_a_day_in_json(tmp_path: Path) -> None:
    """Every command that prints JSON, in a project that has something to say; none says nothing."""
    samples(tmp_path)

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        ran = compose(*arguments, "-o", "json", at=tmp_path)
        assert ran.status == status, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        assert found["formatVersion"] == 1
        return found

    assert run("lock")["pins"]
    assert run("plan")["hasChanges"]
    assert run("apply")["outcomes"][0]["composition"]
    edit(tmp_path / "recipes/pixel-rogue.yaml", "scale: 0.6", "scale: 0.7")
    assert run("apply", "--dry-run")["hasChanges"]
    assert {row["sync"] for row in run("status")["recipes"]} > {"in sync"}
    assert run("models")["models"]
    assert run("inspect", INK, STONE)["inspections"]
    assert run("doctor")["checks"]
    assert run("lock", "--upgrade", "--dry-run")["outdated"] == []
    lock = tmp_path / "compose.lock"
    text = lock.read_text("utf-8")
    start, end = text.index('        "recipes/pixel'), text.index('        "recipes/storybook')
    theirs = text[start:end].replace('"composition": "', '"composition": "theirs_', 1)
    sides = f"<<<<<<< ours\n{text[start:end]}=======\n{theirs}>>>>>>> theirs\n"
    lock.write_text(text[:start] + sides + text[end:], "utf-8")
    assert run("lock", "--repair")["repaired"]
    edit(tmp_path / "recipes/pixel-rogue.yaml", "scale: 0.7", "scale: 7")
    assert run("validate", status=65)["problems"]


def test_json_has_ids_and_on_the_local_target_files(tmp_path: Path) -> None:
    samples(tmp_path)

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        ran = compose(*arguments, at=tmp_path)
        assert ran.status == status and "Next:" not in ran.err, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    made = run("apply", "-o", "json")["outcomes"]
    files = {one["composition"]: one["file"] for one in made}
    assert len(files) == 4 and all(Path(file).is_file() for file in files.values())
    assert all(Path(file).name == f"{id}.safetensors" for id, file in files.items())
    rows = run("status", "-o", "json")["recipes"]
    assert {row["composition"]: row["file"] for row in rows} == files
    models = run("models", "-o", "json")["models"]
    assert {one["id"]: one["file"] for one in models if one["id"] in files} == files
    dry = run("pull", "--output", "json", "-o", f"{tmp_path}/out/", "--dry-run")
    assert dry["dryRun"] is True and not (tmp_path / "out").exists()
    pulled = run("pull", "--output", "json", "-o", f"{tmp_path}/out/")["pulled"]
    assert {one["composition"] for one in pulled} == set(files)
    assert all(Path(one["file"]).is_file() for one in pulled)

    dry = run("destroy", "Pixel Rogue", "--dry-run", "-o", "json")
    ((rogue,),) = ([*row["deleted"]] for row in dry["outcomes"])
    assert rogue["file"] == files[rogue["id"]] and Path(rogue["file"]).exists()
    (row,) = run("destroy", "Pixel Rogue", "-o", "json")["outcomes"]
    assert (row["state"], row["deleted"]) == ("deleted", [rogue])
    assert not Path(rogue["file"]).exists()

    (forgotten,) = run("forget", "Castle Keep", "-o", "json")["forgotten"]
    (loose,) = forgotten["ids"]
    for flags in (["--dry-run"], []):
        (row,) = run("prune", "--local", "-o", "json", *flags)["outcomes"]
        assert row["deleted"] == [{"id": loose, "file": files[loose]}]
    assert run("prune", "-o", "json")["outcomes"] == []
    (tmp_path / "recipes/tutorial/slime.yaml").unlink()
    assert run("prune", "-o", "json", "--dry-run")["outcomes"][0]["state"] == "delete"
    assert run("prune", "-o", "json")["outcomes"][0]["state"] == "deleted"
