"""The worker that makes images: what survives a kill, what fails alone, what waits for nobody."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support import serving
from support.engine_files import PATIENCE
from support.painter import Painter
from support.sizes import size

from composer.errors import TargetError
from composer.server.rendering import Interrupt
from composer.targets.local.executors import NoExecutor
from composer.targets.local.generations import Generations
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.previews.cells import Cell
    from composer.renderers.base import Keep

SMALL: dict[str, Any] = {"width": 128, "height": 128, "numInferenceSteps": 2}


@dataclass
class HeldPainter(Painter):
    """A painter that holds before each image until it is let go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)
    after: Callable[[], None] = lambda: None

    def _keep(self, cell: Cell, keep: Keep) -> None:
        self.reached.set()
        assert self.goes_on.wait(PATIENCE)
        super()._keep(cell, keep)


@dataclass
class PatientPainter(Painter):
    """A painter that takes an hour for each image, unless it is interrupted."""

    interrupt: Interrupt = field(default_factory=Interrupt)
    begun: threading.Event = field(default_factory=threading.Event)

    def _keep(self, cell: Cell, keep: Keep) -> None:
        self.begun.set()
        self.interrupt.sleep(3600)


class Scribbler(Painter):
    """A painter whose images are none."""

    def _keep(self, cell: Cell, keep: Keep) -> None:
        keep(cell, b"<html>an image, honestly</html>")


class Idler(Painter):
    """A painter that makes nothing, and doesn't say so."""

    def _keep(self, cell: Cell, keep: Keep) -> None:
        pass


class Crashing(Painter):
    """A painter with a bug."""

    def _keep(self, cell: Cell, keep: Keep) -> None:
        raise ZeroDivisionError("division by zero")


# --- kills -------------------------------------------------------------------------------


def painted(root: Path) -> list[str]:
    """The digests of all images that were painted, by whichever server."""
    log = root / "painted.txt"
    return log.read_text().split() if log.exists() else []


