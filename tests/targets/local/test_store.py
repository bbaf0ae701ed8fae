"""The store: what survives, what excludes what, and what it says when it is broken."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import COMPOSITION, LORA
from support.sizes import size

from composer.errors import TargetError, Unreachable
from composer.model import NOTHING_DESCRIBED, Concept, Described, parameters
from composer.targets.local.records import NewComposition
from composer.targets.local.store import Store
from composer.targets.local.worker import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONCEPTS = (Concept("model_a", 0.25), Concept("model_b", -0.5))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path, write=True)
    yield store
    store.close()


def ids(*first: str) -> Iterator[str]:
    yield from first
    yield from (f"model_{number}" for number in count())


def new(name: str, described: Described = NOTHING_DESCRIBED) -> NewComposition:
    return NewComposition(name, COMPOSITION, CONCEPTS, described)


def nothing() -> None:
    """In place of what removes or publishes a file."""


# --- compositions ------------------------------------------------------------------------


def test_a_composition_is_kept_as_it_was_given(path: Path) -> None:
    store = Store(path, write=True)
    id = store.create(ids(), new("Knight", Described(description="of the book")))
    store.tag(id, add=["b", "a"], remove=["c"])
    store.close()
    again = Store(path, write=True)
    record = again.record(id)
    again.close()
    assert record is not None
    assert (record.id, record.name, record.description) == ("model_0", "Knight", "of the book")
    assert (record.concepts, record.status, record.job) == (CONCEPTS, "new", None)
    assert (record.parameters, record.tags) == (None, frozenset({"a", "b"}))


def test_twins_take_the_next_id_and_a_freed_one_is_taken_again(store: Store) -> None:
    assert [store.create(ids(), new("K")) for _ in range(3)] == [
        "model_0",
        "model_1",
        "model_2",
    ]
    store.delete("model_1", nothing)
    assert store.record("model_1") is None
    assert store.create(ids(), new("K")) == "model_1"
    assert store.create(ids("MODEL_1"), new("K")) == "model_3"


def test_created_at_grows_whatever_the_clock_does(store: Store, path: Path) -> None:
    made = [store.create(ids(), new("K")) for _ in range(20)]
    with sqlite3.connect(path) as db:  # made while the clock was far ahead
        db.execute("UPDATE models SET created_at = created_at + 1e12 WHERE id = ?", (made[-1],))
    db.close()
    made += [store.create(ids(), new("K")) for _ in range(3)]
    records = store.records()
    assert [record.id for record in records] == made[::-1]
    store.delete(made[-1], nothing)
    assert store.create(ids(), new("K")) == made[-1]
    assert store.records()[0].created_at > records[0].created_at


def test_what_is_updated_changes_and_the_rest_stays(store: Store) -> None:
    id = store.create(ids(), new("K", Described(description="old")))
    store.update(id, name="New", described=Described())
    store.update(id, name=None, described=Described(description=""))
    store.tag(id, add=["x", "y"], remove=[])
    store.tag(id, add=["x", "z"], remove=["y", "w"])
    record = store.record(id)
    assert record is not None
    assert (record.name, record.description, record.tags) == ("New", "", frozenset({"x", "z"}))


def test_a_result_that_cant_be_removed_leaves_the_row(store: Store) -> None:
    id = store.create(ids(), new("K"))

    def locked() -> None:
        raise PermissionError("in use")

    with pytest.raises(PermissionError):
        store.delete(id, locked)
    assert store.record(id) is not None


# --- jobs --------------------------------------------------------------------------------


def history(store: Store, job: str = "job_a") -> list[str]:
    record = store.job(job)
    assert record is not None
    return [status for status, _ in record.history]


def queued(store: Store, job: str = "job_a") -> str:
    id = store.create(ids(), new("K"))
    store.queue(id, job, parameters({"seed": 7, "names": ["a", "b"]}))
    return id


def test_a_job_runs_its_course(store: Store) -> None:
    id = queued(store)
    store.queue(id, "job_a", parameters({"seed": 8}))  # it is on its way: nothing changes
    assert store.waiting()
    record = store.claim()
    assert record is not None
    assert (record.id, record.status, record.job) == (id, "training", "job_a")
    assert record.parameters == (("names", ("a", "b")), ("seed", 7))
    assert store.report("job_a", 0.5)
    assert store.job("job_a").progress == 0.5  # type: ignore[union-attr]
    store.succeed(id, "job_a", 99, nothing)
    assert not store.waiting()
    assert history(store) == ["queued", "in-progress", "success"]
    record = store.record(id)
    assert record is not None
    assert (record.status, record.size, record.progress) == ("trained", 99, 1.0)


def test_a_failed_job_can_be_queued_again(store: Store) -> None:
    id = queued(store)
    store.claim()
    store.fail(id, "job_a", "no space")
    record = store.record(id)
    assert record is not None
    assert (record.status, record.error) == ("failed", "no space")
    store.queue(id, "job_a", ())
    record = store.record(id)
    assert record is not None
    assert (record.status, record.error, record.progress) == ("training", None, 0.0)
    assert history(store) == ["queued", "in-progress", "failure", "queued"]


@pytest.mark.parametrize("verb", ["cancel", "delete", "recreate"])
def test_what_was_canceled_or_deleted_neither_reports_nor_ends(store: Store, verb: str) -> None:
    id = queued(store)
    store.claim()
    if verb == "cancel":
        assert store.cancel(id)
    else:
        store.delete(id, nothing)
    if verb == "recreate":
        assert store.create(ids(), new("K")) == id
        store.queue(id, "job_a", ())
    assert not store.report("job_a", 0.5)

    def publish() -> None:
        raise AssertionError("a result of what nobody wants")

    store.succeed(id, "job_a", 99, publish)
    store.fail(id, "job_a", "too late")
    store.put_back("job_a")
    last = {"cancel": "canceled", "delete": "canceled", "recreate": "queued"}[verb]
    assert history(store)[-1] == last
    if verb == "cancel":
        assert store.record(id).status == "training-canceled"  # type: ignore[union-attr]
        assert not store.cancel(id)


def test_jobs_are_taken_in_order_and_one_put_back_keeps_its_place(store: Store) -> None:
    first, second = queued(store, "job_a"), queued(store, "job_b")
    assert store.claim().id == first  # type: ignore[union-attr]
    store.put_back("job_a")
    assert history(store) == ["queued", "in-progress", "queued"]
    assert store.claim().id == first  # type: ignore[union-attr]
    assert store.claim().id == first  # type: ignore[union-attr] # as after a kill
    store.succeed(first, "job_a", 1, nothing)
    assert store.claim().id == second  # type: ignore[union-attr]


def test_a_result_that_cant_be_placed_leaves_the_job_running(store: Store) -> None:
    id = queued(store)
    store.claim()

    def full() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        store.succeed(id, "job_a", 99, full)
    assert history(store) == ["queued", "in-progress"]


def test_jobs_of_one_millisecond_start_in_the_order_of_their_compositions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.targets.local.store.now_ms", lambda: 1_800_000_000_000)
    made = [store.create(iter([f"model_{name}"]), new(name)) for name in "cab"]
    for id in reversed(made):
        assert store.queue(id, f"job_{id}", ())
    started = []
    while record := store.claim():
        started.append(record.id)
        store.fail(record.id, str(record.job), "stopped")
    assert started == made


STEPS = st.sampled_from(["create", "train", "claim", "succeed", "fail", "cancel", "delete", "back"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 2)), max_size=25))
@settings(max_examples=size(40, 2000), deadline=None)
def test_models_and_jobs_never_disagree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever is called in whatever order: a model trains if and only if its job is active."""
    store = Store(tmp_path_factory.mktemp("s") / "engine.sqlite3", write=True)
    for verb, number in steps:
        id, job = f"model_{number}", f"job_{number}"
        match verb:
            case "create":
                store.create(ids(), new("K"))
            case "train":
                store.queue(id, job, ())
            case "claim":
                store.claim()
            case "succeed":
                store.succeed(id, job, 1, nothing)
            case "fail":
                store.fail(id, job, "why")
            case "cancel":
                store.cancel(id)
            case "delete":
                store.delete(id, nothing)
            case "back":
                store.put_back(job)
    records = store.records()
    made = [record.created_at for record in records]
    assert made == sorted(set(made), reverse=True)
    for record in records:
        job_record = store.job(record.job) if record.job else None
        active = job_record is not None and job_record.status in ("queued", "in-progress")
        assert active == (record.status == "training")
        assert (record.status == "trained") == (record.size is not None)
    assert store.waiting() == any(record.status == "training" for record in records)
    store.close()


