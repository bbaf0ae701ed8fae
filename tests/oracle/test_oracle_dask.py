"""A real Dask cluster: a scheduler and two workers as processes, which are killed half-way."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from support.cli import compose, samples
from support.clusters import WORKERS, Cluster, cluster_in, make, results
from support.engine_files import halted, trained, write_lora
from support.state import state_of

from composer.errors import Unreachable
from composer.targets.local import executors
from composer.targets.local.executors import find_executor
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for seed in (1, 2):
        write_lora(tmp_path / "loras" / f"{seed}.safetensors", seed, rank=1024)
    return tmp_path / "loras"


def expected(tmp_path: Path, library: Path) -> dict[str, bytes]:
    """What this process makes of the same."""
    with Engine(tmp_path / "here", library) as engine:
        return results(engine, make(engine))


def connected(cluster: Cluster, stack: ExitStack, state: Path, library: Path) -> Engine:
    return stack.enter_context(Engine(state, library, executor=find_executor(cluster.name)()))


def test_a_worker_is_killed_half_way_and_a_job_canceled(
    tmp_path: Path, library: Path, cluster: Cluster
) -> None:
    wanted = expected(tmp_path, library)
    state = tmp_path / "state"
    with ExitStack() as stack:
        engine = connected(cluster, stack, state, library)
        ids = make(engine)
        with halted(state, cluster.alive) as half_way:
            canceled = half_way[0]
            engine.cancel(canceled)
            cluster.workers[0].kill()
        rest = [id for id in ids if id != canceled]
        assert results(engine, rest) == {id: wanted[id] for id in rest}
        assert engine.get_models([canceled])[canceled].status == "training-canceled"
        assert len(cluster.alive()) == WORKERS - 1
    assert sorted(file.stem for file in (state / "models").iterdir()) == sorted(rest)


def test_the_scheduler_is_killed_and_started_again(
    tmp_path: Path, library: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=executors.__name__)
    wanted = expected(tmp_path, library)
    state = tmp_path / "state"
    with ExitStack() as stack:
        engine = connected(cluster, stack, state, library)
        ids = make(engine)
        with halted(state, cluster.alive) as half_way:
            cluster.stop()
        assert not {file.stem for file in (state / "models").glob("*.safetensors")} & {*half_way}
        cluster.start()
        cluster.start_workers()
        assert results(engine, ids) == wanted
        assert "runs again: the scheduler" in caplog.text
    assert sorted(file.stem for file in (state / "models").iterdir()) == sorted(ids)


def test_a_scheduler_that_stays_away_is_named_and_the_jobs_are_kept(
    tmp_path: Path, library: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "CONNECT", 1.0)
    monkeypatch.setattr(executors, "RECONNECT", 1.0)
    wanted = expected(tmp_path, library)
    state = tmp_path / "state"
    with ExitStack() as stack:
        engine = connected(cluster, stack, state, library)
        ids = make(engine)
        with halted(state, cluster.alive) as half_way:
            cluster.stop()
        model = trained(engine, half_way[0])
        assert model.status == "failed"
        assert f"the Dask scheduler {cluster.name} no longer answers" in str(model.error)
    assert {file.stem for file in (state / "models").iterdir()} <= {*ids} - {*half_way}
    with pytest.raises(Unreachable, match="no Dask scheduler answers at dask://"):
        find_executor(cluster.name)()
    with Engine(state, library) as engine:  # without the cluster
        assert results(engine, ids) == wanted


def test_apply_on_a_cluster(tmp_path: Path, cluster: Cluster) -> None:
    here, there = samples(tmp_path / "here"), samples(tmp_path / "there")
    assert compose("apply", "--target", "local", at=here).status == 0
    ran = compose("apply", "--target", "local", "--executor", cluster.name, at=there)
    assert ran.status == 0, ran.err
    assert stored(here) == stored(there)
    assert (here / "compose.lock").read_bytes() == (there / "compose.lock").read_bytes()


def test_workers_without_compose_say_so_and_go_on(tmp_path: Path, library: Path) -> None:
    """Whoever else uses the cluster keeps it: neither the workers nor the scheduler end."""
    none = tmp_path / "none" / "composer.py"
    none.parent.mkdir()
    none.write_text("raise ModuleNotFoundError('No module named composer', name='composer')")
    with cluster_in(tmp_path / "cluster", str(none.parent)) as cluster, ExitStack() as stack:
        engine = connected(cluster, stack, tmp_path / "state", library)
        for model in [trained(engine, id) for id in make(engine, WORKERS + 1)]:
            assert model.status == "failed"
            assert "a worker has no composer" in str(model.error)
            assert "on the workers: pip install 'lora-compose[local]==" in str(model.error)
        assert all(process.is_running() for process in cluster.workers)


def stored(project: Path) -> dict[str, Any]:
    files = (state_of(project) / "models").iterdir()
    return {file.name: file.read_bytes() for file in files}
