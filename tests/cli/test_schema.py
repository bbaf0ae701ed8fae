"""`compose schema`: the published schemas."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import jsonschema
from support.cli import REPO, compose

if TYPE_CHECKING:
    from pathlib import Path


def test_schemas_are_printed(tmp_path: Path) -> None:
    for name in ("recipe", "lock", "plan"):
        printed = json.loads(compose("schema", name, at=tmp_path).out)
        jsonschema.Draft7Validator.check_schema(printed)
    assert compose("schema", "nope", at=tmp_path).status == 64


def test_a_schema_with_names_offers_them_and_admits_others(project: Path) -> None:
    ran = compose("schema", "recipe", "--with-names", at=project)
    assert (ran.status, ran.err) == (0, "")
    shown = json.loads(ran.out)
    offered, _ = shown["definitions"]["concept"]["properties"]["name"]["anyOf"]
    assert offered["enum"] == ["Castle Stone", "Ink Lines", "Pixel Dust", "Storybook Watercolour"]
    checked = jsonschema.Draft7Validator(shown)
    for concept in ({"name": "Ink Lines"}, {"name": "Another"}, {"modelId": "model_1"}):
        assert checked.is_valid({"name": "x", "concepts": [{**concept, "scale": 0.5}]})
    assert not checked.is_valid({"name": "x", "concepts": [{"name": "../x", "scale": 0.5}]})


def test_names_come_from_the_library_that_is_named_else_from_the_lock(project: Path) -> None:
    loras = project.parent / "loras"
    (project / "recipes/loras").rename(loras)
    (loras / "~no name.safetensors").write_bytes(b"")

    def names(*flags: str) -> list[str]:
        shown = json.loads(compose("schema", "recipe", "--with-names", *flags, at=project).out)
        field = shown["definitions"]["concept"]["properties"]["name"]
        return [*field.get("anyOf", [{"enum": []}])[0]["enum"]]

    assert names() == []
    assert names("--library", str(loras))[:2] == ["Castle Stone", "Ink Lines"]
    assert "~no name" not in names("--library", str(loras))
    shutil.copy(REPO / "compose.lock", project)
    assert "Ink Lines" in names()


def test_names_are_for_recipes_alone(tmp_path: Path) -> None:
    assert compose("schema", "plan", "--with-names", at=tmp_path).status == 64
    assert compose("schema", "recipe", "--library", ".", at=tmp_path).status == 64
    bare = compose("schema", "recipe", "--with-names", at=tmp_path).out
    assert json.loads(bare) == json.loads(compose("schema", "recipe", at=tmp_path).out)
