"""A library on an object store: moto's S3, with and without a real Dask cluster.

The workers see no folder of the engine's: LoRAs and results go by the store alone.
"""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.cli import compose, samples
from support.clusters import WORKERS, Cluster, cluster_in, make, results
from support.engine_files import PATIENCE, halted, trained, write_lora, write_peft
from support.object_store import ObjectStore
from support.state import state_of

from composer.errors import CredentialsError, TargetError
from composer.lora.fingerprint import fingerprint_file
from composer.lora.merging import OutputOptions
from composer.targets.local import executors, mirror, objects
from composer.targets.local.executors import find_executor
from composer.targets.local.mirror import Mirror
from composer.targets.local.objects import Objects
from composer.targets.local.service import Engine
from composer.targets.local.tasks import Task
from composer.targets.local.tickets import ObjectTicket, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = "loras/.compose-results"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    store = ObjectStore.start(tmp_path_factory.mktemp("moto"))
    yield store
    store.stop()


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ObjectStore:
    """As a user has it; each test has its own state folder, and so its own copies."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COMPOSE_STATE_DIR", str(tmp_path / "state-base"))
    return server


@pytest.fixture
def bucket(store: ObjectStore, request: pytest.FixtureRequest) -> str:
    """An empty one."""
    name = f"b{abs(hash(request.node.name)):x}"
    store.s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def small(store: ObjectStore, bucket: str, tmp_path: Path) -> str:
    """A library of two small LoRAs."""
    for seed in (1, 2):
        write_lora(tmp_path / "loras" / f"{seed}.safetensors", seed)
    store.put(bucket, tmp_path / "loras", "loras")
    return f"s3://{bucket}/loras"


@pytest.fixture
def url(store: ObjectStore, bucket: str, tmp_path: Path) -> str:
    """A library of two LoRAs, of which a composition has 50 MB."""
    for seed in (1, 2):
        write_lora(tmp_path / "loras" / f"{seed}.safetensors", seed, rank=1024)
    store.put(bucket, tmp_path / "loras", "loras")
    return f"s3://{bucket}/loras"


@pytest.fixture
def cluster(store: ObjectStore, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers report often, and the library is listed each time."""
    monkeypatch.setattr(executors, "STORE_INTERVAL", 0.01)
    monkeypatch.setattr(mirror, "LISTED", 0.0)


def expected(tmp_path: Path) -> dict[str, bytes]:
    """What this process makes of the same files in a folder."""
    with Engine(tmp_path / "here", tmp_path / "loras") as engine:
        return results(engine, make(engine))


@contextmanager
def connected(cluster: Cluster, tmp_path: Path, url: str) -> Iterator[Engine]:
    open_executor = find_executor(cluster.name, library=url, results=f"{url}/.compose-results")
    library = Mirror(Objects(url), tmp_path / "copies")
    with Engine(tmp_path / "state", library, executor=open_executor()) as engine:
        yield engine


def half_way(store: ObjectStore, bucket: str) -> list[str]:
    """The compositions that workers have begun to write, and have not delivered."""
    keys = store.keys(bucket, RESULTS)
    ids = []
    for ticket in (key.removesuffix(".progress") for key in keys if key.endswith(".progress")):
        begun = 0.1 < float(store.text(bucket, f"{ticket}.progress") or 0) < 1
        if begun and ticket in keys and sum(key.startswith(f"{ticket}.") for key in keys) == 1:
            ids.append(ticket.rpartition("/")[2].split(".")[0])
    return ids


@contextmanager
def halted_there(cluster: Cluster, store: ObjectStore, bucket: str) -> Iterator[list[str]]:
    with halted(Path(), cluster.alive, lambda state: half_way(store, bucket)) as ids:
        yield ids


def nothing_left(store: ObjectStore, bucket: str) -> None:
    """No ticket, no progress and no result, once the workers have seen that nobody waits."""
    deadline = time.monotonic() + PATIENCE
    while left := store.keys(bucket, RESULTS):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


# --- with a cluster ----------------------------------------------------------------------


def test_a_worker_is_killed_half_way_and_a_job_canceled(
    tmp_path: Path, store: ObjectStore, bucket: str, url: str, cluster: Cluster
) -> None:
    wanted = expected(tmp_path)
    with connected(cluster, tmp_path, url) as engine:
        ids = make(engine)
        with halted_there(cluster, store, bucket) as begun:
            canceled = begun[0]
            deadline = time.monotonic() + PATIENCE
            while not 0 < engine.job(str(engine.get_models(ids)[canceled].job)).progress < 1:
                assert time.monotonic() < deadline
            engine.cancel(canceled)
            cluster.workers[0].kill()
        rest = [id for id in ids if id != canceled]
        assert results(engine, rest) == {id: wanted[id] for id in rest}
        assert engine.get_models([canceled])[canceled].status == "training-canceled"
        assert len(cluster.alive()) == WORKERS - 1
        nothing_left(store, bucket)
    assert sorted(file.stem for file in (tmp_path / "state/models").iterdir()) == sorted(rest)