def until_painted(root: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(painted(root)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_server_that_is_killed_goes_on_where_it_was_and_charges_nothing_twice(
    root: Path,
) -> None:
    env = {"PAINTER_LOG": str(root / "painted.txt"), "PAINTER_DELAY": "0.1", "PAINTER_DIES_AT": "2"}
    with serving.process(root, paints=True, env=env) as served:
        ids = [served.generate(**SMALL, seed=10 * n, numOutputs=n) for n in (1, 2, 1, 3)]
        until_painted(root, 2)  # the second image of the second job takes the server with it
        served.kill()
        assert "images: canvas" in served.lines
        served.more_env = {**env, "PAINTER_DIES_AT": ""}
        served.start()
        jobs = [served.ended(id) for id in ids]
        assert {job["status"] for job in jobs} == {"success"}
        assert served.charged() == (4, 63)
        images = [image for job in jobs for image in served.images(job)]
        names = sorted(file.name for file in (served.state / "assets").iterdir())
    assets = [f"{id}.png" for job in jobs for id in job["metadata"]["assetIds"]]
    assert names == sorted(assets)
    assert (len(images), len(set(images))) == (7, 6)  # two jobs asked for the same one
    assert [job["metadata"]["input"]["seed"] for job in jobs] == [10, 20, 10, 30]
    assert (len(painted(root)), len(set(painted(root)))) == (8, 6)  # one job was begun twice


def test_jobs_wait_for_a_server_that_makes_images(root: Path) -> None:
    library = root / "recipes" / "loras"
    held = HeldPainter()
    with serving.thread(root, library, renderer=held) as served:
        ids = [served.generate(**SMALL) for _ in range(2)]
        assert held.reached.wait(PATIENCE)
        held.goes_on.set()
        served.ended(ids[0])
    with Engine(root / "state", library) as engine:
        for number in range(3):
            input = {**SMALL, "prompt": "x", "loras": [], "lorasScale": [], "guidance": 3.5}
            input |= {"numOutputs": 1, "seed": number}
            Generations(engine.store).add(f"job_{number}", "", "model_x", input=input, cost=9)
    with serving.thread(root, library) as served:
        assert served.ok("GET", "/jobs/job_0")["job"]["status"] == "queued"
    with serving.thread(root, library, renderer=Painter()) as served:
        for number in range(3):
            assert served.ended(f"job_{number}")["status"] == "success"


def test_a_server_that_stops_while_an_image_is_made(root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("composer.server.rendering.STOP_TIMEOUT", 0.05)
    library = root / "recipes" / "loras"
    held = HeldPainter()
    with serving.thread(root, library, renderer=held) as served:
        id = served.generate(**SMALL)
        assert held.reached.wait(PATIENCE)
    held.goes_on.set()
    for thread in threading.enumerate():
        if thread.name == "compose-rendering":
            thread.join(PATIENCE)
    with serving.thread(root, library, renderer=Painter()) as served:
        job = served.ended(id)
        assert job["status"] == "success" and served.images(job)
        assert served.charged() == (1, 9)


# --- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("painter", "words"),
    [
        (Painter(fails={2: TargetError("out of memory")}), "out of memory"),
        (Scribbler(), "it is not an image"),
        (Idler(), "made no image of seed 5"),
        (Crashing(), "unexpected ZeroDivisionError: division by zero"),
    ],
    ids=["an error", "no image", "nothing", "a bug"],
)
def test_a_job_that_fails_has_no_asset_and_stops_no_other(
    root: Path, painter: Painter, words: str
) -> None:
    with serving.thread(root, root / "recipes" / "loras", renderer=painter) as served:
        job = served.ended(served.generate(**SMALL, numOutputs=2, seed=5))
        assert (job["status"], job["metadata"].get("assetIds")) == ("failure", None)
        assert words in job["metadata"]["error"]
        assert job["billing"]["cuCost"] == 18  # as on the service, where it is refunded
        assert list((root / "state" / "assets").iterdir()) == []
        if painter.fails:
            assert served.ended(served.generate(**SMALL))["status"] == "success"
        assert "Traceback" not in "\n".join(served.lines)


@dataclass
class Lonely(Painter):
    """A painter whose workers are away at first."""

    away: int = 3

    def _keep(self, cell: Cell, keep: Keep) -> None:
        if self.away:
            self.away -= 1
            raise NoExecutor("nobody answers at dask://nowhere:1")
        super()._keep(cell, keep)


def test_a_job_waits_until_there_are_workers_and_that_is_said_once(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving.thread(root, root / "recipes" / "loras", renderer=Lonely()) as served:
        job = served.ended(served.generate(**SMALL))
        assert (job["status"], served.charged()) == ("success", (1, 9))
        assert len(job["statusHistory"]) == 9  # queued and in progress, four times
    said = [one.getMessage() for one in caplog.records if one.name == "composer.server.rendering"]
    assert said == ["images can't be made now: nobody answers at dask://nowhere:1"]


def test_what_the_renderer_can_t_make_fails(root: Path) -> None:
    with serving.thread(root, root / "recipes" / "loras", renderer=Painter()) as served:
        inputs: dict[str, Any] = {"loras": served.loras(), "lorasScale": [-1]}
        job = served.ended(served.generate(**SMALL, **inputs))
        assert job["status"] == "failure"
        assert "the painter takes scales from 0 to 2" in job["metadata"]["error"]


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that refuses files")
def test_a_folder_that_can_t_be_written_fails_the_job(root: Path) -> None:
    with serving.thread(root, root / "recipes" / "loras", renderer=Painter()) as served:
        (root / "state" / "assets").rmdir()
        (root / "state" / "assets").write_bytes(b"")
        job = served.ended(served.generate(**SMALL))
        assert job["status"] == "failure"
        assert "assets" in job["metadata"]["error"]


def test_a_link_in_place_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "state").mkdir()
    (root / "state" / "assets").symlink_to(tmp_path, target_is_directory=True)
    with (
        pytest.raises(TargetError, match="is a link"),
        serving.thread(root, root / "recipes" / "loras", renderer=Painter()),
    ):
        pass


# --- the queue ---------------------------------------------------------------------------


def test_a_job_that_is_canceled_leaves_nothing(root: Path) -> None:
    held = HeldPainter()
    with serving.thread(root, root / "recipes" / "loras", renderer=held) as served:
        runs, waits = served.generate(**SMALL), served.generate(**SMALL)
        assert held.reached.wait(PATIENCE)
        for id, before in ((runs, "in-progress"), (waits, "queued")):
            assert served.ok("GET", f"/jobs/{id}")["job"]["status"] == before
            canceled = served.ok("POST", f"/jobs/{id}/action", {"action": "cancel"})["job"]
            assert canceled["status"] == "canceled"
        held.goes_on.set()
        last = served.ended(served.generate(**SMALL))
        assert last["status"] == "success"
        for id in (runs, waits):
            job = served.ok("GET", f"/jobs/{id}")["job"]
            assert (job["status"], job["metadata"].get("assetIds")) == ("canceled", None)
        files = {file.stem for file in (root / "state" / "assets").iterdir()}
        assert files == set(last["metadata"]["assetIds"])
        assert len(held.made) == 2  # the one that waited was never begun


def test_what_is_canceled_or_stopped_is_not_rendered_to_its_end(root: Path) -> None:
    library, patient = root / "recipes" / "loras", PatientPainter()
    with serving.thread(root, library, renderer=patient, interrupt=patient.interrupt) as served:
        ids = [served.generate(**SMALL, seed=seed) for seed in range(2)]
        for id in ids:
            assert patient.begun.wait(PATIENCE)
            patient.begun.clear()
            if id == ids[0]:
                served.ok("POST", f"/jobs/{id}/action", {"action": "cancel"})
    with serving.thread(root, library) as served:
        statuses = [served.ok("GET", f"/jobs/{id}")["job"]["status"] for id in ids]
        assert statuses == ["canceled", "queued"]


def test_several_jobs_at_once_end_one_by_one_each_as_it_went(root: Path) -> None:
    """As with an executor: the renderer gets what waits, and each job ends when it has its images.
    What two jobs ask for is made once."""
    painter = HeldPainter(fails={2: TargetError("out of memory")})
    with serving.thread(root, root / "recipes" / "loras", renderer=painter, at_once=32) as served:
        painter.goes_on.set()
        served.ended(served.generate(**SMALL))
        painter.goes_on.clear()
        painter.reached.clear()
        held = served.generate(**SMALL)
        assert painter.reached.wait(PATIENCE)
        bad = {"loras": served.loras(), "lorasScale": [-1]}
        queued: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2}, bad, {"seed": 1}, {"seed": 3}]
        ids = [served.generate(**SMALL, **inputs) for inputs in queued]
        canceled = served.generate(**SMALL, seed=4)
        served.ok("POST", f"/jobs/{canceled}/action", {"action": "cancel"})
        painter.goes_on.set()
        jobs = [served.ended(id) for id in (held, *ids, canceled)]
        assert [job["status"] for job in jobs] == [
            "success",
            "success",
            "failure",
            "failure",
            "success",
            "success",
            "canceled",
        ]
        assert "out of memory" in jobs[2]["metadata"]["error"]
        assert "scales from 0 to 2" in jobs[3]["metadata"]["error"]
        assert served.images(jobs[1]) == served.images(jobs[4])
        assert [cell.seed for cell in painter.made][2:] == [1, 3]
        assert len({job["statusHistory"][1]["date"][:-2] for job in jobs[1:3]}) == 1


