"""The worker: it ends what was begun, whoever was killed, and never twice at once."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples
from support.engine_files import PATIENCE, free, trained, write_lora
from support.lora_wild import File, Lora, save
from support.model_types import COMPOSITION, LORA
from support.sizes import size
from support.state import made_state

from composer.errors import NotFound
from composer.model import Concept
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed in (1, 2):
        write_lora(folder / f"{seed}.safetensors", seed)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def child(verb: str, state: Path, library: Path, *rest: str) -> subprocess.Popen[str]:
    paths = [str(SUPPORT.parent), str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "dying_engine.py"), verb, str(state), str(library), *rest],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        text=True,
    )


def make(engine: Engine, name: str = "K") -> str:
    concepts = [Concept(lora.id, 0.5) for lora in engine.list_models(LORA)]
    return engine.create(name, concepts, type=COMPOSITION).id


class Gate:
    """Holds composing where it begins: when the engine asks for the free space."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self._then = then

    def __call__(self, folder: Path) -> int:
        self.reached.set()
        assert self.open.wait(PATIENCE)
        self._then()
        return free(folder)

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE)


def statuses(engine: Engine, id: str) -> list[str]:
    record = engine.store.record(id)
    assert record is not None
    job = engine.store.job(str(record.job))
    assert job is not None
    return [status for status, _ in job.history]


def stopping(engine: Engine) -> bool:
    assert engine._worker is not None
    return engine._worker._stopping


def leftovers(state: Path) -> list[str]:
    return [path.name for path in (state / "models").iterdir() if path.suffix == ".tmp"]


# --- killed at any instant ---------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, library: Path) -> tuple[bytes, int]:
    """The bytes of a run that nobody disturbs, and how many lines of code it takes."""
    state = tmp_path_factory.mktemp("undisturbed") / "state"
    with child("run", state, library, "K") as process:
        assert process.stdout is not None
        lines = int(process.stdout.read().split()[-1])
    (result,) = (state / "models").glob("*.safetensors")
    return result.read_bytes(), lines


def recover(state: Path, library: Path, expected: bytes) -> None:
    """What the next run must find, and end."""
    for path in (state / "models").glob("*.safetensors"):
        assert path.read_bytes() == expected  # never a broken file under a result's name
    with Engine(state, library) as engine:
        models = [model for model in engine.list_models() if model.name == "K"]
        assert len(models) <= 1
        id = models[0].id if models else make(engine)
        if engine.get_models([id])[id].status == "new":
            engine.train(id)
        model = trained(engine, id)
        assert (model.status, model.error) == ("trained", None)
        assert engine.result(id).read_bytes() == expected
        assert engine.job(str(model.job)).status == "success"
        assert not engine.store.waiting()
    assert leftovers(state) == []


def test_killed_at_any_line(tmp_path: Path, library: Path, undisturbed: tuple[bytes, int]) -> None:
    expected, lines = undisturbed
    count = size(5, 400)
    chance = random.Random(count)
    for number in range(count):
        state = tmp_path / str(number) / "state"
        line = 1 + (lines * number + chance.randrange(lines)) // count  # spread over the whole run
        with child("run", state, library, "K", str(line)) as process:
            process.communicate()
        recover(state, library, expected)


def test_killed_from_outside(tmp_path: Path, library: Path, undisturbed: tuple[bytes, int]) -> None:
    chance = random.Random(1)
    for number in range(size(2, 100)):
        state = tmp_path / str(number) / "state"
        with child("loop", state, library, "K") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
        recover(state, library, undisturbed[0])


# --- several at once ---------------------------------------------------------------------


