"""A recipe of a second model family, from the file to the trained composition and back.

The family is registered as data; no module of the program knows it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support import serving
from support.castle import CASTLE, castle, register_castle
from support.model_types import COMPOSITION

from composer import Project, Verb, open_target
from composer.lock import LOCK_NAME
from composer.lora import read

if TYPE_CHECKING:
    from pathlib import Path

    from composer import Target

RECIPE = """\
type: castle.2-composition
name: Two Towers
concepts:
  - {name: split, scale: 0.5}
  - {name: whole, scale: 0.25}
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_castle(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    loras = tmp_path / "project" / "recipes" / "loras"
    loras.mkdir(parents=True)
    castle(loras, "split.safetensors", "castle.towers.0.left", 4)
    castle(loras, "whole.safetensors", "towers.0.pair", 14)
    root = tmp_path / "project"
    (root / "recipes" / "towers.yaml").write_text(RECIPE)
    return root


def applied(root: Path, target: Target) -> str:
    """Apply, check what the lock and the target say of it, and answer the composition's id."""
    plan = Project(root).plan(target)
    assert [action.verb for action in plan.changes] == [Verb.CREATE]
    report = Project(root).apply(target, plan)
    assert report.exit_status == 0
    id = Project(root).outputs(target)["Two Towers"]
    lock = json.loads((root / LOCK_NAME).read_text())
    (locked,) = lock["targets"][target.key]["recipes"].values()
    assert (locked["type"], locked["composition"]) == ("castle.2-composition", id)
    assert target.get_models([id])[id].type == "castle.2-composition"
    assert {m.type for m in target.list_models()} == {CASTLE.types.lora, CASTLE.types.composition}
    assert not Project(root).plan(target).changes
    return id


def test_on_the_local_target(root: Path) -> None:
    with open_target("local", Project(root)) as target:
        id = applied(root, target)
        inspection = target.inspect(target.get_models([id])[id].concepts or ())
    result = read(Project(root).state / "models" / f"{id}.safetensors")
    assert (result.family, result.metadata["modelspec.title"]) == (CASTLE, id)
    assert list(inspection.mix.blocks) == ["tower 0"]


def test_through_the_server(root: Path, tmp_path: Path) -> None:
    with serving.thread(tmp_path, root / "recipes" / "loras") as served:
        with open_target(served.url, Project(root), env=served.env) as target:
            id = applied(root, target)
        (job,) = served.ok("GET", "/jobs")["jobs"]
        assert job["jobType"] == "castle-model-training"
        loras = served.ok("GET", "/models", params={"type": CASTLE.types.lora})["models"]
        concepts = [{"modelId": lora["id"], "scale": 0.5} for lora in loras]
        body = {"name": "Other", "type": COMPOSITION, "concepts": concepts}
        refused = served.call("POST", "/models", body)
        assert (refused.status_code, "castle.2-lora" in refused.text) == (400, True)
        assert served.call("PUT", f"/models/{id}", {"type": COMPOSITION}).status_code == 400


def test_another_type_is_another_model(root: Path) -> None:
    """Identity is type, name and concepts: the digest says so, and so does the reason."""
    with open_target("local", Project(root)) as target:
        applied(root, target)
        file = root / "recipes" / "towers.yaml"
        file.write_text(RECIPE.replace("castle.2-composition", COMPOSITION))
        (action,) = Project(root).plan(target).actions
        reason = action.explanation.reason
        assert (action.verb, "only a flux.1-lora can be composed" in reason) == (
            Verb.BLOCKED,
            True,
        )


def test_an_unknown_type_is_a_problem_of_the_recipe(root: Path) -> None:
    (root / "recipes" / "towers.yaml").write_text(RECIPE.replace("castle.2", "castel.2"))
    (problem,) = Project(root).validate()
    assert (problem.code, problem.line) == ("E111", 1)
    assert problem.hint == "did you mean castle.2-composition?"


def test_its_compositions_are_imported_with_their_type(root: Path, tmp_path: Path) -> None:
    with open_target("local", Project(root)) as target:
        first = target.get_models([applied(root, target)])
        (root / "recipes" / "towers.yaml").unlink()
        (root / LOCK_NAME).unlink()
        (imported,) = Project(root, may_be_empty=True).import_models(target)
        assert imported.id in first
        text = (root / imported.path).read_text()
        assert text.startswith("type: castle.2-composition\n")
        assert not Project(root).plan(target).changes
