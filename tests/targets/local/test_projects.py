"""Projects in the store: an older store gets them, and the engine in process knows but one."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from support.engine_files import trained, write_lora
from support.model_types import COMPOSITION, LORA

from composer.errors import NotFound
from composer.model import Concept
from composer.targets.local.database import STEPS, VERSION
from composer.targets.local.service import Engine
from composer.targets.local.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    write_lora(tmp_path / "loras" / "ink.safetensors", 1)
    with Engine(tmp_path / "state", tmp_path / "loras") as engine:
        yield engine


def make(engine: Engine, name: str = "K") -> str:
    (lora,) = engine.list_models(LORA)
    return engine.create(name, [Concept(lora.id, 0.5)], type=COMPOSITION).id


def test_a_view_sees_its_project_s_compositions_alone(engine: Engine) -> None:
    views = [engine, engine.of_project("a"), engine.of_project("b")]
    ids = [make(view) for view in views]
    assert len(set(ids)) == 3
    for own, view in zip(ids, views, strict=True):
        assert [model.id for model in view.list_models(COMPOSITION)] == [own]
        assert view.get_models(ids).keys() == {own}
        assert len(view.list_models(LORA)) == 1
        for other in set(ids) - {own}:
            with pytest.raises(NotFound):
                view.delete(other)


def test_pruning_spares_the_other_projects(engine: Engine, tmp_path: Path) -> None:
    view = engine.of_project("a")
    theirs, ours = make(view), make(engine, "L")
    for id, side in ((theirs, view), (ours, engine)):
        side.train(id)
        assert trained(side, id).trained
    (tmp_path / "state" / "models" / "stray.safetensors").write_bytes(b"x")
    assert engine.prune([]) == sorted([ours, "stray"])
    assert view.result(theirs).exists()
    assert view.prune([]) == [theirs]


def test_only_a_view_never_gives_an_id_twice(engine: Engine) -> None:
    view = engine.of_project("")
    first = make(engine)
    engine.delete(first)
    second = make(view)
    assert second != first
    view.delete(second)
    assert make(engine) == first


def older(path: Path) -> None:
    """A store of version 1, with a composition."""
    with sqlite3.connect(path) as db:
        for statement in STEPS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(
            "INSERT INTO models (id, name, concepts, status, tags, created_at, updated_at)"
            " VALUES ('model_old', 'Old', '[[\"model_a\", 0.5]]', 'new', '[]', 1, 1)"
        )
    db.close()


@pytest.mark.parametrize("write", [True, False])
def test_an_older_store_is_read_and_brought_up_where_it_may_be_written(
    tmp_path: Path, write: bool
) -> None:
    path = tmp_path / "engine.sqlite3"
    older(path)
    store = Store(path, write=write)
    (record,) = store.records()
    store.close()
    assert (record.id, record.project, record.deleted_at) == ("model_old", "", None)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION if write else 1,)
    db.close()