def test_two_servers_of_one_folder_share_the_work_and_make_nothing_twice(root: Path) -> None:
    library, painters = root / "recipes" / "loras", (Painter(), HeldPainter())
    with serving.thread(root, library, renderer=painters[1]) as one:
        first = one.generate(**SMALL, seed=0)
        assert painters[1].reached.wait(PATIENCE)
        with serving.thread(root, library, renderer=painters[0]) as other:
            servers = (one, other)
            ids = [servers[n % 2].generate(**SMALL, seed=n) for n in range(1, 7)]
            assert other.charged() == (7, 63)
            assert painters[0].made == []  # the other one has the lock
            painters[1].goes_on.set()
            for id in (first, *ids):
                assert other.ended(id)["status"] == "success"
    seeds = [cell.seed for painter in painters for cell in painter.made]
    assert sorted(seeds) == list(range(7))


def test_progress_is_told_image_by_image(root: Path) -> None:
    held = HeldPainter()
    with serving.thread(root, root / "recipes" / "loras", renderer=held) as served:
        id = served.generate(**SMALL, numOutputs=4)
        held.goes_on.set()
        job = served.ended(id)
        assert job["progress"] == 1.0
        assert [entry["status"] for entry in job["statusHistory"]] == [
            "queued",
            "in-progress",
            "success",
        ]


def test_a_long_queue_makes_no_other_call_wait(root: Path) -> None:
    held = HeldPainter()
    with serving.thread(root, root / "recipes" / "loras", renderer=held) as served:
        ids = [served.generate(**SMALL) for _ in range(size(20, 500))]
        assert held.reached.wait(PATIENCE)
        began = time.monotonic()
        model = served.create()
        served.ok("PUT", f"/models/{model}/train")
        assert served.finished(model)["status"] == "trained"
        for id in ids[:10]:
            assert served.ok("GET", f"/jobs/{id}")["job"]["status"] in ("queued", "in-progress")
        assert served.charged() == (len(ids), 9 * len(ids))
        assert time.monotonic() - began < PATIENCE / 4
        held.goes_on.set()
        assert {served.ended(id)["status"] for id in ids} == {"success"}
        begun = [cell.seed for cell in held.made]
        wanted = [served.ok("GET", f"/jobs/{id}")["job"]["metadata"]["input"]["seed"] for id in ids]
        assert begun == wanted  # first come, first served