def test_the_scheduler_is_killed_and_started_again(
    tmp_path: Path,
    store: ObjectStore,
    bucket: str,
    url: str,
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger=executors.__name__)
    wanted = expected(tmp_path)
    with connected(cluster, tmp_path, url) as engine:
        ids = make(engine)
        with halted_there(cluster, store, bucket):
            cluster.stop()
        cluster.start()
        cluster.start_workers()
        assert results(engine, ids) == wanted
        assert "runs again: the scheduler" in caplog.text
        nothing_left(store, bucket)
    assert sorted(file.stem for file in (tmp_path / "state/models").iterdir()) == sorted(ids)


def test_compose_is_killed_and_runs_again(
    tmp_path: Path, store: ObjectStore, bucket: str, url: str, cluster: Cluster
) -> None:
    project = tmp_path / "project"
    (project / "recipes").mkdir(parents=True)
    for number in range(4):
        concepts = "".join(f"  - {{name: '{n}', scale: 0.{number + 1}}}\n" for n in (1, 2))
        recipe = f"name: K{number}\nconcepts:\n{concepts}"
        (project / "recipes" / f"k{number}.yaml").write_text(recipe)
    words = ["apply", "--target", "local", "--library", url, "--executor", cluster.name]
    code = "from composer.targets.local import executors as e; e.STORE_INTERVAL = 0.01\n"
    code += "from composer.cli import run; run()"
    with (
        subprocess.Popen([sys.executable, "-c", code, *words], cwd=project) as process,
        halted_there(cluster, store, bucket),
    ):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert store.keys(bucket, RESULTS)
    ran = compose(*words, at=project)
    assert ran.status == 0, ran.err
    nothing_left(store, bucket)
    alone = shutil.copytree(project, tmp_path / "alone")
    (alone / "compose.lock").unlink()
    assert compose(*words[:3], "--library", str(tmp_path / "loras"), at=alone).status == 0
    assert stored(project) == stored(alone)


def test_an_object_that_changes_is_refused_by_its_digest(
    tmp_path: Path, store: ObjectStore, bucket: str, small: str
) -> None:
    with cluster_in(tmp_path / "cluster", workers=0) as cluster, ExitStack() as stack:
        engine = stack.enter_context(connected(cluster, tmp_path, small))
        id = make(engine, 1)[0]
        deadline = time.monotonic() + PATIENCE
        while not store.keys(bucket, RESULTS):  # the task was sent
            assert time.monotonic() < deadline
        write_lora(tmp_path / "other" / "1.safetensors", 3)
        store.put(bucket, tmp_path / "other", "loras")
        cluster.start_workers()
        model = trained(engine, id)
        assert model.status == "failed"
        assert "1.safetensors on " in str(model.error)
        assert "is another file than in the library" in str(model.error)
        nothing_left(store, bucket)
    assert not list((tmp_path / "state/models").iterdir())


