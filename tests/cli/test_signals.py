"""Ctrl-C, SIGTERM and the file lock, as a person or a CI system meets them: real processes."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from support import serving
from support.cli import compose, samples, spawned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are another thing on Windows")

SLOW = {"when": "PUT /models/*/train", "times": 4, "delay": 1.5}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path / "project")


@pytest.fixture
def served(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that takes its time to start trainings."""
    (tmp_path / "server").mkdir()
    library = project / "recipes/loras"
    with serving.thread(tmp_path / "server", library, faults=[SLOW]) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def until_training(served: Served) -> None:
    """Wait until a request is under way that will take a while."""
    deadline = time.monotonic() + 30
    while not served.faults:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_records_and_the_next_run_goes_on(
    number: signal.Signals, status: int, project: Path, served: Served
) -> None:
    running = spawned("apply", "--grace", "0.3", at=project)
    until_training(served)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == status, err
    assert "stopping; once more to leave at once" in err
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
    until_training(served)
    running.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 143
    assert time.monotonic() - began < 1.0
    assert compose("apply", "--grace", "0.3", at=project).status == 0
    models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
    assert len(models) == 4


def test_one_apply_at_a_time(project: Path, served: Served) -> None:
    running = spawned("apply", "--grace", "0.3", at=project)
    until_training(served)
    other = compose("apply", at=project)
    assert other.status == 3
    assert f"process {running.pid}, since " in other.err
    assert "--lock-timeout" in other.err
    waited = compose("apply", "--lock-timeout", "60", at=project)
    running.communicate(timeout=60)
    assert (running.returncode, waited.status) == (0, 0)
    assert "No changes: 4 kept." in waited.out
