"""The same against `compose serve`: real jobs, real images, and its own injection of faults."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from support import paid_once, serving
from support.cli import Ran, compose
from support.engine_files import PATIENCE, write_lora
from support.image_server import target_at
from support.painter import Painter
from support.sizes import size
from support.state import state_of

from composer import Project, Refused
from composer.images.decoding import as_png
from composer.previews.report import Price
from composer.project.options import PreviewOptions, RendererOptions
from composer.renderers.cache import CellCache
from composer.renderers.job_journal import NAME as JOURNAL

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from support.serving import Served

    from composer.previews.report import PreviewReport

FAULTS: tuple[dict[str, Any], ...] = (
    {"drop": "before"},
    {"drop": "after"},
    {"error": "before"},
    {"error": "after"},
    {"body": "truncated"},
    {"body": "malformed"},
    {"body": "not-json"},
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 503},
    {"status": 401},
    {"pause": {"at": "before", "until": "go"}, "drop": "before"},
    {"pause": {"at": "after", "until": "go"}, "drop": "after"},
)
SECOND_JOB = {"when": "POST /generate/custom/*", "nth": 3}  # the first asks for the price


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    write_lora(folder / "ink.safetensors", 1, title="Ink Lines")
    return folder


def suffer(folder: Path, library: Path, fault: dict[str, Any]) -> bool:
    """A run with this fault, then a plain one. Whether it fired."""
    state = folder / "previews"
    state.mkdir(parents=True)
    with serving.thread(folder, library, faults=[fault], renderer=Painter()) as served:
        (lora,) = served.loras()
        if "pause" in fault:
            dying = paid_once.process(paid_once.run_quietly, served.url, state, lora)
            kill_at_pause(dying, served, folder)
        else:
            paid_once.run_quietly(served.url, state, lora)
        fired = bool(served.faults)
        assert paid_once.run(served.url, state, lora).errors == {}
        check(served, state, lora)
        return fired


def kill_at_pause(dying: BaseProcess, served: Served, folder: Path) -> None:
    """Kill it while the server holds its call, and let the call go on."""
    deadline = time.monotonic() + PATIENCE
    while not served.events("paused") and dying.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    dying.kill()
    dying.join(PATIENCE)
    if served.events("paused"):
        (folder / "go").touch()
        served.wait_for("resumed")


def check(served: Served, state: Path, lora: str) -> None:
    """Each cell's image is that of one job, and there is no other job."""
    cells, cache = paid_once.cells_of(served.url, lora), CellCache(state)
    assert served.charged() == (len(cells), 9.0 * len(cells))
    jobs = {job["metadata"]["input"]["seed"]: job for job in served.ok("GET", "/jobs")["jobs"]}
    for cell in cells:
        (image,) = served.images(jobs[cell.seed])
        assert cache.path(cell).read_bytes() == as_png(image)
    assert not (state / JOURNAL).exists()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, library: Path) -> list[str]:
    """Those of a run in which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with serving.thread(folder, library, renderer=Painter()) as served:
        (lora,) = served.loras()
        assert paid_once.run(served.url, folder, lora).errors == {}
        calls = served.calls[1:]
        check(served, folder, lora)
    return calls


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_fault_of_the_served_engine(
    tmp_path: Path, library: Path, calls: list[str], fault: dict[str, Any]
) -> None:
    """At the request for the second image; in the long run at every call."""
    places: list[dict[str, Any]] = [SECOND_JOB]
    if size(0, 1):
        places += [{"call": at + 1} for at in range(1, len(calls))]  # the polls vary by one
    assert all([suffer(tmp_path / f"{n}", library, {**p, **fault}) for n, p in enumerate(places)])


# --- as a preview of a project -----------------------------------------------------------


def project_of(folder: Path) -> Project:
    """A project with one recipe; of its two prompts each has an image without LoRA and one with."""
    (folder / ".git").mkdir(parents=True)
    (folder / "recipes").mkdir()
    settings = '[previews]\nprompts = ["a knight", "a fox"]\nwidth = 128\nheight = 128\nsteps = 2\n'
    (folder / "compose.toml").write_text(settings)
    recipe = "name: Knight\nconcepts: [{name: Ink Lines, scale: 0.65}]\n"
    (folder / "recipes/knight.yaml").write_text(recipe)
    return opened(folder)


def opened(folder: Path) -> Project:
    """The same in any process: a state folder that does not depend on the environment."""
    return Project(folder, state_dir=str(folder.parent / "states"))


def preview(folder: Path, url: str, *, max_cost: float | None = None) -> PreviewReport:
    project = opened(folder)
    with (
        target_at(url) as target,
        project.open_renderer(target, RendererOptions("scenario", parallelism=1)) as renderer,
    ):
        return project.preview(target, renderer, PreviewOptions(max_cost=max_cost))


def previewed_quietly(folder: Path, url: str) -> None:
    """In a process of its own, which is killed."""
    preview(folder, url, max_cost=36.0)


def test_a_preview_says_what_it_spends_and_is_free_the_second_time(
    tmp_path: Path, library: Path
) -> None:
    project_of(tmp_path / "project")
    with serving.thread(tmp_path, library, renderer=Painter()) as served:
        with pytest.raises(Refused, match="rendering 4 images costs 36, and no limit is given"):
            preview(tmp_path / "project", served.url)
        report = preview(tmp_path / "project", served.url, max_cost=36.0)
        assert (report.price, report.spent, report.made) == (Price(4, 0, 36.0), 36.0, 4)
        again = preview(tmp_path / "project", served.url)
        assert (again.price, again.made, again.exit_status) == (Price(0, 4), 0, 0)
        assert served.charged() == (4, 36.0)


def test_a_preview_that_is_killed_is_continued(tmp_path: Path, library: Path) -> None:
    """It dies while its third image is asked for; all that was paid for is fetched."""
    folder = tmp_path / "project"
    project = project_of(folder)
    pause = {"when": "POST /generate/custom/*", "nth": 4}  # the first asks the price
    pause |= {"pause": {"at": "after", "until": "go"}, "drop": "after"}
    with serving.thread(tmp_path, library, faults=[pause], renderer=Painter()) as served:
        dying = paid_once.process(previewed_quietly, folder, served.url)
        kill_at_pause(dying, served, tmp_path)
        assert served.faults == [1] and dying.exitcode == -9
        open_jobs = (project.state / "previews" / JOURNAL).read_text()
        assert open_jobs.count('"event": "intent"') == 3
        report = preview(folder, served.url, max_cost=36.0)
        assert report.exit_status == 0 and report.failures == {}
        assert report.price.total == 18.0  # the one whose answer was lost may have to be paid
        assert report.spent == 9.0
        assert served.charged() == (4, 36.0)
        assert not (project.state / "previews" / JOURNAL).exists()


# --- as a command ------------------------------------------------------------------------


def command(folder: Path, served: Served, *arguments: str) -> Ran:
    """`compose preview` in this process, with the server's credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in served.env.items():
            patch.setenv(name, value)
        return compose("preview", "--target", served.url, *arguments, at=folder)


def test_the_command_shows_no_signed_link_and_names_what_failed(
    tmp_path: Path, library: Path
) -> None:
    """A download fails for good; the next run fetches it and pays nothing."""
    folder = tmp_path / "project"
    project_of(folder)
    gone = {"when": "GET /assets/*/content", "nth": 2, "status": 418}
    with serving.thread(tmp_path, library, faults=[gone], renderer=Painter()) as served:
        first = command(folder, served, "--max-cost", "36", "--out", "out", "--debug")
        assert first.status == 1 and served.faults == [1]
        assert "the download at 127.0.0.1" in first.out and "pays nothing" in first.out
        second = command(folder, served, "--out", "out", "--debug", "--force")
        assert second.status == 0, second.err
        assert served.charged() == (4, 36.0)
    said = [first.out, first.err, second.out, second.err]
    files = [file for at in (folder, state_of(folder)) for file in at.rglob("*") if file.is_file()]
    assert len(files) > 8
    written = b"".join(file.read_bytes() for file in files) + "".join(said).encode()
    assert b"signature=" not in written and b"expires=" not in written
