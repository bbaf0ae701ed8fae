"""Executors: the same bytes as in this process, whoever dies, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support.cli import compose, samples
from support.engine_files import PATIENCE, half_way, halted, trained, write_lora
from support.model_types import COMPOSITION, LORA

from composer.errors import UsageError
from composer.lora.fingerprint import Part, fingerprint_file
from composer.lora.merging import CompositionSpec, OutputOptions, write_composed
from composer.model import Concept
from composer.targets.local import executors
from composer.targets.local.executors import Executor, Processes, find_executor
from composer.targets.local.service import Engine
from composer.targets.local.tickets import FileTicket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUPPORT = Path(__file__).parents[2] / "support"
RANK = 512  # a composition takes a tenth of a second, and its file has 13 MB
SOME = 4  # compositions of which one is half-way when its worker is halted


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed in (1, 2):
        write_lora(folder / f"{seed}.safetensors", seed, rank=RANK)
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Engine]:
    """One engine with two processes, which start once for most of these tests."""
    state = tmp_path_factory.mktemp("processes") / "state"
    with Engine(state, library, executor=Processes(2)) as engine:
        yield engine


def make(engine: Engine, name: str, **parameters: int | str) -> str:
    concepts = [Concept(lora.id, 0.5) for lora in engine.list_models(LORA)]
    id = engine.create(name, concepts, type=COMPOSITION).id
    engine.train(id, tuple(parameters.items()))
    return id


def alone(tmp_path: Path, library: Path, id: str, **options: Any) -> bytes:
    """The result that is composed here, by a plain call."""
    files = sorted(library.iterdir())
    parts = [Part(mark, mark.read(), 0.5) for mark in map(fingerprint_file, files)]
    spec = CompositionSpec(
        tuple(sorted(parts, key=lambda part: part.id)), id, OutputOptions(**options)
    )
    write_composed(spec, tmp_path / "alone.safetensors", hint="")
    return (tmp_path / "alone.safetensors").read_bytes()


def children(of: int | None = None) -> list[psutil.Process]:
    """The processes that executors of this process, or another one, have started."""
    return [process for process in psutil.Process(of).children(recursive=True) if spawned(process)]


def spawned(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has just ended
        return False


def models(engine: Engine) -> Path:
    return engine.folder.models


def cleared(engine: Engine) -> Path:
    """The engine's state folder, without results of earlier tests."""
    engine.prune(())
    return engine.folder.root


# --- the same bytes ----------------------------------------------------------------------


def test_a_result_has_the_bytes_of_one_that_is_composed_here(
    engine: Engine, tmp_path: Path, library: Path
) -> None:
    options: list[dict[str, Any]] = [{}, {"precision": "float16"}, {"rank": RANK}]
    ids = [make(engine, f"K {parameters}", **parameters) for parameters in options]
    for id, parameters in zip(ids, options, strict=True):
        model = trained(engine, id)
        assert (model.status, model.error) == ("trained", None)
        assert engine.result(id).read_bytes() == alone(tmp_path, library, id, **parameters)
    assert not list(models(engine).glob(".*"))


def test_several_are_composed_at_once(engine: Engine) -> None:
    cleared(engine)
    ids = [make(engine, f"at once {number}") for number in range(4)]
    assert all(trained(engine, id).trained for id in ids)
    assert most_at_once(engine, ids) == 2


def most_at_once(engine: Engine, ids: list[str]) -> int:
    """How many of these jobs were in progress at the same time, as their histories say."""
    changes = []
    for id in ids:
        job = engine.training_job(str(engine.get_models([id])[id].job))
        assert job is not None
        changes += [(at, 1 if status == "in-progress" else -1) for status, at in job.history[1:]]
    return max(accumulate(change for _, change in sorted(changes)))


# --- whoever dies ------------------------------------------------------------------------


def test_workers_that_are_killed_half_way(
    engine: Engine, tmp_path: Path, library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=executors.__name__)
    state = cleared(engine)
    made = [make(engine, f"killed {number}") for number in range(SOME)]
    with halted(state, children) as ids:
        killed = children()
        for process in killed:
            process.kill()
    for id in made:
        assert trained(engine, id).trained
        assert engine.result(id).read_bytes() == alone(tmp_path, library, id)
    assert all(f"{id} runs again: " in caplog.text for id in ids)
    assert not {process.pid for process in killed} & {process.pid for process in children()}
    assert not list(models(engine).glob(".*"))


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_a_worker_stops_when_its_job_is_canceled(engine: Engine, verb: str) -> None:
    state = cleared(engine)
    made = {make(engine, f"{verb} {number}") for number in range(SOME)}
    with halted(state, children) as ids:
        composing = children()
        for id in ids:
            getattr(engine, verb)(id)
    rest = made - set(ids)
    assert all(trained(engine, id).trained for id in rest)
    deadline = time.monotonic() + PATIENCE
    while {file.stem for file in models(engine).iterdir()} != rest:
        assert time.monotonic() < deadline
    assert {process.pid for process in composing} <= {process.pid for process in children()}


