"""Ctrl-C, SIGTERM and the file lock, as a person or a CI system meets them: real processes."""

from __future__ import annotations

import io
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click
import pytest
from support import serving
from support.cli import compose, samples, spawned
from support.engine_files import PATIENCE
from support.sizes import soak_factor
from support.state import state_of
from support.wire_server import Reply, WireServer, listed, raw

from composer.cli.signals import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.serving import Served
    from support.wire_server import Seen

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are another thing on Windows")

HELD = {"when": "PUT /models/*/tags", "pause": {"at": "before", "until": "answer"}}
AT_ONCE = 5.0  # seconds, for a busy machine: what is not waited for would take many times as long


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path / "project")


@pytest.fixture
def served(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that sets no tags until `release`: an answer that apply waits for when signalled."""
    (tmp_path / "server").mkdir()
    library = project / "recipes/loras"
    with serving.thread(tmp_path / "server", library, faults=[HELD]) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def release(served: Served) -> None:
    """Let the server answer what it holds."""
    (served.log.parent / "answer").touch()


def until_said(running: subprocess.Popen[str], words: str) -> str:
    """What it has printed to stderr up to these words; the rest is left for `communicate`."""
    assert running.stderr is not None
    descriptor, said = running.stderr.fileno(), b""
    while words.encode() not in said:
        assert select.select([descriptor], [], [], PATIENCE)[0], said
        byte = os.read(descriptor, 1)
        assert byte, said
        said += byte
    return said.decode()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_records_and_the_next_run_goes_on(
    number: signal.Signals, status: int, project: Path, served: Served
) -> None:
    running = spawned("apply", "--grace", "0.3", at=project)
    served.wait_for("paused")
    running.send_signal(number)
    until_said(running, "stopping; once more to leave at once")
    release(served)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == status, err
    assert "Traceback" not in err
    assert "interrupted" in out
    posts = served.calls.count("POST /models")
    healed = compose("apply", "--grace", "0.3", at=project)
    assert healed.status == 0, healed.out
    assert served.calls.count("POST /models") <= max(posts, 4)
    models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
    assert sorted(model["name"] for model in models) == [
        "Castle Keep",
        "Pixel Rogue",
        "Storybook Knight",
        "Tutorial Slime",
    ]
    assert {model["status"] for model in models} == {"trained"}


def test_a_second_signal_leaves_at_once_and_heals(project: Path, served: Served) -> None:
    running = spawned("apply", "--grace", "0.3", at=project)
    served.wait_for("paused")
    running.send_signal(signal.SIGTERM)
    until_said(running, "stopping")
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=PATIENCE)  # though what it waits for is not answered yet
    assert (running.returncode, time.monotonic() - began < AT_ONCE) == (143, True)
    release(served)
    assert compose("apply", "--grace", "0.3", at=project).status == 0
    models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
    assert len(models) == 4


def test_a_signal_may_come_while_something_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interruption = Interruption()

    class Interrupted(io.FileIO):
        def write(self, data: Any) -> int:
            if not interruption.event.is_set():
                interruption.handle(signal.SIGINT)
            return super().write(data)

    with io.TextIOWrapper(io.BufferedWriter(Interrupted(tmp_path / "stderr", "w"))) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        click.echo("a warning", err=True)
    said = "stopping; once more to leave at once\na warning\n"
    assert (tmp_path / "stderr").read_text() == said
    assert interruption.status(0) == 130


# --- a target that never finishes its answer -------------------------------------------------

ENDLESS = Reply(drip=(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "))
HEADERS = Reply(drip=(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"))


def at_endless(server: WireServer, project: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command, and return once the server has a request that it will never finish."""
    keys = {"SCENARIO_SDK_API_KEY": "k" * 20, "SCENARIO_SDK_API_SECRET": "s" * 20}
    running = spawned(*arguments, "--target", server.url, at=project, **keys)
    until(lambda: bool(server.seen))
    return running


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


NEVER = (ENDLESS, HEADERS, Reply({"models": []}, delay=20))
READING = (("apply",), ("plan",), ("status",), ("models",), ("prune",), ("lock",), ("doctor",))
# Each command with one of the replies, and the first with all; in the long run each with all.
PAIRS = [
    (command, reply)
    for number, command in enumerate(READING)
    for place, reply in enumerate(NEVER)
    if soak_factor() or number == 0 or number % 3 == place
]


@pytest.mark.parametrize(("command", "reply"), PAIRS)
def test_the_first_signal_ends_a_wait_for_what_is_only_read(
    command: tuple[str, ...], reply: Reply, project: Path
) -> None:
    with WireServer() as server:
        server.answer = lambda seen: reply
        running = at_endless(server, project, *command)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
        assert (running.returncode, time.monotonic() - began < AT_ONCE) == (130, True), err
    assert "Traceback" not in err


def test_two_signals_leave_a_write_that_is_never_answered(project: Path) -> None:
    pages = [raw(id, type="flux.1-lora", name=id) for id in ("lora_a", "lora_b")]
    for file in (project / "recipes").glob("*.yaml"):
        file.unlink()
    (project / "recipes/a.yaml").write_text(
        "name: A\nconcepts:\n  - {modelId: lora_a, scale: 0.5}\n  - {modelId: lora_b, scale: 0.5}\n"
    )

    def answer(seen: Seen) -> Reply:
        return HEADERS if seen.line == "POST /v1/models" else listed(*pages)

    with WireServer() as server:
        server.answer = answer
        running = at_endless(server, project, "apply")
        until(lambda: "POST /v1/models" in server.lines)
        running.send_signal(signal.SIGINT)
        until_said(running, "stopping")
        time.sleep(1)
        assert running.poll() is None  # the id is still waited for
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE)
    assert (running.returncode, time.monotonic() - began < AT_ONCE) == (130, True)


@pytest.mark.parametrize("command", ["plan", "apply", "models"])
def test_two_signals_leave_a_database_that_stays_locked(command: str, project: Path) -> None:
    assert compose("apply", "--target", "local", at=project).status == 0
    with closing(sqlite3.connect(state_of(project) / "engine.sqlite3")) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        running = spawned(command, "--target", "local", at=project)
        until_said(running, "is busy: waiting")
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # where the first one ends the wait
            running.wait(0.5)
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, time.monotonic() - began < AT_ONCE) == (130, True), err


def test_one_apply_at_a_time(project: Path, served: Served) -> None:
    running = spawned("apply", "--grace", "0.3", at=project)
    served.wait_for("paused")
    other = compose("apply", at=project)
    assert other.status == 3
    assert f"process {running.pid}, since " in other.err
    assert "--lock-timeout" in other.err
    threading.Timer(0.5, release, [served]).start()
    waited = compose("apply", "--lock-timeout", "60", at=project)
    running.communicate(timeout=PATIENCE)
    assert (running.returncode, waited.status) == (0, 0)
    assert "No changes: 4 kept." in waited.out
