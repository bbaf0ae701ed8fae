"""Guards around every test: no real home directory, no network but loopback, no silent skip."""

from __future__ import annotations

import base64
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from support.cli import compose, samples
from support.serving import KEY, SECRET
from support.sizes import soak_factor

from composer.files.state import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

# The small run takes the same examples every time; the long one looks for new ones. An example may
# take long on a busy machine: a property that is about time measures it itself.
settings.register_profile(
    "compose",
    derandomize=not soak_factor(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("compose")

_LOOPBACK = ("127.", "::1", "localhost")
_OURS = ("COMPOSE_", "SCENARIO_")
_KEPT = ("COMPOSE_SOAK", "COMPOSE_NO_SKIPS", VARIABLE)


# The files that take longest, which begin first: at the end no process waits long for the other.
SLOWEST = (
    "forge/test_action.py",
    "executor/test_scenarios.py",
    "targets/scenario/test_hostile_answers.py",
    "executor/test_exactly_once.py",
    "executor/test_disk_faults.py",
    "executor/test_races.py",
    "cli/test_signals.py",
    "cli/test_remote.py",
    "server/test_fuzz.py",
    "forge/test_gitlab_ci.py",
    "forge/test_run.py",
    "forge/test_build_workflow.py",
    "targets/local/test_worker.py",
    "targets/local/test_executors.py",
    "lock/test_git.py",
    "cli/test_plan_review.py",
    "cli/test_output_streams.py",
    "cli/test_environments.py",
    "server/test_load.py",
    "lora/test_container.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def _guarded(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test, and none of the user's settings."""
    home: Path = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in list(os.environ):
        if name.startswith(_OURS) and name not in _KEPT:
            monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _state_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for the states of all tests' projects, fixtures of whole modules included."""
    patch = pytest.MonkeyPatch()
    patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("state")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def applied_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample project, applied to the local target: for `copy_project`, never changed."""
    project = samples(tmp_path_factory.mktemp("applied") / "project")
    ran = compose("apply", "--target", "local", at=project)
    assert ran.status == 0, ran
    return project


@pytest.fixture(autouse=True, scope="session")
def _signals_of_a_terminal() -> Iterator[None]:
    """What `nohup` or a shell's `&` made ignored reaches the programs that tests start."""
    names = ("SIGINT", "SIGHUP", "SIGTERM")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connecting anywhere but to this machine raises, and says where to."""
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        inet = self.family in (socket.AF_INET, socket.AF_INET6)
        if inet and not str(address[0]).startswith(_LOOPBACK):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", only_loopback)
    yield
    patch.undo()


# What can't be shown to everyone who runs CI: a superuser may write anywhere, a container may not
# mount.
_MAY_BE_SKIPPED = ("rights don't bind everybody", "no file system may be mounted here")


# The credentials of the tests' servers, as nothing may show them.
_SECRETS = [
    text.encode()
    for text in (
        KEY,
        SECRET,
        *(base64.b64encode(t.encode()).decode() for t in (KEY, SECRET, f"{KEY}:{SECRET}")),
    )
]
_shown: list[str] = []  # tests whose output had one


def _tells(data: bytes) -> bool:
    return any(secret in data for secret in _SECRETS)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Whatever a test printed or logged."""
    if _tells("".join(content for _, content in report.sections).encode("utf-8", "replace")):
        _shown.append(f"the output of {report.nodeid}")


def _files_that_tell(config: pytest.Config) -> list[str]:
    """Every byte that the run wrote: locks, journals, SQLite, logs, plans, results."""
    factory: Any = getattr(config, "_tmp_path_factory", None)
    base = factory.getbasetemp() if factory is not None else os.devnull
    walk = os.walk(base)  # a folder that another run rotates away meanwhile is passed over
    files = (Path(folder, name) for folder, _, names in walk for name in names)
    return [str(f) for f in files if f.is_file() and not f.is_symlink() and _tells(_bytes(f))]


def _bytes(file: Path) -> bytes:
    """The whole file; of weights, which are most of all bytes, what may be the header."""
    try:
        with file.open("rb") as opened:
            if file.suffix == ".safetensors":
                return opened.read(_HEADER)
            return opened.read() if file.stat().st_size < _LARGEST else b""
    except OSError:
        return b""


_LARGEST = 64 * 1024 * 1024  # what is larger is a sparse file of a test on sizes
_HEADER = 1024 * 1024


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What is true of the whole run: no secret was written or printed, no test was skipped."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a process of several: the first one looks at all of them
        return
    found = [*_shown, *_files_that_tell(session.config)]
    found += _skipped(session.config) if os.environ.get("COMPOSE_NO_SKIPS") else []
    if found and session.exitstatus == 0:
        reporter.write_line("\n".join(["", "failed for the whole run:", *found]))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped(config: pytest.Config) -> list[str]:
    """Where COMPOSE_NO_SKIPS is set, a test that is skipped is a test that failed."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter is not None else []
    reasons = [str(report.longrepr) for report in reports]
    return [r for r in reasons if not any(may in r for may in _MAY_BE_SKIPPED)]