def test_an_engine_that_is_killed(tmp_path: Path, library: Path) -> None:
    state = tmp_path / "state"
    paths = [str(SUPPORT.parent), str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, str(SUPPORT / "dying_engine.py"), "processes"]
    with (
        subprocess.Popen(
            [*command, str(state), str(library), "K"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        ) as process,
        halted(state, lambda: children(process.pid)) as ids,
    ):
        composing = children(process.pid)
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait()
        for worker in composing:
            worker.resume()
    gone, alive = psutil.wait_procs(composing, PATIENCE)
    assert (len(gone), alive) == (len(composing), [])  # nobody works for nobody
    with Engine(state, library) as engine:
        assert trained(engine, ids[0]).trained
        assert engine.result(ids[0]).read_bytes() == alone(tmp_path, library, ids[0])
    assert not list((state / "models").glob(".*"))


def test_closing_puts_the_jobs_back(tmp_path: Path, library: Path) -> None:
    before = {process.pid for process in children()}
    state = tmp_path / "state"
    engine = Engine(state, library, executor=Processes(1))
    made = [make(engine, str(number)) for number in range(SOME)]
    closing = threading.Thread(target=engine.close)
    with halted(state, children) as ids:
        own = [process for process in children() if process.pid not in before]
        closing.start()
        deadline = time.monotonic() + PATIENCE
        while set(half_way(state)) & set(ids):  # until they are wanted no more
            assert time.monotonic() < deadline
    closing.join(PATIENCE)
    assert [process.is_running() for process in own] == [False]
    assert not {file.stem for file in (state / "models").iterdir()} & set(ids)
    with Engine(state, library) as engine:
        assert all(trained(engine, id).trained for id in made)


# --- what arrives ------------------------------------------------------------------------


class Faulty(Executor):
    """Carries tasks out in a thread, and harms the first results, by `harm`, before they arrive."""

    folder: Path  # where results arrive

    def __init__(self, harm: Callable[[Path], object], times: int) -> None:
        self._harm = harm
        self.left = times
        self._pool = ThreadPoolExecutor(1)

    def slots(self) -> int:
        return 1

    def close(self) -> None:
        self._pool.shutdown()

    @contextmanager
    def _lent(self, watch: Callable[[float], None]) -> Iterator[Any]:
        yield self

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        return self._pool.submit(self._harmed, work, *args)

    def _harmed(self, work: Callable[..., Any], *args: Any) -> Any:
        result = work(*args)
        if self.left:
            self.left -= 1
            self._harm(self.folder / result.name)
        return result


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


HARMS = {"cut": cut, "flip": flip, "lose": lambda path: path.unlink()}


@pytest.mark.parametrize("harm", HARMS)
def test_a_result_that_arrives_otherwise_is_made_again(
    tmp_path: Path, library: Path, harm: str
) -> None:
    state = tmp_path / "state"
    faulty = Faulty(HARMS[harm], executors.ATTEMPTS - 1)
    faulty.folder = state / "models"
    with Engine(state, library, executor=faulty) as engine:
        id = make(engine, harm)
        assert trained(engine, id).trained
        assert faulty.left == 0
        assert engine.result(id).read_bytes() == alone(tmp_path, library, id)
        faulty.left = executors.ATTEMPTS
        other = trained(engine, make(engine, "another"))
        assert (other.status, faulty.left) == ("failed", 0)
        assert "its worker was lost 3 times, the last time so: the result that" in str(other.error)
        assert [file.stem for file in models(engine).iterdir()] == [id]


def test_a_worker_that_does_not_see_the_state_folder(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileTicket, "open", lambda ticket: None)
    with Engine(tmp_path / "state", library, executor=Faulty(cut, 0)) as engine:
        model = trained(engine, make(engine, "K"))
        assert model.status == "failed"
        assert "a worker does not see the state folder" in str(model.error)


# --- by name -----------------------------------------------------------------------------

WRONG = ["", "processes", "processes:0", "processes:-1", "processes:two", "processes:257"]
WRONG += ["dask", "dask://", "dask://host", "dask://host:0", "dask://host:99999", "dask://u@h:1"]
WRONG += ["tcp://127.0.0.1:8786", "Processes:2", "processes:2\n", "dask://h:8786/x", "threads:2"]


@pytest.mark.parametrize("name", WRONG)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not an executor") as error:
        find_executor(name)
    assert "processes:N (1 to 256) or dask://HOST:PORT" in str(error.value.hint)


def test_dask_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="needs distributed") as error:
        find_executor("dask://[::1]:8786")()
    assert error.value.hint == "pip install 'lora-compose[cluster]'"


def test_apply_composes_in_processes(tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    ran = compose(
        "apply", "--verbose", "--target", "local", "--executor", "processes:1", at=project
    )
    assert (ran.status, ran.err.count("finished")) == (0, 4), (ran.out, ran.err)
    ran = compose("apply", "--target", "local", at=project)
    assert ran.out.startswith("No changes")


def test_apply_refuses_an_executor_that_has_no_effect(tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    url = "http://127.0.0.1:9/v1"
    ran = compose("apply", "--target", url, "--executor", "processes:2", at=project)
    assert (ran.status, "an executor is for the target local" in ran.err) == (64, True), ran.err
    ran = compose("apply", "--dry-run", "--target", "local", "--executor", "threads", at=project)
    assert (ran.status, "is not an executor" in ran.err) == (64, True), ran.err
    ran = compose("serve", "--executor", "threads", at=project)
    assert (ran.status, "is not an executor" in ran.err) == (64, True), ran.err
