"""Many clients that poll while models are trained, and a server that is killed meanwhile.

`python tests/bench load` does the same with 200 clients, LoRAs of full size and `compose apply`.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support import serving
from support.crowd import Crowd, Poll, Trainings, errors, trainings_of
from support.engine_files import PATIENCE, half_way, write_lora
from support.sizes import size

from composer.model import Concept
from composer.targets.local.service import Engine
from composer.targets.local.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Process


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose LoRAs take a moment to compose."""
    (tmp_path / ".git").mkdir()
    for seed, name in enumerate(("ink", "pixel")):
        write_lora(tmp_path / f"recipes/loras/{name}.safetensors", seed, rank=200, title=name)
    return tmp_path


def train(served: Process, count: int) -> list[str]:
    """Create and train so many models; each names the server's LoRAs at scales of its own."""
    body = served.recipe("", 0.0, 0.5)
    ids = []
    for number in range(count):
        body["name"], body["concepts"][0]["scale"] = f"K{number}", scale(number)
        ids.append(str(served.ok("POST", "/models", body)["model"]["id"]))
        served.ok("PUT", f"/models/{ids[-1]}/train")
    return ids


def scale(number: int) -> float:
    return round(0.01 * (number + 1), 2)


def test_a_crowd_sees_no_error_but_during_the_restart_and_every_job_is_done_once(
    root: Path,
) -> None:
    count = size(8, 40)
    with serving.process(root) as served:
        models = [Poll("/models?type=flux.1-composition&pageSize=20"), Poll("/jobs?pageSize=20")]
        with Crowd(served, size(40, 200), models, pause=0.2) as crowd:
            ids = train(served, count)
            deadline = time.monotonic() + PATIENCE
            while not crowd.answers(200):
                assert time.monotonic() < deadline
            killed = time.monotonic()
            served.kill()
            with closing(Store(served.state / "engine.sqlite3", write=False)) as store:
                assert store.waiting()  # it was killed in the middle
            served.start()
            ready = time.monotonic()
            for id in ids:
                assert served.finished(id)["status"] == "trained"
            since = crowd.answers(200)
            while crowd.answers(200) < since + crowd.clients:
                assert time.monotonic() < deadline
        assert errors(crowd.asked, [(killed, ready)]) == []
        assert errors(crowd.asked) != []  # the kill was felt
        assert crowd.answers(429) == 0
        assert trainings_of(served, count) == Trainings(lost=0, doubled=0)


def test_a_server_with_processes_that_is_killed_while_they_compose_goes_on(root: Path) -> None:
    """The results are those that an engine in this process makes, byte for byte."""
    with serving.process(root, "--executor", "processes:2") as served:
        ids, state = train(served, 6), served.state
        deadline = time.monotonic() + PATIENCE
        while not half_way(state):
            assert time.monotonic() < deadline
        served.kill()
        served.start()
        for id in ids:
            assert served.finished(id)["status"] == "trained"
        assert trainings_of(served, 6) == Trainings(lost=0, doubled=0)
        histories = [job["statusHistory"] for job in served.ok("GET", "/jobs")["jobs"]]
        assert max(len(history) for history in histories) > 3  # some were begun twice
        served.stop()
    assert half_way(state) == []
    results = {id: (state / "models" / f"{id}.safetensors").read_bytes() for id in ids}
    assert sorted(path.stem for path in (state / "models").iterdir()) == sorted(ids)
    with Engine(root / "local", root / "recipes/loras") as engine:
        loras = sorted(engine.list_models("flux.1-lora"), key=lambda model: model.name)
        for number, id in enumerate(ids):
            pairs = zip(loras, (scale(number), 0.5), strict=True)
            concepts = [Concept(lora.id, scale) for lora, scale in pairs]
            name, type = f"K{number}", "flux.1-composition"
            assert engine.create(name, concepts, type=type, id=id).id == id
            engine.train(id)
        deadline = time.monotonic() + PATIENCE
        while engine.store.waiting():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert {id: engine.result(id).read_bytes() for id in ids} == results
