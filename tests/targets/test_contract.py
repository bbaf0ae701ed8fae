"""One contract for all targets: the local one, and the HTTP client talking to a served one.

Every test runs against both; tests at the end say what differs by design. With a target's name in
COMPOSE_CONTRACT_TARGET, the contract is tested against that target of another distribution. Its
LoRAs must be the files in `loras/`, and a training must take long enough to be canceled.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support import serving
from support.engine_files import PATIENCE, free, write_lora
from support.model_types import COMPOSITION, LORA
from support.serving import Gate

from composer import Project, open_target
from composer.errors import NotFound, TargetError
from composer.model import Concept, Content, Described, KnownState, parameters
from composer.targets.base import observe
from composer.targets.local.service import Engine
from composer.targets.scenario.credentials import Credentials
from composer.targets.scenario.service import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.model import Model
    from composer.targets.base import Target

BUILT_IN = ("engine", "scenario")
OTHER = os.environ.get("COMPOSE_CONTRACT_TARGET")
KINDS = (OTHER,) if OTHER else BUILT_IN


def opened(kind: str, root: Path, stack: ExitStack, gate: Gate | None = None) -> Target:
    """A target of this kind, on a library of three LoRAs."""
    library = root / "loras"
    for seed, name in enumerate(("Ink", "Paint", "Stone")):
        write_lora(library / f"{name}.safetensors", seed, title=name, rank=seed + 1)
    if kind not in BUILT_IN:
        project = Project(root, may_be_empty=True, state_dir=root.parent / "states")
        return stack.enter_context(open_target(kind, project, env={}))
    space = gate or free
    if kind == "engine":
        state = root / "state"
        return stack.enter_context(Engine(state, library, poll_interval=0.02, free_space=space))
    served = stack.enter_context(serving.thread(root, library, free_space=space))
    auth = Credentials.basic(served.key, served.secret)
    return stack.enter_context(Scenario(served.url, auth=auth, poll_interval=0.02))


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with ExitStack() as stack:
        yield opened(request.param, tmp_path, stack)


def loras(target: Target) -> dict[str, str]:
    return {model.name: model.id for model in target.list_models(LORA)}


def concepts(target: Target, ink: float = 0.65, paint: float = 0.8) -> list[Concept]:
    ids = loras(target)
    return [Concept(ids["Ink"], ink), Concept(ids["Paint"], paint)]


def ended(target: Target, id: str) -> Model:
    """The model once it is neither queued nor training."""
    deadline = time.monotonic() + PATIENCE
    while (model := target.get_models([id])[id]).status == "training":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return model


def test_loras_are_listed_by_name(target: Target) -> None:
    assert set(loras(target)) == {"Ink", "Paint", "Stone"}
    assert {model.type for model in target.list_models(LORA)} == {LORA}
    assert target.list_models(COMPOSITION) == []


def test_create_train_and_watch(target: Target) -> None:
    made = target.create(
        "Knight", concepts(target), described=Described(description="Soft."), type=COMPOSITION
    )
    assert (made.type, made.status, made.name) == (COMPOSITION, "new", "Knight")
    training = target.train(made.id, parameters({"learningRate": 0.5}))
    assert training.job is not None
    done = ended(target, made.id)
    assert done.trained
    assert done.parameters == (("learningRate", 0.5),)
    assert Content.of(COMPOSITION, done.concepts or ()) == Content.of(COMPOSITION, concepts(target))
    job = target.job(training.job)
    assert (job.status, job.progress) == ("success", 1.0)
    assert target.get_models([made.id])[made.id].description == "Soft."


def test_newest_first(target: Target) -> None:
    ids = [target.create(f"Knight {n}", concepts(target), type=COMPOSITION).id for n in range(3)]
    assert [model.id for model in target.list_models(COMPOSITION)] == ids[::-1]


def test_twins_are_two_models(target: Target) -> None:
    one, two = (target.create("Knight", concepts(target), type=COMPOSITION).id for _ in range(2))
    assert one != two


def test_update_in_place(target: Target) -> None:
    id = target.create("Knight", concepts(target), type=COMPOSITION).id
    target.update(id, name="Squire")
    target.update(id, described=Described(description="Young."))
    target.tag(id, add=["b", "a"])
    target.tag(id, add=["a"], remove=["b", "never there"])
    model = target.get_models([id])[id]
    assert (model.name, model.description, model.tags) == ("Squire", "Young.", frozenset({"a"}))


def test_unknown_ids(target: Target) -> None:
    assert target.get_models(["model_nope", "../x"]) == {}
    for verb in (target.train, target.cancel, target.job):
        with pytest.raises(NotFound):
            verb("model_nope")
    with pytest.raises(NotFound):
        target.update("model_nope", name="x")


def test_deleted_is_gone(target: Target) -> None:
    id = target.create("Knight", concepts(target), type=COMPOSITION).id
    target.delete(id)
    assert target.list_models(COMPOSITION) == []
    assert all(model.gone for model in target.get_models([id]).values())


def test_a_lora_is_never_deleted(target: Target) -> None:
    ink = loras(target)["Ink"]
    with pytest.raises(TargetError):
        target.delete(ink)
    assert "Ink" in loras(target)


def test_concepts_that_are_none(target: Target) -> None:
    with pytest.raises(TargetError):
        target.create("Knight", [Concept("model_nope", 0.5)], type=COMPOSITION)
    made = target.create("Knight", concepts(target), type=COMPOSITION)
    with pytest.raises(TargetError):
        target.create("Knight", [Concept(made.id, 0.5)], type=COMPOSITION)
    with pytest.raises(TargetError):
        target.create("Knight", [], type=COMPOSITION)


def test_a_price_starts_nothing(target: Target) -> None:
    id = target.create("Knight", concepts(target), type=COMPOSITION).id
    price = target.price(id)
    assert price is not None and price >= 0
    assert target.get_models([id])[id].status == "new"


@pytest.mark.parametrize("kind", KINDS)
def test_training_twice_is_no_error_and_cancel_stops_it(kind: str, tmp_path: Path) -> None:
    gate = Gate()
    with ExitStack() as stack:
        target = opened(kind, tmp_path, stack, gate)
        try:
            id = target.create("Knight", concepts(target), type=COMPOSITION).id
            first = target.train(id)
            if kind in BUILT_IN:
                gate.reached()
            assert target.train(id).job == first.job
            target.cancel(id)
        finally:
            gate.open()
        assert ended(target, id).status == "training-canceled"
        assert target.train(id).status == "training"
        assert ended(target, id).trained


def test_observe_sees_all_that_is_there(target: Target) -> None:
    id = target.create("Knight", concepts(target), type=COMPOSITION).id
    seen = observe(target, [], KnownState())
    assert {id, *loras(target).values()} == seen.own
    assert seen.key == target.key
    assert seen.get(id) is not None


@pytest.mark.parametrize(("kind", "granted"), [("engine", True), ("scenario", False)])
def test_only_the_local_target_honours_a_requested_id(
    kind: str, granted: bool, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        target = opened(kind, tmp_path, stack)
        made = target.create("Knight", concepts(target), id="model_requested", type=COMPOSITION)
        assert (made.id == "model_requested") is granted


@pytest.mark.parametrize(
    ("kind", "remote", "refused"),
    [("engine", False, {"modelEpoch"}), ("scenario", True, {"precision", "scaleRange"})],
)
def test_what_differs_by_design(kind: str, remote: bool, refused: set[str], tmp_path: Path) -> None:
    with ExitStack() as stack:
        target = opened(kind, tmp_path, stack)
        assert (target.remote, set(target.unsupported)) == (remote, refused)
        assert (target.key == "local") is not remote
        assert (target.grace > 0) is remote