def test_two_processes_never_compose_at_once(tmp_path: Path, library: Path, state: Path) -> None:
    book = tmp_path / "diary"
    children = [child("diary", state, library, name, str(book)) for name in "ABC"]
    for process in children:
        with process:
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
    lines = [line.split() for line in book.read_text().splitlines()]
    # One that is done leaves while it works for another, who does that job again: 3 or more.
    assert len(lines) >= 6
    assert [verb for _, verb, _ in lines] == ["begins", "ends"] * (len(lines) // 2)
    assert all(lines[i][0] == lines[i + 1][0] for i in range(0, len(lines), 2))
    with Engine(state, library, run_jobs=False) as engine:
        made = [model for model in engine.list_models() if model.name in "ABC"]
        assert [model.status for model in made] == ["trained"] * 3


def test_one_that_watches_takes_over_from_one_that_dies(state: Path, library: Path) -> None:
    with child("hang", state, library, "K") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        with Engine(state, library, poll_interval=0.05) as engine:
            (model,) = (model for model in engine.list_models() if model.name == "K")
            time.sleep(0.3)
            assert engine.get_models([model.id])[model.id].status == "training"
            assert statuses(engine, model.id) == ["queued", "in-progress"]
            process.kill()
            assert trained(engine, model.id).trained
            assert statuses(engine, model.id)[-2:] == ["in-progress", "success"]


def test_it_wakes_at_once(state: Path, library: Path) -> None:
    """However long the poll interval: within a process nobody waits for it."""
    gate = Gate()
    gate.open.set()
    with Engine(state, library, poll_interval=10 * PATIENCE, free_space=gate) as engine:
        waits = []
        for name in "abcde":  # the first may come before it looks for jobs at all
            gate.reached.clear()
            id = make(engine, name)
            begin = time.monotonic()
            engine.train(id)
            gate.wait()
            waits.append(time.monotonic() - begin)
            trained(engine, id)
    assert min(waits[1:]) < 0.5


def test_progress_and_remaining_time_are_answered(state: Path, library: Path) -> None:
    gate = Gate()
    with Engine(state, library, free_space=gate) as engine:
        id = make(engine)
        job = str(engine.train(id).job)
        gate.wait()
        begun = engine.get_models([id])[id]
        assert (begun.status, begun.progress, begun.remaining) == ("training", 0.0, None)
        time.sleep(0.2)
        engine.store.report(job, 0.25)
        later = engine.get_models([id])[id]
        assert later.progress == 0.25
        assert later.remaining is not None
        assert 0.5 < later.remaining < 3 * PATIENCE  # three times what passed so far
        assert (engine.job(job).status, engine.job(job).progress) == ("in-progress", 0.25)
        gate.open.set()
        ended = trained(engine, id)
        assert (ended.progress, ended.remaining) == (None, None)


# --- stopping ----------------------------------------------------------------------------


def test_closing_puts_the_job_back_and_the_next_start_ends_it(state: Path, library: Path) -> None:
    gate = Gate()
    engine = Engine(state, library, free_space=gate)
    ids = [make(engine, name) for name in "ab"]
    for id in ids:
        engine.train(id)
    gate.wait()
    closing = threading.Thread(target=engine.close)
    closing.start()
    deadline = time.monotonic() + PATIENCE
    while not stopping(engine):
        assert time.monotonic() < deadline
    gate.open.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert leftovers(state) == []
    with Engine(state, library, run_jobs=False) as looking:
        assert statuses(looking, ids[0]) == ["queued", "in-progress", "queued"]
        assert statuses(looking, ids[1]) == ["queued"]
        assert looking.size() == 0
    with Engine(state, library) as engine:
        assert [trained(engine, id).status for id in ids] == ["trained"] * 2
        assert statuses(engine, ids[0])[-2:] == ["in-progress", "success"]


def test_canceling_a_running_job_stops_it(state: Path, library: Path) -> None:
    gate = Gate()
    with Engine(state, library, free_space=gate) as engine:
        id = make(engine)
        engine.train(id)
        gate.wait()
        engine.cancel(id)
        engine.cancel(id)  # twice is no error
        assert engine.get_models([id])[id].status == "training-canceled"
        gate.open.set()
        other = make(engine, "other")
        engine.train(other)
        assert trained(engine, other).trained
        assert engine.get_models([id])[id].status == "training-canceled"
        assert not engine.store.waiting()
        assert statuses(engine, id) == ["queued", "in-progress", "canceled"]
        assert len(list((state / "models").iterdir())) == 1
        engine.train(id)
        assert trained(engine, id).trained


def test_what_was_canceled_is_not_composed_to_the_end(tmp_path: Path, state: Path) -> None:
    library = tmp_path / "large"
    whole = sum(
        write_lora(library / f"{seed}.safetensors", seed, rank=512).stat().st_size
        for seed in (1, 2)
    )
    gate = Gate()
    with Engine(state, library, free_space=gate) as engine:
        id = make(engine)
        engine.train(id)
        gate.wait()
        engine.cancel(id)
        gate.open.set()
        seen = 0
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            for path in (state / "models").glob(".*.tmp"):
                with suppress(OSError):
                    seen = max(seen, path.stat().st_size)
        assert seen < whole / 4
        engine.train(id)
        assert trained(engine, id).trained


def test_deleting_what_trains_stops_it(state: Path, library: Path) -> None:
    gate = Gate()
    with Engine(state, library, free_space=gate) as engine:
        id = make(engine)
        job = str(engine.train(id).job)
        gate.wait()
        engine.delete(id)
        assert engine.job(job).status == "canceled"
        again = make(engine)
        assert again == id  # its id is free again, and what runs for the old one is not its own
        with pytest.raises(NotFound):
            engine.job(job)
        gate.open.set()
        time.sleep(0.2)
        assert engine.get_models([id])[id].status == "new"
        assert list((state / "models").iterdir()) == []


def test_a_job_canceled_and_queued_again_while_it_runs_is_done_once_more(
    state: Path, library: Path
) -> None:
    gate = Gate()
    with Engine(state, library, free_space=gate) as engine:
        id = make(engine)
        engine.train(id)
        gate.wait()
        engine.cancel(id)
        engine.train(id)
        gate.open.set()
        assert trained(engine, id).trained
        assert statuses(engine, id) == [
            "queued",
            "in-progress",
            "canceled",
            "queued",
            "in-progress",
            "success",
        ]


# --- failing -----------------------------------------------------------------------------


def test_a_full_disk_is_seen_before_anything_is_written(state: Path, library: Path) -> None:
    space = [1000]
    with Engine(state, library, free_space=lambda folder: space[0]) as engine:
        id = make(engine)
        engine.train(id)
        model = trained(engine, id)
        assert model.status == "failed"
        assert "not enough disk space" in str(model.error)
        assert "0 MB are free" in str(model.error)
        assert engine.job(str(model.job)).error == model.error
        assert leftovers(state) == []
        space[0] = 1 << 40
        engine.train(id)
        assert trained(engine, id).trained
        assert statuses(engine, id) == [
            "queued",
            "in-progress",
            "failure",
            "queued",
            "in-progress",
            "success",
        ]


@pytest.mark.parametrize("how", ["values", "another file", "gone"])
def test_a_source_that_changes_while_it_is_read(tmp_path: Path, state: Path, how: str) -> None:
    library = tmp_path / "loras"
    path = write_lora(library / "1.safetensors", 1)
    write_lora(library / "2.safetensors", 2)

    def harm() -> None:
        status = path.stat()
        match how:
            case "values":  # same header, same size, same time of change
                data = path.read_bytes()
                path.write_bytes(data[:-64] + bytes(64))
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            case "another file":
                write_lora(path, 3, rank=2)
            case "gone":
                path.unlink()

    gate = Gate(harm)
    gate.open.set()
    with Engine(state, library, free_space=gate) as engine:
        id = make(engine)
        engine.train(id)
        model = trained(engine, id)
        assert model.status == "failed"
        assert "1.safetensors" in str(model.error)
        assert list((state / "models").iterdir()) == []


def test_a_result_that_cant_be_put_in_place_fails_its_job(state: Path, library: Path) -> None:
    with Engine(state, library) as engine:
        id = make(engine)
        (state / "models" / f"{id}.safetensors").mkdir(parents=True)
        engine.train(id)
        model = trained(engine, id)
        assert model.status == "failed"
        assert leftovers(state) == []


def no_lock(state: Path) -> None:
    (state / "worker.lock").mkdir()


def no_claim(state: Path) -> None:
    with closing(sqlite3.connect(state / "engine.sqlite3")) as db, db:
        db.execute(
            "CREATE TRIGGER no_claim BEFORE UPDATE OF started_at ON jobs"
            " BEGIN SELECT RAISE(ABORT, 'the disk has had enough'); END"
        )


def no_record_of_the_end(state: Path) -> None:
    with closing(sqlite3.connect(state / "engine.sqlite3")) as db, db:
        db.execute(
            "CREATE TRIGGER no_end BEFORE UPDATE OF status ON models WHEN OLD.status = 'training'"
            " BEGIN SELECT RAISE(ABORT, 'the disk has had enough'); END"
        )


@pytest.mark.parametrize("harm", [no_lock, no_claim, no_record_of_the_end])
def test_a_worker_that_can_t_write_tells_who_waits(
    harm: Callable[[Path], None], state: Path, library: Path
) -> None:
    with Engine(state, library) as engine:
        id = make(engine)
        harm(state)
        engine.train(id)
        model = trained(engine, id)
        assert (model.status, model.progress) == ("failed", None)
        assert re.search(r"worker\.lock|had enough", str(model.error)), model.error
        assert engine.job(str(model.job)).status == "failure"
        assert engine.job(str(model.job)).error == model.error
        if harm is no_lock:
            (state / "worker.lock").rmdir()
        else:
            with closing(sqlite3.connect(state / "engine.sqlite3")) as db, db:
                db.execute(f"DROP TRIGGER {'no_claim' if harm is no_claim else 'no_end'}")
        deadline = time.monotonic() + PATIENCE
        engine.train(id)  # as the next apply does
        while not trained(engine, id).trained:  # the attempt before may still be under way
            assert time.monotonic() < deadline


def test_an_apply_ends_where_the_worker_can_t_write(tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    no_lock(made_state(project))
    began = time.monotonic()
    ran = compose("apply", "--target", "local", "--timeout", "120s", at=project)
    assert time.monotonic() - began < 30
    assert (ran.status, ran.out.count("worker.lock")) == (1, 4), (ran.out, ran.err)


def test_stale_temporary_files_are_swept(state: Path, library: Path) -> None:
    with Engine(state, library) as engine:
        id = make(engine)
        (state / "models" / ".model_x.1.tmp").write_bytes(b"left by a kill")
        engine.train(id)
        assert trained(engine, id).trained
        assert leftovers(state) == []


def test_two_engines_in_one_process_share_the_work(state: Path, library: Path) -> None:
    with Engine(state, library) as one, Engine(state, library) as two:
        ids = [make(engine, name) for name in "abc" for engine in (one, two)]
        for id in ids:
            one.train(id)
        assert [trained(two, id).status for id in ids] == ["trained"] * 6
        assert all(statuses(one, id) == ["queued", "in-progress", "success"] for id in ids)


def test_a_result_that_is_far_larger_than_its_loras_is_warned_of(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A LoKr of two whole matrices becomes a LoRA of full rank."""
    lokr = Lora("lycoris_transformer_blocks_0_attn_to_q", "lokr", split=(4, 4), whole=(True, True))
    (tmp_path / "loras").mkdir()
    save(File((lokr,)), tmp_path / "loras/whole.safetensors")
    with Engine(state, tmp_path / "loras") as engine:
        id = make(engine, "Whole")
        engine.train(id)
        trained(engine, id)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("Whole: the result has a rank of up to 3,072")
    assert "the training parameter rank) makes it at most" in warning