# --- processes, threads, and what goes wrong ---------------------------------------------


def test_threads_create_each_their_own(path: Path) -> None:
    stores = [Store(path, write=True) for _ in range(3)]
    made: list[str] = []

    def create(store: Store) -> None:
        made.extend(store.create(ids(), new("K")) for _ in range(10))

    threads = [threading.Thread(target=create, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 60
    assert len(stores[0].records()) == 60
    for store in stores:
        store.close()


def test_many_open_a_new_store_at_once(path: Path) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def open_it() -> None:
        barrier.wait()
        try:
            Store(path, write=True).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("write", [True, False])
def test_a_store_that_is_no_database_says_what_to_do(path: Path, *, write: bool) -> None:
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(TargetError, match=r"move engine\.sqlite3") as caught:
        Store(path, write=write)
    assert "compose apply" in str(caught.value.hint)


def test_a_row_that_makes_no_sense_says_what_to_do(store: Store, path: Path) -> None:
    id = store.create(ids(), new("K"))
    with sqlite3.connect(path) as db:
        db.execute("""UPDATE models SET concepts = '[["../x", 1]]'""")
    db.close()
    with pytest.raises(TargetError, match="is damaged: the row of model 'model_0'"):
        store.record(id)


def test_a_row_whose_id_is_no_id_is_passed_over(store: Store, path: Path) -> None:
    store.create(ids(), new("K"))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE models SET id = '../../x'")
    db.close()
    assert store.records() == []
    assert store.record("../../x") is None


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_store_is_left_alone(store: Store, path: Path, *, write: bool) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(TargetError, match="version 99"):
        Store(path, write=write)


def test_a_busy_store_is_worth_another_try(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.targets.local.database.BUSY", 0.01)
    other = Store(path, write=True)
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unreachable, match="busy"):
            other.create(ids(), new("K"))
        assert other.records() == []  # looking doesn't wait
        db.execute("ROLLBACK")
    db.close()
    assert other.create(ids(), new("K")) == "model_0"
    other.close()


class Clock:
    """In place of the module `time`: time passes only while somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_busy_store_is_waited_for_once_and_that_is_said(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    begin: str,
    *,
    exclusive: bool,
) -> None:
    """Whatever is asked, and however often: of notes not even that."""
    clock = Clock()
    monkeypatch.setattr("composer.targets.local.database.BUSY", 1.5)
    monkeypatch.setattr("composer.targets.local.database.time", clock)
    Store(path, write=True).close()
    store = Store(path, write=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if exclusive:  # as where WAL is not supported: nobody else may even read
            store.close()
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            other.execute("PRAGMA journal_mode=DELETE").fetchone()
        other.execute(begin)
        other.execute("UPDATE notes SET stamp = 'x'")
        if exclusive:
            for write in (True, False):
                with pytest.raises(Unreachable, match="busy"):
                    Store(path, write=write)
            assert clock.now == pytest.approx(3.0, abs=0.1)  # one wait for each of the two stores
        else:
            for n in range(4):
                store.put_note(f"{n}", "stamp", "sha", "type", None)
                assert store.get_note(f"{n}", "stamp") is None
            assert clock.now == pytest.approx(1.0, abs=0.1)
            for _ in range(4):
                with pytest.raises(Unreachable, match="busy"):
                    store.create(ids(), new("K"))
            assert clock.now == pytest.approx(2.5, abs=0.1)
        said = f"the local database {path} is busy: waiting up to 1 s for another process"
        assert [record.message for record in caplog.records].count(said) >= 1
        other.execute("ROLLBACK")
    if not exclusive:
        assert store.create(ids(), new("K")) == "model_0"
        store.close()


def test_one_that_becomes_free_is_used(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, lambda: other.execute("ROLLBACK")).start()
        assert store.create(ids(), new("K")) == "model_0"


def test_looking_at_nothing_makes_nothing(path: Path) -> None:
    store = Store(path, write=False)
    assert store.records() == []
    store.put_note("a", "1", "00", LORA, None)
    assert store.get_note("a", "1") == ("00", LORA, None)
    store.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="rights don't bind everybody"
)
def test_a_store_on_a_medium_that_cant_be_written_is_read(path: Path) -> None:
    store = Store(path, write=True)
    id = store.create(ids(), new("K"))
    store.close()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        store = Store(path, write=False)
        assert [record.id for record in store.records()] == [id]
        store.put_note("a", "1", "00", LORA, None)
        store.close()
        with pytest.raises(TargetError, match="can't be read or written"):
            Store(path, write=True)
    finally:
        path.parent.chmod(0o700)


def test_a_note_holds_for_its_stamp_alone(store: Store) -> None:
    store.put_note("a", "1", "00", LORA, None)
    store.put_note("a", "2", "11", LORA, "Ink")
    assert [store.get_note("a", "1"), store.get_note("a", "2")] == [None, ("11", LORA, "Ink")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("link", ["", "models", "engine.sqlite3", "worker.lock"])
def test_a_link_in_the_folder_is_refused(tmp_path: Path, link: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "project" / "state"
    (root if link else root.parent).mkdir(parents=True)
    (root / link if link else root).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetError, match="is a link"):
        Folder(root).prepare()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_job_that_is_under_way_is_not_taken_again(store: Store) -> None:
    first, second = queued(store, "job_a"), queued(store, "job_b")
    assert store.claim().id == first  # type: ignore[union-attr]
    assert store.waiting(["job_a"])
    assert store.claim(["job_a"]).id == second  # type: ignore[union-attr]
    assert not store.waiting(["job_b", "job_a"])
    assert store.claim(["job_a", "job_b"]) is None


def test_a_long_history_costs_the_next_job_nothing(store: Store) -> None:
    """Nor creating a composition, nor deleting one: counted in steps of SQLite's machine."""

    def cost(job: str) -> int:
        counted = 0

        def step() -> None:
            nonlocal counted
            counted += 1

        store._connection.set_progress_handler(step, 1)
        id = queued(store, job)
        assert store.waiting()
        assert store.claim() is not None
        store.cancel(id)
        store.delete(id, nothing)
        store._connection.set_progress_handler(None, 1)
        return counted

    first = cost("job_a")
    with store.writing() as db:
        for number in range(1000):
            values = (f"model_x{number}", f"job_x{number}", number)
            db.execute(
                "INSERT INTO models (id, name, concepts, status, tags, job, created_at, updated_at)"
                " VALUES (?, 'K', '[]', 'failed', '[]', ?, ?, 0)",
                values,
            )
            db.execute(
                "INSERT INTO jobs (model, id, status, progress, history, created_at, updated_at,"
                " queued_at) VALUES (?, ?, 'failure', 0, '[]', ?, 0, 0)",
                values,
            )
    assert cost("job_b") < 1.5 * first