def test_results_may_go_to_another_bucket(
    tmp_path: Path,
    store: ObjectStore,
    bucket: str,
    url: str,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = samples(tmp_path / "project")
    alone = samples(tmp_path / "alone")
    store.s3.create_bucket(Bucket=f"{bucket}-out")
    store.put(bucket, project / "recipes/loras", "own")
    shutil.rmtree(project / "recipes/loras")
    monkeypatch.setenv("COMPOSE_RESULTS", f"s3://{bucket}-out/here")
    monkeypatch.setenv("COMPOSE_LIBRARY", f"s3://{bucket}/own/")
    ran = compose("apply", "--target", "local", "--executor", cluster.name, at=project)
    assert ran.status == 0, ran.err
    monkeypatch.delenv("COMPOSE_LIBRARY")
    assert compose("apply", "--target", "local", at=alone).status == 0
    assert stored(project) == stored(alone)
    assert (project / "compose.lock").read_bytes() == (alone / "compose.lock").read_bytes()
    log = store.log.read_text()
    assert f"PUT /{bucket}-out/here/" in log and f"PUT /{bucket}/own/.compose-results" not in log
    assert not store.keys(f"{bucket}-out")


def test_results_that_can_not_be_written_fail_in_one_line(
    tmp_path: Path, store: ObjectStore, small: str, cluster: Cluster
) -> None:
    open_executor = find_executor(cluster.name, library=small, results="s3://nosuchbucket/out")
    library = Mirror(Objects(small), tmp_path / "copies")
    with Engine(tmp_path / "state", library, executor=open_executor()) as engine:
        model = trained(engine, make(engine, 1)[0])
    assert model.status == "failed"
    assert str(model.error).startswith("there is no bucket for s3://nosuchbucket/out"), model.error


# --- without one -------------------------------------------------------------------------


def test_a_library_is_copied_once(
    tmp_path: Path, store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, alone = samples(tmp_path / "project"), samples(tmp_path / "alone")
    write_peft(project / "recipes/loras/nested", 7, alpha=4, rank=2)
    (project / "recipes/loras/old.ckpt").write_bytes(b"\x80")
    loras = sorted((project / "recipes/loras").rglob("*.safetensors"))
    shutil.copytree(project / "recipes/loras", alone / "recipes/loras", dirs_exist_ok=True)
    store.put(bucket, project / "recipes/loras", "my/loras")
    shutil.rmtree(project / "recipes/loras")
    words = ("--target", "local", "--library", f"s3://{bucket}/my/loras")
    assert compose("apply", *words, at=project).status == 0
    assert compose("apply", "--target", "local", at=alone).status == 0
    assert stored(project) == stored(alone)
    assert (project / "compose.lock").read_bytes() == (alone / "compose.lock").read_bytes()
    assert models(project, *words) == models(alone, "--target", "local")
    assert len(store.downloads(bucket)) == len(loras)
    for command in ("plan", "apply"):
        ran = compose(command, *words, at=project)
        unchanged = "4 unchanged" in ran.out or "No changes: 4 kept" in ran.out
        assert (ran.status, unchanged) == (0, True), ran.out
    assert compose("doctor", *words, at=project).status == 0
    assert len(store.downloads(bucket)) == len(loras)
    again = loras[0].relative_to(project / "recipes/loras").as_posix()
    body = (alone / "recipes/loras" / again).read_bytes()
    store.s3.put_object(Bucket=bucket, Key=f"my/loras/{again}", Body=body[:-1] + b"\x01")
    store.s3.delete_object(Bucket=bucket, Key="my/loras/nested/adapter_config.json")
    others = {*models(project, *words)} - {*models(alone, "--target", "local")}
    assert len(others) == 2
    assert store.downloads(bucket)[len(loras) :] == [f"/{bucket}/my/loras/{again}"]


def test_a_copy_that_somebody_changed_is_made_again(tmp_path: Path, small: str) -> None:
    library = Mirror(Objects(small), tmp_path / "copies")
    library.refresh()
    copy = library.folder / "1.safetensors"
    assert copy.read_bytes() == (tmp_path / "loras/1.safetensors").read_bytes()
    copy.write_bytes(b"other")
    (library.folder / "extra.safetensors").write_bytes(b"")
    Mirror(Objects(small), tmp_path / "copies").refresh()
    assert copy.read_bytes() == (tmp_path / "loras/1.safetensors").read_bytes()
    assert sorted(file.name for file in library.folder.glob("[!.]*")) == [
        "1.safetensors",
        "2.safetensors",
    ]


def test_an_object_that_changes_while_it_is_read(
    tmp_path: Path, store: ObjectStore, bucket: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART", 1024 * 1024)
    listed = Objects(url).find()["1.safetensors"]
    written = []

    def replaced() -> None:
        if not written:
            body = (tmp_path / "loras/2.safetensors").read_bytes()
            written.append(store.s3.put_object(Bucket=bucket, Key="loras/1.safetensors", Body=body))

    (tmp_path / "copy").touch()
    with pytest.raises(TargetError, match=r"1\.safetensors was changed while it was read"):
        Objects(url).download("1.safetensors", tmp_path / "copy", listed, replaced)
    assert written and (tmp_path / "copy").stat().st_size == 1024 * 1024
    with pytest.raises(TargetError, match=r"1\.safetensors was changed while it was read"):
        Objects(url).download("1.safetensors", tmp_path / "copy", listed, replaced)


def test_places_that_are_no_paths_are_passed_over(
    tmp_path: Path, store: ObjectStore, bucket: str, small: str
) -> None:
    for place in ("../../evil", "/evil", "a//evil", ".hidden", "a\\b", "bi\u202edi", "a/./b"):
        body = (tmp_path / "loras/1.safetensors").read_bytes()
        store.s3.put_object(Bucket=bucket, Key=f"loras/{place}.safetensors", Body=body)
    library = Mirror(Objects(small), tmp_path / "below" / "copies")
    library.refresh()
    assert sorted(p.name for p in tmp_path.rglob("*.safetensors") if "copies" in str(p)) == [
        "1.safetensors",
        "2.safetensors",
    ]
    assert not list(tmp_path.rglob("evil*"))


def test_a_ticket_in_a_store(tmp_path: Path, store: ObjectStore, bucket: str) -> None:
    ticket = ObjectTicket(f"s3://{bucket}/out", "a.1", 0.0)
    with opened(ticket):
        there = pickle.loads(pickle.dumps(ticket))
        there.report(0.25)
        assert ticket.progress() == 0.25
        out = there.output()
        out.write_bytes(b"weights")
        result = there.deliver(out, lambda: there.report(0.5))
        assert (ticket.progress(), out.exists(), result.size) == (0.5, False, 7)
        path = ticket.receive(result, tmp_path / ".a.compose.tmp", lambda: None)
        assert path.read_bytes() == b"weights"
        with pytest.raises(InterruptedError):
            ticket.receive(result, tmp_path / ".a.compose.tmp", interrupted)
        assert list(tmp_path.glob(".a*")) == [path]
    assert not store.keys(bucket)
    with pytest.raises(executors.NotWanted):
        there.report(0.75)
    out = there.output()
    with pytest.raises(executors.NotWanted):
        there.deliver(out, lambda: None)
    assert not store.keys(bucket)
    out.unlink()


def interrupted() -> None:
    raise InterruptedError


def test_a_task_for_other_machines_has_no_path(tmp_path: Path, small: str) -> None:
    """They may have another system, whose paths are of another type."""
    library = Mirror(Objects(small), tmp_path / "copies")
    library.refresh()
    mark = fingerprint_file(library.folder / "1.safetensors", root=library.folder)
    sent = Task("a", ((mark, 0.5),), OutputOptions()).by_place(small)
    data = pickle.dumps((sent, ObjectTicket(small, "a", 1.0)))
    assert b"pathlib" not in data and str(tmp_path).encode() not in data
    assert [lora.place for lora, _ in sent.loras] == ["1.safetensors"]


# --- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "status", "words"),
    [
        ("s3://nosuchbucket/loras", 1, "there is no bucket for s3://nosuchbucket/loras"),
        ("s3://{bucket}/nothing", 1, "the library s3://{bucket}/nothing has no LoRA files"),
        (
            "s3://key:{secret}@host/loras",
            64,
            "the library is not the URL of a folder in an object store",
        ),
        ("s3://{bucket}/a*", 64, "the library is not the URL of a folder in an object store"),
    ],
)
def test_a_library_that_is_not_there(
    tmp_path: Path, store: ObjectStore, bucket: str, library: str, status: int, words: str
) -> None:
    project = samples(tmp_path / "project")
    secret = store.env["AWS_SECRET_ACCESS_KEY"]
    named = library.format(bucket=bucket, secret=secret)
    for command in ("plan", "apply"):
        ran = compose(command, "--target", "local", "--library", named, at=project)
        assert (ran.status, ran.err.count("compose: ")) == (status, 1), ran.err
        assert words.format(bucket=bucket) in ran.err


def test_a_bucket_that_denies_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = samples(tmp_path / "project")
    own = ObjectStore.start(tmp_path)
    try:
        for name, value in own.env.items():
            monkeypatch.setenv(name, value)
        own.s3.create_bucket(Bucket="private")
        own.put("private", project / "recipes/loras", "loras")
        own.deny(0)
        words = ("plan", "--target", "local", "--library", "s3://private/loras")
        ran = compose(*words, at=project)
        assert ran.status == 77, ran.err
        assert "compose: access to s3://private/loras is denied: " in ran.err
        ran = compose("doctor", *words[1:], at=project)
        assert "access to s3://private/loras is denied" in ran.out, ran.out
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        ran = compose(*words, at=project)
        assert (ran.status, "no access to s3://private/loras: " in ran.err) == (77, True), ran.err
    finally:
        own.stop()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ran = compose(*words, at=project)
    assert (ran.status, "s3://private/loras can't be used: " in ran.err) == (69, True), ran.err
    with pytest.raises(CredentialsError if ran.status == 77 else TargetError):
        Objects("s3://private/loras").find()


# --- helpers -----------------------------------------------------------------------------


def stored(project: Path) -> dict[str, Any]:
    files = (state_of(project) / "models").iterdir()
    return {file.name: file.read_bytes() for file in files}


def models(project: Path, *words: str) -> list[str]:
    """Ids and names of everything that the target has."""
    ran = compose("models", *words, at=project)
    assert ran.status == 0, ran.err
    return sorted(ran.out.splitlines())
