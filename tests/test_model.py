"""The table of described fields, and all that must agree with it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

from support.model_types import COMPOSITION

from composer.files.schemas import schema
from composer.model import DESCRIBED, Candidate, Content, Described, Entry, Next, Replaced
from composer.targets.local.records import NewComposition
from composer.targets.local.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def test_every_described_field_is_in_value_schema_and_database(tmp_path: Path) -> None:
    names = [field.name for field in DESCRIBED]
    assert [field.name for field in fields(Described)] == names
    recipe = json.loads(schema("recipe"))["properties"]
    assert {f.name: f.longest for f in DESCRIBED} == {n: recipe[n]["maxLength"] for n in names}
    store = Store(tmp_path / "engine.sqlite3", write=True)
    said = Described(**{name: f"a {name}" for name in names})
    id = store.create(iter(["model_a"]), NewComposition("Knight", COMPOSITION, (), said))
    record = store.record(id)
    store.close()
    assert record is not None and record.texts == said.texts


def test_what_is_not_said_is_left_out_and_an_empty_text_is_said() -> None:
    assert Described().texts == {}
    assert Described(description="").texts == {"description": ""}


def test_all_ids_of_an_entry_are_named_once() -> None:
    entry = Entry(
        "Knight",
        composition="now",
        next=Next("next", Content(COMPOSITION, ()), "created"),
        replaced=(Replaced("old", "Knight"),),
        candidates=(Candidate("other", "Knight"), Candidate("old", "Knight")),
    )
    assert entry.ids == ("now", "next", "old")
    assert entry.all_ids == ("now", "next", "old", "other")
    assert [one.id for one in entry.possible] == ["now", "next", "other", "old"]
